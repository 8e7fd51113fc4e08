//! From a plan to its outcome, with everything read anew just before.

use std::time::Duration;

use super::{Agent, AgentError, Report, now};
use crate::{
    decide::guards,
    model::{Action, FindingId, GuardReading, Outcome, Plan, Questions, Timestamp, TxId, World},
    observe::world::{self, Places, WorldError},
    remedy::{self, Eyes, KernelHands},
    telemetry::story,
};

/// After a remedy that changed nothing the finding is left alone for this long, and twice as long each further time.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// But never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Looks at the real world.
struct RealEyes(Places);

impl Eyes for RealEyes {
    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        world::transactions(&self.0)
    }

    fn world(&self) -> Result<World, WorldError> {
        world::read(&self.0, &Questions::default())
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

impl Agent {
    /// Carries out a plan, if its guards hold in a world that is read now.
    pub(super) async fn heal(&mut self, plan: &Plan) -> Result<(), AgentError> {
        let Some(world) = self.read_world().await? else {
            return Ok(());
        };
        let readings = guards::read(plan, &world, &self.correlator);
        let Some(ledger) = self.ledger.as_mut() else {
            return Ok(());
        };
        let finding = self
            .findings
            .iter()
            .find(|open| open.row.finding.id == plan.finding);
        let span = story::remedy_span(
            plan,
            finding.and_then(|open| open.row.traceparent.as_deref()),
            self.traces.operations.get(&plan.operation).map(String::as_str),
        );
        let eyes = RealEyes(self.options.places.clone());
        let result = span.in_scope(|| {
            // Milliseconds; the runtime has nothing else to do that could not wait for them.
            remedy::carry_out(plan, &readings, world.transactions(), &eyes, &KernelHands, ledger)
        });
        match result {
            Ok((outcome, readings)) => {
                story::conclude(&span, &readings, &outcome);
                drop(span);
                self.tell_remedy(plan, readings, outcome);
            }
            Err(error) => {
                self.leave_alone(&plan.finding);
                self.reporter.tell(&Report::NotDone {
                    plan: plan.clone(),
                    why: crate::words::explain(&error),
                });
            }
        }
        Ok(())
    }

    /// What was tried in vain is not tried again for a while, and for longer each time.
    fn leave_alone(&mut self, finding: &FindingId) {
        let Some(open) = self.finding(finding) else { return };
        let doubled = AFTER_REFUSAL.saturating_mul(2_u32.saturating_pow(open.in_vain));
        open.in_vain = open.in_vain.saturating_add(1);
        open.not_before = now().plus(doubled.min(LONGEST_PAUSE));
    }

    fn tell_remedy(&mut self, plan: &Plan, guards: Vec<GuardReading>, outcome: Outcome) {
        if outcome.changed_nothing() {
            self.leave_alone(&plan.finding);
        }
        let traceparent = self
            .finding(&plan.finding)
            .and_then(|open| open.row.traceparent.clone());
        self.reporter.tell(&Report::Remedy {
            plan: plan.clone(),
            guards,
            outcome,
            traceparent,
        });
    }

    /// Settles what an earlier suture intended and did not conclude, by looking at this world.
    pub(super) fn settle_intents(&mut self, world: &World) {
        if self.intents_settled {
            return;
        }
        let Some(ledger) = self.ledger.as_mut() else {
            return;
        };
        let settled = ledger.open_intents().and_then(|intents| {
            let of_this_pool = |plan: &Plan| {
                let Action::DeleteThin { pool, .. } = &plan.action;
                *pool == world.pool.name
            };
            intents
                .iter()
                .filter(|intent| of_this_pool(&intent.plan))
                .map(|intent| Ok((intent.plan.clone(), remedy::settle(intent, world, now(), ledger)?)))
                .collect::<Result<Vec<_>, _>>()
        });
        match settled {
            Ok(settled) => {
                self.intents_settled = true;
                for (plan, outcome) in settled {
                    let finding = self
                        .findings
                        .iter()
                        .find(|open| open.row.finding.id == plan.finding);
                    let traceparent = finding.and_then(|open| open.row.traceparent.clone());
                    let operation = self.traces.operations.get(&plan.operation).map(String::as_str);
                    let span = story::remedy_span(&plan, traceparent.as_deref(), operation);
                    story::conclude(&span, &[], &outcome);
                    self.reporter.tell(&Report::Remedy {
                        plan,
                        guards: Vec::new(),
                        outcome,
                        traceparent,
                    });
                }
            }
            Err(error) => self.ledger_failed(&error),
        }
    }
}
