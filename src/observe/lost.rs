//! A pool database that is lost while the snapshot storage beside it is there: no fresh node, and not one to be called clean.

use std::{fmt, fs, path::Path};

use super::{
    bbolt::BboltError, places::Places, pool_db::PoolDbError, snapshot_db::SnapshotDb, world::WorldError,
};
use crate::words::counted;

/// bbolt writes a database's first four pages at once, and opens none that is shorter than two of them (`mmap`, db.go). Pages
/// are the machine's, 4 KiB at the least.
const TWO_PAGES: u64 = 2 * 4096;

/// What is left of a pool database that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// No file.
    Nothing,
    /// A file without a byte, or without the buckets that containerd makes in it at once.
    Empty,
    /// Too short for any database of bbolt's: so many bytes.
    Stump(u64),
}

/// A pool database that is lost, with snapshots whose devices it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPoolDb {
    /// The file.
    pub path: String,
    /// Its name alone.
    pub name: String,
    /// What is left of it.
    pub remains: Remains,
    /// How many snapshots are listed still.
    pub snapshots: usize,
}

impl fmt::Display for LostPoolDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, name, .. } = self;
        let listed = counted(self.snapshots, "snapshot");
        match self.remains {
            Remains::Nothing => write!(f, "containerd's device database {path} is gone")?,
            Remains::Empty => write!(f, "containerd's device database {path} is empty")?,
            Remains::Stump(size) => write!(
                f,
                "containerd's device database {path} was cut short, to {}",
                counted(size, "byte")
            )?,
        }
        write!(
            f,
            ", while metadata.db beside it still lists {listed}: nothing tells any more which thin device is whose, and nothing can be checked. "
        )?;
        match self.remains {
            Remains::Nothing | Remains::Empty => write!(
                f,
                "containerd starts with an empty one in its place. Then it can neither use nor remove what it has listed, and gives out thin ids from 1 again: each that the pool has already fails with `file exists` (containerd#4790). "
            )?,
            Remains::Stump(_) => write!(
                f,
                "containerd's devmapper snapshotter does not start with it (`file size too small`). "
            )?,
        }
        write!(
            f,
            "What can be saved: no thin device is touched by this, those in the pool hold their data. "
        )?;
        if self.remains == Remains::Nothing {
            write!(
                f,
                "If containerd was not restarted since, it has the file open still: do not stop it, look for `{name} (deleted)` in `ls -l /proc/$(pidof containerd)/fd`, and copy that. "
            )?;
        }
        write!(
            f,
            "With a backup of {name} from the same time (suture's own are in /var/lib/suture/backups): stop containerd and put it back before it starts. Without one, each device can be mapped read-only with `dmsetup create` and looked at; what it held has to be pulled or made again. suture deletes nothing here"
        )
    }
}

/// What an error of reading the pool database means: that it is lost, where the snapshot storage lists snapshots.
pub(super) fn understood(error: PoolDbError, places: &Places) -> WorldError {
    let path = places.pool_db();
    let lost = remains(&error, &path).and_then(|remains| {
        let snapshots = SnapshotDb::read(places.snapshot_db()).ok()?.snapshots.len();
        (snapshots > 0).then(|| LostPoolDb {
            path: path.display().to_string(),
            name: format!("{}.db", places.pool),
            remains,
            snapshots,
        })
    });
    match lost {
        Some(lost) => WorldError::PoolDbLost(lost),
        None => error.into(),
    }
}

fn remains(error: &PoolDbError, path: &Path) -> Option<Remains> {
    match error {
        PoolDbError::Missing { .. } => Some(Remains::Nothing),
        PoolDbError::NotInitialised { .. } => Some(Remains::Empty),
        PoolDbError::Database(BboltError::NoMeta { .. } | BboltError::Damaged { .. }) => {
            let size = fs::metadata(path).ok()?.len();
            (size < TWO_PAGES).then_some(Remains::Stump(size))
        }
        _ => None,
    }
}
