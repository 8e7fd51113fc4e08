//! Records whose snapshot is not there: half made, half removed, or left over.
//!
//! The snapshot database gives out a number in the same transaction that stores the snapshot (`CreateSnapshot`,
//! core/snapshots/storage/bolt.go). So a record of a number that was given out is of a snapshot that was there and is
//! gone, and a record of the next number is of a snapshot that was never stored.

use super::{
    scene::{Case, Scene, leave_alone},
    undo::{self, DELETE_GUARDS, EDIT_GUARDS, OFFLINE_GUARDS},
    words,
};
use crate::model::{
    Act, Condition, DeviceRecord, DeviceState, Diagnosis, FindingClass, Provenance, Severity, SnapshotId,
    Subject, ThinId, Treat, Treatment, Users, When,
};

/// Every record without a row that is a finding, in the order of the numbers.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Diagnosis> {
    let sequence = scene.survey.snapshots.sequence;
    scene
        .index
        .records
        .iter()
        .filter(|(id, record)| !scene.index.rows.has(id) && !matches!(record.state, DeviceState::Other(_)))
        .filter_map(|(id, record)| {
            if id.0 <= sequence {
                past(scene, *id, record)
            } else if id.0 - 1 == sequence {
                super::records_next::next(scene, *id, record)
            } else {
                Some(scene.diagnosis(beyond(scene, *id, record)))
            }
        })
        .collect()
}

/// A case with what all of them say.
pub(super) fn case(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord, class: FindingClass) -> Case {
    let mut evidence = vec![
        words::record(record),
        words::no_row(scene, id.0),
        words::in_pool(scene.survey, record.device_id),
        words::id_state(scene.survey, record.device_id),
    ];
    let nodes = scene.index.nodes_of(&record.name);
    evidence.extend(nodes.map(|node| words::node(scene.survey, node)));
    if let Some(claim) = scene.claim(record.device_id) {
        evidence.push(format!(
            "suture saw containerd make and abandon thin device {} (operation {})",
            record.device_id, claim.operation
        ));
    }
    Case {
        class,
        mark: words::name(&record.name),
        subject: Subject::Record {
            name: record.name.clone(),
            thin_id: record.device_id,
        },
        provenance: Provenance::Unknown,
        severity: Severity::Space,
        summary: String::new(),
        evidence,
        consequence: String::new(),
        users: Users::default(),
        remedy: leave_alone(""),
        may_be_in_flight: true,
    }
}

/// Deletes the record and frees its id; nothing else is there any more.
pub(super) fn forget(scene: &Scene<'_>, record: &DeviceRecord, mut before: Vec<Act>, why: &str) -> Treat {
    let id = record.device_id;
    if let Some(why) = undo::may_be_listed(scene, record) {
        return leave_alone(format!("The record is left as it is, because {why}."));
    }
    if scene.index.is_shared(id) {
        return leave_alone(format!(
            "Another record carries thin id {id} too, so the id must not be freed. Compare the databases with a backup."
        ));
    }
    if id == ThinId(0) || id > ThinId::MAX {
        return leave_alone(format!(
            "{id} is not an id that containerd gives out, so it is not freed either."
        ));
    }
    let mut guards = EDIT_GUARDS.to_vec();
    guards.extend([Condition::NoRow, Condition::ThinGone]);
    if !before.is_empty() {
        guards.push(Condition::NotOpen);
    }
    before.push(Act::ForgetRecord {
        record: record.clone(),
    });
    Treat {
        action: Treatment::FreeId,
        when: When::Offline,
        guards,
        acts: before,
        why: why.to_owned(),
    }
}

/// Kernel acts, and where containerd is stopped the record's end; online the record stays, and stops nobody.
fn undo_past(scene: &Scene<'_>, record: &DeviceRecord, mut acts: Vec<Act>) -> Treat {
    let mut guards = DELETE_GUARDS.to_vec();
    let when = if scene.is_stopped() {
        guards.extend(OFFLINE_GUARDS);
        acts.push(Act::ForgetRecord {
            record: record.clone(),
        });
        When::Offline
    } else {
        When::Online
    };
    let clean_up = if record.state == DeviceState::Removed {
        "it waits for a clean-up that containerd makes only while `async_remove` is on, which it is not"
    } else {
        "containerd's clean-up looks at records in the state Removed only"
    };
    Treat {
        action: Treatment::UndoHalfDone,
        when,
        guards,
        acts,
        why: format!(
            "The number of snapshot {} was given out once and is never drawn again, and {clean_up}, so nobody will come back to it. By hand: `dmsetup remove {}`, then `dmsetup message {} 0 'delete {}'`.",
            record.name.escape_debug(),
            record.name.escape_debug(),
            scene.survey.pool_name.as_str().escape_debug(),
            record.device_id
        ),
    }
}

