//! What there is by its numbers alone: enough to see that everything has what it should have, at a fraction of the reading.
//! What does not fit is to be read and judged as a [`Survey`].

use super::{
    DeviceState, IdState, PoolDb, PoolName, SnapshotDb, SnapshotId, Survey, ThinId, TxId,
    databases::{Presence, SnapshotKind},
};

/// A pool database in which every record is one of this pool's, with a name that fits and no error. Of any other there is no
/// outline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolOutline {
    /// The records, in the order of the numbers in their names.
    pub records: Vec<RecordOutline>,
    /// Thin ids that are in use, ascending; all others are free.
    pub taken: Vec<ThinId>,
    /// Sequence of `device_ids`.
    pub id_sequence: u64,
    /// The transaction that all of this is from.
    pub txid: TxId,
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordOutline {
    /// The number in its name.
    pub snapshot: SnapshotId,
    /// Its thin device.
    pub thin_id: ThinId,
    /// Where it stands.
    pub state: DeviceState,
}

/// A snapshot storage in which every row has a number of its own, by its index where that has it. Of any other there is no
/// outline. The kinds of such rows are not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowsOutline {
    /// The numbers of the rows, ascending.
    pub rows: Vec<SnapshotId>,
    /// Sequence of `v1/snapshots`.
    pub sequence: u64,
    /// The transaction that all of this is from.
    pub txid: TxId,
}

/// All of it, with a survey of everything else: both databases in it are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The pool database.
    pub pool_db: PoolOutline,
    /// The snapshot storage.
    pub rows: RowsOutline,
    /// Everything else.
    pub rest: Survey,
}

impl PoolOutline {
    /// Of a database that was read whole; nothing where a record or an id is anything but plain.
    #[must_use]
    pub fn of(pool_db: &PoolDb, pool: &PoolName) -> Option<Self> {
        let mut records = Vec::with_capacity(pool_db.devices.len());
        for record in pool_db.devices.values() {
            let plain = record.error.is_empty() && record.device_id <= ThinId::MAX;
            records.push(RecordOutline {
                snapshot: pool.snapshot_of(&record.name).filter(|_| plain)?,
                thin_id: record.device_id,
                state: record.state,
            });
        }
        records.sort_unstable();
        let mut taken = Vec::with_capacity(records.len());
        for (id, state) in &pool_db.device_ids {
            match state {
                IdState::Taken => taken.push(*id),
                IdState::Free if *id != ThinId(0) && *id <= ThinId::MAX => {}
                IdState::Free | IdState::Faulty | IdState::Other(_) => return None,
            }
        }
        Some(Self {
            records,
            taken,
            id_sequence: pool_db.id_sequence,
            txid: pool_db.txid,
        })
    }
}

impl RowsOutline {
    /// Of a storage that was read whole; nothing where a row is anything but plain, or contradicts another or their index.
    #[must_use]
    pub fn of(storage: &SnapshotDb) -> Option<Self> {
        let rows = storage.snapshots.values();
        let known = rows
            .clone()
            .all(|row| !matches!(row.kind, SnapshotKind::Other(_)));
        let told = known && storage.presence == Presence::Complete && storage.contradiction.is_none();
        let mut rows: Vec<SnapshotId> = rows.map(|row| row.id).collect();
        rows.sort_unstable();
        let outline = Self {
            rows,
            sequence: storage.sequence,
            txid: storage.txid?,
        };
        (told && outline.is_plain()).then_some(outline)
    }

    /// Whether no number is there twice, and none that containerd never gives out.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.rows.is_sorted_by(|one, next| one < next) && self.rows.first() != Some(&SnapshotId(0))
    }
}
