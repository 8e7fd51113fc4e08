//! The shell around the brain: what the sensors see goes to it; when something happened, or from time to time, the world
//! is read (`look`); what follows is told and stored (`tell`) and, where that is allowed and proven safe, remedied
//! (`heal`). All of it can be recorded (`record`), and replayed elsewhere.

mod citizen;
mod commands;
mod facts;
mod heal;
mod healing;
mod keeping;
mod leave;
mod look;
mod open_findings;
mod policy;
mod pulse;
mod record;
mod rounds;
mod senses;
mod sensors;
mod status;
mod tell;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use citizen::Citizen;
use keeping::Keeping;
use look::Reading;
use policy::PolicyWatch;
use pulse::Pulse;
use rounds::{Rounds, Woken};
use sensors::{Commits, ContainerdWatch, Sensed};
use status::Listeners;
pub use status::{Bounds, Listen};
use tell::{Traces, tell};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    brain::{Brain, Input, Report, Rules, Standing},
    citizen::{Order, Orders},
    config::Config,
    control::{self, Commands},
    decide::{Engine, EngineState, Policy},
    diagnose,
    healer::Begin,
    ledger::{Health, Ledger, LedgerError, Opened, OperationRow, Trouble},
    model::{
        Observation, OperationId, PoolName, PoolView, Timestamp,
        dm::{Caller, DmCommand, DmIoctl},
        observation::LossKind,
        sense::Sense,
    },
    observe::{
        containerd,
        kernel_watch::{KernelWatch, KernelWatchError, UseBpf},
        probes::{ProbeOptions, Seen},
        survey::SurveyPlaces,
        world::{Places, WorldError},
    },
    recording::{RecordError, Recorder, RecordingOptions},
    remedy::repair::BACKUPS,
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
    /// Where the ledger is; none to do without, and never to act.
    pub ledger: Option<PathBuf>,
    /// What heals more than the brain does; nothing for a suture that only records.
    pub healing: Option<Healing>,
    /// Where to record everything that is seen.
    pub record: Option<RecordingOptions>,
    /// Whether it runs for the recording only: then it ends with it.
    pub only_record: bool,
    /// How to tell.
    pub format: Format,
    /// Whether to tell of operations that go well too.
    pub verbose: bool,
}

/// What the healing rounds go by.
#[derive(Debug, Clone)]
pub struct Healing {
    /// What is read.
    pub places: SurveyPlaces,
    /// The configuration that the policy comes from; it is read again when it changes, and on SIGHUP.
    pub file: PathBuf,
    /// The grace of every class, where the command line says it.
    pub grace: Option<Duration>,
    /// What it says.
    pub config: Config,
}

/// Why the agent can not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel can not be watched.
    #[error(transparent)]
    KernelWatch(#[from] KernelWatchError),
    /// The probes' thread ended.
    #[error("reading the kernel's events broke off: {0}")]
    Broke(String),
    /// Traces can not be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A thread could not be started.
    #[error("starting a thread that watches containerd or its databases")]
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
    /// Why there is no recording any more, where it was all that was wanted.
    recording_failed: Option<RecordError>,
    telemetry: Telemetry,
    reporter: Reporter<io::Stdout>,
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
    reading: Option<JoinHandle<Reading>>,
    /// When that read, or the one under way, began.
    reading_since: Option<Instant>,
    /// The same, of the pool alone.
    reading_pool: Option<JoinHandle<Result<PoolView, WorldError>>>,
    /// When the ledger was told last that somebody is watching.
    said_watching: Option<Instant>,
    intents_settled: bool,
    /// A remedy that the kernel has not answered to yet.
    under_way: Option<heal::UnderWay>,
    /// What was told last that the ledger can not be written.
    ledger_trouble: Option<(Trouble, String)>,
    keeping: Keeping,
    undelivered: bool,
    pulse: Pulse,
    listeners: Listeners,
    /// The healing rounds, where there are any.
    rounds: Option<Rounds>,
    /// Where commands come from; none are taken by a suture that only records.
    commands: Option<Commands>,
    /// Tells when the policy is to be read again.
    policy: PolicyWatch,
    citizen: Citizen,
}

