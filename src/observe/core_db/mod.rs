//! containerd's own database, `<root>/io.containerd.metadata.v1.bolt/meta.db` (core/metadata/buckets.go): what clients call
//! the snapshots that the devmapper snapshotter has under its backend keys (`tables` follows that), and which containers,
//! images and leases use them (`read`).
//!
//! Of a container only its id, image, snapshot and the labels that name its pod are kept; no specification, no environment.
//! The file has no freelist (`NoFreelistSync`, plugins/metadata/plugin.go); the reader needs none.

mod decode;
mod read;
mod tables;

use std::path::Path;

pub use tables::CoreTables;

use super::bbolt::{BboltError, PageSource, Snapshot};
pub use crate::model::CoreDb;

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
    #[error("{path}, namespace `{namespace}`, snapshot `{key}`: {problem}")]
    BadEntry {
        /// The path.
        path: String,
        /// The namespace, made printable.
        namespace: String,
        /// The client's key, made printable.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A file in which containerd made nothing yet has nothing in it at all: with anything in it, it is another's.
fn nothing_in<S: PageSource>(snapshot: &Snapshot<'_, S>, path: &Path) -> Result<(), CoreDbError> {
    snapshot.root().for_each(|_, _| {
        Err(CoreDbError::NotCore {
            path: path.display().to_string(),
        })
    })
}
