//! Reads containerd's snapshot storage, `<root_path>/metadata.db` (containerd `core/snapshots/storage/bolt.go`).
//!
//! `v1/snapshots/<backend key>` is a bucket per snapshot with `id`, `kind`, `parent` and more. The buckets are made by
//! the first snapshot, and containerd opens the file only at its first transaction (`metastore.go`), so on a fresh
//! node there may be no file, or one without `v1`. Which of these it was is in [`SnapshotDb::presence`].

use std::collections::BTreeMap;
#[cfg(feature = "readers")]
use std::hash::RandomState;
use std::{path::Path, string::FromUtf8Error};

use super::bbolt::{
    BboltError, Bucket, Database, PageSource, Snapshot, Value, Visit,
    fold::{Entry, Found, Shape, Tables},
};
#[cfg(feature = "readers")]
use super::{
    bbolt::{FileSource, Pages},
    row_index::{RowIndex, beside},
};
pub use crate::model::databases::{Presence, SnapshotDb, SnapshotKind, SnapshotRow};
use crate::model::{SnapshotId, Untrusted, commit::EntryChange};
#[cfg(feature = "readers")]
use crate::words::explain;

/// `bucketKeyStorageVersion` and `bucketKeySnapshot`, bolt.go.
const SNAPSHOTS: [&[u8]; 2] = [b"v1", b"snapshots"];
/// How often the file is opened again when it was replaced meanwhile.
#[cfg(feature = "readers")]
const OPENS: usize = 3;
/// How often rows and index are read again when they are not of one transaction.
#[cfg(feature = "readers")]
const READS: usize = 4;

