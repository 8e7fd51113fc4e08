//! The record of the next snapshot: one that was begun and never stored. Past Created and not faulty it stops every
//! further snapshot (containerd#5646).

use std::fmt::Write as _;

use super::{
    records::{case, forget},
    scene::{Scene, leave_alone},
    undo::{self, DELETE_GUARDS, EDIT_GUARDS, OFFLINE_GUARDS},
    words,
};
use crate::model::{
    Act, Condition, DeviceRecord, DeviceState, Diagnosis, FindingClass, Severity, SnapshotId, Treat,
    Treatment, When,
};

/// The record of the next snapshot.
pub(super) fn next(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord) -> Option<Diagnosis> {
    if (DeviceState::Activated..=DeviceState::Removed).contains(&record.state) {
        return Some(wedge(scene, id, record));
    }
    let there = scene.survey.has_thin(record.device_id)?;
    Some(unfinished(scene, id, record, there))
}

fn wedge(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord) -> Diagnosis {
    let mut case = case(scene, id, record, FindingClass::Wedge);
    case.severity = Severity::Outage;
    case.summary = format!(
        "Snapshot {id} was begun and never stored, and its record is in the way: containerd draws the same number for every new snapshot, finds the record, and refuses (containerd#5646)."
    );
    let text = words::already_there(record);
    case.evidence.push(format!(
        "the next snapshot gets the number {id}, and the name of this record"
    ));
    case.consequence = format!(
        "Every new container on this node fails with `{text}` (before containerd 1.7: `object already exists`), and every image pull with `target snapshot \"sha256:...\" in backend: not found`. Restarting containerd does not help."
    );
    let mark = Act::MarkFaulty {
        record: record.clone(),
    };
    let acts = match scene.survey.has_thin(record.device_id) {
        None => Err("the pool's metadata could not be read".to_owned()),
        // A prepare that got that far made the device, and handed it to nobody. What is past it may have been handed out.
        Some(true) if record.state != DeviceState::Activated => Err(format!(
            "a prepare ends in the state Activated, and this record is in state {}",
            record.state
        )),
        Some(_) => undo::kernel_acts(scene, record),
    };
    case.remedy = match acts {
        Ok(kernel) => {
            case.provenance = undo::told_by(scene, record);
            let mut guards = DELETE_GUARDS.to_vec();
            guards.extend(OFFLINE_GUARDS);
            let mut acts = vec![mark];
            acts.extend(kernel);
            acts.push(Act::ForgetRecord {
                record: record.clone(),
            });
            Treat {
                action: Treatment::UndoHalfDone,
                when: When::Offline,
                guards,
                acts,
                why: format!(
                    "The first step alone ends the outage: containerd overwrites a faulty record. The rest gives the space back: the snapshot was never stored, so nobody was ever handed thin device {}. By hand, without an edit: stop containerd, `dmsetup remove {}`, `dmsetup message {} 0 'delete {}'`, then start containerd twice: the first start fails and the second marks the record faulty.",
                    record.device_id,
                    record.name.escape_debug(),
                    scene.survey.pool_name.as_str().escape_debug(),
                    record.device_id
                ),
            }
        }
        // The record may be the only name of a good layer: once it is marked, the next prepare overwrites it.
        Err(_)
            if let Some(why) = scene
                .whole
                .storage_doubt()
                .or_else(|| undo::may_be_listed(scene, record)) =>
        {
            leave_alone(format!(
                "Nothing is changed, because {why}. Put back the metadata.db that belongs to this pool database, if there is one."
            ))
        }
        Err(why) => {
            let mut guards = EDIT_GUARDS.to_vec();
            guards.extend([Condition::NoRow, Condition::DatabasesWhole]);
            Treat {
                action: Treatment::MarkFaulty,
                when: When::Offline,
                guards,
                acts: vec![mark],
                why: format!(
                    "A faulty record is overwritten by containerd, so this ends the outage. Nothing is deleted, because {why}."
                ),
            }
        }
    };
    scene.diagnosis(case)
}

