//! What may be taken away of a half-made or half-removed snapshot: its dm device and its thin device; or why nothing may.

use super::{scene::Scene, words};
use crate::model::{Act, Condition, DeviceRecord, IdState, Node, Provenance, ThinId};

/// Guards of what is deleted on a record's word, before those of the edit.
pub(super) const DELETE_GUARDS: [Condition; 8] = [
    Condition::StillFound,
    Condition::PoolWritable,
    Condition::NobodyAtWork,
    Condition::DatabasesWhole,
    Condition::NoRow,
    Condition::Provenance,
    Condition::NotOpen,
    Condition::SameTransaction,
];

/// Guards of what needs containerd stopped.
pub(super) const OFFLINE_GUARDS: [Condition; 2] = [Condition::ContainerdStopped, Condition::BackedUp];

/// Guards of an edit that deletes nothing.
pub(super) const EDIT_GUARDS: [Condition; 5] = [
    Condition::StillFound,
    Condition::ContainerdStopped,
    Condition::BackedUp,
    Condition::NobodyAtWork,
    Condition::SameTransaction,
];

/// The kernel acts that take a record's dm device and thin device away; or why they may not be taken.
///
/// That the record's word is proof of who made the thin device is the caller's to say.
pub(super) fn kernel_acts(scene: &Scene<'_>, record: &DeviceRecord) -> Result<Vec<Act>, String> {
    let id = record.device_id;
    let doubt = scene.whole.doubt().or_else(|| may_be_listed(scene, record));
    if let Some(why) = doubt.or_else(|| scene.pool_refuses()) {
        return Err(why);
    }
    if scene.index.is_shared(id) {
        return Err(format!("more than one record carries thin id {id}"));
    }
    if id == ThinId(0) || id > ThinId::MAX {
        return Err(format!("{id} is not an id that containerd gives out"));
    }
    // A record's id is taken or faulty as long as the record is there (`AddDevice`, `MarkFaulty`, `RemoveDevice`).
    if !matches!(scene.survey.id_state(id), Some(IdState::Taken | IdState::Faulty)) {
        return Err(format!(
            "containerd's device_ids do not have id {id} as taken, so the record is not to be relied on"
        ));
    }
    let there = scene
        .survey
        .has_thin(id)
        .ok_or("the pool's metadata could not be read")?;
    let mut acts = remove_node(scene, record)?;
    if let Some(other) = scene
        .index
        .holders_of(id)
        .find(|node| node.name.as_str() != record.name)
    {
        return Err(format!(
            "dm device {} maps thin device {id}, or may do so",
            other.name
        ));
    }
    if there {
        acts.push(Act::DeleteThin { thin_id: id });
    }
    Ok(acts)
}

/// The removal of a record's dm device, where there is one; or why it may not be removed.
pub(super) fn remove_node(scene: &Scene<'_>, record: &DeviceRecord) -> Result<Vec<Act>, String> {
    let mut acts = Vec::new();
    for node in scene.index.nodes_of(&record.name) {
        if let Some(why) = scene.node_is_busy(node) {
            return Err(why);
        }
        // An earlier try of the same snapshot's left its device, which containerd gave up: it never gives out its id again.
        let given_up = |mapped: &ThinId| {
            scene.survey.id_state(*mapped) == Some(IdState::Faulty) && !scene.index.carriers.has(mapped)
        };
        let of_another = |mapped: &ThinId| *mapped != record.device_id && !given_up(mapped);
        if node.unreadable || node.thin_ids.iter().any(of_another) {
            return Err(format!(
                "dm device {} maps something else than thin device {}, or may do so",
                node.name, record.device_id
            ));
        }
        acts.push(Act::RemoveNode {
            name: record.name.clone(),
            device: node.device,
        });
    }
    Ok(acts)
}

/// A dm device of the record's name that has no live table: `dmsetup` died before its last step of three. The kernel makes no
/// second one of that name, and containerd's own undoing of what failed for it does not see it (`IsLoaded`, `pool_device.go`).
pub(super) fn never_came_to_life<'a>(scene: &Scene<'a>, record: &DeviceRecord) -> Option<&'a Node> {
    let mut nodes = scene.index.nodes_of(&record.name);
    nodes.find(|node| !node.live && !node.unreadable)
}

/// What speaks for a record's snapshot although no row has its number; nothing where it is gone.
pub(super) fn may_be_listed(scene: &Scene<'_>, record: &DeviceRecord) -> Option<String> {
    if let Some(why) = scene.whole.contradiction() {
        return Some(why.to_owned());
    }
    // A snapshot that others were made from is not removed before them (`Remove`, core/snapshots/storage/bolt.go).
    let child = scene.index.made_from(&record.name)?;
    Some(format!(
        "the record {} says that its device was made from this one, and its snapshot is there: containerd removes no snapshot that others are built on, so one of the databases is probably damaged",
        words::name(&child.name)
    ))
}

/// How it is known who made a record's thin device, where the record is proof of it.
pub(super) fn told_by(scene: &Scene<'_>, record: &DeviceRecord) -> Provenance {
    match scene.claim(record.device_id) {
        Some(claim) => Provenance::SeenByProbe {
            operation: claim.operation.clone(),
        },
        None => Provenance::ToldByRecord {
            name: record.name.clone(),
        },
    }
}