/// Why there is no answer about the snapshot storage.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotDbError {
    /// The file could not be read, is no bbolt database, or is damaged.
    #[error(transparent)]
    Database(#[from] BboltError),
    /// A bbolt database of something else, or one that lost a bucket.
    #[error(
        "{path} is a bbolt database without `v1/snapshots`: it is not containerd's snapshot storage; check the path"
    )]
    NotSnapshots {
        /// The path.
        path: String,
    },
    /// A row is not what containerd writes.
    #[error("{path}, snapshot `{key}`: {problem}; nothing in this pool is judged until that is understood")]
    BadRow {
        /// The path.
        path: String,
        /// The backend key, made printable.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A row's key and the three values that matter, texts as they lie in the file.
struct RawRow {
    key: Vec<u8>,
    /// Nothing where it is missing, or not an unsigned varint.
    id: Option<u64>,
    /// Nothing where it is missing, or not one byte.
    kind: Option<u8>,
    parent: Option<Text>,
}

/// A text, or the bytes that are none.
pub(super) type Text = Result<String, FromUtf8Error>;

impl SnapshotDb {
    /// Reads the database at `path`, whether containerd runs or not, and holds the rows against their index. Takes no lock. No
    /// file is an answer, not an error.
    #[cfg(feature = "readers")]
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SnapshotDbError> {
        let path = path.as_ref();
        let hasher = RandomState::new();
        let index = || Database::open(path)?.snapshot(|snapshot| RowIndex::read(snapshot, &hasher));
        let mut reads = 1;
        loop {
            let (index, rows) = beside(index, || Self::read_rows(path));
            let mut rows = rows?;
            match index {
                // There is no index without a file.
                _ if rows.txid.is_none() => {}
                Ok((index, txid)) if rows.txid == Some(txid) => {
                    rows.contradiction = index.contradiction(&rows.snapshots, &hasher);
                }
                // A commit in between, or another file: they are not of each other.
                _ if reads < READS => {
                    reads += 1;
                    continue;
                }
                Ok(_) | Err(BboltError::Busy { .. }) => {}
                Err(error) => {
                    rows.contradiction = Some(format!("its index can not be read: {}", explain(&error)));
                }
            }
            return Ok(rows);
        }
    }

    /// The rows alone, as pages that were recorded hold them.
    #[cfg(feature = "readers")]
    pub fn read_rows(path: &Path) -> Result<Self, SnapshotDbError> {
        Self::open_and_read(path, Database::new).map(|(read, _)| read)
    }

    /// The same, with the pages that were read; none where there is no file, or an empty one.
    #[cfg(feature = "readers")]
    pub fn read_with_pages(path: impl AsRef<Path>) -> Result<(Self, Option<Pages>), SnapshotDbError> {
        Self::open_and_read(path.as_ref(), Database::keeping)
    }

    #[cfg(feature = "readers")]
    fn open_and_read(
        path: &Path,
        open: fn(FileSource) -> Database<FileSource>,
    ) -> Result<(Self, Option<Pages>), SnapshotDbError> {
        let mut opens = 1;
        loop {
            let read = FileSource::open(path).map(|source| open(source).with_free_list());
            let read = read.map_err(SnapshotDbError::from);
            let read =
                read.and_then(|database| Ok((Self::read_from(&database, path)?, Some(database.into_kept()))));
            match read {
                Err(SnapshotDbError::Database(BboltError::Replaced { .. })) if opens < OPENS => opens += 1,
                Err(SnapshotDbError::Database(BboltError::Missing { .. })) => {
                    return Ok((Self::nothing(Presence::NoFile), None));
                }
                Err(SnapshotDbError::Database(BboltError::Empty { .. })) => {
                    return Ok((Self::nothing(Presence::NoBuckets), None));
                }
                other => return other,
            }
        }
    }

    /// Reads a database that is open already; `path` is only for messages.
    pub fn read_from<S: PageSource>(database: &Database<S>, path: &Path) -> Result<Self, SnapshotDbError> {
        let (raw, txid) = database.snapshot(|snapshot| collect(snapshot, path))?;
        let Some((rows, sequence)) = raw else {
            return Ok(Self {
                txid: Some(txid),
                ..Self::nothing(Presence::NoBuckets)
            });
        };
        // Collected before they become a map: what is in order already is made a tree at once.
        let rows: Vec<_> = rows
            .into_iter()
            .map(|mut row| decode_row(&mut row).map_err(|problem| bad_row(path, &row.key, problem)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            snapshots: BTreeMap::from_iter(rows),
            sequence,
            txid: Some(txid),
            presence: Presence::Complete,
            contradiction: None,
        })
    }

    /// Of no file, or of one without anything in it.
    pub(super) fn nothing(presence: Presence) -> Self {
        Self {
            snapshots: BTreeMap::new(),
            sequence: 0,
            txid: None,
            presence,
            contradiction: None,
        }
    }
}

fn bad_row(path: &Path, key: &[u8], problem: impl Into<String>) -> SnapshotDbError {
    SnapshotDbError::BadRow {
        path: path.display().to_string(),
        key: key.escape_ascii().to_string(),
        problem: problem.into(),
    }
}

/// The bucket of the rows. None when no snapshot was ever made.
pub(super) fn rows_bucket<'s, S: PageSource>(
    snapshot: &'s Snapshot<'s, S>,
    path: &Path,
) -> Result<Option<Bucket<'s, S>>, SnapshotDbError> {
    if let Some(bucket) = snapshot.bucket(&SNAPSHOTS)? {
        return Ok(Some(bucket));
    }
    let mut empty = true;
    snapshot.root().for_each(|_, _| {
        empty = false;
        Ok::<_, BboltError>(())
    })?;
    // Reading another database as "no snapshots" would make every device look unused.
    if empty {
        Ok(None)
    } else {
        Err(SnapshotDbError::NotSnapshots {
            path: path.display().to_string(),
        })
    }
}

/// Follows the rows from commit to commit.
#[derive(Debug)]
pub struct SnapshotTables<'p> {
    /// The database, for messages.
    pub path: &'p Path,
}

