//! Observations as steps of sagas: which device each is about, as far as it says so.

use std::collections::BTreeMap;

use crate::model::{
    DeviceNumber, DeviceState, PoolName, SnapshotId, ThinId, Timestamp, Untrusted,
    commit::{Commit, DatabaseKind, EntryChange},
    databases::SnapshotKind,
    dm::{DmCommand, DmFlags, DmIoctl, Message, Payload},
    saga::{NodeCall, SagaStep, Seen},
};

/// One step, and what leads to its saga.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    /// The step.
    pub(super) step: SagaStep,
    /// Not before this: of a commit, when the database was last seen without it.
    pub(super) since: Timestamp,
    /// The device's name, where it is told.
    pub(super) device: Option<String>,
    /// Its thin id, where it is told.
    pub(super) thin_id: Option<ThinId>,
    /// The parent's name: of a record that is added.
    pub(super) parent: Option<String>,
    /// The parent's thin id: of `create_snap`.
    pub(super) origin: Option<ThinId>,
    /// Backend key of a row.
    pub(super) key: Option<String>,
}

impl Evidence {
    fn new(at: Timestamp, since: Timestamp, seen: Seen) -> Self {
        Self {
            step: SagaStep { at, seen, count: 1 },
            since,
            device: None,
            thin_id: None,
            parent: None,
            origin: None,
            key: None,
        }
    }
}

/// A call to device-mapper as a step; nothing for one that only asks, or is about something else.
pub(super) fn of_call(
    call: &DmIoctl,
    pool: &PoolName,
    pool_device: Option<DeviceNumber>,
) -> Option<Evidence> {
    let by_name = call.name.as_str() == pool.as_str();
    let is_pool = by_name || (call.device.is_some() && call.device == pool_device);
    let (kind, thin_id, origin) = match (&call.payload, call.command) {
        (Payload::Message(message), _) if is_pool => match message {
            Message::CreateThin { id } => (NodeCall::MakeThin, Some(*id), None),
            Message::CreateSnap { id, origin } => (NodeCall::MakeSnapshot, Some(*id), Some(*origin)),
            Message::Delete { id } => (NodeCall::DeleteThin, Some(*id), None),
            Message::Other { .. } => return None,
        },
        (Payload::Table { targets }, DmCommand::TableLoad) => {
            let thin = targets
                .iter()
                .find_map(|target| target.thin_on(pool, pool_device));
            let is_error = targets.iter().any(|target| target.kind.as_str() == "error");
            match thin {
                Some(id) => (NodeCall::Load, Some(id), None),
                None if is_error => (NodeCall::LoadError, None, None),
                None => return None,
            }
        }
        (_, DmCommand::DevCreate) => (NodeCall::Create, None, None),
        (_, DmCommand::DevRemove) => (NodeCall::Remove, None, None),
        (_, DmCommand::DevSuspend) if call.known_flags().contains(DmFlags::SUSPEND) => {
            (NodeCall::Suspend, None, None)
        }
        (_, DmCommand::DevSuspend) => (NodeCall::Resume, None, None),
        _ => return None,
    };
    let is_message = matches!(call.payload, Payload::Message(_));
    let name = (!is_message).then(|| call.name.to_string());
    if let Some(name) = &name
        && pool.snapshot_of(name).is_none()
    {
        return None;
    }
    let seen = Seen::Call {
        name: name.clone(),
        call: kind,
        error: call.result.error_name(),
    };
    Some(Evidence {
        device: name,
        thin_id,
        origin,
        ..Evidence::new(call.finished(), call.entered, seen)
    })
}

/// The steps that a commit shows.
pub(super) fn of_commit(commit: &Commit, pool: &PoolName) -> Vec<Evidence> {
    match commit.database {
        DatabaseKind::Pool => records(commit, pool),
        DatabaseKind::Snapshots => rows(commit, pool),
        DatabaseKind::Core => names(commit),
    }
}

fn records(commit: &Commit, pool: &PoolName) -> Vec<Evidence> {
    let mut all = Vec::new();
    for change in &commit.changes {
        let EntryChange::Device { name, from, to } = change else {
            continue;
        };
        let name = name.to_string();
        if pool.snapshot_of(&name).is_none() {
            continue;
        }
        // A faulty record that is overwritten has another thin id: its device is another one.
        let overwritten = from
            .as_ref()
            .zip(to.as_ref())
            .is_some_and(|(from, to)| from.device_id != to.device_id);
        let before = from.as_ref().filter(|_| !overwritten);
        let noted = before.map_or("", |record| record.error.as_str());
        let error = to.as_ref().map_or("", |record| record.error.as_str());
        let record = to.as_ref().or(from.as_ref());
        let state = |record: &crate::model::DeviceRecord| record.state;
        let seen = Seen::Record {
            name: name.clone(),
            from: before.map(state),
            to: to.as_ref().map(state),
            sum: commit.skipped() > 0,
            error: if error == noted {
                String::new()
            } else {
                Untrusted::from_bytes(error.as_bytes()).to_string()
            },
        };
        let parent = to.as_ref().map(|record| record.parent_name.clone());
        all.push(Evidence {
            device: Some(name),
            thin_id: record.map(|record| record.device_id),
            parent: parent.filter(|parent| pool.snapshot_of(parent).is_some()),
            ..Evidence::new(commit.at, commit.since, seen)
        });
    }
    all
}

/// Whether a record was added for a new device.
pub(super) fn adds(seen: &Seen) -> bool {
    matches!(
        seen,
        Seen::Record { from: None, to: Some(state), .. } if *state != DeviceState::Faulty
    )
}

/// A commit renames a row: one goes and one comes, of the same snapshot.
fn rows(commit: &Commit, pool: &PoolName) -> Vec<Evidence> {
    let mut after: BTreeMap<SnapshotId, (Option<SnapshotKind>, String)> = BTreeMap::new();
    for change in &commit.changes {
        let EntryChange::Snapshot { key, from, to } = change else {
            continue;
        };
        match (from, to) {
            (_, Some(row)) => {
                after.insert(row.id, (Some(row.kind), key.to_string()));
            }
            (Some(row), None) => {
                after.entry(row.id).or_insert((None, key.to_string()));
            }
            (None, None) => {}
        }
    }
    let steps = after.into_iter().map(|(id, (kind, key))| {
        let seen = Seen::Row {
            database: DatabaseKind::Snapshots,
            to: kind,
        };
        Evidence {
            device: Some(format!("{pool}-snap-{id}")),
            key: Some(key),
            ..Evidence::new(commit.at, commit.since, seen)
        }
    });
    steps.collect()
}

/// containerd's own database names a snapshot by its backend key.
fn names(commit: &Commit) -> Vec<Evidence> {
    let named = commit.changes.iter().filter_map(|change| match change {
        EntryChange::Core { to: Some(key), .. } => Some(key.to_string()),
        _ => None,
    });
    named
        .map(|key| {
            let seen = Seen::Row {
                database: DatabaseKind::Core,
                to: None,
            };
            Evidence {
                key: Some(key),
                ..Evidence::new(commit.at, commit.since, seen)
            }
        })
        .collect()
}
