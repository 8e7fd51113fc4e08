//! What follows from a healing round: what was found is told and stored, the engine decides, and what it decides is carried
//! out by the worker, whose outcomes go back to the engine.

use std::time::Duration;

use super::{
    Agent, now,
    rounds::{Open, Return, Rounds, Stage},
};
use crate::{
    brain::{Input, Report, Standing},
    config,
    decide::engine::Facts,
    diagnose,
    healer::{Answer, Ask, HealerError, Looked, Restart, unit_of},
    ledger::PlanState,
    model::{
        Act, Action, Bytes, ConditionReading, ContainerdState, Diagnoses, Diagnosis, Finding, FindingClass,
        Knowledge, OperationState, Outcome, Plan, PlanId, PoolUsage, Provenance, RepairOutcome, RepairPlan,
        Severity, Survey, Timestamp, Treat, Treatment, Users, Verdict, When, World,
        survey::{Claim, Mounts},
    },
    remedy::{
        RemedyError,
        repair::{PlanResult, Settlement},
    },
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
/// What waits for a person is asked about again after this time; what a person says comes at once.
const ASK_AGAIN: Duration = Duration::from_secs(30);

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
            (Stage::Looking, Ok(Answer::Looked(looked))) => self.round_looked(looked),
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
            match &operation.state {
                OperationState::Abandoned { mark, .. } => {
                    let claim = Claim {
                        operation: operation.id.clone(),
                        mark: mark.clone(),
                    };
                    knowledge.claims.insert(operation.thin_id, claim);
                }
                OperationState::InFlight | OperationState::Orphaned { .. } => {
                    knowledge.at_work.insert(operation.thin_id, operation.id.clone());
                }
                _ => {}
            }
        }
        knowledge.watched = known.gap().is_none() && !known.is_blind();
        let open = self.brain.standings().map(|standing| standing.finding.id.clone());
        knowledge.confirmed = open.collect();
        knowledge
    }

    fn round_settled(&mut self, settled: &[Settlement]) {
        for one in settled {
            let Some(rounds) = self.rounds.as_mut() else {
                return;
            };
            let running = rounds.engine.state().running.iter();
            let id = running
                .filter(|(_, running)| running.finding == one.intent.finding)
                .map(|(id, _)| id.clone())
                .next();
            if let Some(id) = id {
                rounds.engine.outcome(&id, &one.outcome, now());
                rounds.broken_off.retain(|(broken_off, ..)| *broken_off != id);
            }
            self.tell(&Report::RepairSettled {
                finding: one.intent.finding.clone(),
                outcome: one.outcome.clone(),
            });
        }
        // Those were not begun, or their end is in the ledger already.
        let rounds = self.rounds.as_mut();
        let not_settled = rounds.map(|rounds| std::mem::take(&mut rounds.broken_off));
        for (id, plan, why) in not_settled.unwrap_or_default() {
            self.repaired(&id, &plan, Vec::new(), RepairOutcome::Failed { why }, now());
        }
        self.keep_engine();
    }

    fn round_looked(&mut self, looked: Box<Looked>) {
        let at = now();
        let Looked {
            diagnoses, survey, ..
        } = looked.as_ref();
        // The brain carries out those by itself, and asks the engine for leave.
        let others = |one: &&Diagnosis| !is_of_brain_alone(one);
        let judged = Diagnoses {
            found: diagnoses.found.iter().filter(others).cloned().collect(),
            ..diagnoses.clone()
        };
        let facts = FactsNow::read(self);
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        let verdicts = rounds.engine.round(&judged, &facts.of(survey), at);
        if rounds.trouble.take().is_some() {
            self.tell(&Report::TroubleOver);
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
        if let Some(rounds) = self.rounds.as_mut()
            && let Some(until) = rounds
                .engine
                .state()
                .people
                .pause
                .as_ref()
                .and_then(|pause| pause.until)
        {
            rounds.by_wall(until, at);
        }
        // What is begun is stored as begun before it is.
        self.keep_engine();
        if restarts.is_empty() {
            self.round_act(acts, looked);
        } else {
            // A restart ends everything that is done online; that is taken up by the round after it.
            let not_begun = RepairOutcome::NotReached;
            for (id, plan) in acts {
                self.repaired(&id, &plan, Vec::new(), not_begun.clone(), at);
            }
            self.restart_and_repair(restarts, &looked);
        }
    }

    fn round_act(&mut self, acts: Vec<(PlanId, RepairPlan)>, looked: Box<Looked>) {
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
            let at = now();
            for (id, plan) in acts {
                self.repaired(&id, &plan, Vec::new(), RepairOutcome::NotReached, at);
            }
            self.keep_engine();
            return;
        }
        let ask = Ask::Act {
            knowledge,
            plans: acts.iter().map(|(_, plan)| plan.clone()).collect(),
            life: looked.survey.pool.as_ref().map(|pool| pool.activation.clone()),
            within: ACT_WITHIN,
        };
        if rounds.send(ask, ACT_DEADLINE) {
            rounds.looked = Some(looked);
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
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.engine.outcome(id, &outcome, at);
        }
        let ended = self
            .ledger
            .as_ref()
            .filter(|_| outcome.is_done())
            .map(|ledger| ledger.end_plan(id.as_str(), PlanState::Done, None, at));
        self.stored(ended);
        self.tell(&Report::Repair {
            plan: plan.clone(),
            conditions,
            outcome,
            traceparent: finding,
        });
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
            for (id, plan) in plans {
                let refused = RepairOutcome::Refused { why: why.clone() };
                self.repaired(&id, &plan, Vec::new(), refused, at);
            }
            self.keep_engine();
            if let Some(rounds) = self.rounds.as_mut() {
                rounds.rest();
            }
            return;
        };
        let restart = Restart {
            unit,
            pool: self.options.places.pool.to_string(),
            root: self.options.places.root.clone(),
            ledger: self.options.ledger.clone().unwrap_or_default(),
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
            let rows = self
                .ledger
                .as_ref()
                .map(|ledger| ledger.repairs_of(&plan.finding));
            let newest = rows.and_then(Result::ok).and_then(|mut rows| rows.pop());
            let outcome = newest
                .filter(|row| row.intended >= since)
                .and_then(|row| row.outcome);
            let outcome = outcome.unwrap_or_else(|| RepairOutcome::Failed {
                why: match result {
                    Ok(code) => format!("the repair ended with exit code {code} and did not get to it"),
                    Err(error) => explain(error),
                },
            });
            self.repaired(id, plan, Vec::new(), outcome, at);
        }
        self.keep_engine();
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.rest();
            rounds.soon();
        }
    }

    fn round_failed(&mut self, stage: Stage, why: &str, busy: bool) {
        let at = now();
        match stage {
            // Nothing was begun, and nothing is wrong with the remedy.
            Stage::Acting(begun) if busy => {
                for (id, plan) in begun {
                    self.repaired(&id, &plan, Vec::new(), RepairOutcome::NotReached, at);
                }
                self.keep_engine();
            }
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
        let Some(rounds) = self.rounds.as_mut() else {
            return;
        };
        let still = |id: &crate::model::FindingId| judged.found.iter().any(|one| one.finding.id == *id);
        let of_brain: Vec<_> = self.brain.standings().map(|one| one.finding.id.clone()).collect();
        rounds.verdicts.retain(|id, _| still(id) || of_brain.contains(id));
        rounds.engine.forget_apart(|id| of_brain.contains(id));
        let gone: Vec<_> = rounds.open.keys().filter(|id| !still(id)).cloned().collect();
        let gone: Vec<Open> = gone.iter().filter_map(|id| rounds.open.remove(id)).collect();
        for open in gone.into_iter().filter(|open| !open.of_brain) {
            let mut standing = open.standing;
            standing.resolved = Some(at);
            standing.last_seen = at;
            if !open.is_notice {
                self.tell(&Report::Resolved {
                    finding: standing.finding.clone(),
                });
            }
            self.store_finding(standing);
        }
        for one in &judged.found {
            let finding = &one.finding;
            let Some(rounds) = self.rounds.as_mut() else {
                return;
            };
            if let Some(open) = rounds.open.get_mut(&finding.id) {
                open.standing.last_seen = at;
                let changed = open.standing.finding.evidence != finding.evidence;
                open.standing.finding = finding.clone();
                open.is_notice = one.severity == Severity::Notice;
                if changed && !open.of_brain {
                    let standing = open.standing.clone();
                    self.store_finding(standing);
                }
                continue;
            }
            let of_brain = diagnose::is_of_events(finding.class);
            let standing = Standing {
                finding: finding.clone(),
                first_seen: at,
                last_seen: at,
                resolved: None,
                decision: String::new(),
            };
            let is_notice = one.severity == Severity::Notice;
            let open = Open {
                standing: standing.clone(),
                of_brain,
                is_notice,
            };
            rounds.open.insert(finding.id.clone(), open);
            if !of_brain {
                if !is_notice {
                    self.found(at, finding.clone());
                }
                self.store_finding(standing);
            }
        }
    }

    /// Tells what was decided, unless it was told already.
    fn tell_verdict(&mut self, diagnosis: &Diagnosis, verdict: &Verdict, at: Timestamp) {
        let text = verdict.to_string();
        let finding = &diagnosis.finding;
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.note(&finding.id, verdict, diagnosis.severity);
        }
        let Some(open) = self
            .rounds
            .as_mut()
            .and_then(|rounds| rounds.open.get_mut(&finding.id))
        else {
            return;
        };
        if open.standing.decision == text {
            return;
        }
        open.standing.decision.clone_from(&text);
        let (standing, of_brain, is_notice) = (open.standing.clone(), open.of_brain, open.is_notice);
        let plan = verdict.plan().map(|(plan, id)| (plan.clone(), id.clone()));
        if let (Some(ledger), Some((plan, id))) = (self.ledger.as_ref(), &plan) {
            let proposed = ledger.propose_plan(id.as_str(), plan, at).map(|_| ());
            self.stored(Some(proposed));
        }
        // What hurts nobody is in `suture findings`, and not called out.
        if !is_notice || verdict.acts() {
            self.tell(&Report::Judged {
                finding: finding.clone(),
                kind: verdict.name(),
                text,
                plan: plan.map(|(plan, _)| plan),
            });
        }
        if !of_brain {
            self.store_finding(standing);
        }
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

impl Agent {
    /// Asks the engine for leave to carry out a plan of the brain's. The name that it is booked under, where there is an
    /// engine; or what the brain is told instead.
    pub(super) fn leave(&mut self, plan: &Plan, world: &World) -> Result<Option<PlanId>, Box<Input>> {
        let at = now();
        let facts = FactsNow::read(self);
        let known = self.brain.standings();
        let standing = known.into_iter().find(|one| one.finding.id == plan.finding);
        let finding = standing.map(|one| one.finding.clone());
        let Some(rounds) = self.rounds.as_mut() else {
            return Ok(None);
        };
        let Some(finding) = finding else { return Ok(None) };
        let seen = rounds.seen.get(&plan.finding).copied();
        let stood = seen.map_or(Duration::ZERO, |seen| seen.elapsed());
        let survey = survey_of(world);
        let diagnosis = diagnosis_of(finding, plan);
        let verdict = rounds.engine.one(&diagnosis, stood, &facts.of(&survey), at);
        rounds.note(&plan.finding, &verdict, diagnosis.severity);
        self.keep_engine();
        let proposed = verdict.plan().map(|(plan, id)| (plan.clone(), id.clone()));
        if let (Some(ledger), Some((proposal, id))) = (self.ledger.as_ref(), &proposed) {
            let stored = ledger.propose_plan(id.as_str(), proposal, at).map(|_| ());
            self.stored(Some(stored));
        }
        let until = match &verdict {
            Verdict::Act { id, .. } => return Ok(Some(id.clone())),
            Verdict::Wait { until, .. } => *until,
            _ => at.plus(ASK_AGAIN),
        };
        Err(Box::new(Input::Held {
            at,
            plan: plan.clone(),
            until,
            why: verdict.to_string(),
        }))
    }

    /// What came of a plan that the engine gave leave for.
    pub(super) fn left(&mut self, leave: Option<&PlanId>, outcome: Result<&Outcome, &RemedyError>) {
        let Some(id) = leave else { return };
        let outcome = match outcome {
            Ok(Outcome::Done | Outcome::AlreadyDone) => RepairOutcome::Done,
            Ok(Outcome::Refused { why }) => RepairOutcome::Refused { why: why.clone() },
            Ok(Outcome::Failed { why }) => RepairOutcome::Failed { why: why.clone() },
            Ok(Outcome::SettledDone) => RepairOutcome::SettledDone,
            Ok(Outcome::SettledNotDone) => RepairOutcome::SettledNotDone,
            // Nothing was done without an intent; an outcome that could not be stored is settled by looking.
            Err(error) => RepairOutcome::Refused { why: explain(error) },
        };
        let at = now();
        if let Some(rounds) = self.rounds.as_mut() {
            rounds.engine.outcome(id, &outcome, at);
        }
        let ended = self
            .ledger
            .as_ref()
            .filter(|_| outcome.is_done())
            .map(|ledger| ledger.end_plan(id.as_str(), PlanState::Done, None, at));
        self.stored(ended);
        self.keep_engine();
    }
}

/// A world as a survey, for an engine that asks for no more than which devices there are.
fn survey_of(world: &World) -> Survey {
    Survey {
        begun: world.begun,
        pool_name: world.pool.name.clone(),
        pool: Some(world.pool.clone()),
        usage: world.pool.data_block_sectors().map(|sectors| PoolUsage {
            metadata_used: 0,
            metadata_total: 0,
            data_used: 0,
            data_total: 0,
            block_size: Bytes(sectors.saturating_mul(512)),
            held_root: None,
        }),
        pool_db: world.pool_db.clone().into(),
        snapshots: world.snapshots.clone().into(),
        thin: Some(world.thin.clone()),
        mapping_roots: world.mapping_roots.clone(),
        nodes: world.nodes.clone(),
        core: None,
        mounts: Mounts::default(),
        containerd: ContainerdState::Unknown {
            why: "it was not asked".to_owned(),
        },
        async_remove: None,
        unread: Vec::new(),
    }
}

/// A finding of the brain's with its plan, as the engine knows findings.
fn diagnosis_of(finding: Finding, plan: &Plan) -> Diagnosis {
    let Action::DeleteThin { thin_id, .. } = &plan.action;
    Diagnosis {
        summary: finding.to_string(),
        consequence: "its space is lost".to_owned(),
        severity: Severity::Space,
        users: Users::default(),
        remedy: Treat {
            action: Treatment::DeleteThin,
            when: When::Online,
            guards: Vec::new(),
            acts: vec![Act::DeleteThin { thin_id: *thin_id }],
            why: "suture saw containerd make it and die before it was finished".to_owned(),
        },
        may_be_in_flight: false,
        finding,
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

/// What the engine is told beside the findings.
pub(super) struct FactsNow {
    monotonic: Duration,
    boot: String,
    local_offset: i32,
    kill_switch: Option<String>,
    gap: Option<String>,
    no_ledger: Option<String>,
}

impl FactsNow {
    /// Reads clocks and the kill switch, and what the agent knows.
    pub(super) fn read(agent: &Agent) -> Self {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(since.tv_nsec).unwrap_or_default();
        let known = agent.brain.correlator();
        let policy = agent.rounds.as_ref().map(|rounds| rounds.engine.policy());
        let switched_off = policy.and_then(|policy| config::kill_switch(&policy.kill_switch));
        let only_tells = (!agent.options.policy.act)
            .then(|| "suture was started without --act, so it only tells".to_owned());
        let blind = known.is_blind().then(|| {
            "without kernel probes nobody sees what else happens, so nothing is done by itself".to_owned()
        });
        let no_ledger = match &agent.ledger {
            None => Some("there is no ledger".to_owned()),
            Some(_) => agent.ledger_trouble.as_ref().map(|(_, what)| what.clone()),
        };
        Self {
            monotonic: Duration::new(seconds, nanoseconds),
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            local_offset: jiff::Zoned::now().offset().seconds(),
            kill_switch: switched_off.or(only_tells),
            gap: known.gap().map(|gap| gap.why.clone()).or(blind),
            no_ledger,
        }
    }

    /// With what the findings were found in.
    pub(super) fn of<'a>(&'a self, survey: &'a Survey) -> Facts<'a> {
        Facts {
            survey,
            monotonic: self.monotonic,
            boot: &self.boot,
            local_offset: self.local_offset,
            kill_switch: self.kill_switch.clone(),
            gap: self.gap.clone(),
            no_ledger: self.no_ledger.clone(),
        }
    }
}
