//! The world: one consistent read of what the snapshotter's databases, the pool and the dm devices say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{
    DeviceMark, DeviceNumber, DeviceRecord, IdState, PoolActivation, PoolDb, PoolName, SnapshotDb,
    SnapshotId, ThinDetails, ThinId, Timestamp, Topology, TxId, Untrusted, ranges::Ranges,
};

/// What the pool can do at the moment (`pool_status`, drivers/md/dm-thin.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// `rw`: everything.
    ReadWrite,
    /// `out_of_data_space`: no new blocks; messages still work.
    OutOfDataSpace,
    /// `ro`: messages are refused.
    ReadOnly,
    /// `Fail`: nothing.
    Failed,
    /// The kernel could not tell.
    Unknown,
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadWrite => "read-write",
            Self::OutOfDataSpace => "out of data space",
            Self::ReadOnly => "read-only",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

/// The thin pool as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its dm name.
    pub name: PoolName,
    /// Its device number.
    pub device: DeviceNumber,
    /// Device that holds its metadata.
    pub metadata_device: DeviceNumber,
    /// Its table line's parameters: which devices it is made of.
    pub table: String,
    /// What it can do.
    pub mode: PoolMode,
    /// Which of its lives it is in.
    pub activation: PoolActivation,
    /// Whether the kernel wants it checked before it is written to again.
    pub needs_check: bool,
}

impl Pool {
    /// The device that holds its data (`pool_ctr`, drivers/md/dm-thin.c: metadata device, data device, block size ..).
    #[must_use]
    pub fn data_device(&self) -> Option<DeviceNumber> {
        self.table.split(' ').nth(1)?.parse().ok()
    }

    /// Why it can not be asked to delete anything; nothing where it can.
    ///
    /// Without free data blocks messages still work, and a delete is what gives blocks back: `pool_message`
    /// (drivers/md/dm-thin.c) answers EOPNOTSUPP only from `PM_OUT_OF_METADATA_SPACE` on, which the status line calls `ro`.
    #[must_use]
    pub fn refuses_deletes(&self) -> Option<String> {
        if self.needs_check {
            return Some("the pool needs a check before it may be changed".to_owned());
        }
        let takes = matches!(self.mode, PoolMode::ReadWrite | PoolMode::OutOfDataSpace);
        (!takes).then(|| format!("the pool is {}, and refuses to delete anything", self.mode))
    }

    /// Sectors of one of its data blocks.
    #[must_use]
    pub fn data_block_sectors(&self) -> Option<u64> {
        let size = self.table.split(' ').nth(2)?.parse().ok()?;
        (size > 0).then_some(size)
    }
}

/// A dm device that matters to the pool: one on top of it, or one that bears a name of the snapshotter's.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that the kernel tells"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its dm name.
    pub name: Untrusted,
    /// Its device number.
    pub device: DeviceNumber,
    /// Thin ids of this pool that its live or its loaded table maps; each of them is open in the kernel.
    pub thin_ids: Vec<ThinId>,
    /// Whether I/O to it is held back.
    pub suspended: bool,
    /// How many have it open.
    pub open_count: u32,
    /// Set when its tables could not be read (a name that no tool can pass on): it may map any thin id.
    pub unreadable: bool,
    /// Set when it has a live table: one that was created and never resumed has none.
    #[serde(default = "yes")]
    pub live: bool,
    /// Set when the kernel removes it as soon as its last user is gone (`DM_DEFERRED_REMOVE`).
    #[serde(default)]
    pub deferred_remove: bool,
    /// Set when its live table has the `error` target, which `dmsetup remove --force` leaves of a device in use.
    #[serde(default)]
    pub error_table: bool,
}

/// Recordings of before these were read have only devices that were seen to be whole.
fn yes() -> bool {
    true
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.device)
    }
}

/// What a read of the world is to answer beside what it always does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Questions {
    /// Thin devices of which it is to tell where their mappings begin.
    pub roots: BTreeSet<ThinId>,
    /// Failed sectors by device: which thin devices have their data there? Devices that have nothing to do with the pool
    /// cost nothing.
    pub data_ranges: BTreeMap<DeviceNumber, Ranges>,
}

/// Which thin devices have data in blocks of the pool that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataOwners {
    /// The blocks of the pool's data device that were asked for.
    pub blocks: Ranges,
    /// How many of those blocks each thin device maps. A block that snapshots share counts for each of them.
    pub owners: BTreeMap<ThinId, u64>,
    /// Why there may be more owners; nothing where these are all.
    pub incomplete: Option<String>,
}

/// The pool and what it stands on, read without containerd's databases and without the pool's metadata: what is left when
/// those can not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// When reading began.
    pub begun: Timestamp,
    /// The pool.
    pub pool: Pool,
    /// dm devices.
    pub nodes: Vec<Node>,
    /// What lies on what.
    pub topology: Topology,
}

/// One consistent read of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// When reading began: what happened before is in it.
    pub begun: Timestamp,
    /// The pool.
    pub pool: Pool,
    /// containerd's pool database.
    pub pool_db: PoolDb,
    /// containerd's snapshot storage.
    pub snapshots: SnapshotDb,
    /// Thin devices in the pool's metadata.
    pub thin: BTreeMap<ThinId, ThinDetails>,
    /// Where the mappings of those thin devices begin that were asked for.
    pub mapping_roots: BTreeMap<ThinId, u64>,
    /// dm devices.
    pub nodes: Vec<Node>,
    /// What the pool stands on.
    pub topology: Topology,
    /// Who owns the failed sectors that were asked for; nothing where none of the pool's were.
    pub data_owners: Option<DataOwners>,
}

impl World {
    /// Transaction ids that prove which state of the databases this is.
    #[must_use]
    pub fn transactions(&self) -> (TxId, Option<TxId>) {
        (self.pool_db.txid, self.snapshots.txid)
    }

    /// What tells a thin device from another of its id; nothing where it is not in the pool, or was not asked for.
    #[must_use]
    pub fn mark_of(&self, id: ThinId) -> Option<DeviceMark> {
        Some(DeviceMark {
            activation: self.pool.activation.clone(),
            mapping_root: *self.mapping_roots.get(&id)?,
            details: *self.thin.get(&id)?,
        })
    }

    /// The record that carries a thin id.
    #[must_use]
    pub fn record_of(&self, id: ThinId) -> Option<&DeviceRecord> {
        self.pool_db
            .devices
            .values()
            .find(|record| record.device_id == id)
    }

    /// State of a thin id in `device_ids`; nothing where containerd never drew it.
    #[must_use]
    pub fn id_state(&self, id: ThinId) -> Option<IdState> {
        self.pool_db.device_ids.get(&id).copied()
    }

    /// The record that bears the name of the next snapshot: one past the sequence, with no row of its own. The sequence
    /// only moves with the transaction that stores the row (`CreateSnapshot`, core/snapshots/storage/bolt.go).
    #[must_use]
    pub fn next_record(&self) -> Option<&DeviceRecord> {
        let next = SnapshotId(self.snapshots.sequence.checked_add(1)?);
        let name = format!("{}-snap-{next}", self.pool.name);
        let record = self.pool_db.devices.get(&name)?;
        (!self.has_snapshot(next)).then_some(record)
    }

    /// Whether the snapshot storage has a row of this id.
    #[must_use]
    pub fn has_snapshot(&self, id: SnapshotId) -> bool {
        self.snapshots.snapshots.values().any(|row| row.id == id)
    }

    /// dm devices that hold a thin id open, or may do so.
    pub fn holders(&self, id: ThinId) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(move |node| node.unreadable || node.thin_ids.contains(&id))
    }
}
