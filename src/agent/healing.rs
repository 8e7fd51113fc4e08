//! What follows from a healing round: what was found is told and stored, the engine decides, and what it decides is carried
//! out by the worker, whose outcomes go back to the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use super::{
    Agent,
    facts::FactsNow,
    now,
    open_findings::Change,
    rounds::{Return, Rounds, Stage},
};
use crate::{
    brain::Report,
    config, diagnose,
    healer::{Answer, Ask, HealerError, Looked, Restart, unit_of},
    ledger::{Ledger, PlanState},
    model::{
        ConditionReading, ContainerdState, Diagnoses, Diagnosis, FindingClass, FindingId, Knowledge, PlanId,
        Provenance, RepairOutcome, RepairPlan, Timestamp, Verdict,
    },
    remedy::repair::{PlanResult, Settlement},
    telemetry::story,
    words::explain,
};

/// How long something that may be in flight must have stood still.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for the worker: to settle, to look (the longest that settling takes, and reading), to act.
const SETTLE_DEADLINE: Duration = Duration::from_mins(1);
const LOOK_DEADLINE: Duration = Duration::from_mins(2);
const ACT_DEADLINE: Duration = Duration::from_mins(2);
/// The worker begins nothing more some time before it would be ended.
const ACT_WITHIN: Duration = Duration::from_secs(90);

impl Agent {
    /// A round begins.
    pub(super) fn begin_round(&mut self) {
        let knowledge = self.knowledge();
        let has_ledger = self.ledger.is_some();
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        rounds.begun();
        let sent = if has_ledger && !rounds.is_settled {
            rounds.stage = Stage::Settling;
            rounds.send(Ask::Settle, SETTLE_DEADLINE)
        } else {
            look(rounds, knowledge)
        };
        if !sent {
            rounds.rest();
        }
    }

    /// An errand came to something.
    pub(super) fn round_returned(&mut self, returned: Return) {
        match returned {
            Return::Answer(answer) => self.round_answered(answer),
            Return::Restarted(result) => self.restarted(&result),
        }
        self.publish();
    }

    /// The worker answered, or could not.
    fn round_answered(&mut self, answer: Result<Answer, HealerError>) {
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        let stage = std::mem::replace(&mut rounds.stage, Stage::Resting);
        match (stage, answer) {
            (Stage::Settling, Ok(Answer::Settled { settled, knowledge })) => {
                rounds.is_settled = true;
                rounds.settled = knowledge;
                self.round_settled(&settled);
                let knowledge = self.knowledge();
                if let Some(rounds) = self.rounds.as_mut()
                    && !look(rounds, knowledge)
                {
                    rounds.rest();
                }
            }
            (Stage::Looking, Ok(Answer::Looked(looked))) => self.round_looked(&looked),
            (Stage::Acting(begun), Ok(Answer::Acted { results })) => self.round_acted(&begun, &results),
            (stage, answer) => {
                let (why, busy) = match answer {
                    Ok(Answer::Failed { why, busy }) => (why, busy),
                    Ok(_) => (
                        "the process that looks and acts answers something else".to_owned(),
                        false,
                    ),
                    Err(error) => (explain(&error), false),
                };
                self.round_failed(stage, &why, busy);
            }
        }
    }

    /// What only a running sidecar knows: whose the thin devices are, and who is at work.
    fn knowledge(&self) -> Knowledge {
        let known = self.brain.correlator();
        let mut knowledge = self
            .rounds
            .as_ref()
            .map(|rounds| rounds.settled.clone())
            .unwrap_or_default();
        for operation in known.operations() {
            knowledge.note(operation, true);
        }
        knowledge.watched = known.gap().is_none() && !known.is_blind();
        let open = self.brain.standings().map(|standing| standing.finding.id.clone());
        knowledge.confirmed = open.collect();
        knowledge
    }

    fn round_settled(&mut self, settled: &[Settlement]) {
        for one in settled {
            let id = self.under_way_for(&one.intent.finding);
            let Some(rounds) = self.rounds.as_mut() else {
                return;
            };
            if let Some(id) = id {
                rounds.broken_off.retain(|(broken_off, ..)| *broken_off != id);
                self.plan_ended(&id, &one.outcome, now());
            }
            self.tell(&Report::RepairSettled {
                finding: one.intent.finding.clone(),
                outcome: one.outcome.clone(),
            });
        }
        // Those were not begun, or their end is in the ledger already.
        let mut concluded = self.concluded();
        let rounds = self.rounds.as_mut();
        let not_settled = rounds.map(|rounds| std::mem::take(&mut rounds.broken_off));
        for (id, plan, why) in not_settled.unwrap_or_default() {
            let outcome = concluded.remove(&id);
            let outcome = outcome.unwrap_or(RepairOutcome::Failed { why });
            self.repaired(&id, &plan, Vec::new(), outcome, now());
        }
        for (id, outcome) in concluded {
            self.plan_ended(&id, &outcome, now());
        }
        self.keep_engine();
    }

