//! A survey: one consistent read of everything that is known about the snapshotter, with who uses it. It holds what a
//! [`World`] holds, and can be made where a world can not: with the pool taken down, or its metadata
//! unreadable. What is missing is said, and nothing is judged that rests on it.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{
    Bytes, DeviceMark, DeviceNumber, DeviceRecord, IdState, Incarnation, Node, Operation, OperationId,
    OperationState, Pool, PoolDb, PoolName, Shared, SnapshotDb, SnapshotId, ThinDetails, ThinId, Timestamp,
    TxId, World,
};

/// One consistent read of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// When reading began.
    pub begun: Timestamp,
    /// The pool's name, as containerd's configuration says it.
    pub pool_name: PoolName,
    /// The pool as the kernel has it; nothing where it is not set up, or was left out.
    pub pool: Option<Pool>,
    /// How full the pool is, and who holds a snapshot of its metadata; nothing where the kernel could not tell.
    pub usage: Option<PoolUsage>,
    /// containerd's pool database.
    pub pool_db: Shared<PoolDb>,
    /// containerd's snapshot storage.
    pub snapshots: Shared<SnapshotDb>,
    /// Thin devices in the pool's metadata; nothing where those could not be read: then `unread` says why.
    pub thin: Option<BTreeMap<ThinId, ThinDetails>>,
    /// Where the mappings of those thin devices begin that were asked for.
    pub mapping_roots: BTreeMap<ThinId, u64>,
    /// dm devices on the pool, or of the snapshotter's names. Empty where the pool is not set up and no such name is.
    pub nodes: Vec<Node>,
    /// containerd's own database; nothing where it was not read, which only keeps names of users from being told.
    pub core: Option<Shared<CoreDb>>,
    /// Where the dm devices are mounted.
    pub mounts: Mounts,
    /// Whether a containerd holds the pool database.
    pub containerd: ContainerdState,
    /// containerd's `async_remove`; nothing where its configuration was not read. Where it is on, records in the state
    /// Removed wait for containerd's own clean-up.
    pub async_remove: Option<bool>,
    /// What could not be read, and so was not judged.
    pub unread: Vec<Unread>,
}

/// Something that a survey lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// What, such as "the pool's metadata".
    pub what: String,
    /// Why, and what to do about it.
    pub why: String,
    /// Set where findings may be missing for it; unset where only names of users are.
    pub matters: bool,
}

/// Whether a containerd runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "containerd", rename_all = "snake_case")]
pub enum ContainerdState {
    /// This process holds the lock on the pool database.
    Running {
        /// Which.
        who: Incarnation,
        /// Programs that it has started and that work on devices at this moment (`dmsetup`, `mkfs.*`, `blkdiscard`):
        /// while there is one, an operation is in flight.
        at_work: Vec<String>,
    },
    /// Nobody holds the lock.
    Stopped {
        /// Such programs that an earlier containerd left behind (systemd's `KillMode=process`).
        at_work: Vec<String>,
    },
    /// It can not be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// What the kernel's status line of a pool counts (`pool_status`, drivers/md/dm-thin.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// Metadata blocks of 4 KiB in use.
    pub metadata_used: u64,
    /// Metadata blocks of 4 KiB.
    pub metadata_total: u64,
    /// Data blocks in use.
    pub data_used: u64,
    /// Data blocks.
    pub data_total: u64,
    /// Size of a data block.
    pub block_size: Bytes,
    /// Where the reserved snapshot of the metadata begins, while somebody holds one.
    pub held_root: Option<u64>,
}

/// Where block devices are mounted, in every mount namespace that could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mounts {
    /// Mounts by the device that is mounted.
    pub by_device: BTreeMap<DeviceNumber, Vec<Mount>>,
    /// Why there may be more; nothing where these are all.
    pub incomplete: Option<String>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    /// Number of the mount namespace (`/proc/PID/ns/mnt`).
    pub namespace: u64,
    /// A process in that namespace.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// Where, as that namespace sees it.
    pub path: String,
}

/// What containerd's own database (`meta.db`) knows of the devmapper snapshotter's snapshots and of who uses them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CoreDb {
    /// Snapshots by backend key.
    pub snapshots: BTreeMap<String, CoreSnapshot>,
    /// Containers on the snapshotter; none where only snapshots were read.
    pub containers: Vec<Container>,
    /// Images that are unpacked in the snapshotter; none where only snapshots were read.
    pub images: Vec<Image>,
    /// The transaction that all of this is from.
    pub txid: TxId,
}