/// The record of a snapshot that was there once.
fn past(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord) -> Option<Diagnosis> {
    // With async_remove these wait for containerd's own clean-up (`Cleanup`, snapshotter.go).
    if record.state == DeviceState::Removed && scene.survey.async_remove != Some(false) {
        return None;
    }
    let there = scene.survey.has_thin(record.device_id)?;
    let has_node = scene.index.nodes_of(&record.name).next().is_some();
    if !there && !has_node {
        return Some(scene.diagnosis(burned(scene, id, record)));
    }
    let stuck =
        matches!(record.state, DeviceState::Deactivating | DeviceState::Removing) && !record.error.is_empty();
    let class = if stuck {
        FindingClass::StuckCleanup
    } else {
        FindingClass::OrphanRecord
    };
    let mut case = case(scene, id, record, class);
    case.summary = if stuck {
        format!(
            "The removal of snapshot {id} failed, and containerd never tries it again: its clean-up looks at records in the state Removed only."
        )
    } else {
        format!(
            "Snapshot {id} is gone, and its record and device are still there; containerd will never look at them again."
        )
    };
    case.consequence = format!(
        "The space of thin device {} is never given back; with enough of these the pool runs full.",
        record.device_id
    );
    // The states that a removal passes through, and what containerd's start makes of them. A record at rest whose row
    // is gone was left by none of containerd's own crashes.
    let removing = matches!(
        record.state,
        DeviceState::Deactivating
            | DeviceState::Deactivated
            | DeviceState::Removing
            | DeviceState::Removed
            | DeviceState::Faulty
    );
    let acts = if removing {
        undo::kernel_acts(scene, record)
    } else {
        Err(format!(
            "no interrupted removal of containerd's leaves a record in state {}, so one of the databases was probably changed by something else",
            record.state
        ))
    };
    match acts {
        Ok(acts) => {
            case.provenance = undo::told_by(scene, record);
            case.evidence.push(format!(
                "number {id} was given out, so the snapshot was once complete: containerd made thin device {}",
                record.device_id
            ));
            case.remedy = undo_past(scene, record, acts);
        }
        Err(why) => {
            case.remedy = leave_alone(format!(
                "Nothing is deleted, because {why}. Once that is settled, check again."
            ));
        }
    }
    Some(scene.diagnosis(case))
}

/// A record of a snapshot that is gone, and so is its device.
fn burned(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord) -> Case {
    let mut case = case(scene, id, record, FindingClass::BurnedId);
    case.severity = Severity::Notice;
    case.summary =
        format!("The record of snapshot {id} is left over; the snapshot and its thin device are gone.");
    case.consequence = format!(
        "Nobody is hurt: only thin id {} is never used again, of 16.7 million.",
        record.device_id
    );
    case.remedy = forget(
        scene,
        record,
        Vec::new(),
        "Nothing is left that the record could be of. It may as well stay for ever.",
    );
    case
}

/// A record of a number that was not given out yet, and is not the next one either.
fn beyond(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord) -> Case {
    let mut case = case(scene, id, record, FindingClass::OrphanRecord);
    case.summary = format!(
        "The pool database has a record of snapshot {id}, and the snapshot database has not come to that number: it was lost, or is older than the pool database."
    );
    case.consequence = if record.state == DeviceState::Faulty {
        format!(
            "containerd overwrites the record once it comes to number {id}, and thin device {} loses its name.",
            record.device_id
        )
    } else {
        format!(
            "Once containerd comes to number {id}, every new container on this node fails with {}.",
            words::already_there(record)
        )
    };
    case.may_be_in_flight = false;
    case.remedy = leave_alone(format!(
        "Thin device {} may hold the data of a snapshot whose row was lost, so nothing is done to it. With a backup of metadata.db from the same time as {}.db: stop containerd and put both back. Without one: save what is needed from the device read-only, and set the snapshotter up anew.",
        record.device_id, scene.survey.pool_name
    ));
    case
}
