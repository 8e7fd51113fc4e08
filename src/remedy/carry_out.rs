//! Carrying out one plan: begin, act, conclude; and settling one that was cut off.

use crate::{
    decide::guards,
    ledger::{Ledger, LedgerError, OpenIntent, RemedyId},
    model::{Action, Guard, GuardReading, Outcome, Plan, Timestamp, TxId, World},
    observe::world::WorldError,
    remedy::{Hands, HandsError},
    telemetry::TARGET,
};

/// What a remedy looks at by itself.
pub trait Eyes {
    /// Transaction ids of containerd's databases at this moment.
    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError>;
    /// A new consistent read of everything.
    fn world(&self) -> Result<World, WorldError>;
    /// The time.
    fn now(&self) -> Timestamp;
}

/// Why a plan was not carried out for reasons that are not the world's.
#[derive(Debug, thiserror::Error)]
pub enum RemedyError {
    /// Without a durable intent nothing is done.
    #[error("the intent could not be stored, so nothing was done")]
    Intent(#[source] LedgerError),
    /// It was done or refused, and the ledger does not know: the next start settles it by looking.
    #[error("the outcome `{outcome}` could not be stored; it will be settled by looking at the next start")]
    Outcome {
        /// What came of it.
        outcome: String,
        /// Why it could not be stored.
        source: LedgerError,
    },
}

/// A remedy that was begun.
#[derive(Debug)]
pub enum Begun {
    /// A guard did not hold: nothing is to be done, and the ledger knows.
    Refused(Outcome, Vec<GuardReading>),
    /// The intent is durable and every guard held: the act comes next, and then its outcome is to be stored.
    Intended(RemedyId, Vec<GuardReading>),
}

/// Begins a plan whose guards were just read in a world that `basis` names by its transactions: stores the intent and takes
/// the last look.
pub fn begin(
    plan: &Plan,
    readings: &[GuardReading],
    basis: (TxId, Option<TxId>),
    eyes: &impl Eyes,
    ledger: &mut Ledger,
) -> Result<Begun, RemedyError> {
    let mut readings = readings.to_vec();
    // Two looks at the same thing: whoever calls has looked already, and a plan without its guards is no plan.
    let complete = plan
        .guards
        .iter()
        .all(|guard| *guard == Guard::SameTransaction || readings.iter().any(|one| one.guard == *guard));
    let refusal = match guards::first_refusal(&readings) {
        Some(reading) => Some(reading.to_string()),
        None if plan.guards.is_empty() || !complete => Some("not every guard was read".to_owned()),
        None => None,
    };
    if let Some(why) = refusal {
        let outcome = Outcome::Refused { why };
        ledger
            .refused(plan, &readings, &outcome, eyes.now())
            .map_err(RemedyError::Intent)?;
        return Ok(Begun::Refused(outcome, readings));
    }

    let id = step("suture.remedy.intent")
        .in_scope(|| ledger.intend(plan, &readings, eyes.now()))
        .map_err(RemedyError::Intent)?;
    let last_look = same_transaction(basis, eyes);
    readings.push(last_look.clone());
    if last_look.holds {
        return Ok(Begun::Intended(id, readings));
    }
    let outcome = Outcome::Refused {
        why: last_look.to_string(),
    };
    conclude(id, &outcome, eyes.now(), ledger)?;
    Ok(Begun::Refused(outcome, readings))
}

/// Stores what came of a remedy that was intended.
pub fn conclude(
    id: RemedyId,
    outcome: &Outcome,
    now: Timestamp,
    ledger: &mut Ledger,
) -> Result<(), RemedyError> {
    step("suture.remedy.outcome")
        .in_scope(|| ledger.conclude(id, outcome, now))
        .map_err(|source| RemedyError::Outcome {
            outcome: outcome.to_string(),
            source,
        })
}

fn step(name: &'static str) -> tracing::Span {
    tracing::info_span!(target: TARGET, "suture.remedy.step", otel.name = name)
}

/// The last guard, read between the intent and the act.
fn same_transaction(basis: (TxId, Option<TxId>), eyes: &impl Eyes) -> GuardReading {
    let (holds, detail) = match eyes.transactions() {
        Ok(now) if now == basis => (
            true,
            format!("containerd's databases are still at transaction {}", basis.0),
        ),
        Ok(_) => (false, "containerd wrote to its databases just now".to_owned()),
        Err(error) => (
            false,
            format!("containerd's databases could not be looked at: {error}"),
        ),
    };
    GuardReading {
        guard: Guard::SameTransaction,
        holds,
        detail,
    }
}

/// The act itself, and a look at whether it holds. A kernel that hangs does not answer: whoever calls this has time, or does
/// not wait for it.
pub fn act(plan: &Plan, eyes: &impl Eyes, hands: &impl Hands) -> Outcome {
    let Action::DeleteThin { pool, thin_id, .. } = &plan.action;
    let _step = step("suture.remedy.act").entered();
    match hands.delete_thin(pool, *thin_id) {
        Ok(()) => match eyes.world() {
            Ok(world) if world.thin.contains_key(thin_id) => Outcome::Failed {
                why: "the kernel said it was deleted, and it is still there: a failed commit of the pool's metadata took it back"
                    .to_owned(),
            },
            // The kernel's word stands where the world can not be read at this moment.
            Ok(_) | Err(_) => Outcome::Done,
        },
        Err(HandsError::NoSuchDevice) => Outcome::AlreadyDone,
        Err(HandsError::Busy) => Outcome::Refused { why: HandsError::Busy.to_string() },
        Err(error) => Outcome::Failed { why: error.to_string() },
    }
}

/// Settles an intent that an earlier suture left behind: by looking, never by doing.
pub fn settle(
    intent: &OpenIntent,
    world: &World,
    now: Timestamp,
    ledger: &mut Ledger,
) -> Result<Outcome, LedgerError> {
    let Action::DeleteThin { thin_id, .. } = &intent.plan.action;
    let outcome = if world.thin.contains_key(thin_id) {
        Outcome::SettledNotDone
    } else {
        Outcome::SettledDone
    };
    ledger.conclude(intent.id, &outcome, now)?;
    Ok(outcome)
}
