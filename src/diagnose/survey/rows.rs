//! Snapshots whose record or thin device is not as it should be.

use super::{
    index::Row,
    scene::{Case, Scene, leave_alone},
    spare::Spare,
    undo::{self, EDIT_GUARDS},
    words,
};
use crate::{
    model::{
        Act, Condition, DeviceRecord, DeviceState, Diagnosis, FindingClass, IdState, Node, Provenance,
        Severity, SnapshotId, Subject, Treat, Treatment, Users, When, databases::SnapshotKind,
    },
    words::{counted, one_or},
};

/// Every snapshot that is a finding, in the order of the numbers.
pub(super) fn findings(scene: &Scene<'_>, spare: &mut Spare) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for (id, row) in scene.index.rows.iter() {
        // Two rows of one number: nobody can tell whose the record is. And a sequence begins with 1 (`NextSequence`, bbolt).
        // Both are told of as not understood.
        if scene.index.rows.of(id).len() > 1 || *id == SnapshotId(0) {
            continue;
        }
        let Some(record) = scene.index.record(*id) else {
            found.push(without_record(scene, *id, *row, spare));
            continue;
        };
        match scene.index.has_thin(record.device_id) {
            Some(true) if record.state == DeviceState::Faulty => {
                found.push(faulty_live(scene, *id, *row, record));
            }
            Some(false) => found.push(without_thin(scene, *id, *row, record)),
            Some(true) | None => {}
        }
    }
    found
}

fn case(scene: &Scene<'_>, id: SnapshotId, row: Row<'_>, class: FindingClass, users: Users) -> Case {
    let kind = match row.row.kind {
        SnapshotKind::View => "a view",
        SnapshotKind::Active => "an active snapshot",
        SnapshotKind::Committed => "a committed layer",
        SnapshotKind::Other(_) => "of a kind that no known containerd writes",
    };
    let name = scene.device_name(id);
    let mut evidence = vec![format!(
        "containerd's snapshot database has snapshot {id}, {kind}, with the key {}",
        words::name(row.key)
    )];
    evidence.extend(
        scene
            .index
            .nodes_of(&name)
            .map(|node| words::node(scene.survey, node)),
    );
    Case {
        class,
        mark: id.to_string(),
        subject: Subject::Snapshot {
            id,
            key: row.key.to_owned(),
        },
        provenance: Provenance::Unknown,
        severity: Severity::Stuck,
        summary: String::new(),
        evidence,
        consequence: String::new(),
        users,
        remedy: leave_alone(""),
        may_be_in_flight: true,
    }
}

fn without_record(scene: &Scene<'_>, id: SnapshotId, row: Row<'_>, spare: &mut Spare) -> Diagnosis {
    let name = scene.device_name(id);
    let users = scene.users(row.key);
    let mut case = case(scene, id, row, FindingClass::RowWithoutRecord, users);
    case.summary = format!(
        "Snapshot {id} has no record of its device: its removal was interrupted after the record and before the snapshot itself was deleted, or the pool database was lost."
    );
    case.evidence.push(format!(
        "containerd's pool database has no record {}",
        words::name(&name)
    ));
    if scene.index.is_parent(row.key) {
        case.evidence.push("other snapshots are built on it".to_owned());
    }
    case.consequence = format!(
        "containerd can remove neither it nor any layer below it: `failed to get device id for \"{}\": can't query metadata for device: not found`, and for the parents `cannot remove snapshot with child`. With async_remove the garbage collection of the whole snapshotter ends there each time, and space only grows.",
        words::name(&name)
    );
    case.remedy = match insertion(scene, id, row, &name, spare) {
        Ok(acts) => {
            let mut guards = EDIT_GUARDS.to_vec();
            guards.extend([
                Condition::DatabasesWhole,
                Condition::ThinGone,
                Condition::NoRecord,
            ]);
            Treat {
                action: Treatment::InsertRemovedRecord,
                when: When::Offline,
                guards,
                acts,
                why: "With a record that says Removed, and an id that is nowhere in the pool, containerd's next removal of it goes through, and so do those of the layers below. Nothing is deleted by it.".to_owned(),
            }
        }
        Err(why) => leave_alone(format!(
            "Nothing is done, because {why}. If a backup of the databases exists, put both back together while containerd is stopped."
        )),
    };
    scene.diagnosis(case)
}