/// One that by itself stops nobody: marked faulty, or begun and not activated.
fn unfinished(scene: &Scene<'_>, id: SnapshotId, record: &DeviceRecord, there: bool) -> Diagnosis {
    let mut case = case(scene, id, record, FindingClass::FaultyNext);
    let thin = record.device_id;
    let faulty = record.state == DeviceState::Faulty;
    case.may_be_in_flight = !faulty;
    case.severity = if there && !faulty {
        Severity::Space
    } else {
        Severity::Notice
    };
    case.summary = if faulty {
        format!(
            "The record of the next snapshot, {id}, is marked faulty: a prepare was interrupted or failed, and containerd cleared the way for the next."
        )
    } else {
        format!(
            "The prepare of snapshot {id} was interrupted; containerd marks its record faulty when it starts next."
        )
    };
    let outlook = if there {
        format!(" From then on nothing names thin device {thin}, and its space is lost.")
    } else {
        String::new()
    };
    case.consequence = format!("The next new container overwrites the record and works.{outlook}");
    let fails = format!(
        "`failed to activate new thin device \"{}\"`: `device or resource busy`",
        record.name.escape_debug()
    );
    let in_the_way = undo::never_came_to_life(scene, record).is_some();
    if in_the_way {
        case.severity = Severity::Outage;
        let _ = write!(
            case.summary,
            " Its dm device has no live table, and is in the way."
        );
        case.consequence = format!(
            "Every new container on this node fails with {fails}, until that dm device is removed: containerd's own undoing does not see one without a live table (`IsLoaded`). Restarting containerd does not help.{outlook}"
        );
    } else if scene.index.nodes_of(&record.name).next().is_some() {
        let _ = write!(
            case.consequence,
            " The first try fails with {fails}; the second works."
        );
    }
    // Created is written after the pool has answered that the device was made (`CreateThinDevice`, pool_device.go).
    // Before that its number may be of somebody else's device; and Faulty says nothing of what was before.
    let told = matches!(record.state, DeviceState::Created | DeviceState::Activating);
    let claimed = scene.claim(thin).is_some();
    if in_the_way && faulty && !scene.is_stopped() {
        case.remedy = node_now(scene, record);
    } else if !there {
        let node = undo::remove_node(scene, record).unwrap_or_default();
        case.remedy = forget(
            scene,
            record,
            node,
            "Nothing was made in the pool, or it is gone again. containerd overwrites the record by itself; this only saves the number.",
        );
    } else if told || claimed {
        match undo::kernel_acts(scene, record) {
            Ok(mut acts) => {
                case.provenance = undo::told_by(scene, record);
                acts.push(Act::ForgetRecord {
                    record: record.clone(),
                });
                let mut guards = DELETE_GUARDS.to_vec();
                guards.extend(OFFLINE_GUARDS);
                case.remedy = Treat {
                    action: Treatment::UndoHalfDone,
                    when: When::Offline,
                    guards,
                    acts,
                    why: format!(
                        "containerd made thin device {thin} for a snapshot that was never stored, so nobody was ever handed it. Once containerd has started and made another snapshot, nothing proves that any more."
                    ),
                };
            }
            Err(why) => case.remedy = leave_alone(format!("Nothing is deleted, because {why}.")),
        }
    } else {
        case.remedy = node_only(scene, record);
    }
    scene.diagnosis(case)
}

/// Beside a running containerd only that dm device goes. The rest has time until it is stopped.
fn node_now(scene: &Scene<'_>, record: &DeviceRecord) -> Treat {
    match undo::remove_node(scene, record) {
        Ok(acts) => Treat {
            action: Treatment::RemoveNode,
            when: When::Online,
            guards: vec![
                Condition::StillFound,
                Condition::NobodyAtWork,
                Condition::NoRow,
                Condition::NotOpen,
            ],
            acts,
            why: format!(
                "Nobody has it open, it has no live table, and it keeps every new container from starting. By hand: `dmsetup remove {}`.",
                record.name.escape_debug()
            ),
        },
        Err(why) => leave_alone(format!("The dm device is left alone, because {why}.")),
    }
}

/// What is left to do where nobody can prove whose the thin device is: its dm device may go.
fn node_only(scene: &Scene<'_>, record: &DeviceRecord) -> Treat {
    let thin = record.device_id;
    let why = format!(
        "Whether containerd made thin device {thin} is not proven: containerd marks a record faulty also when the pool had a device of that id before (`file exists`), and writes Creating before it asks the pool. So the thin device stays; if it is known to be waste, name it: `suture repair --delete-thin {thin}`, once nothing names it."
    );
    match undo::remove_node(scene, record) {
        Ok(acts) if !acts.is_empty() => {
            let mut guards = EDIT_GUARDS.to_vec();
            guards.retain(|guard| *guard != Condition::BackedUp);
            guards.extend([Condition::NoRow, Condition::NotOpen]);
            Treat {
                action: Treatment::RemoveNode,
                when: When::Offline,
                guards,
                acts,
                why: format!(
                    "Its dm device makes the next snapshot fail once, and holds no data of its own. {why}"
                ),
            }
        }
        _ => leave_alone(why),
    }
}
