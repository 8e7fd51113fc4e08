//! One device in full: what each of the five sources says, what was found about it, what it is made from and what is made
//! from it.

use std::fmt::Write as _;

use super::{join::Device, table::block_size, words};
use crate::{
    cli::{
        look::Look,
        paper::{Ink, Paper, counted, ink_of, mark_of, safe, size},
    },
    model::{Space, databases::SnapshotRow},
};

const LABEL: usize = 20;
/// Children that are named.
const CHILDREN: usize = 20;

type Children<'a> = std::collections::BTreeMap<&'a str, Vec<(&'a str, &'a SnapshotRow)>>;

/// All of it; ends with a line end.
pub(super) fn one(
    device: &Device<'_>,
    look: &Look,
    children: &Children<'_>,
    space: Option<&Space>,
    paper: Paper,
) -> String {
    let mut out = String::new();
    let state = words::state(device);
    let state = device
        .worst()
        .map_or(state.clone(), |severity| paper.ink(ink_of(severity), state));
    let _ = writeln!(out, "{}: {state}", paper.ink(Ink::Bold, safe(&device.title())));
    let mut line = |label: &str, text: &str| {
        let label = format!("  {label:<width$}", width = LABEL - 2);
        let _ = writeln!(out, "{}{}", paper.ink(Ink::Dim, label), paper.wrap(text, LABEL));
    };
    line("pool database", &record(device));
    line("snapshot database", &row(device));
    if let Some((_, row)) = device.row
        && let Some(parent) = row.parent.as_deref().filter(|parent| !parent.is_empty())
    {
        line("  made from", &named(parent, look));
    }
    let below = device
        .row
        .and_then(|(key, _)| children.get(key))
        .map(Vec::as_slice)
        .unwrap_or_default();
    for (key, _) in below.iter().take(CHILDREN) {
        line("  parent of", &named(key, look));
    }
    if below.len() > CHILDREN {
        line("", &format!("and of {} more", below.len() - CHILDREN));
    }
    for text in client(device, look) {
        line("containerd", &text);
    }
    line("pool metadata", &thin(device, look, space));
    if device.nodes.is_empty() {
        line("dm device", "none");
    }
    for node in &device.nodes {
        line("dm device", &format!("{node}: {}", words::node(node)));
    }
    for mount in &device.mounts {
        line(
            "  mounted at",
            &format!(
                "{} by {} [{}]",
                safe(&mount.path),
                safe(&mount.process),
                mount.pid
            ),
        );
    }
    if device.in_flight {
        line("in flight", "somebody may be at work on it");
    }
    for one in &device.findings {
        let head = format!(
            "{} {}: {}",
            mark_of(one.severity).trim_end(),
            one.finding.class,
            one.summary
        );
        let _ = writeln!(out, "  {}", paper.ink(ink_of(one.severity), paper.wrap(&head, 4)));
        for sentence in &one.finding.evidence {
            let _ = writeln!(out, "     - {}", paper.wrap(sentence, 7));
        }
        let id = crate::cli::look::quoted(&one.finding.id.0);
        let _ = writeln!(out, "     suture explain {id}{}", look.places);
    }
    out
}

fn record(device: &Device<'_>) -> String {
    let id = match (device.thin_id, device.id_state) {
        (Some(id), Some(state)) => format!("; thin id {id} is {state}"),
        (Some(id), None) => format!("; thin id {id} was never given out"),
        (None, _) => String::new(),
    };
    let Some(record) = device.record else {
        return format!("no record{id}");
    };
    let mut text = format!(
        "{} ({}), {} in size{id}",
        record.state,
        i64::from(record.state),
        size(record.size.0)
    );
    if !record.parent_name.is_empty() {
        let _ = write!(text, "; made from {}", safe(&record.parent_name));
    }
    if !record.error.is_empty() {
        let _ = write!(text, "; it noted the failure \"{}\"", safe(&record.error));
    }
    text
}

fn row(device: &Device<'_>) -> String {
    match device.row {
        None => "no row".to_owned(),
        Some((key, row)) => format!(
            "snapshot {}, {}, key {}",
            row.id,
            words::kind(row.kind),
            safe(key)
        ),
    }
}

/// A snapshot by its backend key, with the name of its device.
fn named(key: &str, look: &Look) -> String {
    match look.survey.snapshots.snapshots.get(key) {
        Some(row) => format!(
            "{}-snap-{} ({})",
            safe(look.survey.pool_name.as_str()),
            row.id,
            safe(key)
        ),
        None => format!("{}, which is not there", safe(key)),
    }
}

fn client(device: &Device<'_>, look: &Look) -> Vec<String> {
    if look.survey.core.is_none() {
        return vec!["its own database was not read".to_owned()];
    }
    let Some(core) = device.core else {
        return vec!["does not know it".to_owned()];
    };
    let mut said = vec![format!(
        "snapshot {} in namespace {}",
        safe(&core.key),
        safe(&core.namespace)
    )];
    said.extend(
        core.leases
            .iter()
            .map(|lease| format!("held by lease {}", safe(lease))),
    );
    said.extend(
        device
            .images
            .iter()
            .map(|image| format!("top layer of image {}", safe(image))),
    );
    for container in &device.containers {
        let mut text = format!("container {}", safe(&container.id));
        if let Some(image) = &container.image {
            let _ = write!(text, " of image {}", safe(image));
        }
        if let Some(pod) = &container.pod {
            let _ = write!(
                text,
                ", pod {}/{} ({})",
                safe(&pod.namespace),
                safe(&pod.name),
                safe(&pod.uid)
            );
        }
        said.push(text);
    }
    said
}

fn thin(device: &Device<'_>, look: &Look, space: Option<&Space>) -> String {
    let Some(id) = device.thin_id else {
        return "no thin id is known".to_owned();
    };
    let Some(thin) = device.thin else {
        return match look.survey.thin {
            Some(_) => format!("no thin device {id}"),
            None => "not read".to_owned(),
        };
    };
    let bytes = block_size(&look.survey)
        .map(|block| format!(" ({})", size(thin.mapped_blocks.saturating_mul(block))));
    let mut text = format!(
        "thin device {id} maps {}{}, made at time {} of the pool, last snapshotted at {}",
        counted(thin.mapped_blocks, "block"),
        bytes.unwrap_or_default(),
        thin.creation_time,
        thin.snapshotted_time
    );
    if let Some((space, of)) = space.and_then(|space| Some((space, space.devices.get(&id)?))) {
        let bytes = |blocks: u64| size(blocks.saturating_mul(space.data_block.0));
        let _ = write!(
            text,
            "; {} are its own, {} shared",
            bytes(of.exclusive),
            bytes(of.shared())
        );
    }
    text
}
