//! Backups: a folder for each repair that edits, with both databases as they were and a manifest. The newest ten are kept.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{private_file, private_folder, tighten},
    model::{PoolName, ThinId, Timestamp, TxId},
    observe::{bbolt::Database, world::Places},
};

/// How many are kept.
const KEEP: usize = 10;
/// Longest manifest that is read: one of 100,000 acts has some 20 MB.
const LONGEST_MANIFEST: u64 = 64 << 20;
const MANIFEST: &str = "manifest.json";
const SNAPSHOTS: &str = "metadata.db";

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Raised when its shape changes.
    pub version: u32,
    /// The pool.
    pub pool: PoolName,
    /// The file that was edited.
    pub pool_db: PathBuf,
    /// When the backup was made.
    pub made: Timestamp,
    /// Transaction of the pool database in the backup.
    pub txid_before: TxId,
    /// Transactions of the repair's edits, in their order. Stored before they are made: a bbolt transaction's number is
    /// known before.
    pub edits: Vec<TxId>,
    /// Transaction of the snapshot database in the backup.
    pub snapshot_txid: Option<TxId>,
    /// CRC-32C of the pool database in the backup.
    pub crc32c: Option<u32>,
    /// Thin devices that the repair was to delete: without them the backup's records of them are of nothing.
    pub deletes: Vec<ThinId>,
    /// What was to be done, an act each, in words.
    pub acts: Vec<String>,
}

/// A backup on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is of.
    pub manifest: Manifest,
}

/// Why there is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The operating system said no.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("{path} is not a manifest of suture's")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// There is none.
    #[error("there is no backup in {path}")]
    None {
        /// Where.
        path: PathBuf,
    },
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

impl Backup {
    /// Makes the folder. The pool database is copied by who looks at it, to [`Backup::pool_db`]; the manifest is stored after
    /// that, and the snapshot database copied last ([`copy_snapshots`]).
    pub(super) fn begin(folder: &Path, manifest: Manifest) -> Result<Self, BackupError> {
        private_folder(folder).map_err(io_error("making the folder", folder))?;
        if let Some(parent) = folder.parent() {
            sync(parent)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
        })
    }

    /// Where the copy of the pool database is.
    #[must_use]
    pub fn pool_db(&self) -> PathBuf {
        self.folder.join(format!("{}.db", self.manifest.pool))
    }

    /// Stores the manifest, in one step.
    pub(super) fn store(&self) -> Result<(), BackupError> {
        let path = self.folder.join(MANIFEST);
        let json = serde_json::to_vec_pretty(&self.manifest).map_err(|source| BackupError::Manifest {
            path: path.clone(),
            source,
        })?;
        let new = self.folder.join("manifest.new");
        let write = || {
            let mut file = private_file(&new)?;
            // A repair that was killed may have left a longer one.
            file.set_len(0)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(io_error("storing", &path))?;
        sync(&self.folder)
    }

    /// Reads a backup.
    pub fn open(folder: &Path) -> Result<Self, BackupError> {
        let path = folder.join(MANIFEST);
        let size = fs::metadata(&path).map_err(io_error("reading", &path))?.len();
        if size > LONGEST_MANIFEST {
            return Err(io_error("reading", &path)(io::Error::other("it is too long")));
        }
        let json = fs::read(&path).map_err(io_error("reading", &path))?;
        let manifest =
            serde_json::from_slice(&json).map_err(|source| BackupError::Manifest { path, source })?;
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
        })
    }

    /// The newest backup in a folder of them.
    pub fn newest(all: &Path) -> Result<Self, BackupError> {
        match folders(all)?.last() {
            Some(newest) => Self::open(newest),
            None => Err(BackupError::None { path: all.to_owned() }),
        }
    }

    /// Whether the copy is the one that was made; a backup that was cut off before its checksum was stored says nothing.
    pub(super) fn is_whole(&self) -> Result<bool, BackupError> {
        let found = checksum(&self.pool_db())?;
        Ok(self.manifest.crc32c.is_none_or(|expected| expected == found))
    }
}

/// Copies the snapshot database into a backup's folder, at transaction `txid`. No repair writes to it, so this is done once
/// the edit is made, beside what is left to do: of 100,000 snapshots it has some 450 MB, and a disk that is slow to take them
/// must not keep the edit from being made. Nor is waited for the disk: the original is on it. It appears under its name only
/// when it is complete.
pub(super) fn copy_snapshots(places: &Places, folder: &Path, txid: TxId) -> Result<(), BackupError> {
    let from = places.snapshot_db();
    let half = folder.join(".metadata.db.half");
    let copied = fs::copy(&from, &half).map_err(io_error("copying", &from));
    let same = || Database::open(&from).and_then(|database| database.newest_txid());
    let kept = copied.and_then(|_| match same() {
        Ok(now) if now == txid => {
            let to = folder.join(SNAPSHOTS);
            // A copy is as open as what it is of.
            tighten(&half)
                .and_then(|()| fs::rename(&half, &to))
                .map_err(io_error("naming", &to))
        }
        Ok(_) => Err(io_error("copying", &from)(io::Error::other(
            "somebody wrote to it",
        ))),
        Err(error) => Err(io_error("reading", &from)(io::Error::other(error))),
    });
    if kept.is_err() {
        // What is half a copy is of no use.
        drop(fs::remove_file(&half));
    }
    kept
}

/// The name of a backup's folder: it sorts by its time.
pub(super) fn folder_name(at: Timestamp, txid: TxId) -> String {
    let at = jiff::Timestamp::from(at).strftime("%Y%m%dT%H%M%S.%6fZ");
    format!("{at}-{txid}")
}

/// Drops all but the newest backups; those that an older suture let others read are tightened.
pub(super) fn prune(all: &Path) -> Result<(), BackupError> {
    let folders = folders(all)?;
    let old = folders.len().saturating_sub(KEEP);
    for folder in folders.iter().skip(old) {
        tighten(folder).map_err(io_error("keeping others out of", folder))?;
    }
    for folder in folders.iter().take(old) {
        fs::remove_dir_all(folder).map_err(io_error("dropping the old backup", folder))?;
    }
    Ok(())
}

/// Folders of backups, the oldest first; what bears another name is somebody else's.
fn folders(all: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = match fs::read_dir(all) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("reading", all)(error)),
    };
    let ours = |name: &str| {
        name.split_once("Z-").is_some_and(|(time, txid)| {
            time.contains('T') && !txid.is_empty() && txid.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("reading", all))?;
        if entry.file_name().to_str().is_some_and(ours) && entry.path().join(MANIFEST).exists() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

fn checksum(path: &Path) -> Result<u32, BackupError> {
    let bytes = fs::read(path).map_err(io_error("reading", path))?;
    Ok(crc32c::crc32c(&bytes))
}

fn sync(folder: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(io_error("storing the folder", folder))
}
