//! What a suture leaves on disk while it holds a snapshot, so that the next one knows it as its dead predecessor's.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    model::{PoolActivation, PoolName},
    observe::thin_metadata::ReserveError,
};

/// The longest note that is read.
const LONGEST: u64 = 4096;

/// The note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The pool.
    pub(super) pool: PoolName,
    /// In which of its lives, and so in which boot of the machine.
    pub(super) activation: PoolActivation,
    /// Where the snapshot begins; nothing before the kernel has told.
    pub(super) root: Option<u64>,
}

/// The note's file, locked: who has this is the only suture that reserves in the pool. The lock ends with the process.
#[derive(Debug)]
pub(super) struct NoteFile {
    path: PathBuf,
    /// Apart from the note, which is replaced whole.
    _lock: File,
}

impl NoteFile {
    /// Takes the lock, without waiting for it.
    pub(super) fn lock(folder: &Path, pool: &PoolName) -> Result<Self, ReserveError> {
        let path = path_of(folder, pool);
        let lock_path = path.with_extension("lock");
        let failed = |doing, path: &Path| {
            let path = path.display().to_string();
            move |source| ReserveError::Note { doing, path, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(failed("making the folder", folder))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(failed("opening", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ReserveError::AnotherSuture { pool: pool.clone() }),
            Err(TryLockError::Error(source)) => Err(failed("locking", &lock_path)(source)),
        }
    }

    /// Whether anybody left a note.
    pub(super) fn is_there(folder: &Path, pool: &PoolName) -> bool {
        path_of(folder, pool).exists()
    }

    /// What it says; nothing where there is none, or it makes no sense.
    pub(super) fn read(&self) -> Option<Note> {
        let mut text = Vec::new();
        File::open(&self.path)
            .ok()?
            .take(LONGEST)
            .read_to_end(&mut text)
            .ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Replaces it. It outlives a killed process; a power cut ends what it speaks of.
    pub(super) fn write(&mut self, note: &Note) -> Result<(), ReserveError> {
        let new = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
            io::Write::write_all(&mut file, &serde_json::to_vec(note).map_err(io::Error::other)?)?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| self.failed("writing", source))
    }

    /// Takes it away.
    pub(super) fn remove(&mut self) -> Result<(), ReserveError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("removing", error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ReserveError {
        ReserveError::Note {
            doing,
            path: self.path.display().to_string(),
            source,
        }
    }
}

/// A dm name may hold anything but a slash; what is not plain is spelled in hexadecimal.
fn path_of(folder: &Path, pool: &PoolName) -> PathBuf {
    let mut name = String::from("metadata-snapshot-");
    for byte in pool.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_+".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    folder.join(name + ".json")
}
