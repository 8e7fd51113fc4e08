//! Collects what there is in meta.db about the snapshotter's snapshots and their users, undecoded: the file must hold
//! still while this runs.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

use super::{CoreDb, CoreDbError, SNAPSHOTS, SNAPSHOTTER, VERSION, decode, nothing_in};
use crate::observe::{
    bbolt::{BboltError, Bucket, Database, FileSource, PageSource, Snapshot, Value, Visit},
    snapshot_db::Text,
};

/// How often the file is opened again when it was replaced meanwhile.
const OPENS: usize = 3;
/// The longest text of a container, image or label that is taken; what is longer is left out. A name in containerd has at
/// most 255 bytes, a label with its value 4096 (`pkg/labels/validate.go`), a key of bbolt 32768.
const LONGEST: usize = 32_768;

/// Buckets of a namespace that are read (core/metadata/buckets.go).
const OBJECTS: [&[u8]; 5] = [SNAPSHOTS, b"containers", b"images", b"leases", b"content"];

/// Labels that name the pod of a container: the kubelet gives them, and containerd's CRI keeps them on the container.
pub(super) const POD_LABELS: [&str; 3] = [
    "io.kubernetes.pod.namespace",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.uid",
];
/// Label of a blob for the blobs that it leads to (`labelGCContentRef`, core/metadata/gc.go).
const CONTENT_REFERENCE: &[u8] = b"containerd.io/gc.ref.content";
/// The same for the layers of an image, which lead nowhere (`ChildGCLabels`, core/images/mediatypes.go).
const LAYER_REFERENCE: &[u8] = b"containerd.io/gc.ref.content.l.";
/// Label of an image's configuration for its top layer's snapshot (`labelGCSnapRef`, gc.go; written by
/// core/unpack/unpacker.go).
const SNAPSHOT_REFERENCE: &[u8] = b"containerd.io/gc.ref.snapshot.devmapper";

/// One namespace, undecoded.
#[derive(Debug, Default)]
pub(super) struct RawNamespace {
    pub(super) name: Vec<u8>,
    pub(super) snapshots: Vec<RawSnapshot>,
    pub(super) containers: Vec<RawContainer>,
    pub(super) images: Vec<RawImage>,
    /// The blobs that images lead to, by their digests.
    pub(super) blobs: BTreeMap<Vec<u8>, RawBlob>,
    pub(super) leases: Vec<RawLease>,
}

/// Name of an image, and the digest that it stands for.
pub(super) type RawImage = (Vec<u8>, Vec<u8>);
/// Id of a lease, and the keys of the snapshots that it holds.
pub(super) type RawLease = (Vec<u8>, Vec<Vec<u8>>);

/// A snapshot, undecoded.
#[derive(Debug)]
pub(super) struct RawSnapshot {
    pub(super) key: Vec<u8>,
    pub(super) name: Option<Text>,
    pub(super) parent: Option<Text>,
}

/// A container on the snapshotter, undecoded.
#[derive(Debug)]
pub(super) struct RawContainer {
    pub(super) id: Vec<u8>,
    pub(super) snapshot_key: Vec<u8>,
    pub(super) image: Option<Vec<u8>>,
    pub(super) pod: [Option<Vec<u8>>; 3],
}

/// What the labels of a blob lead to.
#[derive(Debug, Default)]
pub(super) struct RawBlob {
    /// Digests of other blobs.
    pub(super) blobs: Vec<Vec<u8>>,
    /// Client keys of snapshots.
    pub(super) snapshots: Vec<Vec<u8>>,
}

impl CoreDb {
    /// Reads the database at `path`, whether containerd runs or not. Takes no lock.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CoreDbError> {
        read(path.as_ref(), Part::All)
    }

    /// Reads only which snapshots it knows, and not who uses them: a fraction of it, and all that tells whether the snapshot
    /// storage is an older one.
    pub fn read_snapshots(path: impl AsRef<Path>) -> Result<Self, CoreDbError> {
        read(path.as_ref(), Part::Snapshots)
    }

    /// Reads a database that is open already; `path` is only for messages.
    pub fn read_from<S: PageSource>(database: &Database<S>, path: &Path) -> Result<Self, CoreDbError> {
        read_from(database, path, Part::All)
    }
}

