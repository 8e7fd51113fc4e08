//! The inventory for programs: docs/inspect.schema.json is its shape, docs/inspect.md explains it. Fields are added, never
//! renamed or taken away.

use serde::Serialize;

use super::{join::Device, words};
use crate::{
    cli::{
        check::{FindingReport, PoolReport, WorldReport},
        look::{Look, Verdict},
    },
    model::{
        DeviceNumber, DeviceRecord, DeviceState, FindingId, IdState, Reclaimable, Space, ThinDetails,
        survey::{Container, CoreSnapshot, Mount},
    },
};

/// All of it, as one document.
#[derive(Debug, Serialize)]
pub(super) struct Inventory<'a> {
    status: Verdict,
    pool: PoolReport<'a>,
    world: WorldReport<'a>,
    devices: Vec<DeviceReport<'a>>,
    findings: Vec<FindingReport<'a>>,
    in_flight: Vec<&'a FindingId>,
    space: Option<SpaceReport<'a>>,
}

#[derive(Debug, Serialize)]
struct DeviceReport<'a> {
    name: String,
    snapshot: Option<u64>,
    thin_id: Option<u32>,
    /// What is wrong with it in a word, or "ok".
    state: String,
    findings: Vec<&'a FindingId>,
    in_flight: bool,
    pool_database: PoolDatabase<'a>,
    snapshot_database: Option<Row<'a>>,
    containerd: Option<Client<'a>>,
    pool_metadata: Option<Thin<'a>>,
    dm_devices: Vec<DmDevice<'a>>,
    mounts: &'a [&'a Mount],
}

#[derive(Debug, Serialize)]
struct PoolDatabase<'a> {
    record: Option<Record<'a>>,
    id_state: Option<String>,
}

#[derive(Debug, Serialize)]
struct Record<'a> {
    state: String,
    state_number: DeviceState,
    size_bytes: u64,
    parent: &'a str,
    error: &'a str,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    key: &'a str,
    kind: String,
    parent: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Client<'a> {
    snapshot: &'a CoreSnapshot,
    containers: &'a [&'a Container],
    /// Images whose top layer it is.
    images: &'a [&'a str],
}

#[derive(Debug, Serialize)]
struct Thin<'a> {
    #[serde(flatten)]
    details: &'a ThinDetails,
    exclusive_blocks: Option<u64>,
}

#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that the kernel tells"
)]
struct DmDevice<'a> {
    name: &'a str,
    device: DeviceNumber,
    live: bool,
    suspended: bool,
    open_count: u32,
    deferred_remove: bool,
    error_table: bool,
    unreadable: bool,
}

#[derive(Debug, Serialize)]
struct SpaceReport<'a> {
    block_bytes: u64,
    mapped_blocks: u64,
    shared_blocks: u64,
    /// What deleting all leaked and orphaned thin devices together would free; none where there are none.
    reclaimable_blocks: Option<u64>,
    incomplete: Option<&'a str>,
}

impl<'a> Inventory<'a> {
    /// Of these devices; findings that are about none of them are left out, unless these are all.
    pub(super) fn new(
        devices: &'a [&'a Device<'a>],
        all: bool,
        look: &'a Look,
        space: Option<&'a Space>,
        reclaimable: Option<&'a Reclaimable>,
    ) -> Self {
        let found = look.diagnoses.found.iter();
        let is_told = |id: &FindingId| {
            all || devices
                .iter()
                .any(|device| device.findings.iter().any(|one| one.finding.id == *id))
        };
        Self {
            status: look.verdict(),
            pool: PoolReport::new(&look.survey),
            world: WorldReport::new(look),
            devices: devices
                .iter()
                .map(|device| DeviceReport::new(device, space))
                .collect(),
            findings: found
                .filter(|one| is_told(&one.finding.id))
                .map(|one| FindingReport::new(one, look))
                .collect(),
            in_flight: look.in_flight.iter().map(|one| &one.finding.id).collect(),
            space: space.map(|space| SpaceReport {
                block_bytes: space.data_block.0,
                mapped_blocks: space.mapped,
                shared_blocks: space.shared,
                reclaimable_blocks: reclaimable.map(|one| one.blocks),
                incomplete: space.incomplete.as_deref(),
            }),
        }
    }
}

impl<'a> DeviceReport<'a> {
    fn new(device: &'a Device<'a>, space: Option<&Space>) -> Self {
        let exclusive = |id| Some(space?.devices.get(&id)?.exclusive);
        Self {
            name: device.title(),
            snapshot: device.snapshot.map(|id| id.0),
            thin_id: device.thin_id.map(|id| id.0),
            state: words::state(device),
            findings: device.findings.iter().map(|one| &one.finding.id).collect(),
            in_flight: device.in_flight,
            pool_database: PoolDatabase {
                record: device.record.map(Record::from),
                id_state: device.id_state.map(|state: IdState| state.to_string()),
            },
            snapshot_database: device.row.map(|(key, row)| Row {
                key,
                kind: words::kind(row.kind),
                parent: row.parent.as_deref().filter(|parent| !parent.is_empty()),
            }),
            containerd: device.core.map(|snapshot| Client {
                snapshot,
                containers: &device.containers,
                images: &device.images,
            }),
            pool_metadata: device.thin.map(|details| Thin {
                details,
                exclusive_blocks: device.thin_id.and_then(exclusive),
            }),
            dm_devices: device
                .nodes
                .iter()
                .map(|node| DmDevice {
                    name: node.name.as_str(),
                    device: node.device,
                    live: node.live,
                    suspended: node.suspended,
                    open_count: node.open_count,
                    deferred_remove: node.deferred_remove,
                    error_table: node.error_table,
                    unreadable: node.unreadable,
                })
                .collect(),
            mounts: &device.mounts,
        }
    }
}

impl<'a> From<&'a DeviceRecord> for Record<'a> {
    fn from(record: &'a DeviceRecord) -> Self {
        Self {
            state: record.state.to_string(),
            state_number: record.state,
            size_bytes: record.size.0,
            parent: &record.parent_name,
            error: &record.error,
        }
    }
}