/// A snapshot as containerd's clients know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreSnapshot {
    /// The namespace, such as `k8s.io`.
    pub namespace: String,
    /// The client's key.
    pub key: String,
    /// The parent's client key.
    pub parent: Option<String>,
    /// Leases that hold it.
    pub leases: Vec<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The namespace.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// The image that it was made of.
    pub image: Option<String>,
    /// The client's key of its snapshot.
    pub snapshot_key: String,
    /// The pod that it belongs to, under Kubernetes (labels `io.kubernetes.pod.*`).
    pub pod: Option<Pod>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace in Kubernetes.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// An image that is unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Client keys of its top layers' snapshots (one for each platform that is unpacked), from the label
    /// `containerd.io/gc.ref.snapshot.devmapper` of its configurations.
    pub top_snapshots: Vec<String>,
}

/// Who uses a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Users {
    /// The snapshot as clients know it.
    pub snapshot: Option<CoreSnapshot>,
    /// Containers on it or on a descendant of it, the first few of them ([`MOST_NAMED`](super::users::MOST_NAMED)).
    pub containers: Vec<Container>,
    /// How many more containers there are.
    #[serde(default)]
    pub more_containers: usize,
    /// Names of images that it is a layer of, the first few of them.
    pub images: Vec<String>,
    /// How many more images there are. One for several platforms may be counted once for each.
    #[serde(default)]
    pub more_images: usize,
}

/// What is known beside a survey: from the ledger and the running sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Knowledge {
    /// Thin devices that suture saw containerd make and abandon.
    pub claims: BTreeMap<ThinId, Claim>,
    /// Thin devices that a running sidecar sees somebody at work on.
    pub at_work: BTreeMap<ThinId, OperationId>,
    /// Ids of findings that a running sidecar has open: it has watched long enough to tell that nobody is at work.
    pub confirmed: Vec<super::FindingId>,
    /// Whether a sidecar watches this pool at this moment, without a gap.
    pub watched: bool,
}

/// A thin device that suture saw containerd make and abandon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The operation that made it.
    pub operation: OperationId,
    /// What tells it from another device of its id.
    pub mark: DeviceMark,
}

impl Knowledge {
    /// Takes in what an operation of containerd's says of its thin device: whose it is, where it was abandoned; and that
    /// somebody is at work on it, where it is `watched` that it goes on. What nobody watches may have ended long ago.
    pub fn note(&mut self, operation: &Operation, watched: bool) {
        match &operation.state {
            OperationState::Abandoned { mark, .. } => {
                let claim = Claim {
                    operation: operation.id.clone(),
                    mark: mark.clone(),
                };
                self.claims.insert(operation.thin_id, claim);
            }
            OperationState::InFlight | OperationState::Orphaned { .. } if watched => {
                self.at_work.insert(operation.thin_id, operation.id.clone());
            }
            _ => {}
        }
    }
}

impl Survey {
    /// Of a world: without who uses it, how full the pool is, and whether containerd runs.
    #[must_use]
    pub fn of_world(world: &World) -> Self {
        Self {
            begun: world.begun,
            pool_name: world.pool.name.clone(),
            pool: Some(world.pool.clone()),
            usage: None,
            pool_db: world.pool_db.clone().into(),
            snapshots: world.snapshots.clone().into(),
            thin: Some(world.thin.clone()),
            mapping_roots: world.mapping_roots.clone(),
            nodes: world.nodes.clone(),
            core: None,
            mounts: Mounts::default(),
            containerd: ContainerdState::Unknown {
                why: "it was not asked".to_owned(),
            },
            async_remove: None,
            unread: Vec::new(),
        }
    }

    /// Transaction ids that prove which state of the databases this is.
    #[must_use]
    pub fn transactions(&self) -> (TxId, Option<TxId>) {
        (self.pool_db.txid, self.snapshots.txid)
    }

    /// Whether another survey saw the very same, at whatever time.
    #[must_use]
    pub fn shows_what(&self, other: &Self) -> bool {
        let Self {
            begun: _,
            pool_name,
            pool,
            usage,
            pool_db,
            snapshots,
            thin,
            mapping_roots,
            nodes,
            core,
            mounts,
            containerd,
            async_remove,
            unread,
        } = self;
        pool_db == &other.pool_db
            && snapshots == &other.snapshots
            && core == &other.core
            && nodes == &other.nodes
            && (pool_name, pool, usage) == (&other.pool_name, &other.pool, &other.usage)
            && (mounts, containerd) == (&other.mounts, &other.containerd)
            && (async_remove, unread) == (&other.async_remove, &other.unread)
            && mapping_roots == &other.mapping_roots
            && thin == &other.thin
    }

