//! What of a survey is needed to decide about its findings: their devices, and what those were made from. A survey of a large
//! pool stays with the worker, and what goes to the agent is as large as what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Act, Diagnosis, PoolDb, SnapshotDb, SnapshotId, Subject, Survey, ThinId, databases::SnapshotRow,
    survey::Mounts,
};

/// A chain of parents that is longer is cut: containerd's own limit for layers is 128.
const LONGEST_CHAIN: usize = 1024;

/// The part of a survey that these findings are about. containerd's own database and the mounts are left out: a diagnosis has
/// them already.
pub(super) fn about<'d>(survey: &Survey, found: impl IntoIterator<Item = &'d Diagnosis>) -> Survey {
    let mut wanted = Wanted::new(survey);
    for one in found {
        wanted.subject(&one.finding.subject);
        one.remedy.acts.iter().for_each(|act| wanted.act(act));
    }
    wanted.close();
    let Wanted { names, ids, .. } = wanted;
    let snapshots: BTreeSet<SnapshotId> = names
        .iter()
        .filter_map(|name| survey.pool_name.snapshot_of(name))
        .collect();
    let of_ids = |id: &ThinId| ids.contains(id);
    Survey {
        pool_db: PoolDb {
            devices: survey
                .pool_db
                .devices
                .iter()
                .filter(|(name, _)| names.contains(name.as_str()))
                .map(|(name, record)| (name.clone(), record.clone()))
                .collect(),
            device_ids: survey
                .pool_db
                .device_ids
                .iter()
                .filter(|(id, _)| of_ids(id))
                .map(|(id, state)| (*id, *state))
                .collect(),
            id_sequence: survey.pool_db.id_sequence,
            txid: survey.pool_db.txid,
        }
        .into(),
        snapshots: SnapshotDb {
            snapshots: survey
                .snapshots
                .snapshots
                .iter()
                .filter(|(_, row)| snapshots.contains(&row.id))
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect(),
            sequence: survey.snapshots.sequence,
            txid: survey.snapshots.txid,
            presence: survey.snapshots.presence,
            contradiction: survey.snapshots.contradiction.clone(),
        }
        .into(),
        thin: survey.thin.as_ref().map(|thin| {
            let kept = thin.iter().filter(|(id, _)| of_ids(id));
            kept.map(|(id, details)| (*id, *details)).collect()
        }),
        nodes: survey
            .nodes
            .iter()
            .filter(|node| names.contains(node.name.as_str()) || node.thin_ids.iter().any(of_ids))
            .cloned()
            .collect(),
        core: None,
        mounts: Mounts::default(),
        begun: survey.begun,
        pool_name: survey.pool_name.clone(),
        pool: survey.pool.clone(),
        usage: survey.usage,
        mapping_roots: survey
            .mapping_roots
            .iter()
            .filter(|(id, _)| of_ids(id))
            .map(|(id, root)| (*id, *root))
            .collect(),
        containerd: survey.containerd.clone(),
        async_remove: survey.async_remove,
        unread: survey.unread.clone(),
    }
}

/// Names of devices, and thin ids, that are to be kept.
struct Wanted<'s> {
    survey: &'s Survey,
    /// Rows by their number: a parent is named by its key, and its device by its number.
    rows: BTreeMap<SnapshotId, &'s SnapshotRow>,
    names: BTreeSet<String>,
    ids: BTreeSet<ThinId>,
}

impl<'s> Wanted<'s> {
    fn new(survey: &'s Survey) -> Self {
        let rows = survey.snapshots.snapshots.values();
        Self {
            survey,
            rows: rows.map(|row| (row.id, row)).collect(),
            names: BTreeSet::new(),
            ids: BTreeSet::new(),
        }
    }

    fn subject(&mut self, subject: &Subject) {
        match subject {
            Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => {
                self.ids.insert(*thin_id);
            }
            Subject::Record { name, thin_id } => {
                self.names.insert(name.clone());
                self.ids.insert(*thin_id);
            }
            Subject::Snapshot { id, .. } => {
                self.names.insert(self.device_name(*id));
            }
            Subject::Node { name, .. } | Subject::Device { name } => {
                self.names.insert(name.clone());
            }
            Subject::Pool | Subject::BlockDevice { .. } => {}
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::ResumeNode { name, .. } | Act::RemoveNode { name, .. } => {
                self.names.insert(name.clone());
            }
            Act::DeleteThin { thin_id } | Act::SetId { thin_id, .. } => {
                self.ids.insert(*thin_id);
            }
            Act::MarkFaulty { record } | Act::ForgetRecord { record } | Act::RestoreRecord { record, .. } => {
                self.names.insert(record.name.clone());
                self.ids.insert(record.device_id);
            }
            Act::InsertRemovedRecord { name, thin_id, .. } => {
                self.names.insert(name.clone());
                self.ids.insert(*thin_id);
            }
            Act::RaiseIdSequence { .. } => {}
        }
    }

    /// Adds what else names the same thin devices, and all that they were made from.
    fn close(&mut self) {
        for (name, record) in &self.survey.pool_db.devices {
            if self.ids.contains(&record.device_id) {
                self.names.insert(name.clone());
            }
        }
        for node in &self.survey.nodes {
            if node.thin_ids.iter().any(|id| self.ids.contains(id)) {
                self.names.insert(node.name.as_str().to_owned());
            }
        }
        let mut open: Vec<(String, usize)> = self.names.iter().map(|name| (name.clone(), 0)).collect();
        while let Some((name, depth)) = open.pop() {
            if depth > LONGEST_CHAIN {
                continue;
            }
            for parent in self.parents(&name) {
                if self.names.insert(parent.clone()) {
                    open.push((parent, depth + 1));
                }
            }
        }
        for name in &self.names {
            if let Some(record) = self.survey.pool_db.devices.get(name) {
                self.ids.insert(record.device_id);
            }
        }
    }

    /// The devices that one was made from, as its record and its snapshot's row say.
    fn parents(&self, name: &str) -> Vec<String> {
        let record = self.survey.pool_db.devices.get(name);
        let told = record.map(|record| record.parent_name.clone());
        let row = self.survey.pool_name.snapshot_of(name);
        let row = row.and_then(|id| self.rows.get(&id));
        let parent = row.and_then(|row| self.survey.snapshots.snapshots.get(row.parent.as_ref()?));
        let by_row = parent.map(|row| self.device_name(row.id));
        let both = told.into_iter().chain(by_row);
        both.filter(|parent| !parent.is_empty()).collect()
    }

    fn device_name(&self, id: SnapshotId) -> String {
        format!("{}-snap-{id}", self.survey.pool_name)
    }
}
