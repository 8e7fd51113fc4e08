//! Databases as they were read last, for the next look at them. A file is read anew unless it is the same one and nothing of
//! it can have changed: bbolt writes to no page that the newest transaction reaches (`tx.go`, `Commit`; `freelist`), so with
//! both meta pages byte for byte as they were, all that was read is there as it was.
//!
//! That holds for what bbolt writes. Size and times are held against as well, for whoever else writes to the file.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{
    bbolt::{Database, FileSource, PageSource as _},
    core_db::CoreDbError,
    pool_db::PoolDbError,
    snapshot_db::SnapshotDbError,
};
use crate::model::{CoreDb, PoolDb, Shared, SnapshotDb};

/// One of each database, as it was read last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pool_db: Slot<PoolDb>,
    snapshots: Slot<SnapshotDb>,
    core: Slot<CoreDb>,
    /// The same without users.
    core_snapshots: Slot<CoreDb>,
}

type Slot<T> = Mutex<Option<(Seal, Shared<T>)>>;

impl Kept {
    /// The pool database at this path.
    pub(super) fn pool_db(&self, path: &Path) -> Result<Shared<PoolDb>, PoolDbError> {
        unless_same(&self.pool_db, path, PoolDb::read)
    }

    /// The snapshot storage at this path.
    pub(super) fn snapshots(&self, path: &Path) -> Result<Shared<SnapshotDb>, SnapshotDbError> {
        unless_same(&self.snapshots, path, SnapshotDb::read)
    }

    /// containerd's own database at this path.
    pub(super) fn core(&self, path: &Path) -> Result<Shared<CoreDb>, CoreDbError> {
        unless_same(&self.core, path, CoreDb::read)
    }

    /// Which snapshots containerd's own database at this path knows, and not who uses them.
    pub(super) fn core_snapshots(&self, path: &Path) -> Result<Shared<CoreDb>, CoreDbError> {
        unless_same(&self.core_snapshots, path, CoreDb::read_snapshots)
    }
}

/// What was read of the file last, where that is still what it holds, else what `read` finds.
fn unless_same<'p, T, E>(
    slot: &Slot<T>,
    path: &'p Path,
    read: impl FnOnce(&'p Path) -> Result<T, E>,
) -> Result<Shared<T>, E> {
    let before = Seal::of(path);
    // Whoever panicked in between left a whole value, or none.
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((seal, kept)) = &*slot
        && before.as_ref() == Some(seal)
    {
        return Ok(kept.clone());
    }
    // Its room is needed for what comes now.
    *slot = None;
    let value = Shared::from(read(path)?);
    // What changed in between may be of either side, and is kept for nobody.
    let same = before.filter(|before| Seal::of(path).as_ref() == Some(before));
    *slot = same.map(|seal| (seal, value.clone()));
    Ok(value)
}

/// What tells that a file is the very same, and unchanged.
#[derive(Debug, PartialEq, Eq)]
struct Seal {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of its contents.
    modified: (i64, i64),
    /// The same of its contents or its inode.
    changed: (i64, i64),
    /// Both meta pages.
    metas: Vec<u8>,
}

impl Seal {
    /// Nothing where it can not be told: then the reader says why.
    fn of(path: &Path) -> Option<Self> {
        let database = Database::<FileSource>::open(path).ok()?;
        let found = database.source().file().metadata().ok()?;
        let page_size = database.newest_meta().ok()?.meta.page_size;
        let mut metas = vec![0; usize::try_from(page_size.checked_mul(2)?).ok()?];
        database.source().read_at(0, &mut metas).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            metas,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        fs::{self, File, FileTimes},
        os::unix::fs::FileExt as _,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::model::TxId;

    const POOL_DB: &[u8] = include_bytes!("../../tests/fixtures/pool.db");
    /// Where the first meta page has its transaction id.
    const TXID: u64 = 16 + 48;

    /// Reads through the slot; whether that was a read of the file.
    fn reads_anew(slot: &Slot<PoolDb>, path: &Path) -> bool {
        let read = Cell::new(false);
        let answer = unless_same(slot, path, |path| {
            read.set(true);
            PoolDb::read(path)
        });
        assert_eq!(*answer.unwrap(), PoolDb::read(path).unwrap());
        read.get()
    }

    /// The file with its times set to one and the same, but for the one that can not be set.
    fn at(path: &Path, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
            .unwrap();
    }

    #[test]
    fn what_did_not_change_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.db");
        fs::write(&path, POOL_DB).unwrap();
        let slot = Slot::default();
        assert!(reads_anew(&slot, &path));
        assert!(!reads_anew(&slot, &path));
        assert!(!reads_anew(&slot, &path));
    }

    #[test]
    fn each_thing_that_tells_of_a_change_is_enough_to_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.db");
        fs::write(&path, POOL_DB).unwrap();
        let seal = || Seal::of(&path).unwrap();
        let first = seal();
        let differs = |change: fn(&mut Seal)| {
            let mut other = seal();
            assert_eq!(other, first);
            change(&mut other);
            let slot = Mutex::new(Some((other, Shared::from(PoolDb::read(&path).unwrap()))));
            assert!(reads_anew(&slot, &path));
            assert!(!reads_anew(&slot, &path));
        };
        differs(|seal| seal.device += 1);
        differs(|seal| seal.inode += 1);
        differs(|seal| seal.size += 1);
        differs(|seal| seal.modified.1 += 1);
        differs(|seal| seal.changed.1 += 1);
        differs(|seal| seal.metas[usize::try_from(TXID).unwrap()] += 1);
        differs(|seal| *seal.metas.last_mut().unwrap() += 1);
    }

    #[test]
    fn another_transaction_file_or_time_is_seen_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.db");
        fs::write(&path, POOL_DB).unwrap();
        at(&path, 1000);
        let slot = Slot::default();
        assert!(reads_anew(&slot, &path));
        at(&path, 1001);
        assert!(reads_anew(&slot, &path));

        // The first meta page is damaged: from then on the other one counts.
        let newest = PoolDb::read(&path).unwrap().txid;
        let own = newest.0 % 2 * 4096;
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff], own + TXID).unwrap();
        at(&path, 1001);
        assert!(reads_anew(&slot, &path));
        assert_eq!(PoolDb::read(&path).unwrap().txid, TxId(newest.0 - 1));

        // The same bytes, in another file.
        let other = folder.path().join("other.db");
        fs::copy(&path, &other).unwrap();
        at(&other, 1001);
        fs::rename(&other, &path).unwrap();
        assert!(reads_anew(&slot, &path));
        assert!(!reads_anew(&slot, &path));
    }

    #[test]
    fn what_can_not_be_read_is_kept_by_nobody_and_said_by_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.db");
        let kept = Kept::default();
        assert!(matches!(kept.pool_db(&path), Err(PoolDbError::Missing { .. })));
        fs::write(&path, POOL_DB).unwrap();
        kept.pool_db(&path).unwrap();
        fs::write(&path, vec![0; POOL_DB.len()]).unwrap();
        assert!(kept.pool_db(&path).is_err());
        fs::remove_file(&path).unwrap();
        assert!(matches!(kept.pool_db(&path), Err(PoolDbError::Missing { .. })));
    }
}
