//! What was collected, as values. A snapshot that is not as containerd writes it is an error: a user that is overlooked
//! would make a layer look unused. A strange container, image or lease only leaves itself out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    let mut snapshots = Vec::new();
    for raw in namespaces {
        namespace(raw, &mut core, &mut snapshots, path)?;
    }
    core.snapshots = by_backend_key(snapshots, path)?;
    Ok(core)
}

/// Sorted before they become a map: one by one, each of very many would be searched its place.
fn by_backend_key(
    mut snapshots: Vec<(String, CoreSnapshot)>,
    path: &Path,
) -> Result<BTreeMap<String, CoreSnapshot>, CoreDbError> {
    snapshots.sort_by(|(one, _), (other, _)| one.cmp(other));
    let twice = snapshots.windows(2).find_map(|pair| match pair {
        [(one, first), (other, second)] if one == other => Some((first, second)),
        _ => None,
    });
    if let Some((first, second)) = twice {
        let problem = format!(
            "its `name` is also that of snapshot `{}` of namespace `{}`",
            first.key.escape_default(),
            first.namespace.escape_default()
        );
        let (namespace, key) = (second.namespace.as_bytes(), second.key.as_bytes());
        return Err(bad_snapshot(path, namespace, key, problem));
    }
    Ok(BTreeMap::from_iter(snapshots))
}

fn namespace(
    raw: RawNamespace,
    core: &mut CoreDb,
    snapshots: &mut Vec<(String, CoreSnapshot)>,
    path: &Path,
) -> Result<(), CoreDbError> {
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
    snapshots.reserve(raw.snapshots.len());
    for mut snapshot in raw.snapshots {
        let decoded = decode_snapshot(&name, &mut snapshot, &leases);
        snapshots.push(decoded.map_err(|problem| bad_snapshot(path, &raw.name, &snapshot.key, problem))?);
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

/// Takes the texts out of it, the key last: as long as anything is wrong it is still there to be named.
fn decode_snapshot(
    namespace: &str,
    raw: &mut RawSnapshot,
    leases: &HashMap<&[u8], Vec<String>>,
) -> Result<(String, CoreSnapshot), String> {
    let strange = |what: &str, bytes: &[u8]| format!("{what} is not UTF-8: `{}`", bytes.escape_ascii());
    let name = match raw.name.take() {
        Some(Ok(name)) if !name.is_empty() => name,
        Some(Err(error)) => return Err(strange("its `name`", error.as_bytes())),
        Some(Ok(_)) | None => return Err("it has no `name`".to_owned()),
    };
    // containerd writes `parent` only when there is one (`createSnapshot`, core/metadata/snapshot.go).
    let parent = match raw.parent.take() {
        Some(Ok(parent)) if !parent.is_empty() => Some(parent),
        Some(Err(error)) => return Err(strange("its `parent`", error.as_bytes())),
        Some(Ok(_)) | None => None,
    };
    let leases = leases.get(raw.key.as_slice()).cloned().unwrap_or_default();
    let key = String::from_utf8(std::mem::take(&mut raw.key)).map_err(|error| {
        raw.key = error.into_bytes();
        strange("its key", &raw.key)
    })?;
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