/// How much of it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    /// Snapshots alone, without containers, images and leases.
    Snapshots,
}

fn read(path: &Path, part: Part) -> Result<CoreDb, CoreDbError> {
    let mut opens = 1;
    loop {
        let database = FileSource::open(path).map(Database::new)?.with_free_list();
        match read_from(&database, path, part) {
            Err(CoreDbError::Database(BboltError::Replaced { .. })) if opens < OPENS => opens += 1,
            other => return other,
        }
    }
}

fn read_from<S: PageSource>(database: &Database<S>, path: &Path, part: Part) -> Result<CoreDb, CoreDbError> {
    let (raw, txid) = database.snapshot(|snapshot| collect(snapshot, path, part))?;
    decode::core_db(raw, txid, path)
}

fn collect<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    path: &Path,
    part: Part,
) -> Result<Vec<RawNamespace>, CoreDbError> {
    let Some(version) = snapshot.bucket(&[VERSION])? else {
        nothing_in(snapshot, path)?;
        return Ok(Vec::new());
    };
    let mut namespaces = Vec::new();
    version.for_each(|name, value| {
        // Beside the namespaces there is the schema's `version`, a plain value.
        if let Value::Bucket(bucket) = value {
            namespaces.push(namespace(snapshot, name, &bucket, path, part)?);
        }
        Ok::<_, CoreDbError>(())
    })?;
    Ok(namespaces)
}

fn namespace<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    name: &[u8],
    bucket: &Bucket<'_, S>,
    path: &Path,
    part: Part,
) -> Result<RawNamespace, CoreDbError> {
    let mut raw = RawNamespace {
        name: name.to_vec(),
        ..RawNamespace::default()
    };
    let mut blobs = None;
    bucket.for_each(|object, value| {
        let Value::Bucket(inner) = value else {
            // Left out, everything in it would look as if it had never been.
            return if OBJECTS.contains(&object) {
                Err(no_bucket(path, name, object))
            } else {
                Ok(())
            };
        };
        match object {
            SNAPSHOTS => match inner.get(SNAPSHOTTER)? {
                Some(Value::Bucket(snapshots)) => {
                    raw.snapshots = collect_snapshots(snapshot, &snapshots, name, path)?;
                }
                Some(Value::Bytes(_)) => return Err(no_bucket(path, name, SNAPSHOTTER)),
                None => {}
            },
            _ if part == Part::Snapshots => {}
            b"containers" => raw.containers = containers(snapshot, &inner)?,
            b"images" => raw.images = images(snapshot, &inner)?,
            b"leases" => raw.leases = leases(&inner)?,
            b"content" => blobs = inner.bucket(b"blob")?,
            _ => {}
        }
        Ok::<_, CoreDbError>(())
    })?;
    if let Some(blobs) = blobs {
        let targets = raw.images.iter().map(|(_, digest)| digest.clone());
        raw.blobs = reachable_blobs(snapshot, &blobs, targets.collect())?;
    }
    Ok(raw)
}

fn no_bucket(path: &Path, namespace: &[u8], object: &[u8]) -> CoreDbError {
    CoreDbError::BadEntry {
        path: path.display().to_string(),
        namespace: namespace.escape_ascii().to_string(),
        key: object.escape_ascii().to_string(),
        problem: "is a value where containerd has a bucket".to_owned(),
    }
}

fn collect_snapshots<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    bucket: &Bucket<'_, S>,
    namespace: &[u8],
    path: &Path,
) -> Result<Vec<RawSnapshot>, CoreDbError> {
    let mut keys = Vec::new();
    let mut rows = Vec::new();
    bucket.for_each(|key, value| {
        let Value::Bucket(row) = value else {
            let problem = "it is a plain value where a bucket belongs";
            return Err(decode::bad_snapshot(path, namespace, key, problem));
        };
        keys.push(key.to_vec());
        rows.push(row);
        Ok(())
    })?;
    let read = ReadRow {
        keys: &keys,
        namespace,
        path,
    };
    let parts = snapshot.in_file_order(&rows, &read)?;
    let snapshots = keys.into_iter().zip(parts);
    Ok(snapshots
        .map(|(key, (name, parent))| RawSnapshot { key, name, parent })
        .collect())
}

