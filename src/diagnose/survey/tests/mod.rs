//! Each class in a world in which it is found, and it alone; and next to it the worlds in which one condition is missing.

mod nodes;
mod outline;
mod pool;
mod property;
mod records;
mod rows;
mod settling;
mod thin;
mod whole;

use crate::{
    model::{
        Act, Bytes, Condition, ContainerdState, DeviceNumber, DeviceRecord, DeviceState, Diagnoses,
        Diagnosis, IdState, Knowledge, Node, OperationId, PoolMode, PoolUsage, SnapshotId, Survey, ThinId,
        Treatment, TxId, When,
        databases::{Presence, SnapshotKind, SnapshotRow},
        survey::Claim,
    },
    testing,
};

pub(super) use DeviceState::{
    Activated, Activating, Created, Creating, Deactivated, Deactivating, Faulty, Removed, Removing, Resumed,
    Resuming, Suspended, Suspending, Unknown,
};
pub(super) use SnapshotKind::{Active, Committed, View};

/// A survey to put things into. containerd is stopped, and `async_remove` is off.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) survey: Survey,
    pub(super) knowledge: Knowledge,
}

pub(super) fn stage() -> Stage {
    Stage {
        survey: testing::survey(),
        knowledge: Knowledge::default(),
    }
}

pub(super) fn name(snapshot: u64) -> String {
    format!("tp-snap-{snapshot}")
}

impl Stage {
    pub(super) fn with(mut self, change: impl FnOnce(&mut Survey)) -> Self {
        change(&mut self.survey);
        self
    }

    pub(super) fn running(self) -> Self {
        self.with(|survey| {
            survey.containerd = ContainerdState::Running {
                who: testing::containerd(),
                at_work: Vec::new(),
            };
        })
    }

    pub(super) fn sequence(self, last: u64) -> Self {
        self.with(|survey| survey.snapshots.sequence = last)
    }

    pub(super) fn thin(self, id: u32) -> Self {
        self.with(|survey| {
            survey
                .mapping_roots
                .insert(ThinId(id), testing::mark(id).mapping_root);
            if let Some(thin) = &mut survey.thin {
                thin.insert(ThinId(id), testing::mark(id).details);
            }
        })
    }

    pub(super) fn id(self, id: u32, state: IdState) -> Self {
        self.with(|survey| {
            survey.pool_db.device_ids.insert(ThinId(id), state);
            survey.pool_db.id_sequence = survey.pool_db.id_sequence.max(u64::from(id));
        })
    }

    /// A record with its id, taken or faulty.
    pub(super) fn record(self, snapshot: u64, id: u32, state: DeviceState) -> Self {
        self.named(&name(snapshot), id, state)
    }

    pub(super) fn named(self, name: &str, id: u32, state: DeviceState) -> Self {
        let id_state = if state == Faulty {
            IdState::Faulty
        } else {
            IdState::Taken
        };
        self.id(id, id_state).with(|survey| {
            let record = testing::record(name, id, state);
            survey.pool_db.devices.insert(name.to_owned(), record);
        })
    }

    pub(super) fn error(self, snapshot: u64, text: &str) -> Self {
        self.with(|survey| survey.pool_db.devices.get_mut(&name(snapshot)).unwrap().error = text.to_owned())
    }

    pub(super) fn row(self, snapshot: u64, kind: SnapshotKind, parent: Option<u64>) -> Self {
        self.with(|survey| {
            let row = SnapshotRow {
                id: SnapshotId(snapshot),
                kind,
                parent: parent.map(key),
            };
            survey.snapshots.snapshots.insert(key(snapshot), row);
            survey.snapshots.sequence = survey.snapshots.sequence.max(snapshot);
        })
    }

    /// A snapshot that is as it should be: row, record, id and thin device, the latter ten higher.
    pub(super) fn good(self, snapshot: u64, kind: SnapshotKind, state: DeviceState) -> Self {
        let id = u32::try_from(snapshot).unwrap() + 10;
        self.thin(id)
            .record(snapshot, id, state)
            .row(snapshot, kind, None)
    }

    pub(super) fn node(self, name: &str, id: u32) -> Self {
        self.with(|survey| {
            let minor = 10 + u32::try_from(survey.nodes.len()).unwrap();
            let device = DeviceNumber { major: 253, minor };
            survey.nodes.push(testing::node(name, id, device));
        })
    }

    /// Changes the dm device that was put in last.
    pub(super) fn but(self, change: impl FnOnce(&mut Node)) -> Self {
        self.with(|survey| change(survey.nodes.last_mut().unwrap()))
    }

    pub(super) fn claim(mut self, id: u32) -> Self {
        let claim = Claim {
            operation: OperationId::new(testing::at(1), ThinId(id)),
            mark: testing::mark(id),
        };
        self.knowledge.claims.insert(ThinId(id), claim);
        self
    }

    pub(super) fn judge(&self) -> Diagnoses {
        let diagnoses = super::survey(&self.survey, &self.knowledge);
        for one in &diagnoses.found {
            is_well_formed(one);
        }
        diagnoses
    }

    /// Ids of all findings.
    pub(super) fn ids(&self) -> Vec<String> {
        self.judge()
            .found
            .into_iter()
            .map(|one| one.finding.id.0)
            .collect()
    }

    /// The one finding, which has this id.
    #[track_caller]
    pub(super) fn only(&self, id: &str) -> Diagnosis {
        assert_eq!(self.ids(), [id]);
        self.judge().found.remove(0)
    }

