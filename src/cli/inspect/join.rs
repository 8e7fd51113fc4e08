//! Joins what the five sources say of each device: by the device's name and by its thin id. One pass over each source.

use std::collections::{BTreeMap, HashMap};

use crate::{
    cli::look::Look,
    model::{
        CoreDb, DeviceNumber, DeviceRecord, Diagnosis, IdState, Node, Severity, SnapshotId, Subject, Survey,
        ThinDetails, ThinId,
        databases::SnapshotRow,
        survey::{Container, CoreSnapshot, Mount},
    },
};

/// One device, or what is left of one.
#[derive(Debug, Default)]
pub(super) struct Device<'a> {
    /// Its dm name; nothing where only a thin id is known.
    pub(super) name: Option<&'a str>,
    /// The name of a row's device that nothing else bears.
    made_name: Option<String>,
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) thin_id: Option<ThinId>,
    pub(super) record: Option<&'a DeviceRecord>,
    pub(super) id_state: Option<IdState>,
    pub(super) row: Option<(&'a str, &'a SnapshotRow)>,
    pub(super) core: Option<&'a CoreSnapshot>,
    /// Containers on this very snapshot.
    pub(super) containers: Vec<&'a Container>,
    /// Images whose top layer it is.
    pub(super) images: Vec<&'a str>,
    pub(super) thin: Option<&'a ThinDetails>,
    pub(super) nodes: Vec<&'a Node>,
    pub(super) mounts: Vec<&'a Mount>,
    /// What was found about it, the worst first.
    pub(super) findings: Vec<&'a Diagnosis>,
    /// Whether somebody may be at work on it.
    pub(super) in_flight: bool,
}

impl Device<'_> {
    /// What a person calls it.
    pub(super) fn title(&self) -> String {
        match (self.name, &self.made_name, self.thin_id) {
            (Some(name), ..) => name.to_owned(),
            (None, Some(name), _) => name.clone(),
            (None, None, Some(id)) => format!("thin {id}"),
            (None, None, None) => "?".to_owned(),
        }
    }

    pub(super) fn worst(&self) -> Option<Severity> {
        self.findings.first().map(|one| one.severity)
    }
}

/// Every device; those with findings first, the worst first, then in the order of their snapshots.
pub(super) fn devices(look: &Look) -> Vec<Device<'_>> {
    let mut join = Join::new(&look.survey);
    join.rows(&look.survey);
    join.thin_devices(&look.survey);
    join.nodes(&look.survey);
    join.ids(&look.survey);
    if let Some(core) = &look.survey.core {
        join.users(core);
    }
    for one in &look.diagnoses.found {
        if let Some(device) = join.subject(one) {
            device.findings.push(one);
        }
    }
    for one in &look.in_flight {
        if let Some(device) = join.subject(one) {
            device.in_flight = true;
        }
    }
    let mut devices = join.devices;
    for device in &mut devices {
        let mounts = device
            .nodes
            .iter()
            .filter_map(|node| look.survey.mounts.by_device.get(&node.device));
        device.mounts = mounts.flatten().collect();
    }
    devices.sort_by_cached_key(|device| {
        let unknown = device.snapshot.is_none();
        (
            device.worst().is_none(),
            device.worst(),
            unknown,
            device.snapshot,
            device.thin_id,
        )
    });
    devices
}

/// Devices by the two keys that sources have in common.
struct Join<'a> {
    pool: &'a crate::model::PoolName,
    devices: Vec<Device<'a>>,
    by_name: HashMap<String, usize>,
    by_thin: HashMap<ThinId, usize>,
    by_node: HashMap<DeviceNumber, usize>,
}

impl<'a> Join<'a> {
    /// Of the pool database's records.
    fn new(survey: &'a Survey) -> Self {
        let mut join = Self {
            pool: &survey.pool_name,
            devices: Vec::with_capacity(survey.pool_db.devices.len()),
            by_name: HashMap::with_capacity(survey.pool_db.devices.len()),
            by_thin: HashMap::with_capacity(survey.pool_db.devices.len()),
            by_node: HashMap::with_capacity(survey.nodes.len()),
        };
        for record in survey.pool_db.devices.values() {
            let place = join.add(Device {
                name: Some(&record.name),
                snapshot: survey.snapshot_of(record),
                thin_id: Some(record.device_id),
                record: Some(record),
                ..Device::default()
            });
            join.by_name.insert(record.name.clone(), place);
            // Of two records with one id both keep what the pool says of it; findings are about the first.
            join.by_thin.entry(record.device_id).or_insert(place);
        }
        join
    }

    fn add(&mut self, device: Device<'a>) -> usize {
        self.devices.push(device);
        self.devices.len() - 1
    }

