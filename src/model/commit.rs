//! The databases' side of the story: what a commit of containerd's changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceRecord, IdState, ThinId, Timestamp, TxId, Untrusted, databases::SnapshotRow};

/// Which of containerd's databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseKind {
    /// `<root_path>/<pool>.db`: devices and thin ids.
    Pool,
    /// `<root_path>/metadata.db`: the snapshotter's snapshots.
    Snapshots,
    /// `<containerd root>/io.containerd.metadata.v1.bolt/meta.db`: what clients call things.
    Core,
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "pool database",
            Self::Snapshots => "snapshot database",
            Self::Core => "containerd's meta.db",
        })
    }
}

/// One entry that a commit made, changed or removed. Nothing on a side means that it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum EntryChange {
    /// A device record of the pool database.
    Device {
        /// Its name.
        name: Untrusted,
        /// Before.
        from: Option<DeviceRecord>,
        /// After.
        to: Option<DeviceRecord>,
    },
    /// A thin id of the pool database.
    Id {
        /// Which.
        id: ThinId,
        /// Before.
        from: Option<IdState>,
        /// After.
        to: Option<IdState>,
    },
    /// A row of the snapshot database.
    Snapshot {
        /// Its backend key.
        key: Untrusted,
        /// Before.
        from: Option<SnapshotRow>,
        /// After.
        to: Option<SnapshotRow>,
    },
    /// A snapshot in meta.db.
    Core {
        /// containerd's namespace.
        namespace: Untrusted,
        /// The client's key.
        key: Untrusted,
        /// Its backend key before.
        from: Option<Untrusted>,
        /// Its backend key after.
        to: Option<Untrusted>,
    },
}

/// `tp-snap-7: Creating -> Created`
impl fmt::Display for EntryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn side<T: fmt::Display>(value: Option<T>) -> String {
            value.map_or_else(|| "none".to_owned(), |value| value.to_string())
        }
        match self {
            Self::Device { name, from, to } => {
                let state = |record: &Option<DeviceRecord>| side(record.as_ref().map(|one| one.state));
                write!(f, "{name}: {} -> {}", state(from), state(to))?;
                match (from, to) {
                    (Some(from), Some(to)) if from.device_id != to.device_id => {
                        write!(f, " (thin id {} -> {})", from.device_id, to.device_id)?;
                    }
                    (None, Some(to)) => write!(f, " (thin id {})", to.device_id)?,
                    _ => {}
                }
                match to {
                    Some(to) if !to.error.is_empty() => {
                        write!(f, ", error: {}", Untrusted::from_bytes(to.error.as_bytes()))
                    }
                    _ => Ok(()),
                }
            }
            Self::Id { id, from, to } => write!(f, "id {id}: {} -> {}", side(*from), side(*to)),
            Self::Snapshot { key, from, to } => {
                let row = |row: &Option<SnapshotRow>| {
                    side(row.as_ref().map(|row| format!("{:?} {}", row.kind, row.id)))
                };
                write!(f, "snapshot {key}: {} -> {}", row(from), row(to))
            }
            Self::Core {
                namespace,
                key,
                from,
                to,
            } => write!(
                f,
                "snapshot {key} of namespace {namespace}: {} -> {}",
                side(from.as_ref()),
                side(to.as_ref())
            ),
        }
    }
}

/// A commit that was noticed: one transaction or, where several came between two looks, their sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// When it was noticed.
    pub at: Timestamp,
    /// When the database was looked at before: it happened in between.
    pub since: Timestamp,
    /// Which database.
    pub database: DatabaseKind,
    /// Its transaction before; none where there was no file, or an empty one.
    pub from: Option<TxId>,
    /// Its transaction now.
    pub to: TxId,
    /// What changed, at most [`Commit::MAX_CHANGES`] entries.
    pub changes: Vec<EntryChange>,
    /// How many more changed.
    pub more: u64,
}

impl Commit {
    /// More changes of one commit are counted, not carried.
    pub const MAX_CHANGES: usize = 256;

    /// Transactions in between that were not looked at one by one: what they did and undid is not known.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.from
            .map_or(0, |from| self.to.0.saturating_sub(from.0).saturating_sub(1))
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} transaction {}", self.database, self.to)?;
        if self.skipped() > 0 {
            write!(f, " (and {} before it)", self.skipped())?;
        }
        let mut sign = ": ";
        for change in &self.changes {
            write!(f, "{sign}{change}")?;
            sign = "; ";
        }
        if self.more > 0 {
            write!(f, "{sign}{} more", self.more)?;
        }
        Ok(())
    }
}
