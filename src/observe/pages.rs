//! The pages that containerd's two databases were read from, and the way back from pages to databases: by the very same
//! readers.

use std::path::Path;

use super::{
    bbolt::{Database, Pages},
    pool_db::PoolDbError,
    snapshot_db::SnapshotDbError,
};
use crate::model::{PoolDb, SnapshotDb, databases::Presence};

/// The pages of both databases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabasePages {
    /// Of the pool database.
    pub pool_db: Pages,
    /// Of the snapshot storage; none where there is no file, or an empty one.
    pub snapshots: Option<Pages>,
}

/// Why pages are no databases.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The pool database.
    #[error("reading recorded pages of the pool database")]
    PoolDb(#[from] PoolDbError),
    /// The snapshot storage.
    #[error("reading recorded pages of the snapshot database")]
    SnapshotDb(#[from] SnapshotDbError),
}

impl DatabasePages {
    /// Reads both databases. `presence` says how much of a snapshot storage without pages there was. What the reading did
    /// not reach is dropped from the pages.
    pub fn read(self, presence: Presence) -> Result<(PoolDb, SnapshotDb, Self), PagesError> {
        let recorded = Path::new("a recorded database");
        let database = Database::keeping(self.pool_db);
        let pool_db = PoolDb::read_from(&database, recorded)?;
        let (snapshots, kept) = match self.snapshots.map(Database::keeping) {
            None => (SnapshotDb::nothing(presence), None),
            Some(database) => (
                SnapshotDb::read_from(&database, recorded)?,
                Some(database.into_kept()),
            ),
        };
        let reached = Self {
            pool_db: database.into_kept(),
            snapshots: kept,
        };
        Ok((pool_db, snapshots, reached))
    }
}
