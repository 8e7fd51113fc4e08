//! Where the files are that are read.

use serde::{Deserialize, Serialize};

use std::path::PathBuf;

use crate::model::PoolName;

/// Where the snapshotter keeps its things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The thin pool.
    pub pool: PoolName,
    /// containerd's `root_path` of the devmapper snapshotter.
    pub root: PathBuf,
}

impl Places {
    /// The pool database: devices and thin ids.
    #[must_use]
    pub fn pool_db(&self) -> PathBuf {
        self.root.join(format!("{}.db", self.pool))
    }

    /// The snapshot storage.
    #[must_use]
    pub fn snapshot_db(&self) -> PathBuf {
        self.root.join("metadata.db")
    }
}
