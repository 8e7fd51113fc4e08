//! Wires the rooms: what the sensors see goes to `correlate`; when something happened, or from time to time, the world
//! is read, findings are made, decided about, told (`report`) and, where that is allowed and proven safe, remedied.

mod findings;
mod heal;
mod pulse;
mod report;
mod senses;
mod sensors;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use findings::OpenFinding;
use pulse::Pulse;
pub use report::{Format, Report, Reporter};
use sensors::{Commits, ContainerdWatch, Sensed};
use status::Listeners;
pub use status::{Bounds, Listen};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    correlate::{Change, Correlator},
    decide::Policy,
    ledger::{Ledger, LedgerError, OperationRow},
    model::{
        FindingId, Observation, OperationId, OperationState, PoolName, PoolView, Timestamp, World,
        dm::Caller, status::ReadResult,
    },
    observe::{
        containerd,
        kernel_watch::{KernelWatch, KernelWatchError, UseBpf},
        probes::{ProbeOptions, Seen},
        world::{self, Places, WorldError},
    },
    telemetry::{Telemetry, TelemetryError},
};

/// How often the world is read when nothing happens.
const PERIOD: Duration = Duration::from_secs(5);
/// How long to let a burst of events end before the world is read.
const SETTLE: Duration = Duration::from_millis(200);
/// A world that takes longer to read than this is given up: some device hangs, and waiting would blind suture.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// The pool alone is a few calls of device-mapper's.
const POOL_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for the probes' thread to catch up.
const BARRIER_DEADLINE: Duration = Duration::from_secs(5);
/// After a read of the world, how many times as long to rest before something new makes for another one.
const REST: u32 = 19;
/// But never longer than this.
const LONGEST_REST: Duration = Duration::from_mins(1);
/// How long an answer about an unknown containerd holds.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the agent is told to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pool and databases.
    pub places: Places,
    /// containerd's own database, `meta.db`, where it is known.
    pub core_db: Option<PathBuf>,
    /// What it may do by itself.
    pub policy: Policy,
    /// Whether to watch with kernel probes.
    pub use_bpf: UseBpf,
    /// Sizes of the rings.
    pub probes: ProbeOptions,
    /// Its own bounds.
    pub bounds: Bounds,
    /// Where it can be asked how it is.
    pub listen: Listen,
    /// Where the ledger is.
    pub ledger: PathBuf,
    /// How to tell.
    pub format: Format,
    /// Whether to tell of operations that go well too.
    pub verbose: bool,
}

