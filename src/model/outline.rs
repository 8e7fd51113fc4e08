//! What there is by its numbers alone: enough to see that everything has what it should have, at a fraction of the reading.
//! What does not fit is to be read and judged as a [`Survey`].

use super::{DeviceState, SnapshotId, Survey, ThinId, TxId};

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