/// Reads the name and the parent of a snapshot.
struct ReadRow<'r> {
    /// The keys of all snapshots of the namespace, for messages.
    keys: &'r [Vec<u8>],
    namespace: &'r [u8],
    path: &'r Path,
}

impl Visit for ReadRow<'_> {
    type Made = (Option<Text>, Option<Text>);
    type Error = CoreDbError;

    /// One walk, which reads its page once; `children` and `labels`, the buckets inside, are not entered.
    fn visit<S: PageSource>(&self, place: usize, row: &Bucket<'_, S>) -> Result<Self::Made, CoreDbError> {
        let (mut name, mut parent) = (None, None);
        let bad = |problem: &str| {
            let key = self.keys.get(place).map_or(&[][..], Vec::as_slice);
            decode::bad_snapshot(self.path, self.namespace, key, problem)
        };
        row.for_each(|part, value| {
            match (part, value) {
                (b"name", Value::Bytes(bytes)) => name = Some(String::from_utf8(bytes.into_owned())),
                (b"parent", Value::Bytes(bytes)) => parent = Some(String::from_utf8(bytes.into_owned())),
                (b"name", Value::Bucket(_)) => return Err(bad("its `name` is a bucket")),
                (b"parent", Value::Bucket(_)) => return Err(bad("its `parent` is a bucket")),
                _ => {}
            }
            Ok(())
        })?;
        Ok((name, parent))
    }
}

/// Keys and buckets of all buckets in this one, both in the order of the keys.
type Inner<'s, S> = (Vec<Vec<u8>>, Vec<Bucket<'s, S>>);

fn inner<'s, S: PageSource>(bucket: &Bucket<'s, S>) -> Result<Inner<'s, S>, BboltError> {
    let (mut keys, mut buckets) = (Vec::new(), Vec::new());
    bucket.for_each(|key, value| {
        if let Value::Bucket(inner) = value {
            keys.push(key.to_vec());
            buckets.push(inner);
        }
        Ok::<_, BboltError>(())
    })?;
    Ok((keys, buckets))
}

fn containers<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    bucket: &Bucket<'_, S>,
) -> Result<Vec<RawContainer>, BboltError> {
    let (ids, buckets) = inner(bucket)?;
    let containers = snapshot.in_file_order(&buckets, &ReadContainer)?;
    let ours = ids.into_iter().zip(containers);
    Ok(ours
        .filter_map(|(id, container)| Some(RawContainer { id, ..container? }))
        .collect())
}

/// Reads a container without its id; nothing of one that is on another snapshotter, or on no snapshot.
struct ReadContainer;

impl Visit for ReadContainer {
    type Made = Option<RawContainer>;
    type Error = BboltError;

    fn visit<S: PageSource>(&self, _: usize, container: &Bucket<'_, S>) -> Result<Self::Made, BboltError> {
        let [mut snapshotter, mut snapshot_key, mut image] = [None, None, None];
        let mut labels = None;
        container.for_each(|part, value| {
            match (part, value) {
                (b"snapshotter", Value::Bytes(bytes)) => snapshotter = short(&bytes),
                (b"snapshotKey", Value::Bytes(bytes)) => snapshot_key = short(&bytes),
                (b"image", Value::Bytes(bytes)) => image = short(&bytes),
                (b"labels", Value::Bucket(bucket)) => labels = Some(bucket),
                _ => {}
            }
            Ok::<_, BboltError>(())
        })?;
        if snapshotter.as_deref() != Some(SNAPSHOTTER) {
            return Ok(None);
        }
        let mut pod = [None, None, None];
        if let Some(labels) = labels {
            labels.for_each(|label, value| {
                for (slot, name) in pod.iter_mut().zip(POD_LABELS) {
                    if let Value::Bytes(bytes) = &value
                        && label == name.as_bytes()
                    {
                        *slot = short(bytes);
                    }
                }
                Ok::<_, BboltError>(())
            })?;
        }
        Ok(snapshot_key.map(|snapshot_key| RawContainer {
            id: Vec::new(),
            snapshot_key,
            image,
            pod,
        }))
    }
}

