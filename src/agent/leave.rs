//! The brain carries out its own plans, and asks the engine for leave first: one policy, one set of budgets and one
//! breaker hold for both.

use std::time::Duration;

use super::{Agent, facts::FactsNow, now};
use crate::{
    brain::Input,
    model::{
        Act, Action, Bytes, Diagnosis, Finding, FindingId, Outcome, Plan, PlanId, PoolUsage, RepairOutcome,
        Severity, Survey, Treat, Treatment, Users, Verdict, When, World,
    },
    remedy::RemedyError,
    words::explain,
};

/// What waits for a person is asked about again after this time; what a person says comes at once.
const ASK_AGAIN: Duration = Duration::from_secs(30);

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
        rounds.note(&diagnosis, &verdict);
        self.keep_engine();
        self.keep_plan(&verdict, at);
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

    /// The plan for a finding that counts as under way.
    pub(super) fn under_way_for(&self, finding: &FindingId) -> Option<PlanId> {
        let mut running = self.rounds.as_ref()?.engine.state().running.iter();
        let (id, _) = running.find(|(_, running)| running.finding == *finding)?;
        Some(id.clone())
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
        self.plan_ended(id, &outcome, now());
        self.keep_engine();
    }
}

/// A world as a survey, for an engine that asks for no more than which devices there are, and how large a block is.
fn survey_of(world: &World) -> Survey {
    let block_size = |sectors: u64| Bytes(sectors.saturating_mul(512));
    let usage = world.pool.data_block_sectors().map(|sectors| PoolUsage {
        metadata_used: 0,
        metadata_total: 0,
        data_used: 0,
        data_total: 0,
        block_size: block_size(sectors),
        held_root: None,
    });
    Survey {
        usage,
        ..Survey::of_world(world)
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
