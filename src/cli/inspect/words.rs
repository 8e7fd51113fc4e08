//! What the sources say of one device, each in a few words.

use super::join::Device;
use crate::{
    cli::paper::{safe, short},
    model::{DeviceState, IdState, Node, Severity, databases::SnapshotKind},
};

/// How a device stands: what is wrong with it, or that nothing is.
pub(super) fn state(device: &Device<'_>) -> String {
    if let Some(worst) = device.findings.first() {
        let more = device.findings.len() - 1;
        let also = if more > 0 {
            format!(" +{more}")
        } else {
            String::new()
        };
        return format!("{}{also}", worst.finding.class);
    }
    let removed = device
        .record
        .is_some_and(|record| record.state == DeviceState::Removed);
    if device.in_flight {
        "in flight".to_owned()
    } else if removed && device.row.is_none() {
        "to be removed".to_owned()
    } else {
        "ok".to_owned()
    }
}

/// A mark of two characters that tells the same without words.
pub(super) fn mark(device: &Device<'_>) -> &'static str {
    match device.worst() {
        Some(severity) => crate::cli::paper::mark_of(severity),
        None if device.in_flight => "~ ",
        None => "  ",
    }
}

/// Whether something is wrong with it, or containerd's pool database calls it faulty: its record, or its number where no record
/// carries that. Whoever looks for what containerd marked faulty finds it, harmless or not.
pub(super) fn is_faulty(device: &Device<'_>) -> bool {
    let is_marked = match device.record {
        Some(record) => record.state == DeviceState::Faulty,
        None => device.id_state == Some(IdState::Faulty),
    };
    is_marked || device.worst().is_some_and(|severity| severity < Severity::Notice)
}

pub(super) fn kind(kind: SnapshotKind) -> String {
    match kind {
        SnapshotKind::View => "view".to_owned(),
        SnapshotKind::Active => "active".to_owned(),
        SnapshotKind::Committed => "committed".to_owned(),
        SnapshotKind::Other(number) => format!("kind {number}"),
    }
}

/// What a dm device is like.
pub(super) fn node(node: &Node) -> String {
    let mut says = Vec::new();
    if node.error_table {
        says.push("error table".to_owned());
    }
    if node.suspended {
        says.push("suspended".to_owned());
    }
    if node.unreadable {
        says.push("unreadable".to_owned());
    }
    if !node.live {
        says.push("no table".to_owned());
    }
    if says.is_empty() {
        says.push("live".to_owned());
    }
    if node.open_count > 0 {
        says.push(format!("open {}", node.open_count));
    }
    if node.deferred_remove {
        says.push("goes when closed".to_owned());
    }
    says.join(", ")
}

/// Who uses it, the nearest first: containers, images, else the client's key.
pub(super) fn users(device: &Device<'_>) -> String {
    let mut users: Vec<String> = device
        .containers
        .iter()
        .map(|container| match &container.pod {
            Some(pod) => format!("pod {}/{}", safe(&pod.namespace), safe(&pod.name)),
            None => format!("container {}", short(&container.id)),
        })
        .collect();
    users.extend(device.images.iter().map(|image| safe(image)));
    if users.is_empty() {
        users.extend(device.core.map(|core| short(&core.key)));
    }
    if users.is_empty() {
        users.extend(device.row.map(|(key, _)| short(key)));
    }
    users.join(", ")
}