    #[track_caller]
    pub(super) fn nothing(&self) {
        let diagnoses = self.judge();
        assert_eq!(self.ids(), [""; 0]);
        assert_eq!(diagnoses.explanations, [""; 0]);
        assert_eq!(diagnoses.not_understood, [""; 0]);
    }

    /// Does every act of every remedy.
    pub(super) fn heal(mut self) -> Self {
        for one in self.judge().found {
            for act in &one.remedy.acts {
                apply(&mut self.survey, act);
            }
        }
        self
    }
}

pub(super) fn key(snapshot: u64) -> String {
    format!("k8s.io/{snapshot}/key-{snapshot}")
}

/// What every diagnosis has.
fn is_well_formed(one: &Diagnosis) {
    let remedy = &one.remedy;
    assert!(
        one.finding
            .id
            .0
            .starts_with(&format!("{}/tp/", one.finding.class))
    );
    for text in [&one.summary, &one.consequence, &remedy.why] {
        assert!(
            text.ends_with('.') && text.len() > 10,
            "{}: {text:?}",
            one.finding.id
        );
    }
    assert!(!one.finding.evidence.is_empty());
    let printable = |text: &String| !text.chars().any(char::is_control);
    assert!(one.finding.evidence.iter().all(printable), "{one:?}");
    assert!(
        [&one.summary, &one.consequence, &remedy.why]
            .into_iter()
            .all(printable)
    );
    assert_eq!(remedy.action == Treatment::LeaveAlone, remedy.acts.is_empty());
    assert_eq!(remedy.action == Treatment::LeaveAlone, remedy.when == When::Never);
    let guards = |guard| remedy.guards.contains(&guard);
    if remedy.when == When::Online {
        assert!(!remedy.acts.iter().any(Act::is_edit));
    }
    if remedy.acts.iter().any(Act::is_edit) {
        assert!(guards(Condition::ContainerdStopped) && guards(Condition::BackedUp));
    }
    if remedy.when != When::Never {
        assert!(guards(Condition::StillFound) && guards(Condition::NobodyAtWork));
    }
    for act in &remedy.acts {
        match act {
            Act::DeleteThin { .. } => assert!(
                guards(Condition::Provenance)
                    && guards(Condition::NotOpen)
                    && guards(Condition::PoolWritable)
            ),
            Act::RemoveNode { .. } => assert!(guards(Condition::NotOpen)),
            _ => {}
        }
    }
}

/// What an act does, as far as a survey shows it.
pub(super) fn apply(survey: &mut Survey, act: &Act) {
    let db = &mut survey.pool_db;
    match act {
        Act::ResumeNode { name, .. } => {
            for node in survey.nodes.iter_mut().filter(|node| node.name.as_str() == name) {
                node.suspended = false;
                node.live = true;
            }
        }
        Act::RemoveNode { name, device } => survey
            .nodes
            .retain(|node| node.name.as_str() != name || node.device != *device),
        Act::DeleteThin { thin_id } => {
            if let Some(thin) = &mut survey.thin {
                thin.remove(thin_id);
            }
        }
        Act::MarkFaulty { record } => {
            if let Some(known) = db.devices.get_mut(&record.name) {
                known.state = Faulty;
                db.device_ids.insert(record.device_id, IdState::Faulty);
            }
        }
        Act::ForgetRecord { record } => {
            if db.devices.remove(&record.name).is_some() {
                db.device_ids.insert(record.device_id, IdState::Free);
            }
        }
        Act::RestoreRecord { record, to } => {
            if let Some(known) = db.devices.get_mut(&record.name) {
                known.state = *to;
                known.error.clear();
                db.device_ids.insert(record.device_id, IdState::Taken);
            }
        }
        Act::InsertRemovedRecord { name, thin_id, .. } => {
            let record = DeviceRecord {
                device_id: *thin_id,
                size: Bytes(0),
                name: name.clone(),
                parent_name: String::new(),
                state: Removed,
                error: String::new(),
            };
            assert_eq!(db.devices.insert(name.clone(), record), None);
            let before = db.device_ids.insert(*thin_id, IdState::Taken);
            assert!(
                matches!(before, None | Some(IdState::Free)),
                "{thin_id}: {before:?}"
            );
        }
        Act::SetId { thin_id, from, to } => {
            assert_eq!(db.device_ids.get(thin_id), from.as_ref(), "{act}");
            db.device_ids.insert(*thin_id, *to);
        }
        Act::RaiseIdSequence { from, to } => {
            assert!(db.id_sequence >= *from);
            db.id_sequence = db.id_sequence.max(*to);
        }
    }
}

#[test]
fn a_healthy_node_with_a_thousand_snapshots_in_every_state_of_rest_shows_nothing() {
    let mut healthy = stage().running().with(|survey| survey.async_remove = Some(true));
    for snapshot in 1..=1000 {
        healthy = match snapshot % 5 {
            0 => healthy.good(snapshot, Committed, Deactivated),
            1 => healthy.good(snapshot, Committed, Resumed),
            2 => {
                let id = u32::try_from(snapshot).unwrap() + 10;
                healthy
                    .good(snapshot, Active, Activated)
                    .node(&name(snapshot), id)
                    .but(|node| node.open_count = 1)
            }
            3 => healthy.good(snapshot, View, Activated),
            // Removed, and waiting for containerd's clean-up, its device perhaps still in use.
            _ => {
                let id = u32::try_from(snapshot).unwrap() + 10;
                let pending = healthy.thin(id).record(snapshot, id, Removed).sequence(snapshot);
                if snapshot % 2 == 0 {
                    pending.node(&name(snapshot), id)
                } else {
                    pending
                }
            }
        };
    }
    healthy.sequence(1000).nothing();
    stage().nothing();
}