    /// What tells a thin device from another of its id; nothing where it is not in the pool, the pool is not set up, or it
    /// was not asked for.
    #[must_use]
    pub fn mark_of(&self, id: ThinId) -> Option<DeviceMark> {
        Some(DeviceMark {
            activation: self.pool.as_ref()?.activation.clone(),
            mapping_root: *self.mapping_roots.get(&id)?,
            details: *self.thin.as_ref()?.get(&id)?,
        })
    }

    /// A snapshot that containerd's own database knows and the snapshot storage does not have, by its backend key. containerd
    /// stores the latter first, and takes it away last (`createSnapshot`, `Remove`, core/metadata/snapshot.go): so the
    /// storage was lost, or is an older one, or a commit was cut between the two.
    #[must_use]
    pub fn lost_snapshot(&self) -> Option<(&str, &CoreSnapshot)> {
        // Both are in order: going along them is many times quicker than a search for each.
        let mut listed = self.snapshots.snapshots.keys().peekable();
        let mut known = self.core.iter().flat_map(|core| &core.snapshots);
        let lost = known.find(|(key, _)| {
            loop {
                match listed.peek().map_or(Ordering::Greater, |one| (*one).cmp(key)) {
                    Ordering::Less => drop(listed.next()),
                    other => break other == Ordering::Greater,
                }
            }
        });
        lost.map(|(key, snapshot)| (key.as_str(), snapshot))
    }

    /// Whether there is no snapshot storage, or nothing in it, while there are records of its snapshots.
    #[must_use]
    pub fn storage_is_gone(&self) -> bool {
        self.snapshots.txid.is_none() && !self.pool_db.devices.is_empty()
    }

    /// Why the snapshot storage is no proof that a snapshot is not there; nothing where it is.
    #[must_use]
    pub fn storage_doubt(&self) -> Option<String> {
        if self.storage_is_gone() {
            return Some(
                "containerd's snapshot database metadata.db is gone, so that no snapshot is listed says nothing"
                    .to_owned(),
            );
        }
        if let Some(why) = &self.snapshots.contradiction {
            return Some(format!("metadata.db contradicts itself: {why}"));
        }
        if self.core.is_none() && !self.pool_db.devices.is_empty() {
            return Some(
                "containerd's own database meta.db could not be read, so nothing tells whether metadata.db is an older one"
                    .to_owned(),
            );
        }
        self.lost_snapshot().map(|(key, snapshot)| {
            format!(
                "containerd's own database knows the snapshot {}, which metadata.db does not have: metadata.db looks older, or was lost, or a commit was cut between the two (only then, and never where metadata.db was put back, `ctr --namespace '{}' snapshots --snapshotter devmapper rm '{}'` clears it)",
                key.escape_debug(),
                snapshot.namespace.escape_debug(),
                snapshot.key.escape_debug()
            )
        })
    }

    /// Whether a snapshot's number is beyond the next one that the snapshot storage gives out. A record of such a number is of a
    /// storage that was lost, or of a newer one: the record of the next may be there before its snapshot (`createSnapshot`,
    /// snapshotter.go), one of a later number never.
    #[must_use]
    pub fn is_beyond_the_next(&self, id: SnapshotId) -> bool {
        id.0 > self.snapshots.sequence.saturating_add(1)
    }

    /// State of a thin id in `device_ids`; nothing where containerd never drew it.
    #[must_use]
    pub fn id_state(&self, id: ThinId) -> Option<IdState> {
        self.pool_db.device_ids.get(&id).copied()
    }

    /// Whether the pool's metadata have the thin device; nothing where they could not be read.
    #[must_use]
    pub fn has_thin(&self, id: ThinId) -> Option<bool> {
        self.thin.as_ref().map(|thin| thin.contains_key(&id))
    }

    /// The snapshot that a record's name belongs to.
    #[must_use]
    pub fn snapshot_of(&self, record: &DeviceRecord) -> Option<SnapshotId> {
        self.pool_name.snapshot_of(&record.name)
    }
}
