//! Sentences that several families say. Names from outside are escaped.

use std::fmt::Write as _;

use super::scene::Scene;
use crate::model::{DeviceRecord, IdState, Node, Survey, ThinId};

/// A name from outside, safe to print.
pub(super) fn name(text: &str) -> String {
    text.escape_debug().to_string()
}

/// What a record says.
pub(super) fn record(record: &DeviceRecord) -> String {
    let mut text = format!(
        "containerd's pool database has record {} with thin id {} in state {}",
        name(&record.name),
        record.device_id,
        record.state
    );
    if !record.error.is_empty() {
        let _ = write!(text, ", and noted the failure \"{}\" in it", name(&record.error));
    }
    text
}

/// What the pool says of a thin id.
pub(super) fn in_pool(survey: &Survey, id: ThinId) -> String {
    match survey.thin.as_ref().map(|thin| thin.get(&id)) {
        None => format!(
            "the pool's metadata could not be read, so whether thin device {id} is there is not known"
        ),
        Some(None) => format!("the pool's metadata do not have thin device {id}"),
        Some(Some(details)) => format!(
            "the pool's metadata have thin device {id} with {} mapped blocks",
            details.mapped_blocks
        ),
    }
}

/// What `device_ids` says of a thin id.
pub(super) fn id_state(survey: &Survey, id: ThinId) -> String {
    match survey.id_state(id) {
        Some(IdState::Other(byte)) => {
            format!("containerd's device_ids say {byte} for id {id}, which no known containerd writes")
        }
        Some(state) => format!("containerd's device_ids say {state} for id {id}"),
        None if u64::from(id.0) > survey.pool_db.id_sequence => format!(
            "containerd never gave out id {id}: its sequence stands at {}",
            survey.pool_db.id_sequence
        ),
        None => format!("containerd's device_ids do not have id {id}"),
    }
}

/// What a dm device is like.
pub(super) fn node(survey: &Survey, node: &Node) -> String {
    let mut says = Vec::new();
    if node.unreadable {
        says.push("its tables can not be read".to_owned());
    } else if node.error_table {
        says.push("its table is `error`".to_owned());
    } else if !node.thin_ids.is_empty() {
        let ids: Vec<_> = node.thin_ids.iter().take(4).map(ToString::to_string).collect();
        says.push(format!("it maps thin device {}", ids.join(", ")));
    }
    if node.suspended {
        says.push("it is suspended".to_owned());
    }
    if !node.live {
        says.push("it has no live table".to_owned());
    }
    if node.deferred_remove {
        says.push("the kernel removes it after its last use".to_owned());
    }
    says.push(use_of(survey, node));
    format!("dm device {node}: {}", says.join(", "))
}

/// Who has a dm device open.
pub(super) fn use_of(survey: &Survey, node: &Node) -> String {
    let mut text = format!("its open count is {}", node.open_count);
    let mounts = survey.mounts.by_device.get(&node.device);
    for mount in mounts.into_iter().flatten().take(4) {
        let _ = write!(
            text,
            ", mounted at {} of {} [{}]",
            name(&mount.path),
            name(&mount.process),
            mount.pid
        );
    }
    if mounts.is_some_and(|mounts| mounts.len() > 4) {
        text.push_str(", and mounted elsewhere");
    }
    text
}

/// What stands in the snapshot database's place of a number.
pub(super) fn no_row(scene: &Scene<'_>, number: u64) -> String {
    format!(
        "no snapshot has the number {number}; the last number that was given out is {}",
        scene.survey.snapshots.sequence
    )
}

/// containerd's refusal of a record that is there and not faulty (`AddDevice`, plugins/snapshots/devmapper/metadata.go).
pub(super) fn already_there(record: &DeviceRecord) -> String {
    format!(
        "device \"{}\" is already there {{DeviceID:{} Size:{} Name:{} ParentName:{} State:{} Error:{}}}: already exists",
        name(&record.name),
        record.device_id,
        record.size,
        name(&record.name),
        name(&record.parent_name),
        record.state,
        name(&record.error)
    )
}
