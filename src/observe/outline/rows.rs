//! The outline of the snapshot storage, by its index `v1/parents`: an entry for each snapshot that was made from another one,
//! with the numbers of both (containerd `core/snapshots/storage/bolt.go`, `parentKey`). It lies page by page, where each row
//! has a page of its own, so of a hundred thousand rows all but the few at the bottom need not be read.
//!
//! containerd writes the index in the transaction that writes the row (`createSnapshot`, `CommitActive`, `Remove`), so the two
//! say the same. Who must know that a row can be read, and whether it is what its index says, reads the row.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::Path,
};

use crate::{
    model::{SnapshotId, TxId, databases::SnapshotKind, outline::RowsOutline},
    observe::{
        bbolt::{BboltError, Bucket, Database, PageSource, Snapshot, Value},
        row_index::{RowIndex, beside},
        snapshot_db::{Parts, SnapshotDbError, read_parts, rows_bucket},
    },
};

/// Reads it; nothing where the index does not fit the rows, or a row is anything but plain. The file is opened twice, for the
/// rows and for their index, which are read side by side. Of fewer than `least` rows there is none either. `path` is only for
/// messages.
pub fn rows_outline<S: PageSource>(
    open: impl Fn() -> Result<Database<S>, BboltError> + Sync,
    least: usize,
    path: &Path,
) -> Result<Option<RowsOutline>, SnapshotDbError> {
    let hasher = RandomState::new();
    let read_index = || open()?.snapshot(|snapshot| RowIndex::read(snapshot, &hasher));
    let (outline, txid) = open()?.with_free_list().snapshot(|snapshot| {
        let (index, rows) = beside(read_index, || Rows::read(snapshot, &hasher, path));
        let (Some(rows), (index, txid)) = (rows?, index?) else {
            return Ok::<_, SnapshotDbError>(None);
        };
        // With a commit in between they are not of each other.
        let same = txid == snapshot.txid();
        if same && index.odd.is_none() && rows.hashes.len() >= least {
            rows.fitted(&index, snapshot, path)
        } else {
            Ok(None)
        }
    })?;
    let outline = outline.map(|outline| RowsOutline { txid, ..outline });
    Ok(outline.filter(RowsOutline::is_plain))
}

/// The rows, unread, with the hashes of their keys.
struct Rows<'s, S> {
    hashes: Vec<u64>,
    buckets: Vec<Bucket<'s, S>>,
    sequence: u64,
}

impl<'s, S: PageSource> Rows<'s, S> {
    fn read(
        snapshot: &'s Snapshot<'s, S>,
        hasher: &RandomState,
        path: &Path,
    ) -> Result<Option<Self>, SnapshotDbError> {
        let Some(bucket) = rows_bucket(snapshot, path)? else {
            return Ok(None);
        };
        let mut rows = Self {
            hashes: Vec::new(),
            buckets: Vec::new(),
            sequence: bucket.sequence(),
        };
        let mut fits = true;
        bucket.for_each(|key, value| {
            match value {
                Value::Bucket(row) => {
                    rows.hashes.push(hasher.hash_one(key));
                    rows.buckets.push(row);
                }
                Value::Bytes(_) => fits = false,
            }
            Ok::<_, SnapshotDbError>(())
        })?;
        Ok(fits.then_some(rows))
    }

    /// Takes the numbers of all rows, of those that are not in the index from themselves.
    fn fitted(
        self,
        index: &RowIndex,
        snapshot: &'s Snapshot<'s, S>,
        path: &Path,
    ) -> Result<Option<RowsOutline>, SnapshotDbError> {
        let mut rows = Vec::with_capacity(self.hashes.len());
        let mut rest = Vec::new();
        for (hash, row) in self.hashes.iter().zip(self.buckets) {
            match index.by_key.get(hash) {
                Some(link) => rows.push(SnapshotId(link.child)),
                None => rest.push(row),
            }
        }
        // Each entry is of a row.
        if rows.len() != index.by_key.len() {
            return Ok(None);
        }
        for parts in read_parts(snapshot, &rest, &[], path)? {
            match parts {
                Parts {
                    id: Some(id),
                    kind: Some(kind),
                    parent: None,
                } if !matches!(kind.into(), SnapshotKind::Other(_)) => rows.push(SnapshotId(id)),
                // One that should be in the index, or is no row.
                _ => return Ok(None),
            }
        }
        rows.sort_unstable();
        Ok(Some(RowsOutline {
            rows,
            sequence: self.sequence,
            txid: TxId(0),
        }))
    }
}