impl Agent {
    /// Starts watching. Needs a tokio runtime around it.
    #[expect(
        clippy::too_many_lines,
        reason = "it is the list of what is started, in its order"
    )]
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
        let mut no_ledger = None;
        let mut rounds_of = Vec::new();
        let ledger = options.ledger.as_ref().and_then(|path| {
            let opened = Ledger::open_or_begin_anew(path).and_then(|Opened { ledger, set_aside }| {
                if let Some(set_aside) = set_aside {
                    let what = set_aside.to_string();
                    tell(&mut reporter, now(), &Report::Trouble { what });
                }
                rounds_of = take_up(&ledger, &options.places.pool, &mut brain, &mut traces)?;
                Ok(ledger)
            });
            // Without a ledger suture sees and tells, and never acts.
            opened
                .inspect_err(|error| {
                    let why = explain(error);
                    no_ledger = Some(format!("no ledger: {why}"));
                    tell(&mut reporter, now(), &Report::NoLedger { why });
                })
                .ok()
        });
        brain.set_rules(Rules {
            ledger: ledger.is_some(),
            ..rules
        });
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
        let senses = [probes.senses(), &[senses::holder(), databases.senses()]].concat();
        let pulse = Pulse::new(&options, senses.clone(), no_ledger);
        let (sender, commands) = match options.healing {
            Some(_) => {
                let (sender, commands) = control::commands();
                (Some(sender), Some(commands))
            }
            None => (None, None),
        };
        let listeners = Listeners::start(&options.listen, &pulse, sender, &mut reporter);
        let started = Report::Started {
            pool: options.places.pool.clone(),
            database: options.places.pool_db(),
            act: options.policy.act && ledger.is_some(),
        };
        tell(&mut reporter, now(), &started);
        if let Some(why) = probes.without_bpf() {
            let degraded = Report::Degraded {
                why: why.to_owned(),
                senses: probes.senses().to_vec(),
            };
            tell(&mut reporter, now(), &degraded);
        }
        let recorder = record::start(&options, &brain, &mut reporter)?;
        let (rounds, policy) = begin_rounds(&options, ledger.as_ref(), rounds_of, &mut reporter);
        let unwritable = ledger.as_ref().map(Ledger::health);
        let mut agent = Self {
            options,
            brain,
            traces,
            unsaved: BTreeSet::new(),
            ledger,
            recorder,
            recording_failed: None,
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
            said_watching: None,
            intents_settled: false,
            under_way: None,
            ledger_trouble: None,
            keeping: Keeping::default(),
            undelivered: false,
            pulse,
            listeners,
            rounds,
            commands,
            policy,
            citizen: Citizen::default(),
        };
        agent.keep_as_configured();
        agent.senses_are(senses);
        if let Some(Health::Degraded { since, why, .. }) = unwritable {
            agent.ledger_failed(&LedgerError::NotWritable { since, why });
        }
        agent.was_not_watching();
        agent.publish();
        Ok(agent)
    }

    /// Works until it is told to end.
    pub async fn run(mut self, mut orders: Orders) -> Result<(), AgentError> {
        self.heed(&orders);
        loop {
            if let Some(error) = self.recording_failed.take() {
                return Err(error.into());
            }
            let flush_at = self.flush_at();
            tokio::select! {
                order = orders.next() => match order {
                    Order::End => break,
                    Order::Reload => self.reload(),
                },
                () = self.citizen.alive_due() => self.alive(),
                seen = self.events.recv() => self.seen(seen)?,
                sensed = self.containerd.next() => self.sensed(sensed),
                commit = self.databases.next() => self.take_in(commit),
                () = tokio::time::sleep_until(flush_at) => self.flush_recording(),
                () = tokio::time::sleep_until(self.read_at) => if self.look_and_listen(&mut orders).await? {
                    break;
                },
                () = self.pulse.due() => self.publish(),
                woken = rounds_wake(self.rounds.as_mut()) => match woken {
                    Woken::Due => self.begin_round(),
                    Woken::Returned(returned) => self.round_returned(returned),
                },
                asked = commands::next(self.commands.as_mut()) => self.command(asked),
                changed = self.policy.changed() => self.read_policy(changed),
            }
        }
        self.stopping();
        self.end_recording();
        if let Some(error) = self.recording_failed.take() {
            return Err(error.into());
        }
        self.store_observations(true);
        self.say_watching(true);
        self.tell(&Report::Stopped);
        self.is_kept();
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
            Some(Seen::Senses(senses)) => {
                self.senses_are(senses);
                Ok(())
            }
            Some(Seen::Broken(why)) => Err(AgentError::Broke(why)),
            None => Err(AgentError::Broke("the thread that reads them ended".to_owned())),
        }
    }

    /// What is seen from now on; of senses that are not named it is as before.
    fn senses_are(&mut self, senses: Vec<Sense>) {
        self.pulse.senses(&senses);
        self.take(&Input::Senses { at: now(), senses });
    }

    /// One fact, from the kernel or the databases.
    fn take_in(&mut self, observation: Observation) {
        self.count(&observation);
        self.keeping.note(&observation);
        if let Observation::DmIoctl(call) = &observation
            && !call.command.is_query()
        {
            self.meet_containerd(&call.caller);
            self.stirred(call);
        }
        self.take(&Input::Observed { observation });
    }

    /// A call that containerd does not make, or that failed, may have left something to heal. What containerd does and what
    /// succeeds asks for no round: there is much of it, and it is well.
    fn stirred(&mut self, call: &DmIoctl) {
        let pool = &self.options.places.pool;
        let name = call.name.as_str();
        if call.command == DmCommand::TargetMsg && call.result.0.is_ok()
            || (name != pool.as_str() && pool.snapshot_of(name).is_none())
        {
            return;
        }
        let caller = &call.caller;
        let own = std::process::id();
        let mut callers = std::iter::once(&caller.process).chain(&caller.ancestors);
        let is_own = callers.any(|one| one.pid == own);
        let of_containerd = caller.ancestors.iter().any(|one| one.is_called("containerd"));
        if let Some(rounds) = self.rounds.as_mut()
            && !is_own
            && !(of_containerd && call.result.0.is_ok())
        {
            rounds.stirred();
        }
    }

    /// What happened since the last suture ended was not seen.
    fn was_not_watching(&mut self) {
        let until = self.ledger.as_ref().map(Ledger::watched_until);
        let since = match until {
            Some(Ok(until)) => until,
            Some(Err(error)) => {
                self.ledger_failed(&error);
                None
            }
            None => None,
        };
        self.take_in(Observation::Lost {
            since: since.unwrap_or_default(),
            at: now(),
            what: LossKind::NotWatching,
            count: 0,
        });
    }

    fn count(&mut self, observation: &Observation) {
        self.pulse
            .observed(observation, self.events.len(), self.options.bounds.queue_events);
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
            Sensed::Containerd(observation) => {
                self.pulse.holder_seen(None);
                self.containerd_changed(observation);
            }
            Sensed::Nobody => self.pulse.holder_seen(None),
            Sensed::Blind(why) => {
                self.pulse.holder_seen(Some(why.clone()));
                self.take(&Input::Blind { at: now(), why });
            }
        }
    }

    fn containerd_changed(&mut self, observation: Observation) {
        self.count(&observation);
        self.keeping.note(&observation);
        self.containerd.note(&observation);
        self.take(&Input::Observed { observation });
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.soon();
        }
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
) -> Result<Vec<Standing>, LedgerError> {
    let mut of_rounds = Vec::new();
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
            if diagnose::is_of_events(row.standing.finding.class) {
                brain.remember_finding(row.standing);
            } else {
                of_rounds.push(row.standing);
            }
        }
    }
    Ok(of_rounds)
}

