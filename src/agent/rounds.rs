//! Healing rounds: everything is read and diagnosed by a worker, the engine decides, the worker acts. Here is where a round
//! stands and what was told of it; `healing` does what follows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::open_findings::OpenFindings;
use crate::{
    config,
    decide::engine::Engine,
    healer::{Answer, Ask, Begin, Healer, HealerError, Restart},
    model::{
        Diagnosis, FindingId, Knowledge, PlanId, RepairPlan, Timestamp, Verdict,
        healing::{BreakerStatus, HealingStatus, PausedStatus, PlanStatus, VerdictStatus},
    },
};

/// How often a round is made when nothing happens.
const PERIOD: Duration = Duration::from_mins(5);
/// After something happened; bursts end meanwhile.
const SOON: Duration = Duration::from_secs(2);
/// Never more often than this: a round reads everything.
const REST: Duration = Duration::from_secs(1);
/// After a round, what goes on happening to the pool's devices asks for no other one for so long: a client that tries again and
/// again must not have everything read again and again.
const CALM: Duration = Duration::from_secs(15);
/// A round that came to nothing is made again after this time: what hung or failed may be over without anybody telling.
const AFTER_TROUBLE: Duration = Duration::from_secs(30);
/// Errands that may wait: one is made at a time.
const ERRANDS: usize = 2;

/// What the worker's task is sent for.
#[derive(Debug)]
enum Errand {
    /// A question, and how long to wait for the answer.
    Ask(Box<Ask>, Duration),
    /// containerd is to be stopped, repaired and started again.
    Restart(Restart),
    /// Nothing more for now.
    Rest,
}

/// Why the rounds wake.
#[derive(Debug)]
pub(super) enum Woken {
    /// The next round is due.
    Due,
    /// An errand came to something.
    Returned(Return),
}

/// What an errand came to.
#[derive(Debug)]
pub(super) enum Return {
    /// The worker's answer.
    Answer(Result<Answer, HealerError>),
    /// The exit code of the repair between stop and start.
    Restarted(Result<i32, HealerError>),
}

/// Where a round stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is none.
    Resting,
    /// What dead ones left is being settled.
    Settling,
    /// Everything is being read.
    Looking,
    /// These are being carried out.
    Acting(Vec<(PlanId, RepairPlan)>),
    /// containerd is being stopped, repaired and started again for these.
    Restarting(Vec<(PlanId, RepairPlan)>, Timestamp),
}

/// The rounds.
pub(super) struct Rounds {
    pub(super) engine: Engine,
    pub(super) stage: Stage,
    pub(super) open: OpenFindings,
    /// How many findings more the last look came to than are taken up at once.
    pub(super) more: usize,
    /// What was decided last, for who asks.
    pub(super) verdicts: BTreeMap<FindingId, (VerdictStatus, Option<Arc<PlanStatus>>)>,
    /// Since when each finding of the brain's stands, by a clock that nobody sets.
    pub(super) seen: BTreeMap<FindingId, Instant>,
    /// What only the intents of dead workers prove.
    pub(super) settled: Knowledge,
    pub(super) is_settled: bool,
    /// What a worker did not come to the end of, and why: it counts as under way until it is settled.
    pub(super) broken_off: Vec<(PlanId, RepairPlan, String)>,
    /// Why the last round came to nothing, as it was told.
    pub(super) trouble: Option<String>,
    errands: mpsc::Sender<Errand>,
    answers: mpsc::Receiver<Return>,
    due: Instant,
    not_before: Instant,
    calm_until: Instant,
}

impl Rounds {
    /// Rounds that begin as soon as somebody asks for one. Needs a tokio runtime around it.
    pub(super) fn new(engine: Engine, begin: Begin) -> Self {
        let (errands, from) = mpsc::channel(ERRANDS);
        let (to, answers) = mpsc::channel(ERRANDS);
        tokio::spawn(run_errands(begin, from, to));
        Self {
            engine,
            stage: Stage::Resting,
            open: OpenFindings::default(),
            more: 0,
            verdicts: BTreeMap::new(),
            seen: BTreeMap::new(),
            settled: Knowledge::default(),
            is_settled: false,
            broken_off: Vec::new(),
            trouble: None,
            errands,
            answers,
            due: Instant::now() + PERIOD,
            not_before: Instant::now(),
            calm_until: Instant::now(),
        }
    }

