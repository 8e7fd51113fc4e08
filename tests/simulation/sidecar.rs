//! suture as the running sidecar: healing rounds of the real engine under the shipped policy, in the order in which the agent
//! makes them and with the ledger as its only memory. What the engine says is to be done is done by the real repairer.

use std::{collections::BTreeMap, time::Duration};

use suture::{
    decide::{
        Engine, Facts, HealingPolicy,
        engine::{EngineState, PolicyParts},
    },
    ledger::{Ledger, PlanState},
    model::{
        Command, Diagnoses, Diagnosis, FindingClass, FindingId, Knowledge, PlanId, Provenance, RepairMode,
        RepairOutcome, RepairPlan, Survey, Timestamp, Verdict,
    },
    remedy::repair::{OnlyOne, life_of},
};

use crate::{
    machine::{State, run},
    suture::Suture,
};

/// How long what may be in flight must have stood still (src/agent/healing.rs).
const PATIENCE: Duration = Duration::from_secs(10);
/// After something was done the next round looks whether it helped (src/agent/rounds.rs).
const SOON: Duration = Duration::from_secs(2);
/// What waits for a person is asked about again after this time (src/agent/leave.rs).
const A_MOMENT: Duration = Duration::from_secs(1);
/// More rounds than any history needs.
const MOST_ROUNDS: usize = 60;

/// The policy that is used where nobody wrote one.
pub(crate) fn shipped() -> HealingPolicy {
    HealingPolicy::new(PolicyParts::default()).unwrap()
}

/// A sidecar that runs. Dropped, it has died: what it knew beside the ledger is gone.
pub(crate) struct Sidecar<'s, 'm> {
    suture: &'s Suture<'m>,
    engine: Engine,
    ledger: Ledger,
    /// What only the intents of dead ones prove.
    settled: Knowledge,
    is_settled: bool,
    /// Since when each finding that the probes prove stands.
    seen: BTreeMap<FindingId, Timestamp>,
}

/// What one round came to.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) verdicts: BTreeMap<FindingId, Verdict>,
    pub(crate) found: Diagnoses,
    pub(crate) done: Vec<(RepairPlan, RepairOutcome)>,
    /// When the next one is due; nothing where nothing is waited for.
    pub(crate) next: Option<Duration>,
}

impl Round {
    fn by(&mut self, after: Duration) {
        self.next = Some(self.next.map_or(after, |next| next.min(after)));
    }

    /// Plans that only a person's word is missing for.
    pub(crate) fn waits_for_a_person(&self) -> Vec<PlanId> {
        let of = |verdict: &Verdict| match verdict {
            Verdict::AwaitApproval { id, .. }
            | Verdict::RestartAndRepair {
                id, approved: false, ..
            } => Some(id.clone()),
            _ => None,
        };
        self.verdicts.values().filter_map(of).collect()
    }
}

impl<'s, 'm> Sidecar<'s, 'm> {
    /// Starts, and takes up what an earlier one left.
    pub(crate) fn start(suture: &'s Suture<'m>, policy: HealingPolicy) -> Self {
        let ledger = Ledger::open_beside(&suture.ledger()).unwrap();
        let mut engine = Engine::new(policy);
        if let Some(state) = ledger.load_engine_state::<EngineState>().unwrap() {
            engine.restore(state);
        }
        Self {
            suture,
            engine,
            ledger,
            settled: Knowledge::default(),
            is_settled: false,
            seen: BTreeMap::new(),
        }
    }

