//! Which devices belong together: a device, what it was made from, and what was made from it. One remedy at a time is carried
//! out in a family.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Act, RepairPlan, SnapshotId, Subject, Survey, ThinId, databases::SnapshotRow};

/// A chain of ancestors that is longer than this is cut: containerd's own limit for layers is 128.
const LONGEST_CHAIN: usize = 1024;

/// One thing that a remedy touches. A record, its dm device and its thin device are the same thing; each of their names is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// The name of a record, and of its dm device.
    Name(String),
    /// A thin device.
    Thin(ThinId),
}

/// What a remedy touches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Footprint {
    own: BTreeSet<Thing>,
    ancestors: BTreeSet<Thing>,
    whole_pool: bool,
}

impl Footprint {
    /// Whether the two must not be carried out at the same time.
    pub(super) fn is_kin_of(&self, other: &Self) -> bool {
        self.whole_pool
            || other.whole_pool
            || !self.own.is_disjoint(&other.own)
            || !self.own.is_disjoint(&other.ancestors)
            || !self.ancestors.is_disjoint(&other.own)
    }
}

/// Names, thin devices and rows of a survey, by each other.
pub(super) struct Families<'a> {
    survey: &'a Survey,
    carriers: BTreeMap<ThinId, Vec<&'a str>>,
    rows: BTreeMap<SnapshotId, &'a SnapshotRow>,
    /// What each dm device maps, by its name.
    mapped: BTreeMap<&'a str, Vec<ThinId>>,
    holders: BTreeMap<ThinId, Vec<&'a str>>,
}

impl<'a> Families<'a> {
    pub(super) fn new(survey: &'a Survey) -> Self {
        let mut carriers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, record) in &survey.pool_db.devices {
            carriers.entry(record.device_id).or_default().push(name.as_str());
        }
        let mut mapped: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for node in &survey.nodes {
            for id in &node.thin_ids {
                mapped.entry(node.name.as_str()).or_default().push(*id);
                holders.entry(*id).or_default().push(node.name.as_str());
            }
        }
        let rows = survey.snapshots.snapshots.values();
        Self {
            survey,
            carriers,
            rows: rows.map(|row| (row.id, row)).collect(),
            mapped,
            holders,
        }
    }

    /// What a plan touches.
    pub(super) fn footprint(&self, plan: &RepairPlan) -> Footprint {
        let mut found = Footprint::default();
        match &plan.subject {
            Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => {
                self.add_thin(*thin_id, &mut found.own);
            }
            Subject::Record { name, thin_id } => {
                self.add_name(name, &mut found.own);
                self.add_thin(*thin_id, &mut found.own);
            }
            Subject::Snapshot { id, .. } => self.add_name(&self.device_name(*id), &mut found.own),
            Subject::Node { name, .. } | Subject::Device { name } => self.add_name(name, &mut found.own),
            Subject::Pool | Subject::BlockDevice { .. } => found.whole_pool = true,
        }
        for act in &plan.acts {
            match act {
                Act::ResumeNode { name, .. } | Act::RemoveNode { name, .. } => {
                    self.add_name(name, &mut found.own);
                }
                Act::DeleteThin { thin_id } | Act::SetId { thin_id, .. } => {
                    self.add_thin(*thin_id, &mut found.own);
                }
                Act::MarkFaulty { record }
                | Act::ForgetRecord { record }
                | Act::RestoreRecord { record, .. } => self.add_name(&record.name, &mut found.own),
                Act::InsertRemovedRecord { name, thin_id, .. } => {
                    self.add_name(name, &mut found.own);
                    self.add_thin(*thin_id, &mut found.own);
                }
                Act::RaiseIdSequence { .. } => found.whole_pool = true,
            }
        }
        found.ancestors = self.ancestors(&found.own);
        found
    }

    fn device_name(&self, id: SnapshotId) -> String {
        format!("{}-snap-{id}", self.survey.pool_name)
    }

    /// Adds a name, the thin devices behind it, and what else names those.
    fn add_name(&self, name: &str, to: &mut BTreeSet<Thing>) {
        if !to.insert(Thing::Name(name.to_owned())) {
            return;
        }
        let record = self.survey.pool_db.devices.get(name);
        let mapped = self.mapped.get(name).into_iter().flatten().copied();
        for id in record.map(|record| record.device_id).into_iter().chain(mapped) {
            self.add_thin(id, to);
        }
    }

    fn add_thin(&self, id: ThinId, to: &mut BTreeSet<Thing>) {
        if !to.insert(Thing::Thin(id)) {
            return;
        }
        let named = [&self.carriers, &self.holders]
            .into_iter()
            .filter_map(|map| map.get(&id));
        for name in named.flatten() {
            self.add_name(name, to);
        }
    }

    /// Everything that these were made from, by the records and by the snapshots' rows.
    fn ancestors(&self, own: &BTreeSet<Thing>) -> BTreeSet<Thing> {
        let mut found = BTreeSet::new();
        let mut open: Vec<_> = own.iter().flat_map(|thing| self.parents(thing)).collect();
        let mut steps = 0;
        while let Some(name) = open.pop() {
            steps += 1;
            let thing = Thing::Name(name.clone());
            if steps > LONGEST_CHAIN || found.contains(&thing) {
                continue;
            }
            open.extend(self.parents(&thing));
            self.add_name(&name, &mut found);
        }
        found
    }

    fn parents(&self, thing: &Thing) -> Vec<String> {
        let Thing::Name(name) = thing else {
            return Vec::new();
        };
        let record = self.survey.pool_db.devices.get(name);
        let told = record
            .map(|record| &record.parent_name)
            .filter(|parent| !parent.is_empty());
        let row = self
            .survey
            .pool_name
            .snapshot_of(name)
            .and_then(|id| self.rows.get(&id));
        let key = row.and_then(|row| row.parent.as_ref());
        let parent = key.and_then(|key| self.survey.snapshots.snapshots.get(key));
        let by_row = parent.map(|parent| self.device_name(parent.id));
        told.cloned().into_iter().chain(by_row).collect()
    }
}
