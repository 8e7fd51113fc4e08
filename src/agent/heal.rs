//! From a plan to its outcome, with everything read anew just before, and no longer waited for than it usually takes.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};

use super::{Agent, AgentError, now};
use crate::{
    brain::Input,
    ledger::RemedyId,
    model::{Action, GuardReading, Outcome, Plan, PlanId, Questions, Timestamp, TxId, World},
    observe::world::{self, Places, WorldError},
    remedy::{self, Begun, Eyes, KernelHands, RemedyError},
    telemetry::story,
    words::explain,
};

/// How long the kernel may take for a remedy. It takes milliseconds, unless a device below the pool hangs; then suture goes on
/// with everything else, and comes back to it when the kernel does.
const ACT_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is said that nothing is done because of that.
const HELD: Duration = Duration::from_secs(30);

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

/// A remedy of which the intent is in the ledger, and to which the kernel has not answered yet.
pub(super) struct UnderWay {
    plan: Plan,
    id: RemedyId,
    readings: Vec<GuardReading>,
    leave: Option<PlanId>,
    span: tracing::Span,
    /// In a thread of its own: the kernel may never answer it.
    act: JoinHandle<Outcome>,
}

impl Agent {
    /// Carries out a plan, if its guards hold in a world that is read now.
    pub(super) async fn heal(&mut self, plan: &Plan) -> Result<(), AgentError> {
        if self.under_way.is_some() {
            self.hold_back(
                plan,
                "the kernel has not answered to an earlier deletion: a device hangs",
            );
            return Ok(());
        }
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
        let begun = span.in_scope(|| remedy::begin(plan, &readings, world.transactions(), &eyes, ledger));
        let (id, readings) = match begun {
            Ok(Begun::Intended(id, readings)) => (id, readings),
            Ok(Begun::Refused(outcome, readings)) => {
                self.healed(plan, leave.as_ref(), span, Ok((outcome, readings)));
                return Ok(());
            }
            Err(error) => {
                self.healed(plan, leave.as_ref(), span, Err(error));
                return Ok(());
            }
        };
        let (to_do, of) = (plan.clone(), span.clone());
        let act = move || of.in_scope(|| remedy::act(&to_do, &eyes, &KernelHands));
        let mut under_way = UnderWay {
            plan: plan.clone(),
            id,
            readings,
            leave,
            span,
            act: tokio::task::spawn_blocking(act),
        };
        if let Ok(outcome) = timeout(ACT_DEADLINE, &mut under_way.act).await {
            self.acted(under_way, outcome.ok());
        } else {
            self.under_way = Some(under_way);
            let why = format!(
                "the kernel has not answered within {} s: a device hangs; it may still do it, and nothing else is deleted before it has answered",
                ACT_DEADLINE.as_secs()
            );
            self.hold_back(plan, &why);
        }
        Ok(())
    }

    /// Takes up what the kernel has answered to after all.
    pub(super) async fn answered_late(&mut self) {
        let is_there = |under_way: &mut UnderWay| under_way.act.is_finished();
        if let Some(mut under_way) = self.under_way.take_if(is_there) {
            let outcome = (&mut under_way.act).await;
            self.acted(under_way, outcome.ok());
        }
    }

    fn hold_back(&mut self, plan: &Plan, why: &str) {
        let at = now();
        self.take(&Input::Held {
            at,
            plan: plan.clone(),
            until: at.plus(HELD),
            why: why.to_owned(),
        });
    }

    /// The kernel answered. Where the thread that asked it broke off nobody knows what came of it, so that is settled by
    /// looking.
    fn acted(&mut self, under_way: UnderWay, outcome: Option<Outcome>) {
        let UnderWay {
            plan,
            id,
            readings,
            leave,
            span,
            act: _,
        } = under_way;
        let (Some(outcome), Some(ledger)) = (outcome, self.ledger.as_mut()) else {
            self.intents_settled = false;
            return;
        };
        let concluded = span.in_scope(|| remedy::conclude(id, &outcome, now(), ledger));
        let result = concluded.map(|()| (outcome, readings));
        self.healed(&plan, leave.as_ref(), span, result);
    }

    /// Tells engine and brain what came of a plan.
    fn healed(
        &mut self,
        plan: &Plan,
        leave: Option<&PlanId>,
        span: tracing::Span,
        result: Result<(Outcome, Vec<GuardReading>), RemedyError>,
    ) {
        self.left(leave, result.as_ref().map(|(outcome, _)| outcome));
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
    }

    /// Settles what an earlier suture intended and did not conclude, by looking at this world.
    pub(super) fn settle_intents(&mut self, world: &World) {
        // One that the kernel has not answered to is no dead suture's.
        if self.intents_settled || self.under_way.is_some() {
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
                    // An earlier suture had leave for it, and did not live to tell what came of it.
                    let leave = self.under_way_for(&plan.finding);
                    self.left(leave.as_ref(), Ok(&outcome));
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