    /// The snapshot database: a row's number is in the name of its device.
    fn rows(&mut self, survey: &'a Survey) {
        for (key, row) in &survey.snapshots.snapshots {
            let name = format!("{}-snap-{}", survey.pool_name, row.id);
            let known = self.by_name.get(&name).copied();
            // Two rows of one number are two devices to look at.
            let place = known.filter(|place| self.devices.get(*place).is_some_and(|one| one.row.is_none()));
            let place = place.unwrap_or_else(|| {
                let place = self.add(Device {
                    made_name: Some(name.clone()),
                    snapshot: Some(row.id),
                    ..Device::default()
                });
                self.by_name.entry(name).or_insert(place);
                place
            });
            if let Some(device) = self.devices.get_mut(place) {
                device.row = Some((key, row));
            }
        }
    }

    /// The pool's metadata: thin devices that no record names stand for themselves.
    fn thin_devices(&mut self, survey: &'a Survey) {
        for (id, details) in survey.thin.iter().flatten() {
            if !self.by_thin.contains_key(id) {
                let place = self.add(Device {
                    thin_id: Some(*id),
                    thin: Some(details),
                    ..Device::default()
                });
                self.by_thin.insert(*id, place);
            }
        }
        for device in &mut self.devices {
            let id = device.thin_id;
            device.thin = id.and_then(|id| survey.thin.as_ref()?.get(&id));
        }
    }

    /// dm devices: by their own name, else by the thin device that they map.
    fn nodes(&mut self, survey: &'a Survey) {
        for node in &survey.nodes {
            let name = node.name.as_str();
            let by_thin = || node.thin_ids.iter().find_map(|id| self.by_thin.get(id)).copied();
            let place = self.by_name.get(name).copied().or_else(by_thin);
            let place = place.unwrap_or_else(|| {
                let place = self.add(Device {
                    name: Some(name),
                    snapshot: survey.pool_name.snapshot_of(name),
                    thin_id: node.thin_ids.first().copied(),
                    ..Device::default()
                });
                self.by_name.insert(name.to_owned(), place);
                place
            });
            if let Some(device) = self.devices.get_mut(place) {
                device.nodes.push(node);
                self.by_node.insert(node.device, place);
            }
        }
    }

    /// Thin ids: a state beside its device, and what is marked faulty and is nowhere else.
    fn ids(&mut self, survey: &'a Survey) {
        for device in &mut self.devices {
            device.id_state = device.thin_id.and_then(|id| survey.id_state(id));
        }
        for (id, state) in &survey.pool_db.device_ids {
            if *state != IdState::Free && !self.by_thin.contains_key(id) {
                let place = self.add(Device {
                    thin_id: Some(*id),
                    id_state: Some(*state),
                    ..Device::default()
                });
                self.by_thin.insert(*id, place);
            }
        }
    }

    /// containerd's own database.
    fn users(&mut self, core: &'a CoreDb) {
        let mut by_client: HashMap<(&str, &str), usize> = HashMap::with_capacity(core.snapshots.len());
        for (place, device) in self.devices.iter_mut().enumerate() {
            let Some((key, _)) = device.row else { continue };
            device.core = core.snapshots.get(key);
            if let Some(snapshot) = device.core {
                by_client.insert((&snapshot.namespace, &snapshot.key), place);
            }
        }
        for container in &core.containers {
            let key = (container.namespace.as_str(), container.snapshot_key.as_str());
            if let Some(device) = by_client.get(&key).and_then(|place| self.devices.get_mut(*place)) {
                device.containers.push(container);
            }
        }
        for image in &core.images {
            for top in &image.top_snapshots {
                let place = by_client.get(&(image.namespace.as_str(), top.as_str()));
                let device = place.and_then(|place| self.devices.get_mut(*place));
                if let Some(device) = device.filter(|device| !device.images.contains(&image.name.as_str())) {
                    device.images.push(&image.name);
                }
            }
        }
    }

    /// The device that a diagnosis is about.
    fn subject(&mut self, one: &Diagnosis) -> Option<&mut Device<'a>> {
        let place = match &one.finding.subject {
            Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => self.by_thin.get(thin_id),
            Subject::Record { name, thin_id } => self.by_name.get(name).or_else(|| self.by_thin.get(thin_id)),
            Subject::Snapshot { id, .. } => self.by_name.get(&format!("{}-snap-{id}", self.pool)),
            Subject::Node { name, device } => self.by_node.get(device).or_else(|| self.by_name.get(name)),
            Subject::Device { name } => self.by_name.get(name),
            Subject::Pool | Subject::BlockDevice { .. } => None,
        };
        self.devices.get_mut(*place?)
    }
}

/// Children of each snapshot, by backend key.
pub(super) fn children(survey: &Survey) -> BTreeMap<&str, Vec<(&str, &SnapshotRow)>> {
    let mut children: BTreeMap<&str, Vec<(&str, &SnapshotRow)>> = BTreeMap::new();
    for (key, row) in &survey.snapshots.snapshots {
        if let Some(parent) = row.parent.as_deref().filter(|parent| !parent.is_empty()) {
            children.entry(parent).or_default().push((key, row));
        }
    }
    children
}
