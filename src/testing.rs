//! Small makers of observations and worlds for the tests of the pure rooms.

#[cfg(feature = "node")]
mod death;
#[cfg(feature = "node")]
mod plans;
#[cfg(feature = "node")]
mod status;

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    Bytes, ContainerdState, CoreDb, DeviceMark, DeviceNumber, DeviceRecord, DeviceState, IdState,
    Incarnation, Node, Observation, Pool, PoolActivation, PoolDb, PoolMode, PoolName, PoolUsage, Sectors,
    SnapshotDb, SnapshotId, Survey, ThinDetails, ThinId, Timestamp, Topology, TxId, Untrusted, World,
    commit::{Commit, DatabaseKind, EntryChange},
    databases::{Presence, SnapshotKind, SnapshotRow},
    dm::{CallResult, Caller, DmCommand, DmIoctl, Message, Payload, Process, Target},
    observation::LossKind,
    survey::Mounts,
};

#[cfg(feature = "node")]
pub(crate) use death::after_a_death;
#[cfg(feature = "node")]
pub(crate) use plans::plan_status;
#[cfg(feature = "node")]
pub(crate) use status::status;

pub(crate) const CONTAINERD: u32 = 500;
pub(crate) const POOL_DEVICE: DeviceNumber = DeviceNumber { major: 253, minor: 0 };

pub(crate) fn pool() -> PoolName {
    PoolName::new("tp")
}

pub(crate) fn at(second: u64) -> Timestamp {
    Timestamp::from_nanoseconds(second * 1_000_000_000)
}

pub(crate) fn containerd() -> Incarnation {
    Incarnation {
        pid: CONTAINERD,
        start_ticks: 77,
        boot: "this boot".to_owned(),
    }
}

fn process(pid: u32, comm: &str) -> Process {
    Process {
        pid,
        comm: Untrusted::from_bytes(comm.as_bytes()),
    }
}

/// dmsetup, forked by the named processes, the nearest first.
pub(crate) fn caller(ancestors: &[(u32, &str)]) -> Caller {
    Caller {
        process: process(900, "dmsetup"),
        thread: 900,
        cgroup: 1,
        cgroup_path: None,
        ancestors: ancestors.iter().map(|(pid, comm)| process(*pid, comm)).collect(),
    }
}

pub(crate) fn by_containerd() -> Caller {
    caller(&[(CONTAINERD, "containerd"), (1, "systemd")])
}

pub(crate) fn by_hand() -> Caller {
    caller(&[(321, "bash"), (320, "sshd")])
}

pub(crate) fn call(
    second: u64,
    command: DmCommand,
    name: &str,
    payload: Payload,
    result: i32,
    caller: Caller,
) -> Observation {
    Observation::DmIoctl(Box::new(DmIoctl {
        entered: at(second),
        duration: Duration::from_millis(1),
        command,
        name: Untrusted::from_bytes(name.as_bytes()),
        uuid: Untrusted::default(),
        device: None,
        flags: 0,
        event_nr: 0,
        payload,
        truncated: false,
        result: CallResult::from_return(result),
        caller,
    }))
}

pub(crate) fn message(second: u64, text: &str, result: i32, caller: Caller) -> Observation {
    call(
        second,
        DmCommand::TargetMsg,
        "tp",
        Payload::Message(Message::parse(text.as_bytes())),
        result,
        caller,
    )
}

pub(crate) fn load(second: u64, name: &str, id: u32, caller: Caller) -> Observation {
    let target = Target {
        start: Sectors(0),
        length: Sectors(8),
        kind: Untrusted::from_bytes(b"thin"),
        parameters: Untrusted::from_bytes(format!("{POOL_DEVICE} {id}").as_bytes()),
    };
    call(
        second,
        DmCommand::TableLoad,
        name,
        Payload::Table {
            targets: vec![target],
        },
        0,
        caller,
    )
}

pub(crate) fn up(second: u64) -> Observation {
    Observation::ContainerdUp {
        at: at(second),
        who: containerd(),
    }
}

pub(crate) fn gone(second: u64) -> Observation {
    Observation::ContainerdGone {
        at: at(second),
        who: containerd(),
    }
}

pub(crate) fn lost(second: u64, what: LossKind) -> Observation {
    Observation::Lost {
        since: at(second.saturating_sub(1)),
        at: at(second),
        what,
        count: 3,
    }
}

pub(crate) fn details(mapped_blocks: u64) -> ThinDetails {
    ThinDetails {
        mapped_blocks,
        transaction_id: 0,
        creation_time: 0,
        snapshotted_time: 0,
    }
}

pub(crate) fn activation() -> PoolActivation {
    PoolActivation {
        boot: "this boot".to_owned(),
        disk_sequence: Some(3),
        metadata_device: DeviceNumber { major: 7, minor: 0 },
    }
}

/// The mark of a thin device that [`Fill::thin`] made.
pub(crate) fn mark(id: u32) -> DeviceMark {
    DeviceMark {
        activation: activation(),
        mapping_root: 100 + u64::from(id),
        details: details(0),
    }
}

