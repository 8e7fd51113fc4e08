//! From a plan to its outcome, with everything read anew just before.

use super::{Agent, AgentError, now};
use crate::{
    brain::Input,
    model::{Action, Plan, Questions, Timestamp, TxId, World},
    observe::world::{self, Places, WorldError},
    remedy::{self, Eyes, KernelHands},
    telemetry::story,
    words::explain,
};

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
        let readings = self.brain.guards(plan, &world);
        let leave = match self.leave(plan, &world) {
            Ok(leave) => leave,
            Err(held) => {
                self.take(&held);
                return Ok(());
            }
        };
        let Some(ledger) = self.ledger.as_mut() else {
            return Ok(());
        };
        let span = story::remedy_span(
            plan,
            self.traces.findings.get(&plan.finding).map(String::as_str),
            self.traces.operations.get(&plan.operation).map(String::as_str),
        );
        let eyes = RealEyes(self.options.places.clone());
        let result = span.in_scope(|| {
            // Milliseconds; the runtime has nothing else to do that could not wait for them.
            remedy::carry_out(plan, &readings, world.transactions(), &eyes, &KernelHands, ledger)
        });
        self.left(leave.as_ref(), result.as_ref().map(|(outcome, _)| outcome));
        match result {
            Ok((outcome, readings)) => {
                story::conclude(&span, &readings, &outcome);
                drop(span);
                self.take(&Input::Remedied {
                    at: now(),
                    plan: plan.clone(),
                    guards: readings,
                    outcome,
                });
            }
            Err(error) => self.take(&Input::NotDone {
                at: now(),
                plan: plan.clone(),
                why: explain(&error),
            }),
        }
        Ok(())
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
                    let finding = self.traces.findings.get(&plan.finding).map(String::as_str);
                    let operation = self.traces.operations.get(&plan.operation).map(String::as_str);
                    let span = story::remedy_span(&plan, finding, operation);
                    story::conclude(&span, &[], &outcome);
                    drop(span);
                    self.take(&Input::Settled {
                        at: now(),
                        plan,
                        outcome,
                    });
                }
            }
            Err(error) => self.ledger_failed(&error),
        }
    }
}
