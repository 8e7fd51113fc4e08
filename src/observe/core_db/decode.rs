//! What was collected, as values. A snapshot that is not as containerd writes it is an error: a user that is overlooked
//! would make a layer look unused. A strange container, image or lease only leaves itself out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    path::Path,
};

use super::{
    CoreDb, CoreDbError,
    read::{RawBlob, RawContainer, RawLease, RawNamespace, RawSnapshot},
};
use crate::model::{
    TxId,
    survey::{Container, CoreSnapshot, Image, Pod},
};

/// Blobs of one image that are followed: an index of more platforms than this is cut.
const MOST_BLOBS: usize = 1024;

pub(super) fn bad_snapshot(
    path: &Path,
    namespace: &[u8],
    key: &[u8],
    problem: impl Into<String>,
) -> CoreDbError {
    CoreDbError::BadEntry {
        path: path.display().to_string(),
        namespace: namespace.escape_ascii().to_string(),
        key: key.escape_ascii().to_string(),
        problem: problem.into(),
    }
}

pub(super) fn core_db(namespaces: Vec<RawNamespace>, txid: TxId, path: &Path) -> Result<CoreDb, CoreDbError> {
    let mut core = CoreDb {
        txid,
        ..CoreDb::default()
    };
    for raw in namespaces {
        namespace(raw, &mut core, path)?;
    }
    Ok(core)
}

fn namespace(raw: RawNamespace, core: &mut CoreDb, path: &Path) -> Result<(), CoreDbError> {
    let Some(name) = text(&raw.name) else {
        // Names of namespaces are plain ASCII (`identifiers.Validate`). With nothing of ours in it, it may be anything.
        return match raw.snapshots.first() {
            Some(first) => Err(bad_snapshot(
                path,
                &raw.name,
                &first.key,
                "the name of its namespace is not UTF-8",
            )),
            None => Ok(()),
        };
    };
    let leases = leases_by_key(&raw.leases);
    for snapshot in raw.snapshots {
        let bad = |problem: String| bad_snapshot(path, &raw.name, &snapshot.key, problem);
        let (backend, decoded) = decode_snapshot(&name, &snapshot, &leases).map_err(bad)?;
        match core.snapshots.entry(backend) {
            Entry::Vacant(free) => {
                free.insert(decoded);
            }
            Entry::Occupied(taken) => {
                let other = taken.get();
                return Err(bad(format!(
                    "its `name` is also that of snapshot `{}` of namespace `{}`",
                    other.key.escape_default(),
                    other.namespace.escape_default()
                )));
            }
        }
    }
    core.containers
        .extend(raw.containers.iter().filter_map(|one| container(&name, one)));
    for (image, digest) in &raw.images {
        let Some(image) = text(image) else { continue };
        let top_snapshots = top_snapshots(digest, &raw.blobs);
        if !top_snapshots.is_empty() {
            core.images.push(Image {
                namespace: name.clone(),
                name: image,
                top_snapshots,
            });
        }
    }
    Ok(())
}

fn decode_snapshot(
    namespace: &str,
    raw: &RawSnapshot,
    leases: &HashMap<&[u8], Vec<String>>,
) -> Result<(String, CoreSnapshot), String> {
    let strange = |what: &str, bytes: &[u8]| format!("{what} is not UTF-8: `{}`", bytes.escape_ascii());
    let key = text(&raw.key).ok_or_else(|| strange("its key", &raw.key))?;
    let name = match raw.name.as_deref() {
        None | Some([]) => return Err("it has no `name`".to_owned()),
        Some(name) => text(name).ok_or_else(|| strange("its `name`", name))?,
    };
    // containerd writes `parent` only when there is one (`createSnapshot`, core/metadata/snapshot.go).
    let parent = match raw.parent.as_deref() {
        None | Some([]) => None,
        Some(parent) => Some(text(parent).ok_or_else(|| strange("its `parent`", parent))?),
    };
    let leases = leases.get(raw.key.as_slice()).cloned().unwrap_or_default();
    let snapshot = CoreSnapshot {
        namespace: namespace.to_owned(),
        key,
        parent,
        leases,
    };
    Ok((name, snapshot))
}

fn leases_by_key(leases: &[RawLease]) -> HashMap<&[u8], Vec<String>> {
    let mut by_key: HashMap<&[u8], Vec<String>> = HashMap::new();
    for (id, keys) in leases {
        let Some(id) = text(id) else { continue };
        for key in keys {
            by_key.entry(key).or_default().push(id.clone());
        }
    }
    by_key
}

fn container(namespace: &str, raw: &RawContainer) -> Option<Container> {
    let label = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(text);
    let [pod_namespace, pod_name, pod_uid] = &raw.pod;
    let pod = label(pod_name).map(|name| Pod {
        namespace: label(pod_namespace).unwrap_or_default(),
        name,
        uid: label(pod_uid).unwrap_or_default(),
    });
    Some(Container {
        namespace: namespace.to_owned(),
        id: text(&raw.id)?,
        image: raw
            .image
            .as_deref()
            .filter(|image| !image.is_empty())
            .and_then(text),
        snapshot_key: text(&raw.snapshot_key)?,
        pod,
    })
}

/// The snapshots that a blob leads to, in the order in which they are found, each once.
fn top_snapshots(target: &[u8], blobs: &BTreeMap<Vec<u8>, RawBlob>) -> Vec<String> {
    let mut visited = BTreeSet::from([target]);
    let mut open = vec![target];
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(digest) = open.pop() {
        let Some(blob) = blobs.get(digest) else { continue };
        for key in &blob.snapshots {
            if let Some(key) = text(key)
                && seen.insert(key.clone())
            {
                found.push(key);
            }
        }
        for next in &blob.blobs {
            if visited.len() < MOST_BLOBS && visited.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
