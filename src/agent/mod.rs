//! The shell around the brain: what the sensors see goes to it; when something happened, or from time to time, the world
//! is read (`look`); what follows is told and stored (`tell`) and, where that is allowed and proven safe, remedied
//! (`heal`). All of it can be recorded (`record`), and replayed elsewhere.

mod heal;
mod look;
mod record;
mod sensors;
mod tell;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use look::Reading;
use sensors::{ContainerdWatch, Sensed};
use tell::{Traces, tell};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    brain::{Brain, Input, Report, Rules},
    decide::Policy,
    ledger::{Ledger, LedgerError, OperationRow},
    model::{Observation, OperationId, PoolName, Timestamp, dm::Caller},
    observe::{
        containerd,
        probes::{self, ProbeError, ProbeOptions, ProbeThread, Probes, Seen},
        world::Places,
    },
    recording::{RecordError, Recorder, RecordingOptions},
    reporter::{Format, Reporter},
    telemetry::{Telemetry, TelemetryError},
    words::explain,
};

/// How often the world is read when nothing happens.
const PERIOD: Duration = Duration::from_secs(5);
/// How long to let a burst of events end before the world is read.
const SETTLE: Duration = Duration::from_millis(200);
/// After a read of the world, how many times as long to rest before something new makes for another one.
const REST: u32 = 19;
/// But never longer than this.
const LONGEST_REST: Duration = Duration::from_mins(1);
/// How long an answer about an unknown containerd holds.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Events that may wait for the agent; more wait in the rings.
const QUEUE: usize = 4096;

/// What the agent is told to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pool and databases.
    pub places: Places,
    /// What it may do by itself.
    pub policy: Policy,
    /// Sizes of the rings.
    pub probes: ProbeOptions,
    /// Where the ledger is; none to do without, and never to act.
    pub ledger: Option<PathBuf>,
    /// Where to record everything that is seen.
    pub record: Option<RecordingOptions>,
    /// How to tell.
    pub format: Format,
    /// Whether to tell of operations that go well too.
    pub verbose: bool,
}