    /// What came of plans that count as under way although their outcome is in the ledger: suture, or its worker, ended before
    /// the engine was told. An approval must not outlive what it was for, and what was done is no failure.
    fn concluded(&self) -> BTreeMap<PlanId, RepairOutcome> {
        let (Some(rounds), Some(ledger)) = (self.rounds.as_ref(), self.ledger.as_ref()) else {
            return BTreeMap::new();
        };
        let running = rounds.engine.state().running.iter();
        let concluded = running.filter_map(|(id, running)| {
            let outcome = ledger.came_of(&running.finding, running.at);
            // What can not be read counts as it did: as broken off.
            Some((id.clone(), outcome.ok().flatten()?))
        });
        concluded.collect()
    }

    fn round_looked(&mut self, looked: &Looked) {
        let at = now();
        let Looked {
            diagnoses,
            survey,
            more,
        } = looked;
        // The brain carries out those by itself, and asks the engine for leave.
        let others = |one: &&Diagnosis| !is_of_brain_alone(one);
        let mut judged = Diagnoses {
            found: diagnoses.found.iter().filter(others).cloned().collect(),
            ..diagnoses.clone()
        };
        for one in &mut judged.found {
            diagnose::note_death(&mut one.finding, self.brain.correlator().sagas());
        }
        let facts = FactsNow::read(self);
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        let verdicts = rounds.engine.round(&judged, &facts.of(survey), at);
        let cut = std::mem::replace(&mut rounds.more, *more);
        if rounds.trouble.take().is_some() {
            self.tell(&Report::TroubleOver);
        }
        if *more > 0 && cut == 0 {
            let shown = diagnoses.found.len();
            self.tell(&Report::Trouble {
                what: format!(
                    "a healing round found more than it takes up at once: the {shown} worst come first, {more} more wait"
                ),
            });
        }
        self.round_found(&judged, at);
        let (mut acts, mut restarts) = (Vec::new(), Vec::new());
        for (finding, verdict) in verdicts {
            let Some(diagnosis) = judged.found.iter().find(|one| one.finding.id == finding) else {
                continue;
            };
            self.tell_verdict(diagnosis, &verdict, at);
            match verdict {
                Verdict::Act { plan, id } => acts.push((id, *plan)),
                Verdict::Wait { until, .. } => {
                    if let Some(rounds) = self.rounds.as_mut() {
                        rounds.by_wall(until, at);
                    }
                }
                Verdict::RestartAndRepair {
                    plan,
                    id,
                    approved: true,
                } => restarts.push((id, *plan)),
                Verdict::Offline { id, arm: true, .. } => self.arm(&id),
                _ => {}
            }
        }
        if let Some(rounds) = self.rounds.as_mut() {
            let pause = rounds.engine.state().people.pause.as_ref();
            if let Some(until) = pause.and_then(|pause| pause.until) {
                rounds.by_wall(until, at);
            }
        }
        // What is begun is stored as begun before it is.
        self.keep_engine();
        if restarts.is_empty() {
            self.round_act(acts, looked);
        } else {
            // A restart ends everything that is done online; that is taken up by the round after it.
            self.all_ended(acts, &RepairOutcome::NotReached);
            self.restart_and_repair(restarts, looked);
        }
    }

    fn round_act(&mut self, acts: Vec<(PlanId, RepairPlan)>, looked: &Looked) {
        let knowledge = self.knowledge();
        let ending = self.is_ending();
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        if acts.is_empty() {
            rounds.rest();
            return;
        }
        if ending {
            self.all_ended(acts, &RepairOutcome::NotReached);
            return;
        }
        let ask = Ask::Act {
            knowledge,
            plans: acts.iter().map(|(_, plan)| plan.clone()).collect(),
            life: looked.survey.pool.as_ref().map(|pool| pool.activation.clone()),
            within: ACT_WITHIN,
        };
        if rounds.send(ask, ACT_DEADLINE) {
            rounds.stage = Stage::Acting(acts);
        } else {
            self.round_failed(
                Stage::Acting(acts),
                "the process that looks and acts is busy",
                true,
            );
        }
    }