impl Tables for SnapshotTables<'_> {
    type Change = EntryChange;
    type Error = SnapshotDbError;

    fn find<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, SnapshotDbError> {
        let found = rows_bucket(snapshot, self.path)?.map(|bucket| Found {
            name: b"snapshots".into(),
            bucket,
            shape: Shape::Parts(&["id", "kind", "parent"]),
        });
        Ok(found.into_iter().collect())
    }

    fn change(
        &self,
        _: &[u8],
        key: &[u8],
        from: Option<Entry<'_>>,
        to: Option<Entry<'_>>,
    ) -> Result<EntryChange, SnapshotDbError> {
        Ok(EntryChange::Snapshot {
            key: Untrusted::from_bytes(key),
            from: self.row(key, from)?,
            to: self.row(key, to)?,
        })
    }
}

impl SnapshotTables<'_> {
    fn row(&self, key: &[u8], entry: Option<Entry<'_>>) -> Result<Option<SnapshotRow>, SnapshotDbError> {
        let Some(entry) = entry else { return Ok(None) };
        let Entry::Parts(parts) = entry else {
            return Err(bad_row(
                self.path,
                key,
                "is not the bucket of plain values that a row is",
            ));
        };
        let part = |at: usize| parts.get(at).copied().flatten();
        let mut row = RawRow {
            key: key.to_vec(),
            id: part(0).and_then(uvarint),
            kind: part(1).and_then(only_byte),
            parent: part(2).map(|parent| String::from_utf8(parent.to_vec())),
        };
        let (_, row) = decode_row(&mut row).map_err(|problem| bad_row(self.path, key, problem))?;
        Ok(Some(row))
    }
}

/// The rows, undecoded, and the sequence. None when no snapshot was ever made.
fn collect<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    path: &Path,
) -> Result<Option<(Vec<RawRow>, u64)>, SnapshotDbError> {
    let Some(bucket) = rows_bucket(snapshot, path)? else {
        return Ok(None);
    };
    let mut keys = Vec::new();
    let mut buckets = Vec::new();
    bucket.for_each(|key, value| match value {
        Value::Bucket(row) => {
            keys.push(key.to_vec());
            buckets.push(row);
            Ok(())
        }
        Value::Bytes(_) => Err(bad_row(path, key, "is a plain value where a bucket belongs")),
    })?;
    let parts = read_parts(snapshot, &buckets, &keys, path)?;
    let rows = keys.into_iter().zip(parts);
    let rows = rows.map(|(key, Parts { id, kind, parent })| RawRow {
        key,
        id,
        kind,
        parent,
    });
    Ok(Some((rows.collect(), bucket.sequence())))
}

/// The values of a row that matter.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) id: Option<u64>,
    pub(super) kind: Option<u8>,
    pub(super) parent: Option<Text>,
}

/// Reads them of these rows, which have these keys.
pub(super) fn read_parts<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    rows: &[Bucket<'_, S>],
    keys: &[Vec<u8>],
    path: &Path,
) -> Result<Vec<Parts>, SnapshotDbError> {
    snapshot.in_file_order(rows, &ReadParts { keys, path })
}

/// Reads them.
struct ReadParts<'r> {
    /// The keys of all rows, for messages.
    keys: &'r [Vec<u8>],
    path: &'r Path,
}

