//! dm devices that hang, fail, or are left over.

use std::collections::BTreeSet;

use super::{
    scene::{Case, Scene, leave_alone},
    words,
};
use crate::model::{
    Act, Condition, DeviceRecord, Diagnosis, FindingClass, Node, Provenance, Severity, SnapshotId, Subject,
    Treat, Treatment, Users, When,
};

/// Names of dm devices that are part of what was found: the one of a left-over record, and of a snapshot without one.
pub(super) fn part_of(scene: &Scene<'_>, found: &[Diagnosis]) -> BTreeSet<String> {
    found
        .iter()
        .filter_map(|one| match (&one.finding.class, &one.finding.subject) {
            (FindingClass::FaultyLive | FindingClass::RowWithoutThin, _) => None,
            (_, Subject::Record { name, .. }) => Some(name.clone()),
            (_, Subject::Snapshot { id, .. }) => Some(scene.device_name(*id)),
            _ => None,
        })
        .collect()
}

/// Every dm device that is a finding.
pub(super) fn findings(scene: &Scene<'_>, named: &BTreeSet<String>) -> Vec<Diagnosis> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (name, node) in scene.index.nodes.iter() {
        if named.contains(*name) || !seen.insert(*name) {
            continue;
        }
        found.extend(judge(scene, node));
    }
    found
}

fn judge(scene: &Scene<'_>, node: &Node) -> Option<Diagnosis> {
    let snapshot = scene.survey.pool_name.snapshot_of(node.name.as_str());
    // The record that it belongs to: by its name, or by a thin device that it maps.
    let by_name = snapshot.and_then(|id| scene.index.record(id));
    let mapped = || {
        let mut ids = node.thin_ids.iter();
        ids.find_map(|id| scene.index.carriers.of(id).first().map(|(_, record)| *record))
    };
    match (snapshot, by_name) {
        // Without a record: the next device of that name fails. Whoever has it open is told of as of a suspended one.
        (Some(id), None) if !(node.suspended && node.open_count > 0) => orphan(scene, node, id),
        (Some(_), Some(record)) if node.error_table => Some(error_table(scene, node, record)),
        _ => {
            let ours = snapshot.is_some() || mapped().is_some();
            let record = by_name.or_else(mapped);
            (ours && node.suspended).then(|| suspended(scene, node, snapshot.is_some(), record))
        }
    }
}

fn case(scene: &Scene<'_>, node: &Node, class: FindingClass, record: Option<&DeviceRecord>) -> Case {
    let mut evidence = vec![words::node(scene.survey, node)];
    evidence.extend(record.map(words::record));
    let id = record.and_then(|record| scene.survey.snapshot_of(record));
    Case {
        class,
        // `Untrusted` is printable as it is.
        mark: node.name.to_string(),
        subject: Subject::Node {
            name: node.name.to_string(),
            device: node.device,
        },
        provenance: Provenance::Unknown,
        severity: Severity::Stuck,
        summary: String::new(),
        evidence,
        consequence: String::new(),
        users: id.map_or_else(Users::default, |id| scene.users_of(id)),
        remedy: leave_alone(""),
        may_be_in_flight: true,
    }
}

fn resume(node: &Node, why: String) -> Treat {
    Treat {
        action: Treatment::ResumeNode,
        when: When::Online,
        guards: vec![Condition::StillFound, Condition::NobodyAtWork],
        acts: vec![Act::ResumeNode {
            name: node.name.to_string(),
            device: node.device,
        }],
        why,
    }
}

fn suspended(scene: &Scene<'_>, node: &Node, our_name: bool, record: Option<&DeviceRecord>) -> Diagnosis {
    let mut case = case(scene, node, FindingClass::SuspendedDevice, record);
    case.summary = format!(
        "dm device {} is suspended, and nobody is at work who would resume it: containerd was interrupted while it made a snapshot of it or committed it, and never resumes it by itself.",
        node.name
    );
    case.consequence = "Whoever reads or opens it hangs and can not be killed: `umount`, `blkid`, `fdisk -l`, and the container on it.".into();
    let by_hand = format!("By hand: `dmsetup resume {}`.", node.name);
    // Resuming also brings a table to life that was loaded: it must be the one that the record tells of.
    let loaded_is_known =
        node.live || record.is_some_and(|record| node.thin_ids == [record.device_id] && !node.unreadable);
    case.remedy = if scene.survey.pool.is_none() {
        leave_alone(format!(
            "The pool is not set up, so its devices are left as they are. {by_hand}"
        ))
    } else if !our_name {
        leave_alone(format!(
            "Its name is not the snapshotter's, so somebody else made it and may have suspended it on purpose. {by_hand}"
        ))
    } else if !loaded_is_known {
        leave_alone(format!(
            "It has no live table, and what would come to life is not what containerd's record says. {by_hand}"
        ))
    } else {
        resume(
            node,
            format!(
                "Resuming changes no data, and does nothing to a device that is not suspended. {by_hand}"
            ),
        )
    };
    scene.diagnosis(case)
}

fn error_table(scene: &Scene<'_>, node: &Node, record: &DeviceRecord) -> Diagnosis {
    let mut case = case(scene, node, FindingClass::ErrorTable, Some(record));
    case.severity = Severity::Damage;
    case.summary = format!(
        "dm device {} has the table `error`: containerd tried to remove it by force while it was in use. The medium is not at fault, and the thin device is whole.",
        node.name
    );
    case.consequence =
        "Whoever has it open or mounted gets `Input/output error` on every read and write.".into();
    case.remedy = if node.suspended && node.live && scene.survey.pool.is_some() {
        resume(
            node,
            "While it is suspended its users hang; resumed they get errors and can be ended.".to_owned(),
        )
    } else {
        leave_alone(format!(
            "End who uses it, and unmount it; then containerd's next try to remove it works. By hand: `dmsetup remove {}`. {}.",
            node.name,
            words::use_of(scene.survey, node)
        ))
    };
    scene.diagnosis(case)
}

fn orphan(scene: &Scene<'_>, node: &Node, id: SnapshotId) -> Option<Diagnosis> {
    if node.deferred_remove && node.open_count > 0 {
        return None;
    }
    let mut case = case(scene, node, FindingClass::OrphanNode, None);
    case.summary = format!(
        "dm device {} is there, and containerd has no record of it.",
        node.name
    );
    case.evidence.push(format!(
        "containerd's pool database has no record {}, and its snapshot database no snapshot {id}",
        node.name
    ));
    case.consequence = format!(
        "The next device of that name fails with `failed to activate new thin device \"{}\"`: `device or resource busy`.",
        node.name
    );
    case.remedy = match scene.node_is_busy(node) {
        Some(why) => leave_alone(format!(
            "It is left alone: {why}. End who uses it, and check again."
        )),
        None => Treat {
            action: Treatment::RemoveNode,
            when: When::Online,
            guards: vec![
                Condition::StillFound,
                Condition::NobodyAtWork,
                Condition::NoRecord,
                Condition::NotOpen,
            ],
            acts: vec![Act::RemoveNode {
                name: node.name.to_string(),
                device: node.device,
            }],
            why: format!(
                "Nobody has it open, and a dm device holds no data of its own: what it maps stays in the pool. By hand: `dmsetup remove {}`.",
                node.name
            ),
        },
    };
    Some(scene.diagnosis(case))
}
