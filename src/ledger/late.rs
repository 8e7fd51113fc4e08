//! What may wait to be stored while the ledger can not be written. Intents, approvals and the like are not among it.

use rusqlite::Connection;

use super::{
    FindingRow, LedgerError, ObservationRow, OperationRow, RemedyId, RepairId, devices, engine, findings,
    observations, operations, remedies, repairs, watching,
};
use crate::model::{OperationId, Outcome, RepairOutcome, Timestamp};

/// One thing to be stored, and how.
#[derive(Debug, Clone)]
pub(super) enum Late {
    Operation(Box<OperationRow>),
    ForgetOperation(OperationId),
    Finding(Box<FindingRow>),
    Outcome(RemedyId, Outcome, Timestamp),
    RepairOutcome(RepairId, RepairOutcome, bool, Timestamp),
    Watching(Timestamp),
    Engine(String, Timestamp),
    Devices(Box<devices::Change>),
    Observations(Vec<ObservationRow>),
}

impl Late {
    /// Stores it, in the transaction of the caller.
    pub(super) fn store(&self, connection: &Connection) -> Result<(), LedgerError> {
        match self {
            Self::Operation(row) => {
                operations::store(connection, row)?;
                devices::of_operation(connection, &row.operation)
            }
            Self::ForgetOperation(id) => {
                devices::ended_well(connection, id)?;
                operations::forget(connection, id)
            }
            Self::Finding(row) => findings::store(connection, row),
            Self::Outcome(id, outcome, at) => remedies::conclude(connection, *id, outcome, *at),
            Self::RepairOutcome(id, outcome, unfinished, at) => {
                repairs::conclude(connection, *id, outcome, *unfinished, *at)
            }
            Self::Watching(at) => watching::store(connection, *at),
            Self::Engine(state, at) => engine::store(connection, state, *at),
            Self::Devices(change) => devices::change(connection, change),
            Self::Observations(rows) => observations::store(connection, rows),
        }
    }

    /// What a newer one takes the place of; nothing where each is kept.
    pub(super) fn key(&self) -> Option<Key<'_>> {
        match self {
            Self::Operation(row) => Some(Key::Operation(row.operation.id.as_str())),
            Self::ForgetOperation(id) => Some(Key::Forget(id.as_str())),
            Self::Finding(row) => Some(Key::Finding(&row.standing.finding.id.0)),
            Self::Watching(_) => Some(Key::Watching),
            Self::Engine(..) => Some(Key::Engine),
            Self::Outcome(..) | Self::RepairOutcome(..) | Self::Devices(_) | Self::Observations(_) => None,
        }
    }

    /// Whether it is for the history only.
    pub(super) fn is_observations(&self) -> bool {
        matches!(self, Self::Observations(_))
    }

    /// How many things it is, as they are counted when they are given up.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Observations(rows) => u64::try_from(rows.len()).unwrap_or(u64::MAX),
            _ => 1,
        }
    }
}

/// What a thing that waits is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Operation(&'a str),
    Forget(&'a str),
    Finding(&'a str),
    Watching,
    Engine,
}