    fn round_acted(&mut self, begun: &[(PlanId, RepairPlan)], results: &[PlanResult]) {
        let at = now();
        for (id, plan) in begun {
            let result = results.iter().find(|one| one.plan.finding == plan.finding);
            let outcome = result.and_then(|one| one.outcome.clone());
            let outcome = outcome.unwrap_or(RepairOutcome::NotReached);
            let readings = result.map(|one| one.readings.clone()).unwrap_or_default();
            self.repaired(id, plan, readings, outcome, at);
        }
        self.keep_engine();
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.rest();
            // Whether it helped.
            rounds.soon();
        }
    }

    /// The same came of all of these.
    fn all_ended(&mut self, plans: Vec<(PlanId, RepairPlan)>, outcome: &RepairOutcome) {
        for (id, plan) in plans {
            self.repaired(&id, &plan, Vec::new(), outcome.clone(), now());
        }
        self.keep_engine();
    }

    /// What came of one plan.
    fn repaired(
        &mut self,
        id: &PlanId,
        plan: &RepairPlan,
        conditions: Vec<ConditionReading>,
        outcome: RepairOutcome,
        at: Timestamp,
    ) {
        let finding = self.traces.findings.get(&plan.finding).cloned();
        story::repair(plan, &conditions, &outcome, finding.as_deref());
        self.plan_ended(id, &outcome, at);
        self.tell(&Report::Repair {
            plan: plan.clone(),
            conditions,
            outcome,
            traceparent: finding,
        });
    }

    /// The engine and the ledger are told what came of a plan.
    pub(super) fn plan_ended(&mut self, id: &PlanId, outcome: &RepairOutcome, at: Timestamp) {
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.engine.outcome(id, outcome, at);
        }
        let ended = self
            .ledger
            .as_ref()
            .filter(|_| outcome.is_done())
            .map(|ledger| ledger.end_plan(id.as_str(), PlanState::Done, None, at));
        self.stored(ended);
    }

    /// The ledger has the plan of a verdict, where it has one.
    pub(super) fn keep_plan(&mut self, verdict: &Verdict, at: Timestamp) {
        if let (Some(ledger), Some((plan, id))) = (self.ledger.as_ref(), verdict.plan()) {
            let proposed = ledger.propose_plan(id.as_str(), plan, at).map(|_| ());
            self.stored(Some(proposed));
        }
    }

    /// What only the repair before containerd's next start may do, and may: it finds that in the ledger.
    fn arm(&mut self, id: &PlanId) {
        let armed = self
            .ledger
            .as_ref()
            .map(|ledger| ledger.approve(id.as_str(), "the policy", now()).map(|_| ()));
        self.stored(armed);
    }

    fn restart_and_repair(&mut self, plans: Vec<(PlanId, RepairPlan)>, looked: &Looked) {
        for (id, _) in &plans {
            self.arm(id);
        }
        let at = now();
        let ContainerdState::Running { who, .. } = &looked.survey.containerd else {
            self.round_failed(Stage::Acting(plans), "containerd does not run", true);
            return;
        };
        let Some(unit) = unit_of(who) else {
            let why = format!(
                "{who} is not run by systemd, which would have to start it again; restart it by hand"
            );
            self.all_ended(plans, &RepairOutcome::Refused { why });
            if let Some(rounds) = self.rounds.as_mut() {
                rounds.rest();
            }
            return;
        };
        // systemd starts it in another folder.
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let config = self.options.healing.as_ref().map(|healing| &healing.file);
        let restart = Restart {
            unit,
            pool: self.options.places.pool.to_string(),
            root: whole(&self.options.places.root),
            ledger: self.options.ledger.as_deref().map(whole).unwrap_or_default(),
            config: config
                .filter(|file| file.as_path() != Path::new(config::DEFAULT_PATH))
                .map(|file| whole(file)),
        };
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        if rounds.restart(restart) {
            rounds.stage = Stage::Restarting(plans, at);
        } else {
            self.round_failed(
                Stage::Acting(plans),
                "the process that looks and acts is busy",
                true,
            );
        }
    }

    /// containerd was restarted with a repair, or that could not be done. What came of each plan is in the ledger.
    fn restarted(&mut self, result: &Result<i32, HealerError>) {
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        let Stage::Restarting(plans, since) = std::mem::replace(&mut rounds.stage, Stage::Resting) else {
            return;
        };
        let at = now();
        for (id, plan) in &plans {
            let ledger = self.ledger.as_ref();
            let outcome = ledger.and_then(|ledger| ledger.came_of(&plan.finding, since).ok().flatten());
            let outcome = outcome
                // To whoever approved it containerd was restarted, and that is what they were asked for.
                .filter(|outcome| *outcome != RepairOutcome::NotReached);
            let outcome = outcome.unwrap_or_else(|| RepairOutcome::Failed {
                why: match result {
                    Ok(code) => format!("the repair ended with exit code {code} and did not get to it"),
                    Err(error) => explain(error),
                },
            });
            if !outcome.is_done() {
                // The approval was for this restart; another one is proposed anew.
                let why = outcome.to_string();
                let void = |ledger: &Ledger| ledger.end_plan(id.as_str(), PlanState::Void, Some(&why), at);
                let ended = self.ledger.as_ref().map(void);
                self.stored(ended);
            }
            self.repaired(id, plan, Vec::new(), outcome, at);
        }
        self.keep_engine();
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.rest();
            rounds.soon();
        }
    }

    fn round_failed(&mut self, stage: Stage, why: &str, busy: bool) {
        match stage {
            // Nothing was begun, and nothing is wrong with the remedy.
            Stage::Acting(begun) if busy => self.all_ended(begun, &RepairOutcome::NotReached),
            // What was done of it is in the ledger. It counts as under way until looking has settled it: an approval must not
            // outlive what it was for.
            Stage::Acting(begun) => {
                if let Some(rounds) = self.rounds.as_mut() {
                    rounds.is_settled = false;
                    let broken_off = begun.into_iter().map(|(id, plan)| (id, plan, why.to_owned()));
                    rounds.broken_off.extend(broken_off);
                }
            }
            _ => {}
        }
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        rounds.rest();
        if busy {
            rounds.soon();
            return;
        }
        rounds.try_again();
        if rounds.trouble.as_deref() != Some(why) {
            rounds.trouble = Some(why.to_owned());
            self.tell(&Report::Trouble {
                what: format!("a healing round: {why}"),
            });
        }
    }

    /// Tells what is new and what is gone.
    fn round_found(&mut self, judged: &Diagnoses, at: Timestamp) {
        let of_brain: BTreeSet<_> = self.brain.standings().map(|one| one.finding.id.clone()).collect();
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        let changes = rounds.open.take_in(judged, &of_brain, at);
        let still = |id: &FindingId| judged.found.iter().any(|one| one.finding.id == *id);
        rounds.verdicts.retain(|id, _| still(id) || of_brain.contains(id));
        rounds.engine.forget_apart(|id| of_brain.contains(id));
        for change in changes {
            match change {
                Change::Found(finding) => self.found(at, finding),
                Change::Resolved(finding) => self.tell(&Report::Resolved { finding }),
                Change::Store(standing) => self.store_finding(standing),
            }
        }
    }

    /// Tells what was decided, unless it was told already.
    fn tell_verdict(&mut self, diagnosis: &Diagnosis, verdict: &Verdict, at: Timestamp) {
        let text = verdict.to_string();
        let finding = &diagnosis.finding;
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        rounds.note(diagnosis, verdict);
        let Some((own, is_notice)) = rounds.open.decided(&finding.id, &text) else {
            return;
        };
        // With the brain's evidence and times, where it has found the same.
        let of_brain = self.brain.standings().find(|one| one.finding.id == finding.id);
        let standing = of_brain.cloned().unwrap_or(own);
        self.keep_plan(verdict, at);
        // What hurts nobody is in `suture findings`, and not called out.
        if !is_notice || verdict.acts() {
            self.tell(&Report::Judged {
                finding: finding.clone(),
                kind: verdict.name(),
                text,
                plan: verdict.plan().map(|(plan, _)| plan.clone()),
            });
        }
        self.store_finding(standing);
    }

    /// Stores what the engine must remember.
    pub(super) fn keep_engine(&mut self) {
        let (Some(rounds), Some(ledger)) = (self.rounds.as_ref(), self.ledger.as_ref()) else {
            return;
        };
        let kept = ledger.save_engine_state(rounds.engine.state(), now());
        self.stored(Some(kept));
    }
}

fn look(rounds: &mut Rounds, knowledge: Knowledge) -> bool {
    rounds.stage = Stage::Looking;
    let ask = Ask::Look {
        knowledge,
        patience: PATIENCE,
    };
    rounds.send(ask, LOOK_DEADLINE)
}

/// What suture's own probes saw being abandoned: the brain heals it under guards of its own.
fn is_of_brain_alone(diagnosis: &Diagnosis) -> bool {
    diagnosis.finding.class == FindingClass::LeakedThin
        && matches!(diagnosis.finding.provenance, Provenance::SeenByProbe { .. })
}