/// The acts that give a snapshot a record that containerd can remove; or why it gets none.
fn insertion(
    scene: &Scene<'_>,
    id: SnapshotId,
    row: Row<'_>,
    name: &str,
    spare: &mut Spare,
) -> Result<Vec<Act>, String> {
    let whole = &scene.whole;
    if let SnapshotKind::Other(kind) = row.row.kind {
        return Err(format!("its kind is {kind}, which no known containerd writes"));
    }
    if scene.survey.thin.is_none() {
        return Err("the pool's metadata could not be read, so no unused id can be told".to_owned());
    }
    if scene.index.is_parent(row.key) {
        return Err(
            "an interrupted removal leaves no snapshot that others are built on: the pool database was probably lost"
                .to_owned(),
        );
    }
    if scene.index.nodes_of(name).next().is_some() {
        return Err(
            "its dm device is still there, which an interrupted removal does not leave; it may be the only thing that tells which thin device is its own"
                .to_owned(),
        );
    }
    if let Some(why) = whole.contradiction() {
        return Err(why.to_owned());
    }
    if whole.storage_is_behind() {
        return Err(whole.doubt().unwrap_or_default());
    }
    if whole.records_lost {
        return Err(format!(
            "{} {} no record, more than interrupted removals can have left: the pool database was lost or is older, and their data may still be in the pool",
            counted(whole.rows_without, "snapshot"),
            one_or(whole.rows_without, "has", "have")
        ));
    }
    let (thin_id, raise) = spare
        .next(scene)
        .ok_or("no thin id is left that it could be given")?;
    let insert = Act::InsertRemovedRecord {
        name: name.to_owned(),
        snapshot: id,
        thin_id,
    };
    Ok(raise.into_iter().chain([insert]).collect())
}

fn faulty_live(scene: &Scene<'_>, id: SnapshotId, row: Row<'_>, record: &DeviceRecord) -> Diagnosis {
    let mut case = case(scene, id, row, FindingClass::FaultyLive, scene.users(row.key));
    case.mark = words::name(&record.name);
    case.subject = Subject::Record {
        name: record.name.clone(),
        thin_id: record.device_id,
    };
    case.evidence.extend([
        words::record(record),
        words::in_pool(scene.survey, record.device_id),
        words::id_state(scene.survey, record.device_id),
    ]);
    case.severity = Severity::Notice;
    case.may_be_in_flight = false;
    case.summary = format!(
        "Snapshot {id} is good, and its record is marked faulty: containerd was interrupted while it suspended, resumed or deactivated the device, and marked it at its next start. It must not be deleted."
    );
    case.consequence = "Nobody is hurt while it is left alone. An active one is not activated again after a reboot, and then `can't get status for device: no such device or address` is what its container gets.".into();
    let in_the_way =
        undo::never_came_to_life(scene, record).filter(|_| row.row.kind != SnapshotKind::Committed);
    if let Some(node) = in_the_way {
        case.severity = Severity::Stuck;
        case.consequence = format!(
            "Whoever mounts it fails, for its dm device {} has no live table: containerd was interrupted while it activated it, and does not activate a faulty record again. Restarting containerd does not help.",
            node.name
        );
    }
    case.remedy = match restoring(scene, row, record) {
        Ok((acts, to)) => {
            let mut guards = EDIT_GUARDS.to_vec();
            guards.push(Condition::ThinThere);
            if acts.len() > 1 {
                guards.push(Condition::NotOpen);
            }
            Treat {
                action: Treatment::RestoreRecord,
                when: When::Offline,
                guards,
                acts,
                why: format!(
                    "The snapshot and its thin device are both there; {to} is the state in which containerd leaves such a snapshot."
                ),
            }
        }
        Err(why) if in_the_way.is_some() => {
            leave_alone(format!("The record is left as it is, because {why}."))
        }
        Err(why) => leave_alone(format!(
            "The record is left as it is, because {why}. The layer is used all the same."
        )),
    };
    scene.diagnosis(case)
}