fn images<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    bucket: &Bucket<'_, S>,
) -> Result<Vec<RawImage>, BboltError> {
    let (names, buckets) = inner(bucket)?;
    let digests = snapshot.in_file_order(&buckets, &ReadImage)?;
    let images = names.into_iter().zip(digests);
    Ok(images
        .filter_map(|(name, digest)| Some((name, digest?)))
        .collect())
}

/// Reads the digest that an image stands for, where it has one.
struct ReadImage;

impl Visit for ReadImage {
    type Made = Option<Vec<u8>>;
    type Error = BboltError;

    fn visit<S: PageSource>(&self, _: usize, image: &Bucket<'_, S>) -> Result<Self::Made, BboltError> {
        if let Some(target) = image.bucket(b"target")?
            && let Some(Value::Bytes(digest)) = target.get(b"digest")?
        {
            return Ok(short(&digest));
        }
        Ok(None)
    }
}

fn leases<S: PageSource>(bucket: &Bucket<'_, S>) -> Result<Vec<RawLease>, BboltError> {
    let mut leases = Vec::new();
    bucket.for_each(|id, value| {
        if let Value::Bucket(lease) = value
            && let Some(snapshots) = lease.bucket(SNAPSHOTS)?
            && let Some(held) = snapshots.bucket(SNAPSHOTTER)?
        {
            let mut keys = Vec::new();
            held.for_each(|key, _| {
                keys.push(key.to_vec());
                Ok::<_, BboltError>(())
            })?;
            leases.push((id.to_vec(), keys));
        }
        Ok::<_, BboltError>(())
    })?;
    Ok(leases)
}

/// The blobs that can be reached from `targets` by the labels for containerd's garbage collector, the layers themselves
/// aside: an index leads to its manifests, a manifest to its configuration. Each is read once, however many lead to it.
fn reachable_blobs<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    bucket: &Bucket<'_, S>,
    targets: Vec<Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, RawBlob>, BboltError> {
    let (digests, buckets) = inner(bucket)?;
    let mut buckets: Vec<_> = buckets.into_iter().map(Some).collect();
    let mut found = BTreeMap::new();
    let mut next = targets;
    while !next.is_empty() {
        // One step from what is known: those that are there are read together.
        let (mut steps, mut blobs) = (Vec::new(), Vec::new());
        for digest in std::mem::take(&mut next) {
            let Entry::Vacant(unseen) = found.entry(digest) else {
                continue;
            };
            let place = digests.binary_search(unseen.key()).ok();
            let blob = place.and_then(|place| buckets.get_mut(place)?.take());
            if let Some(blob) = blob {
                steps.push(unseen.key().clone());
                blobs.push(blob);
            }
            unseen.insert(RawBlob::default());
        }
        let read = snapshot.in_file_order(&blobs, &ReadBlob)?;
        for (digest, blob) in steps.into_iter().zip(read) {
            next.extend(blob.blobs.iter().cloned());
            found.insert(digest, blob);
        }
    }
    Ok(found)
}

/// Reads what the labels of a blob lead to.
struct ReadBlob;

impl Visit for ReadBlob {
    type Made = RawBlob;
    type Error = BboltError;

    fn visit<S: PageSource>(&self, _: usize, blob: &Bucket<'_, S>) -> Result<RawBlob, BboltError> {
        let mut raw = RawBlob::default();
        let Some(labels) = blob.bucket(b"labels")? else {
            return Ok(raw);
        };
        labels.for_each(|label, value| {
            if let Value::Bytes(value) = value
                && let Some(value) = short(&value)
            {
                if is_reference(label, SNAPSHOT_REFERENCE, b"/") {
                    raw.snapshots.push(value);
                } else if is_reference(label, CONTENT_REFERENCE, b"./") && !label.starts_with(LAYER_REFERENCE)
                {
                    raw.blobs.push(value);
                }
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(raw)
    }
}

/// Whether a label is this reference, or this one with a name of its own behind a separator.
fn is_reference(label: &[u8], reference: &[u8], separators: &[u8]) -> bool {
    label
        .strip_prefix(reference)
        .is_some_and(|rest| rest.first().is_none_or(|first| separators.contains(first)))
}

fn short(bytes: &[u8]) -> Option<Vec<u8>> {
    (bytes.len() <= LONGEST).then(|| bytes.to_vec())
}