    /// Waits until a round is due, where none is made, or an errand came to something. Nothing is lost where the waiting is
    /// given up.
    pub(super) async fn wake(&mut self) -> Woken {
        let due = match self.stage {
            Stage::Resting => Some(self.due.max(self.not_before)),
            _ => None,
        };
        let is_due = async move {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(returned) = self.answers.recv() => Woken::Returned(returned),
            () = is_due => Woken::Due,
            // The task that makes the errands ends with suture only.
            else => std::future::pending().await,
        }
    }

    /// Asks for a round at the latest then.
    pub(super) fn by(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }

    /// Something happened.
    pub(super) fn soon(&mut self) {
        self.by(Instant::now() + SOON);
    }

    /// Something happened to the pool's devices.
    pub(super) fn stirred(&mut self) {
        self.by(self.calm_until.max(Instant::now() + SOON));
    }

    /// The round came to nothing.
    pub(super) fn try_again(&mut self) {
        self.by(Instant::now() + AFTER_TROUBLE);
    }

    /// Notes a verdict for who asks.
    pub(super) fn note(&mut self, diagnosis: &Diagnosis, verdict: &Verdict) {
        let plan = verdict.plan();
        let mode = plan.map(|(plan, _)| self.engine.policy().mode_of(diagnosis, plan));
        let status = VerdictStatus::of(verdict, Some(diagnosis.severity), mode);
        let plan = PlanStatus::of(verdict, mode).map(Arc::new);
        let finding = diagnosis.finding.id.clone();
        self.verdicts.insert(finding, (status, plan));
    }

    /// How the healing stands.
    pub(super) fn healing(&self) -> HealingStatus {
        let state = self.engine.state();
        HealingStatus {
            paused: state.people.pause.as_ref().map(|pause| PausedStatus {
                who: pause.who.clone(),
                why: pause.why.clone(),
                since: pause.at,
                until: pause.until,
            }),
            kill_switch: config::kill_switch(&self.engine.policy().kill_switch),
            breakers: state
                .breakers
                .open()
                .iter()
                .map(|(remedy, open)| BreakerStatus {
                    remedy: *remedy,
                    since: open.at,
                    why: open.why.clone(),
                })
                .collect(),
            plans: self
                .verdicts
                .values()
                .filter_map(|(_, plan)| plan.clone())
                .collect(),
        }
    }

    /// Sends the worker; says whether it could be sent.
    pub(super) fn send(&mut self, ask: Ask, within: Duration) -> bool {
        self.errands.try_send(Errand::Ask(Box::new(ask), within)).is_ok()
    }

    /// Sends for a restart; says whether it could be sent.
    pub(super) fn restart(&mut self, restart: Restart) -> bool {
        self.errands.try_send(Errand::Restart(restart)).is_ok()
    }

    /// The round is over. The worker goes home, and gives its memory back.
    pub(super) fn rest(&mut self) {
        self.stage = Stage::Resting;
        self.not_before = Instant::now() + REST;
        self.calm_until = Instant::now() + CALM;
        // Where it can not be told now, the next question finds it waiting, which is as well.
        let _ = self.errands.try_send(Errand::Rest);
    }

    /// A round begins: until somebody asks for another one, the next is a period away.
    pub(super) fn begun(&mut self) {
        self.due = Instant::now() + PERIOD;
    }

    /// The brain has told that it is gone.
    pub(super) fn forget(&mut self, id: &FindingId) {
        self.open.forget(id);
        self.verdicts.remove(id);
    }

    /// When a time of the wall clock is.
    pub(super) fn by_wall(&mut self, until: Timestamp, now: Timestamp) {
        self.by(Instant::now() + until.since(now));
    }
}

/// Asks one worker after the other, so that whoever waits for it goes on with everything else.
async fn run_errands(begin: Begin, mut errands: mpsc::Receiver<Errand>, answers: mpsc::Sender<Return>) {
    let mut healer = Healer::new(begin);
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Ask(ask, within) => {
                let answer = healer.ask(&ask, within).await;
                if answers.send(Return::Answer(answer)).await.is_err() {
                    break;
                }
            }
            Errand::Restart(restart) => {
                let done = healer.restart(&restart).await;
                if answers.send(Return::Restarted(done)).await.is_err() {
                    break;
                }
            }
            Errand::Rest => healer.rest().await,
        }
    }
    healer.rest().await;
}