/// What gives the record the state back in which containerd would have left it, and that state; or why nothing can.
fn restoring(
    scene: &Scene<'_>,
    row: Row<'_>,
    record: &DeviceRecord,
) -> Result<(Vec<Act>, DeviceState), String> {
    let id = record.device_id;
    if let Some(why) = scene.whole.contradiction() {
        return Err(why.to_owned());
    }
    if scene.index.is_shared(id) {
        return Err(format!("another record carries thin id {id} too"));
    }
    if !matches!(scene.survey.id_state(id), Some(IdState::Taken | IdState::Faulty)) {
        return Err(format!("containerd's device_ids do not have id {id} as taken"));
    }
    let restore = |to| Act::RestoreRecord {
        record: record.clone(),
        to,
    };
    match row.row.kind {
        SnapshotKind::Committed => {
            let to = DeviceState::Deactivated;
            Ok((vec![restore(to)], to))
        }
        SnapshotKind::Active | SnapshotKind::View => {
            let to = DeviceState::Activated;
            let nodes = || scene.index.nodes_of(&record.name);
            let fits =
                |node: &&Node| node.live && !node.unreadable && !node.error_table && node.thin_ids == [id];
            let Some(other) = nodes().find(|node| !fits(node)) else {
                return Ok((vec![restore(to)], to));
            };
            // One that never came to life is nobody's, and containerd's next start makes another.
            if nodes().all(|node| !node.live && !node.unreadable) {
                let mut acts = undo::remove_node(scene, record)?;
                acts.push(restore(to));
                return Ok((acts, to));
            }
            // containerd activates it at its start, and does not start the snapshotter when that fails.
            Err(format!(
                "dm device {} has its name and is not simply thin device {id}: containerd would fail to activate it, and would not start",
                other.name
            ))
        }
        SnapshotKind::Other(kind) => Err(format!("its kind is {kind}, which no known containerd writes")),
    }
}

fn without_thin(scene: &Scene<'_>, id: SnapshotId, row: Row<'_>, record: &DeviceRecord) -> Diagnosis {
    let users = scene.users(row.key);
    // The garbage collection removes the client's row first, and the device only then (core/metadata/snapshot.go). A
    // database that knows no snapshot of this namespace is a new or another one: it says nothing about this one.
    let namespace = row.key.split_inclusive('/').next().unwrap_or_default();
    let core = scene.survey.core.as_ref();
    let knows_others = core.is_some_and(|core| core.snapshots.keys().any(|key| key.starts_with(namespace)));
    let no_client = knows_others && users.snapshot.is_none();
    let being_removed = matches!(record.state, DeviceState::Removing | DeviceState::Removed)
        || (record.state == DeviceState::Faulty && no_client);
    let mut case = case(scene, id, row, FindingClass::RowWithoutThin, users);
    case.evidence.extend([
        words::record(record),
        words::in_pool(scene.survey, record.device_id),
    ]);
    if being_removed {
        case.severity = Severity::Notice;
        case.summary = format!(
            "The removal of snapshot {id} was interrupted after its thin device was deleted; containerd's next garbage collection finishes it."
        );
        case.consequence = "Nobody is hurt.".into();
        case.remedy = leave_alone(
            "containerd does it: it takes a thin device that is gone for removed. To have it done now, remove any snapshot of the devmapper snapshotter.",
        );
        return scene.diagnosis(case);
    }
    case.severity = Severity::Damage;
    case.summary = format!("The data of snapshot {id} are lost: its thin device is not in the pool.");
    let parent = words::name(&record.name);
    case.consequence = format!(
        "Whoever builds on it fails with `failed to create snapshot ... from \"{parent}\"`: `no data available`, and what is on it can not be read any more."
    );
    let again = "Remove what uses it, remove the image from containerd, and pull it again.";
    case.remedy = if record.state == DeviceState::Activated {
        case.consequence.push_str(
            " containerd's next start finds it Activated, fails to activate it, and does not load the devmapper snapshotter: `failed to check devices state`.",
        );
        let mut guards = EDIT_GUARDS.to_vec();
        guards.push(Condition::ThinGone);
        Treat {
            action: Treatment::MarkFaulty,
            when: When::Offline,
            guards,
            acts: vec![Act::MarkFaulty {
                record: record.clone(),
            }],
            why: format!(
                "A faulty record is not activated, so containerd starts. The data do not come back by it. {again}"
            ),
        }
    } else {
        leave_alone(format!("The data can not be brought back. {again}"))
    };
    scene.diagnosis(case)
}