/// Why the agent can not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel can not be watched.
    #[error(transparent)]
    KernelWatch(#[from] KernelWatchError),
    /// The thread that watches it ended.
    #[error("reading the kernel's events broke off: {0}")]
    Broke(String),
    /// Traces can not be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A thread could not be started.
    #[error("starting a thread that watches containerd or its databases")]
    Thread(#[source] std::io::Error),
}

/// The running agent.
pub struct Agent {
    options: Options,
    correlator: Correlator,
    findings: Vec<OpenFinding>,
    traces: Traces,
    /// Operations with steps that are not in the ledger yet.
    unsaved: BTreeSet<OperationId>,
    ledger: Option<Ledger>,
    telemetry: Telemetry,
    reporter: Reporter,
    events: mpsc::Receiver<Seen>,
    probes: KernelWatch,
    containerd: ContainerdWatch,
    databases: Commits,
    read_at: Instant,
    /// Not before this time, so that reading stays a small part of all time, however large the pool.
    rested_at: Instant,
    /// The last unknown process named containerd, and when it was asked who it is.
    stranger: Option<(u32, Instant)>,
    /// A read of the world that took too long and goes on.
    reading: Option<JoinHandle<Result<World, WorldError>>>,
    /// When that read, or the one under way, began.
    reading_since: Option<Instant>,
    /// The same, of the pool alone.
    reading_pool: Option<JoinHandle<Result<PoolView, WorldError>>>,
    intents_settled: bool,
    trouble: Option<String>,
    ledger_trouble: Option<String>,
    undelivered: bool,
    pulse: Pulse,
    listeners: Listeners,
}

/// `traceparent`s of what was told already.
#[derive(Debug, Default)]
struct Traces {
    operations: BTreeMap<OperationId, String>,
}

impl Agent {
    /// Starts watching. Needs a tokio runtime around it.
    pub fn start(options: Options) -> Result<Self, AgentError> {
        let mut reporter = Reporter::new(options.format);
        let (telemetry, no_export) = Telemetry::from_environment()?;
        telemetry.install()?;
        if let Some(error) = no_export {
            reporter.tell(&Report::NoTraces {
                why: crate::words::explain(&error),
            });
        }
        let now = now();
        let mut correlator = Correlator::new(options.places.pool.clone(), now);
        let mut traces = Traces::default();
        let mut findings = Vec::new();
        let ledger = Ledger::open(&options.ledger).and_then(|ledger| {
            let pool = &options.places.pool;
            take_up(&ledger, pool, &mut correlator, &mut traces, &mut findings)?;
            Ok(ledger)
        });
        let (ledger, no_ledger) = match ledger {
            Ok(ledger) => (Some(ledger), None),
            Err(error) => (None, Some(refuse_ledger(&mut reporter, &error))),
        };
        let (sender, events) = mpsc::channel(options.bounds.queue_events);
        let probes = KernelWatch::start(
            options.use_bpf,
            options.probes,
            Some(&options.places.pool),
            sender,
        )?;
        let containerd = ContainerdWatch::start(options.places.pool_db()).map_err(AgentError::Thread)?;
        let databases =
            Commits::start(&options.places, options.core_db.clone()).map_err(AgentError::Thread)?;
        let mut all_senses = probes.senses().to_vec();
        all_senses.push(senses::holder());
        all_senses.push(databases.senses());
        let pulse = Pulse::new(&options, all_senses, no_ledger);
        let listeners = Listeners::start(&options.listen, &pulse, &mut reporter);
        reporter.tell(&Report::Started {
            pool: options.places.pool.clone(),
            database: options.places.pool_db(),
            act: options.policy.act && ledger.is_some(),
        });
        if let Some(why) = probes.without_bpf() {
            reporter.tell(&Report::Degraded {
                why: why.to_owned(),
                senses: probes.senses().to_vec(),
            });
        }
        let mut agent = Self {
            options,
            correlator,
            findings,
            traces,
            unsaved: BTreeSet::new(),
            ledger,
            telemetry,
            reporter,
            events,
            probes,
            containerd,
            databases,
            read_at: Instant::now(),
            rested_at: Instant::now(),
            stranger: None,
            reading: None,
            reading_since: None,
            reading_pool: None,
            intents_settled: false,
            trouble: None,
            ledger_trouble: None,
            undelivered: false,
            pulse,
            listeners,
        };
        agent.publish();
        Ok(agent)
    }

    /// Works until `stop` is done.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                seen = self.events.recv() => self.seen(seen)?,
                sensed = self.containerd.next() => self.sensed(sensed),
                commit = self.databases.next() => self.take_in(&commit),
                () = tokio::time::sleep_until(self.read_at) => self.look().await?,
                () = self.pulse.due() => self.publish(),
            }
        }
        self.reporter.tell(&Report::Stopped);
        // The thread may be waiting to hand something over: without a receiver it stops.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        Ok(())
    }

    fn seen(&mut self, seen: Option<Seen>) -> Result<(), AgentError> {
        match seen {
            Some(Seen::Observation(observation)) => {
                self.take_in(&observation);
                Ok(())
            }
            Some(Seen::Barrier(_)) => Ok(()),
            Some(Seen::Senses(senses)) => {
                self.pulse.senses(senses);
                Ok(())
            }
            Some(Seen::Broken(why)) => Err(AgentError::Broke(why)),
            None => Err(AgentError::Broke("the thread that reads them ended".to_owned())),
        }
    }

    /// One fact from the kernel.
    fn take_in(&mut self, observation: &Observation) {
        self.pulse
            .observed(observation, self.events.len(), self.options.bounds.queue_events);
        if let Observation::DmIoctl(call) = observation
            && !call.command.is_query()
        {
            self.meet_containerd(&call.caller);
        }
        let changes = self.correlator.observe(observation);
        match observation {
            Observation::Lost { what, .. } if !what.hides_operations() => {
                self.reporter.tell(&Report::Observed {
                    observation: observation.clone(),
                });
            }
            Observation::Commit(_) if self.options.verbose => {
                self.reporter.tell(&Report::Observed {
                    observation: observation.clone(),
                });
            }
            // Without probes this is all there is to know that something happened.
            Observation::PoolStatus(_) => {
                self.reporter.tell(&Report::Observed {
                    observation: observation.clone(),
                });
                self.look_soon();
            }
            Observation::DeviceChange(_) => {
                if self.options.verbose {
                    self.reporter.tell(&Report::Observed {
                        observation: observation.clone(),
                    });
                }
                self.look_soon();
            }
            _ => {}
        }
        if !changes.is_empty() {
            self.changed(changes);
            self.look_soon();
        }
    }

    /// A containerd that started a moment ago: who it is must be known before what it did is judged.
    fn meet_containerd(&mut self, caller: &Caller) {
        let mut named = caller.ancestors.iter().filter(|one| one.is_called("containerd"));
        let Some(stranger) = named
            .find(|one| !self.containerd.is_up(one.pid))
            .map(|one| one.pid)
        else {
            return;
        };
        // One of another pool calls as often as it likes; who it is does not change by asking.
        let asked = self.stranger.replace((stranger, Instant::now()));
        if asked.is_some_and(|(pid, when)| pid == stranger && when.elapsed() < ASK_AGAIN) {
            return;
        }
        if let Ok(Some(who)) = containerd::holder_of(&self.options.places.pool_db())
            && self.containerd.is_new(&who)
        {
            self.containerd_changed(&Observation::ContainerdUp { at: now(), who });
        }
    }

    fn sensed(&mut self, sensed: Sensed) {
        match sensed {
            Sensed::Containerd(observation) => {
                self.pulse.holder_seen(None);
                self.containerd_changed(&observation);
            }
            Sensed::Nobody => self.pulse.holder_seen(None),
            Sensed::Blind(why) => {
                self.pulse.holder_seen(Some(why.clone()));
                self.reporter.tell(&Report::Trouble {
                    what: format!("whether containerd runs can not be told, so nothing it does is known to be its own: {why}"),
                });
            }
        }
    }

    fn containerd_changed(&mut self, observation: &Observation) {
        self.pulse
            .observed(observation, self.events.len(), self.options.bounds.queue_events);
        let changes = self.correlator.observe(observation);
        self.containerd.note(observation);
        self.reporter.tell(&Report::Observed {
            observation: observation.clone(),
        });
        self.changed(changes);
        if matches!(observation, Observation::ContainerdGone { .. }) {
            // At once: the next containerd overwrites what this one was at.
            self.read_at = Instant::now();
        } else {
            self.look_soon();
        }
    }

    /// Tells and stores what changed among the operations.
    fn changed(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::GapOpened(gap) => self.reporter.tell(&Report::GapOpened { why: gap.why }),
                Change::GapClosed(gap) => self.reporter.tell(&Report::GapClosed { why: gap.why }),
                Change::Began(id) | Change::Moved(id) => self.operation_moved(&id),
                Change::Stepped(id) => self.operation_stepped(id),
                Change::BlockErrors { newest, count } => {
                    self.reporter.tell(&Report::BlockErrors {
                        newest: *newest,
                        count,
                    });
                }
            }
        }
    }

    /// Where an operation stands is stored at once: it is the provenance of a device.
    fn operation_moved(&mut self, id: &OperationId) {
        let Some(operation) = self.correlator.operation(id).cloned() else {
            return;
        };
        if matches!(operation.state, OperationState::Abandoned { .. })
            && !self.traces.operations.contains_key(id)
        {
            self.traces
                .operations
                .insert(id.clone(), self.telemetry.operation(&operation));
        }
        self.unsaved.remove(id);
        let traceparent = self.traces.operations.get(id).cloned();
        let stored = self.ledger.as_ref().map(|ledger| {
            // What ended well and was never a story is nobody's concern any more.
            if operation.state.is_closed() && traceparent.is_none() {
                ledger.forget_operation(id)
            } else {
                ledger.save_operation(&OperationRow {
                    operation: operation.clone(),
                    traceparent: traceparent.clone(),
                })
            }
        });
        if self.options.verbose || traceparent.is_some() || operation.state.is_noteworthy() {
            self.reporter.tell(&Report::Operation {
                operation: Box::new(operation),
            });
        }
        match stored {
            Some(Err(error)) => self.ledger_failed(&error),
            Some(Ok(())) => {
                self.ledger_trouble = None;
                self.pulse.ledger(None);
            }
            None => {}
        }
    }

    /// One more call is stored with the next read of the world: an fsync for each would slow down whoever shares the
    /// disk.
    fn operation_stepped(&mut self, id: OperationId) {
        if self.options.verbose
            && let Some(operation) = self.correlator.operation(&id)
        {
            self.reporter.tell(&Report::Operation {
                operation: Box::new(operation.clone()),
            });
        }
        self.unsaved.insert(id);
    }

    fn save_steps(&mut self) {
        let known = &self.correlator;
        self.traces
            .operations
            .retain(|id, _| known.operation(id).is_some());
        let Some(ledger) = self.ledger.as_mut() else {
            return;
        };
        let operations = std::mem::take(&mut self.unsaved).into_iter().filter_map(|id| {
            let traceparent = self.traces.operations.get(&id).cloned();
            Some(OperationRow {
                operation: self.correlator.operation(&id)?.clone(),
                traceparent,
            })
        });
        let operations: Vec<OperationRow> = operations.collect();
        match ledger.save_operations(&operations) {
            Ok(()) if !operations.is_empty() => self.pulse.ledger(None),
            Ok(()) => {}
            Err(error) => self.ledger_failed(&error),
        }
    }

    /// Told once, until it is another failure: a full disk fails every write.
    fn ledger_failed(&mut self, error: &LedgerError) {
        let what = format!("the ledger: {}", crate::words::explain(error));
        self.pulse.ledger(Some(what.clone()));
        if self.ledger_trouble.as_ref() != Some(&what) {
            self.reporter.tell(&Report::Trouble { what: what.clone() });
            self.ledger_trouble = Some(what);
        }
    }

    fn look_soon(&mut self) {
        self.look_by(Instant::now() + SETTLE);
    }

    fn look_by(&mut self, at: Instant) {
        self.read_at = self.read_at.min(at.max(self.rested_at));
    }

    /// Reads the world and does what follows from it.
    async fn look(&mut self) -> Result<(), AgentError> {
        self.read_at = Instant::now() + PERIOD;
        self.tell_delivery();
        self.save_steps();
        if let Some(world) = self.read_world().await? {
            self.settle_intents(&world);
            self.judge(&world).await?;
        } else if let Some(view) = self.read_pool().await {
            self.judge_pool(&view);
        }
        self.publish();
        Ok(())
    }

    /// Reads what can be read without databases and metadata; nothing when not even that can be.
    async fn read_pool(&mut self) -> Option<PoolView> {
        let mut reading = self.reading_pool.take().unwrap_or_else(|| {
            let places = self.options.places.clone();
            tokio::task::spawn_blocking(move || world::read_pool(&places))
        });
        if let Ok(read) = tokio::time::timeout(POOL_DEADLINE, &mut reading).await {
            read.ok()?.ok()
        } else {
            self.reading_pool = Some(reading);
            None
        }
    }

    /// Catches up with the kernel's events, then reads the world; nothing when it could not be read, which is told.
    async fn read_world(&mut self) -> Result<Option<World>, AgentError> {
        self.catch_up().await?;
        // What an earlier suture left in flight under a containerd that is gone; asked only once the sensor had its say
        // about who is up, and before the read, so that this world can already question it.
        if self.containerd.has_looked() {
            let buried = self.correlator.bury_unknown_actors(now());
            self.changed(buried);
        }
        if self.pulse.is_due() {
            self.publish();
        }
        // A read that hangs is waited for again, not started again: hung threads must not pile up.
        let mut reading = self.reading.take().unwrap_or_else(|| {
            let (places, questions) = (self.options.places.clone(), self.correlator.questions(now()));
            tokio::task::spawn_blocking(move || world::read(&places, &questions))
        });
        let begun = Instant::now();
        let reading_since = *self.reading_since.get_or_insert(begun);
        let waited = tokio::time::timeout(READ_DEADLINE, &mut reading).await;
        self.rested_at = Instant::now() + begun.elapsed().saturating_mul(REST).min(LONGEST_REST);
        let took = reading_since.elapsed();
        if waited.is_ok() {
            self.reading_since = None;
        }
        let result = match waited {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => {
                let what = format!("reading the world broke off: {panicked}");
                self.pulse.read(ReadResult::Failed, took, Some(what.clone()));
                self.in_trouble(what);
                return Ok(None);
            }
            Err(_) => {
                self.reading = Some(reading);
                let what = format!(
                    "reading the world took more than {} s; a device hangs",
                    READ_DEADLINE.as_secs()
                );
                self.pulse.read(ReadResult::Late, took, Some(what.clone()));
                self.in_trouble(what);
                return Ok(None);
            }
        };
        match result {
            Ok(world) => {
                self.pulse.read(ReadResult::Consistent, took, None);
                if self.trouble.take().is_some() {
                    self.reporter.tell(&Report::TroubleOver);
                }
                let changes = self.correlator.world(&world);
                self.changed(changes);
                Ok(Some(world))
            }
            Err(error) => {
                // Busy is not trouble: the next look comes soon enough.
                if matches!(error, WorldError::Busy) {
                    self.pulse.read(ReadResult::Busy, took, None);
                } else {
                    let what = crate::words::explain(&error);
                    self.pulse.read(ReadResult::Failed, took, Some(what.clone()));
                    self.in_trouble(what);
                }
                Ok(None)
            }
        }
    }

    /// Tells of trouble once, until it changes or ends.
    fn in_trouble(&mut self, what: String) {
        if self.trouble.as_ref() != Some(&what) {
            self.reporter.tell(&Report::Trouble { what: what.clone() });
            self.trouble = Some(what);
        }
    }

    /// Takes in everything that the kernel had to say until now. A probe thread that does not answer is a gap.
    async fn catch_up(&mut self) -> Result<(), AgentError> {
        let wanted = self.probes.request_barrier();
        let deadline = Instant::now() + BARRIER_DEADLINE;
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(Seen::Barrier(number))) if number >= wanted => return Ok(()),
                Ok(seen) => self.seen(seen)?,
                Err(_) => {
                    let changes = self
                        .correlator
                        .open_gap(now(), "the kernel's events could not be read in time".to_owned());
                    self.changed(changes);
                    return Ok(());
                }
            }
        }
    }

    fn tell_delivery(&mut self) {
        let Some(status) = self.telemetry.delivery_status() else {
            return;
        };
        let failing = status.error.is_some();
        if failing != self.undelivered {
            self.undelivered = failing;
            self.reporter.tell(&match status.error {
                Some(error) => Report::TracesHeldBack {
                    endpoint: status.endpoint,
                    why: error,
                },
                None => Report::TracesDelivered {
                    endpoint: status.endpoint,
                },
            });
        }
    }

    fn finding(&mut self, id: &FindingId) -> Option<&mut OpenFinding> {
        self.findings.iter_mut().find(|open| open.row.finding.id == *id)
    }
}

/// Takes up what an earlier suture knew of this pool.
fn take_up(
    ledger: &Ledger,
    pool: &PoolName,
    correlator: &mut Correlator,
    traces: &mut Traces,
    findings: &mut Vec<OpenFinding>,
) -> Result<(), LedgerError> {
    ledger.prune()?;
    for OperationRow {
        operation,
        traceparent,
    } in ledger.open_operations()?
    {
        let id = operation.id.clone();
        if correlator.remember(operation)
            && let Some(traceparent) = traceparent
        {
            traces.operations.insert(id, traceparent);
        }
    }
    let of_this_pool = ledger
        .open_findings()?
        .into_iter()
        .filter(|row| row.finding.pool == *pool);
    findings.extend(of_this_pool.map(OpenFinding::again));
    Ok(())
}

/// Without a ledger suture sees and tells, and never acts. Gives why there is none.
fn refuse_ledger(reporter: &mut Reporter, error: &LedgerError) -> String {
    let why = crate::words::explain(error);
    reporter.tell(&Report::NoLedger { why: why.clone() });
    format!("there is no ledger: {why}")
}

/// The one clock of the agent.
fn now() -> Timestamp {
    SystemTime::now().into()
}