/// An empty world, to be filled in.
/// The pool, in write mode and without a fault.
fn healthy_pool() -> Pool {
    Pool {
        name: pool(),
        device: POOL_DEVICE,
        metadata_device: DeviceNumber { major: 7, minor: 0 },
        activation: activation(),
        table: "7:0 7:1 128 32768 1 skip_block_zeroing".to_owned(),
        mode: PoolMode::ReadWrite,
        needs_check: false,
    }
}

fn empty_pool_db() -> PoolDb {
    PoolDb {
        devices: BTreeMap::new(),
        device_ids: BTreeMap::new(),
        id_sequence: 0,
        txid: TxId(5),
    }
}

fn empty_storage(txid: u64) -> SnapshotDb {
    SnapshotDb {
        snapshots: BTreeMap::new(),
        sequence: 0,
        txid: Some(TxId(txid)),
        presence: Presence::Complete,
        contradiction: None,
    }
}

/// A survey to put things into. containerd is stopped, and `async_remove` is off.
pub(crate) fn survey() -> Survey {
    Survey {
        begun: at(1),
        pool_name: pool(),
        pool: Some(healthy_pool()),
        usage: Some(PoolUsage {
            metadata_used: 300,
            metadata_total: 4096,
            data_used: 10,
            data_total: 1000,
            block_size: Bytes(65536),
            held_root: None,
        }),
        pool_db: empty_pool_db().into(),
        snapshots: empty_storage(4).into(),
        thin: Some(BTreeMap::new()),
        mapping_roots: BTreeMap::new(),
        nodes: Vec::new(),
        core: Some(CoreDb::default().into()),
        mounts: Mounts::default(),
        containerd: ContainerdState::Stopped { at_work: Vec::new() },
        async_remove: Some(false),
        unread: Vec::new(),
    }
}

/// A dm device on one thin device, in use by nobody.
pub(crate) fn node(name: &str, id: u32, device: DeviceNumber) -> Node {
    Node {
        name: Untrusted::from_bytes(name.as_bytes()),
        device,
        thin_ids: vec![ThinId(id)],
        suspended: false,
        open_count: 0,
        unreadable: false,
        live: true,
        deferred_remove: false,
        error_table: false,
    }
}

pub(crate) fn record(name: &str, id: u32, state: DeviceState) -> DeviceRecord {
    DeviceRecord {
        device_id: ThinId(id),
        size: Bytes(1 << 26),
        name: name.to_owned(),
        parent_name: String::new(),
        state,
        error: String::new(),
    }
}

pub(crate) fn world(second: u64) -> World {
    World {
        begun: at(second),
        pool: healthy_pool(),
        pool_db: empty_pool_db(),
        snapshots: empty_storage(5),
        thin: BTreeMap::new(),
        mapping_roots: BTreeMap::new(),
        nodes: Vec::new(),
        topology: Topology::default(),
        data_owners: None,
    }
}

pub(crate) trait Fill: Sized {
    fn thin(self, id: u32) -> Self;
    fn id(self, id: u32, state: IdState) -> Self;
    fn record(self, name: &str, id: u32, state: DeviceState) -> Self;
    fn snapshot(self, id: u64) -> Self;
    fn node(self, name: &str, id: u32) -> Self;
}

impl Fill for World {
    fn thin(mut self, id: u32) -> Self {
        self.thin.insert(ThinId(id), details(0));
        self.mapping_roots.insert(ThinId(id), 100 + u64::from(id));
        self
    }

    fn id(mut self, id: u32, state: IdState) -> Self {
        self.pool_db.device_ids.insert(ThinId(id), state);
        self
    }

    fn record(mut self, name: &str, id: u32, state: DeviceState) -> Self {
        let record = record(name, id, state);
        self.pool_db.devices.insert(name.to_owned(), record);
        self
    }

    fn snapshot(mut self, id: u64) -> Self {
        let row = SnapshotRow {
            id: SnapshotId(id),
            kind: SnapshotKind::Active,
            parent: None,
        };
        self.snapshots.snapshots.insert(format!("default/{id}/key"), row);
        self
    }

    fn node(mut self, name: &str, id: u32) -> Self {
        self.nodes.push(Node {
            open_count: 1,
            ..node(name, id, DeviceNumber { major: 253, minor: 7 })
        });
        self
    }
}

/// A commit to the pool database that moves one record; `at` is when it is noticed.
pub(crate) fn transition(
    second: u64,
    id: u32,
    from: Option<DeviceState>,
    to: Option<DeviceState>,
) -> Observation {
    let record = |state| record(&format!("tp-snap-{id}"), id, state);
    Observation::Commit(Box::new(Commit {
        at: at(second),
        since: at(second.saturating_sub(1)),
        database: DatabaseKind::Pool,
        from: Some(TxId(second)),
        to: TxId(second + 1),
        changes: vec![EntryChange::Device {
            name: Untrusted::from_bytes(format!("tp-snap-{id}").as_bytes()),
            from: from.map(record),
            to: to.map(record),
        }],
        more: 0,
    }))
}