/// The healing rounds, with what an earlier suture left.
fn begin_rounds(
    options: &Options,
    ledger: Option<&Ledger>,
    standings: Vec<Standing>,
    reporter: &mut Reporter<io::Stdout>,
) -> (Option<Rounds>, PolicyWatch) {
    let Some(healing) = &options.healing else {
        return (None, PolicyWatch::never());
    };
    let mut engine = Engine::new(healing.policy());
    match ledger.map(Ledger::load_engine_state::<EngineState>) {
        Some(Ok(Some(state))) => engine.restore(state),
        Some(Err(error)) => {
            let what = format!("what suture had to remember is lost: {}", explain(&error));
            tell(reporter, now(), &Report::Trouble { what });
        }
        Some(Ok(None)) | None => {}
    }
    let begin = Begin {
        places: healing.places.clone(),
        ledger: options.ledger.clone().unwrap_or_default(),
        backups: BACKUPS.into(),
    };
    let mut rounds = Rounds::new(engine, begin);
    for standing in standings {
        rounds.open.remember(standing);
    }
    let policy = PolicyWatch::start(&healing.file, &rounds.engine.policy().kill_switch);
    (Some(rounds), policy)
}

/// Wakes when the rounds have something to do.
async fn rounds_wake(rounds: Option<&mut Rounds>) -> Woken {
    match rounds {
        Some(rounds) => rounds.wake().await,
        None => std::future::pending().await,
    }
}

/// The one clock of the agent.
fn now() -> Timestamp {
    SystemTime::now().into()
}