/// Why the agent can not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel can not be watched.
    #[error("the kernel can not be watched")]
    Probes(#[from] ProbeError),
    /// The probes' thread ended.
    #[error("reading the kernel's events broke off: {0}")]
    Broke(String),
    /// Traces can not be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A thread could not be started.
    #[error("starting the thread that watches containerd")]
    Thread(#[source] io::Error),
    /// The recording could not be begun.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The running agent.
pub struct Agent {
    options: Options,
    brain: Brain,
    traces: Traces,
    /// Operations with steps that are not in the ledger yet.
    unsaved: BTreeSet<OperationId>,
    ledger: Option<Ledger>,
    recorder: Option<Recorder>,
    telemetry: Telemetry,
    reporter: Reporter<io::Stdout>,
    events: mpsc::Receiver<Seen>,
    probes: ProbeThread,
    containerd: ContainerdWatch,
    read_at: Instant,
    /// Not before this time, so that reading stays a small part of all time, however large the pool.
    rested_at: Instant,
    /// The last unknown process named containerd, and when it was asked who it is.
    stranger: Option<(u32, Instant)>,
    /// A read of the world that took too long and goes on.
    reading: Option<JoinHandle<Reading>>,
    intents_settled: bool,
    ledger_trouble: Option<String>,
    undelivered: bool,
}

impl Agent {
    /// Starts watching. Needs a tokio runtime around it.
    pub fn start(options: Options) -> Result<Self, AgentError> {
        let mut reporter = Reporter::stdout(options.format);
        let (telemetry, no_export) = Telemetry::from_environment()?;
        telemetry.install()?;
        if let Some(error) = no_export {
            let why = explain(&error);
            tell(&mut reporter, now(), &Report::NoTraces { why });
        }
        let rules = Rules {
            policy: options.policy,
            ledger: false,
            verbose: options.verbose,
        };
        let mut brain = Brain::new(options.places.pool.clone(), rules, now());
        let mut traces = Traces::default();
        let ledger = options.ledger.as_ref().and_then(|path| {
            let opened = Ledger::open(path).and_then(|ledger| {
                take_up(&ledger, &options.places.pool, &mut brain, &mut traces)?;
                Ok(ledger)
            });
            // Without a ledger suture sees and tells, and never acts.
            opened
                .inspect_err(|error| {
                    let why = explain(error);
                    tell(&mut reporter, now(), &Report::NoLedger { why });
                })
                .ok()
        });
        brain.set_rules(Rules {
            ledger: ledger.is_some(),
            ..rules
        });
        let (sender, events) = mpsc::channel(QUEUE);
        let probes = probes::start(Probes::attach(options.probes)?, sender)?;
        let containerd = ContainerdWatch::start(options.places.pool_db()).map_err(AgentError::Thread)?;
        let started = Report::Started {
            pool: options.places.pool.clone(),
            database: options.places.pool_db(),
            act: options.policy.act && ledger.is_some(),
        };
        tell(&mut reporter, now(), &started);
        let recorder = record::start(&options, &brain, &mut reporter)?;
        Ok(Self {
            options,
            brain,
            traces,
            unsaved: BTreeSet::new(),
            ledger,
            recorder,
            telemetry,
            reporter,
            events,
            probes,
            containerd,
            read_at: Instant::now(),
            rested_at: Instant::now(),
            stranger: None,
            reading: None,
            intents_settled: false,
            ledger_trouble: None,
            undelivered: false,
        })
    }

    /// Works until `stop` is done.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::pin!(stop);
        loop {
            let flush_at = self.flush_at();
            tokio::select! {
                () = &mut stop => break,
                seen = self.events.recv() => self.seen(seen)?,
                sensed = self.containerd.next() => self.sensed(sensed),
                () = tokio::time::sleep_until(flush_at) => self.flush_recording(),
                () = tokio::time::sleep_until(self.read_at) => self.look().await?,
            }
        }
        self.end_recording();
        self.tell(&Report::Stopped);
        // The thread may be waiting to hand something over: without a receiver it stops.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        Ok(())
    }

    fn seen(&mut self, seen: Option<Seen>) -> Result<(), AgentError> {
        match seen {
            Some(Seen::Observation(observation)) => {
                self.take_in(observation);
                Ok(())
            }
            Some(Seen::Barrier(_)) => Ok(()),
            Some(Seen::Broken(why)) => Err(AgentError::Broke(why)),
            None => Err(AgentError::Broke("the thread that reads them ended".to_owned())),
        }
    }

    /// One fact from the kernel.
    fn take_in(&mut self, observation: Observation) {
        if let Observation::DmIoctl(call) = &observation
            && !call.command.is_query()
        {
            self.meet_containerd(&call.caller);
        }
        self.take(&Input::Observed { observation });
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
            self.containerd_changed(Observation::ContainerdUp { at: now(), who });
        }
    }

    fn sensed(&mut self, sensed: Sensed) {
        match sensed {
            Sensed::Containerd(observation) => self.containerd_changed(observation),
            Sensed::Blind(why) => self.take(&Input::Blind { at: now(), why }),
        }
    }

    fn containerd_changed(&mut self, observation: Observation) {
        self.containerd.note(&observation);
        self.take(&Input::Observed { observation });
    }

    fn look_by(&mut self, at: Instant) {
        self.read_at = self.read_at.min(at.max(self.rested_at));
    }
}

/// Takes up what an earlier suture knew of this pool.
fn take_up(
    ledger: &Ledger,
    pool: &PoolName,
    brain: &mut Brain,
    traces: &mut Traces,
) -> Result<(), LedgerError> {
    ledger.prune()?;
    for OperationRow {
        operation,
        traceparent,
    } in ledger.open_operations()?
    {
        let id = operation.id.clone();
        if brain.remember_operation(operation, traceparent.is_some())
            && let Some(traceparent) = traceparent
        {
            traces.operations.insert(id, traceparent);
        }
    }
    for row in ledger.open_findings()? {
        if row.standing.finding.pool == *pool {
            if let Some(traceparent) = row.traceparent {
                traces
                    .findings
                    .insert(row.standing.finding.id.clone(), traceparent);
            }
            brain.remember_finding(row.standing);
        }
    }
    Ok(())
}

/// The one clock of the agent.
fn now() -> Timestamp {
    SystemTime::now().into()
}
