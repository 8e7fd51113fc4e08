//! Follows containerd's own database, `<root>/io.containerd.metadata.v1.bolt/meta.db` (core/metadata/buckets.go): what
//! clients call the snapshots that the devmapper snapshotter has under its backend keys.
//!
//! Only `v1/<namespace>/snapshots/devmapper/<key>` is read, of which only `name`, the backend key. The rest of the file,
//! images, leases and containers, is other people's and is neither kept nor decoded. The file has no freelist
//! (`NoFreelistSync`, plugins/metadata/plugin.go); the reader needs none.

use std::path::Path;

use super::bbolt::{
    BboltError, PageSource, Snapshot, Value,
    fold::{Entry, Found, Shape, Tables},
};
use crate::model::{Untrusted, commit::EntryChange};

/// `bucketKeyVersion`, buckets.go.
const VERSION: &[u8] = b"v1";
/// `bucketKeyObjectSnapshots`, buckets.go.
const SNAPSHOTS: &[u8] = b"snapshots";
/// The snapshotter's name (`plugins/snapshots/devmapper/plugin/plugin.go`).
const SNAPSHOTTER: &[u8] = b"devmapper";

/// Why there is no answer about meta.db.
#[derive(Debug, thiserror::Error)]
pub enum CoreDbError {
    /// The file could not be read, is no bbolt database, or is damaged.
    #[error(transparent)]
    Database(#[from] BboltError),
    /// A bbolt database of something else.
    #[error(
        "{path} is a bbolt database without `v1`: it is not containerd's meta.db; check containerd's `root`"
    )]
    NotCore {
        /// The path.
        path: String,
    },
    /// An entry is not what containerd writes.
    #[error("{path}, namespace `{namespace}`, snapshot `{key}`: it has no `name` that is a plain value")]
    BadEntry {
        /// The path.
        path: String,
        /// The namespace, made printable.
        namespace: String,
        /// The client's key, made printable.
        key: String,
    },
}

/// Follows each namespace's snapshots from commit to commit.
#[derive(Debug)]
pub struct CoreTables<'p> {
    /// The database, for messages.
    pub path: &'p Path,
}

impl Tables for CoreTables<'_> {
    type Change = EntryChange;
    type Error = CoreDbError;

    /// One bucket for each namespace that uses the snapshotter, by the namespace's name.
    fn find<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, CoreDbError> {
        let Some(version) = snapshot.bucket(&[VERSION])? else {
            return self.nothing_in(snapshot);
        };
        let mut found = Vec::new();
        version.for_each(|namespace, value| {
            if let Value::Bucket(inner) = value
                && let Some(snapshots) = inner.bucket(SNAPSHOTS)?
                && let Some(bucket) = snapshots.bucket(SNAPSHOTTER)?
            {
                found.push(Found {
                    name: namespace.to_vec(),
                    bucket,
                    shape: Shape::Parts(&["name"]),
                });
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(found)
    }

    fn change(
        &self,
        table: &[u8],
        key: &[u8],
        from: Option<Entry<'_>>,
        to: Option<Entry<'_>>,
    ) -> Result<EntryChange, CoreDbError> {
        let bad = || CoreDbError::BadEntry {
            path: self.path.display().to_string(),
            namespace: table.escape_ascii().to_string(),
            key: key.escape_ascii().to_string(),
        };
        let name = |entry: Option<Entry<'_>>| match entry {
            None => Ok(None),
            Some(Entry::Parts(parts)) => match parts.as_slice() {
                [Some(name)] => Ok(Some(Untrusted::from_bytes(name))),
                _ => Err(bad()),
            },
            Some(Entry::Bytes(_) | Entry::Misfit) => Err(bad()),
        };
        Ok(EntryChange::Core {
            namespace: Untrusted::from_bytes(table),
            key: Untrusted::from_bytes(key),
            from: name(from)?,
            to: name(to)?,
        })
    }
}

impl CoreTables<'_> {
    /// A file in which containerd made nothing yet has nothing in it at all.
    fn nothing_in<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, CoreDbError> {
        snapshot.root().for_each(|_, _| {
            Err(CoreDbError::NotCore {
                path: self.path.display().to_string(),
            })
        })?;
        Ok(Vec::new())
    }
}