impl Visit for ReadParts<'_> {
    type Made = Parts;
    type Error = SnapshotDbError;

    /// One walk, which reads the row's page once; `labels`, a bucket inside, is not entered.
    fn visit<S: PageSource>(&self, place: usize, bucket: &Bucket<'_, S>) -> Result<Parts, SnapshotDbError> {
        let mut parts = Parts::default();
        bucket.for_each(|name, value| {
            match (name, value) {
                (b"id", Value::Bytes(bytes)) => parts.id = uvarint(&bytes),
                (b"kind", Value::Bytes(bytes)) => parts.kind = only_byte(&bytes),
                (b"parent", Value::Bytes(bytes)) => {
                    parts.parent = Some(String::from_utf8(bytes.into_owned()));
                }
                (b"id" | b"kind" | b"parent", Value::Bucket(_)) => {
                    let key = self.keys.get(place).map_or(&[][..], Vec::as_slice);
                    let name = name.escape_ascii();
                    return Err(bad_row(self.path, key, format!("its `{name}` is a bucket")));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(parts)
    }
}

/// Takes the texts out of the row, the key last: as long as anything is wrong it is still there to be named.
fn decode_row(row: &mut RawRow) -> Result<(String, SnapshotRow), String> {
    let id = row.id.ok_or("its `id` is missing or not an unsigned varint")?;
    let kind = row.kind.ok_or("its `kind` is missing or not one byte")?;
    let kind = SnapshotKind::from(kind);
    // containerd writes `parent` only when there is one (`createSnapshot`, bolt.go).
    let parent = match row.parent.take() {
        Some(Ok(parent)) if !parent.is_empty() => Some(parent),
        Some(Err(error)) => return Err(no_text("its `parent`", error.as_bytes())),
        Some(_) | None => None,
    };
    let row_of = SnapshotRow {
        id: SnapshotId(id),
        kind,
        parent,
    };
    Ok((text(&mut row.key, "its key")?, row_of))
}

/// Takes the bytes out as text; they stay where they are no text.
fn text(bytes: &mut Vec<u8>, what: &str) -> Result<String, String> {
    String::from_utf8(std::mem::take(bytes)).map_err(|error| {
        *bytes = error.into_bytes();
        no_text(what, bytes)
    })
}

fn no_text(what: &str, bytes: &[u8]) -> String {
    format!("{what} is not UTF-8: `{}`", bytes.escape_ascii())
}

fn only_byte(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [byte] => Some(*byte),
        _ => None,
    }
}

/// Go's `binary.Uvarint`, for bytes that hold nothing else: seven bits per byte, low ones first, at most ten bytes.
pub(super) fn uvarint(bytes: &[u8]) -> Option<u64> {
    let (last, more) = bytes.split_last()?;
    if more.len() > 9 || *last >= 0x80 || more.iter().any(|byte| *byte < 0x80) {
        return None;
    }
    bytes.iter().rev().try_fold(0_u64, |value, byte| {
        let shifted = value.checked_mul(0x80)?;
        shifted.checked_add(u64::from(byte & 0x7f))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_as_go_writes_them() {
        for (bytes, value) in [
            (&[0x00][..], Some(0)),
            (&[0x01], Some(1)),
            (&[0x7f], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0xbb, 0x08], Some(1083)),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                Some(u64::MAX),
            ),
            (&[], None),
            (&[0x80], None),
            (&[0x01, 0x01], None),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
                None,
            ),
            (
                &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
                None,
            ),
        ] {
            assert_eq!(uvarint(bytes), value, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_row_without_its_parts_is_refused() {
        let row = |id: Option<&[u8]>, kind: Option<&[u8]>, parent: Option<&[u8]>| RawRow {
            key: b"ns/3/act".to_vec(),
            id: id.and_then(uvarint),
            kind: kind.and_then(only_byte),
            parent: parent.map(|parent| String::from_utf8(parent.to_vec())),
        };
        let good = decode_row(&mut row(Some(&[2]), Some(&[2]), Some(b"ns/2/c")))
            .unwrap()
            .1;
        assert_eq!(
            good,
            SnapshotRow {
                id: SnapshotId(2),
                kind: SnapshotKind::Active,
                parent: Some("ns/2/c".to_owned())
            }
        );
        assert_eq!(
            decode_row(&mut row(Some(&[2]), Some(&[9]), None)).unwrap().1.kind,
            SnapshotKind::Other(9)
        );
        assert!(
            decode_row(&mut row(None, Some(&[2]), None))
                .unwrap_err()
                .contains("`id`")
        );
        assert!(
            decode_row(&mut row(Some(&[2]), None, None))
                .unwrap_err()
                .contains("`kind`")
        );
        assert!(
            decode_row(&mut row(Some(&[2]), Some(&[2, 2]), None))
                .unwrap_err()
                .contains("`kind`")
        );
        assert!(
            decode_row(&mut row(Some(&[2]), Some(&[2]), Some(&[0xff])))
                .unwrap_err()
                .contains("`parent`")
        );
    }
}