    pub(crate) fn state(&self) -> &EngineState {
        self.engine.state()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn now(&self) -> Timestamp {
        self.suture.machine().get(State::now)
    }

    fn knowledge(&self) -> Knowledge {
        let watched = self.suture.machine().get(State::knowledge);
        let mut knowledge = self.settled.clone();
        knowledge.claims.extend(watched.claims);
        knowledge.at_work.extend(watched.at_work);
        knowledge.watched = true;
        knowledge
    }

    /// Rounds until nothing is done or waited for any more. Gives the last, with what was done in all of them.
    pub(crate) fn rounds(&mut self) -> Round {
        let mut done = Vec::new();
        for _ in 0..MOST_ROUNDS {
            let mut round = self.round();
            done.append(&mut round.done);
            let Some(after) = round.next else {
                return Round { done, ..round };
            };
            let milliseconds = u64::try_from(after.as_millis()).unwrap();
            self.suture.pass_time(milliseconds);
        }
        panic!("the rounds never come to rest: {done:#?}");
    }

    /// One round.
    pub(crate) fn round(&mut self) -> Round {
        if !self.is_settled {
            self.settle();
        }
        let (survey, found) = self.look();
        let (of_probes, of_rounds): (Vec<_>, Vec<_>) =
            found.found.iter().cloned().partition(is_of_probes_alone);
        let judged = Diagnoses {
            found: of_rounds,
            ..found.clone()
        };
        let mut round = Round::default();
        let (mut acts, mut restarts) = (Vec::new(), Vec::new());
        let at = self.now();
        let decided = self.decide(&survey, |engine, facts| engine.round(&judged, facts, at));
        for (finding, verdict) in decided {
            self.keep_plan(&verdict);
            match &verdict {
                Verdict::Act { plan, id } => acts.push((id.clone(), (**plan).clone())),
                Verdict::Wait { until, .. } => round.by(until.since(at)),
                Verdict::RestartAndRepair {
                    plan,
                    id,
                    approved: true,
                } => restarts.push((id.clone(), (**plan).clone())),
                Verdict::Offline { id, arm: true, .. } => self.arm(id),
                _ => {}
            }
            round.verdicts.insert(finding, verdict);
        }
        self.keep();
        if restarts.is_empty() {
            self.act(&acts, &survey, &mut round);
        } else {
            for (id, plan) in acts {
                self.ended(&id, &plan, RepairOutcome::NotReached, &mut round);
            }
            self.keep();
            self.restart(&restarts, &mut round);
        }
        self.of_probes(&of_probes, &survey, &mut round);
        round.found = found;
        round
    }

    /// What the probes prove is begun one by one, with the engine's leave.
    fn of_probes(&mut self, found: &[Diagnosis], survey: &Survey, round: &mut Round) {
        self.seen
            .retain(|id, _| found.iter().any(|one| one.finding.id == *id));
        for one in found {
            let (id, at) = (&one.finding.id, self.now());
            let since = *self.seen.entry(id.clone()).or_insert(at);
            let verdict = self.decide(survey, |engine, facts| {
                engine.one(one, at.since(since), facts, at)
            });
            self.keep();
            self.keep_plan(&verdict);
            match &verdict {
                Verdict::Act { plan, id } => {
                    let plans = [(id.clone(), (**plan).clone())];
                    self.act(&plans, survey, round);
                }
                Verdict::Wait { until, .. } => round.by(until.since(at).max(A_MOMENT)),
                _ => {}
            }
            round.verdicts.insert(id.clone(), verdict);
        }
        self.engine
            .forget_apart(|id| found.iter().any(|one| one.finding.id == *id));
    }

    fn decide<T>(&mut self, survey: &Survey, of: impl FnOnce(&mut Engine, &Facts<'_>) -> T) -> T {
        let machine = self.suture.machine();
        let boot = machine.get(State::boot);
        let facts = Facts {
            survey,
            monotonic: Duration::from_millis(machine.get(|state| state.clock)),
            boot: &boot,
            local_offset: 0,
            kill_switch: None,
            gap: None,
            no_ledger: None,
        };
        of(&mut self.engine, &facts)
    }

    /// What an earlier one began and did not conclude.
    fn settle(&mut self) {
        let tell = |what: &str| self.suture.step(what);
        let _only_one = OnlyOne::take(self.suture.places(), &self.suture.ledger()).unwrap();
        let mut ledger = Ledger::open_beside(&self.suture.ledger()).unwrap();
        let backups = self.suture.backups();
        let none = Knowledge::default();
        let mut repairer = self.suture.repairer(&mut ledger, none, &backups, &tell);
        let settled = repairer.settle(true).unwrap();
        self.settled = repairer.knowledge;
        self.is_settled = true;
        for one in settled {
            let running = self.engine.state().running.iter();
            let mut running = running.filter(|(_, running)| running.finding == one.intent.finding);
            if let Some(id) = running.next().map(|(id, _)| id.clone()) {
                self.plan_ended(&id, &one.outcome);
            }
        }
        for (id, running) in self.engine.state().running.clone() {
            let outcome = self.ledger.came_of(&running.finding, running.at).unwrap();
            if let Some(outcome) = outcome {
                self.plan_ended(&id, &outcome);
            }
        }
        self.keep();
    }

    fn look(&self) -> (Survey, Diagnoses) {
        self.suture.step("looking for a round");
        self.suture.only_waits(true);
        let looked = self.suture.look(RepairMode::Online, &self.knowledge(), PATIENCE);
        self.suture.only_waits(false);
        looked.unwrap()
    }

    fn act(&mut self, acts: &[(PlanId, RepairPlan)], survey: &Survey, round: &mut Round) {
        if acts.is_empty() {
            return;
        }
        let tell = |what: &str| self.suture.step(what);
        let only_one = OnlyOne::take(self.suture.places(), &self.suture.ledger()).unwrap();
        let mut ledger = Ledger::open_beside(&self.suture.ledger()).unwrap();
        let backups = self.suture.backups();
        let mut repairer = self
            .suture
            .repairer(&mut ledger, self.knowledge(), &backups, &tell);
        let plans = acts.iter().map(|(_, plan)| plan.clone()).collect();
        let results = repairer.online(plans, life_of(survey).as_ref()).unwrap();
        drop(only_one);
        for (id, plan) in acts {
            let result = results.plans.iter().find(|one| one.plan.finding == plan.finding);
            let outcome = result.and_then(|one| one.outcome.clone());
            self.ended(id, plan, outcome.unwrap_or(RepairOutcome::NotReached), round);
        }
        self.keep();
        round.by(SOON);
    }

    /// systemd stops containerd, has it repaired as the drop-in has, and starts it again whatever comes of that.
    fn restart(&mut self, plans: &[(PlanId, RepairPlan)], round: &mut Round) {
        for (id, _) in plans {
            self.arm(id);
        }
        let since = self.now();
        let machine = self.suture.machine();
        self.suture.step("stopping containerd");
        machine.stop();
        self.suture.undisturbed(RepairMode::Offline).unwrap();
        let _ = run(machine.start());
        machine.set(State::sidecar_starts);
        for (id, plan) in plans {
            let outcome = self.ledger.came_of(&plan.finding, since).unwrap();
            let outcome = outcome.unwrap_or_else(|| RepairOutcome::Failed {
                why: "the repair did not get to it".to_owned(),
            });
            if !outcome.is_done() {
                let why = outcome.to_string();
                self.ledger
                    .end_plan(id.as_str(), PlanState::Void, Some(&why), self.now())
                    .unwrap();
            }
            self.ended(id, plan, outcome, round);
        }
        self.keep();
        round.by(SOON);
    }

    fn ended(&mut self, id: &PlanId, plan: &RepairPlan, outcome: RepairOutcome, round: &mut Round) {
        self.plan_ended(id, &outcome);
        round.done.push((plan.clone(), outcome));
        round.by(SOON);
    }

    fn plan_ended(&mut self, id: &PlanId, outcome: &RepairOutcome) {
        let at = self.now();
        self.engine.outcome(id, outcome, at);
        if outcome.is_done() {
            self.suture.step("storing that a plan is done");
            self.ledger
                .end_plan(id.as_str(), PlanState::Done, None, at)
                .unwrap();
        }
    }

    fn keep_plan(&self, verdict: &Verdict) {
        if let Some((plan, id)) = verdict.plan() {
            let now = self.now();
            self.ledger.propose_plan(id.as_str(), plan, now).unwrap();
        }
    }

    fn arm(&self, id: &PlanId) {
        self.suture.step("storing that the next start may repair");
        self.ledger
            .approve(id.as_str(), "the policy", self.now())
            .unwrap();
    }

    fn keep(&self) {
        self.suture.step("storing what the engine remembers");
        let now = self.now();
        self.ledger.save_engine_state(self.engine.state(), now).unwrap();
    }

    /// A person approves a plan that was shown.
    pub(crate) fn approve(&mut self, id: &PlanId) {
        let (who, at) = ("a person".to_owned(), self.now());
        let id = id.clone();
        self.engine
            .command(Command::Approve { id: id.clone(), who }, at)
            .unwrap_or_else(|refusal| panic!("{id}: {refusal}"));
        self.suture.approved.borrow_mut().insert(id.clone());
        self.suture.step("storing what a person said");
        self.ledger.approve(id.as_str(), "a person", at).unwrap();
        self.keep();
    }

    /// A person lets everything go on.
    pub(crate) fn resume(&mut self) {
        let who = "a person".to_owned();
        self.engine.command(Command::Resume { who }, self.now()).unwrap();
        self.keep();
    }
}

/// What the probes themselves saw being abandoned is no part of a round (src/agent/healing.rs).
fn is_of_probes_alone(one: &Diagnosis) -> bool {
    one.finding.class == FindingClass::LeakedThin
        && matches!(one.finding.provenance, Provenance::SeenByProbe { .. })
}
