//! What containerd's databases and the pool's metadata hold, as values. Reading them is `observe`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DeviceNumber, DeviceRecord, IdState, SnapshotId, ThinId, TxId};

/// What containerd believes about its thin devices, as of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolDb {
    /// Bucket `devices`, by device name. Each record's `name` equals its key.
    pub devices: BTreeMap<String, DeviceRecord>,
    /// Bucket `device_ids`.
    pub device_ids: BTreeMap<ThinId, IdState>,
    /// Sequence of `device_ids`: the highest id ever handed out (`getNextDeviceID`, metadata.go).
    pub id_sequence: u64,
    /// The transaction that all of this is from.
    pub txid: TxId,
}

/// Kind of a snapshot (`Kind`, core/snapshots/snapshotter.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// 1: read-only, in use.
    View,
    /// 2: writable, in use.
    Active,
    /// 3: a layer that others build on.
    Committed,
    /// A number that no known containerd writes; never acted on.
    Other(u8),
}

impl From<u8> for SnapshotKind {
    fn from(byte: u8) -> Self {
        match byte {
            1 => Self::View,
            2 => Self::Active,
            3 => Self::Committed,
            other => Self::Other(other),
        }
    }
}

/// One snapshot, as its bucket tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// The number in the device's name.
    pub id: SnapshotId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Backend key of the snapshot it was made from.
    pub parent: Option<String>,
}

/// How much of the database there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// No file: containerd has not used this snapshotter since it was set up.
    NoFile,
    /// A file without buckets: no snapshot was ever made.
    NoBuckets,
    /// The buckets are there, with or without rows.
    Complete,
}

/// The snapshots that containerd knows, as of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDb {
    /// Rows by backend key, `<namespace>/<sequence>/<key>` (core/metadata/snapshot.go).
    pub snapshots: BTreeMap<String, SnapshotRow>,
    /// Sequence of `v1/snapshots`: the last snapshot id handed out, in a transaction that was committed.
    pub sequence: u64,
    /// The transaction that all of this is from. None without a file, or with an empty one.
    pub txid: Option<TxId>,
    /// Whether "no rows" means "nothing was ever there".
    pub presence: Presence,
    /// How the rows contradict their own index `v1/parents`, as a clause. Then one of them was damaged, and no row's number
    /// proves anything. Nothing where they fit, or were not held against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
}

/// Which of its lives a pool is in: it changes when the pool is taken down and brought up again, and with a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolActivation {
    /// Which boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Sequence number of the disk, never used twice in a boot (`/sys/block/dm-N/diskseq`).
    pub disk_sequence: Option<u64>,
    /// The device that holds its metadata.
    pub metadata_device: DeviceNumber,
}

/// What tells a thin device from another of the same id.
///
/// Within one activation the kernel hands out metadata blocks in ascending order and does not start over before the end
/// (`sm_metadata_new_block_`, dm-space-map-metadata.c; the cursor outlives commits since Linux 5.13), so a device that
/// was deleted and made again begins at another block, even when both are empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMark {
    /// In which life of the pool this was read.
    pub activation: PoolActivation,
    /// The block where its tree of mappings begins.
    pub mapping_root: u64,
    /// Its details.
    pub details: ThinDetails,
}

/// What the metadata says about one thin device (`struct disk_device_details`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThinDetails {
    /// Data blocks that the device maps, shared ones included.
    pub mapped_blocks: u64,
    /// The pool's transaction id when the device was made; 0 in containerd's pools, which never set one.
    pub transaction_id: u64,
    /// The pool's `time` when the device was made.
    pub creation_time: u32,
    /// The pool's `time` when it was last snapshotted, or when it was made.
    pub snapshotted_time: u32,
}
