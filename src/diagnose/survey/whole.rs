//! Whether the databases belong together. One that was lost, or put back from an older backup, makes good devices look
//! abandoned; then a record proves nothing any more, and nothing is deleted on its word.

use super::index::Index;
use crate::{
    model::{IdState, Survey},
    words::{counted, one_or},
};

/// What speaks against the databases belonging together.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    /// The snapshot storage is gone, and there are records of its snapshots.
    pub(super) storage_lost: bool,
    /// Why the snapshot storage is no proof of anything.
    storage_doubt: Option<String>,
    /// Why no row's number is to be relied on.
    contradiction: Option<String>,
    /// Records of snapshots that the snapshot storage has not drawn yet, next one aside.
    pub(super) beyond: usize,
    /// Rows with a number that the snapshot storage has not drawn yet.
    pub(super) undrawn: usize,
    /// Rows whose device has no record.
    pub(super) rows_without: usize,
    /// More of those than interrupted removals can have left.
    pub(super) records_lost: bool,
}

impl Whole {
    pub(super) fn new(survey: &Survey, index: &Index<'_>) -> Self {
        let sequence = survey.snapshots.sequence;
        let rows = index.rows.iter().count();
        let rows_without = index.rows.iter().filter(|(id, _)| !index.records.has(id)).count();
        // An interrupted removal leaves its id free and out of the pool (`RemoveDevice`, metadata.go).
        let freed = || {
            survey
                .pool_db
                .device_ids
                .iter()
                .filter(|(id, state)| **state == IdState::Free && survey.has_thin(**id) == Some(false))
                .count()
        };
        let records_lost = rows_without > rows - rows_without && rows_without > freed();
        Self {
            storage_lost: survey.storage_is_gone(),
            storage_doubt: survey.storage_doubt(),
            contradiction: contradiction(survey, index),
            beyond: index
                .records
                .iter()
                .filter(|(id, _)| survey.is_beyond_the_next(*id) && !index.rows.has(id))
                .count(),
            undrawn: index.rows.iter().filter(|(id, _)| id.0 > sequence).count(),
            rows_without,
            records_lost,
        }
    }

    /// Whether the snapshot storage was lost, or is older than the pool database.
    pub(super) fn storage_is_behind(&self) -> bool {
        self.storage_lost || self.beyond > 0 || self.undrawn > 0
    }

    /// Why no row's number is to be relied on, so that neither a snapshot that is listed nor one that is not says anything of
    /// a record; nothing where they are.
    pub(super) fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }

    /// Why it proves nothing that a snapshot is not listed; nothing where it does.
    pub(super) fn storage_doubt(&self) -> Option<String> {
        if let Some(why) = &self.contradiction {
            return Some(why.clone());
        }
        if self.beyond > 0 || self.undrawn > 0 {
            return Some(format!(
                "containerd's metadata.db looks older than its pool database: {} and {} have numbers that it has not given out yet",
                counted(self.beyond, "record"),
                counted(self.undrawn, "snapshot")
            ));
        }
        self.storage_doubt.clone()
    }

    /// Why a record does not prove what its device is; nothing where the databases belong together.
    pub(super) fn doubt(&self) -> Option<String> {
        if let Some(why) = self.storage_doubt() {
            return Some(why);
        }
        (self.rows_without > 0).then(|| {
            format!(
                "{} {} no record, so the pool database may be older than metadata.db, and its records may name devices that are others by now",
                counted(self.rows_without, "snapshot"),
                one_or(self.rows_without, "has", "have")
            )
        })
    }
}

/// Rows that do not fit their index, or of which two bear one number: one of them is of another, which is not known.
fn contradiction(survey: &Survey, index: &Index<'_>) -> Option<String> {
    if let Some(why) = &survey.snapshots.contradiction {
        return Some(format!("metadata.db contradicts itself: {why}"));
    }
    let repeated = index.rows.repeated().next()?;
    Some(format!(
        "metadata.db contradicts itself: more than one snapshot has the number {repeated}"
    ))
}
