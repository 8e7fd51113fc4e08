//! A copy of the file beside it, and whether an old transaction in the file is still what such a copy holds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::error::EditError;
use super::storage::Storage;
use super::{Editor, TxId};
use crate::observe::bbolt::{Database, PageSource};

/// How much is copied at a time.
const CHUNK: usize = 1 << 20;

impl<S: Storage> Editor<S> {
    /// Copies the whole file to `to`, byte for byte, readable by its owner alone. When this returns the copy would
    /// survive a power cut. It appears under its name only when it is complete, and never takes another file's place.
    pub fn backup(&self, to: &Path) -> Result<(), EditError> {
        self.ensure_known()?;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => EditError::BackupExists {
                file: to.display().to_string(),
            },
            _ => EditError::Io {
                doing: format!("back up to {} the contents of", to.display()),
                file: self.name(),
                source,
            },
        };
        if to.symlink_metadata().is_ok() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let half = beside(to).map_err(failed)?;
        // What a killed backup left behind; never followed, and never anything but a file of that name.
        if let Err(error) = std::fs::remove_file(&half)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let done = self
            .copy(&half)
            .and_then(|()| rename_to_new(&half, to))
            .and_then(|()| sync_folder(to));
        done.map_err(|error| {
            // It is no error of its own when that is not there any more.
            drop(std::fs::remove_file(&half));
            failed(error)
        })
    }

    fn copy(&self, to: &Path) -> io::Result<()> {
        let storage = self.database.source();
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        let size = storage.size()?;
        let mut offset = 0;
        let mut chunk = vec![0; CHUNK];
        while offset < size {
            let length = usize::try_from(size - offset).map_or(CHUNK, |left| left.min(CHUNK));
            let part = chunk.get_mut(..length).unwrap_or_default();
            storage.read_at(offset, part)?;
            copy.write_all(part)?;
            offset += u64::try_from(length).map_err(io::Error::other)?;
        }
        copy.sync_all()
    }

    /// Whether what [`Editor::undo`] would go back to is, page for page, what the backup at `backup` holds: made by
    /// [`Editor::backup`] before transaction `expected`.
    pub fn holds_before(&self, expected: TxId, backup: &Path) -> Result<bool, EditError> {
        let (before, mut pages) = self.before(expected)?;
        let backup = Database::open(backup)?;
        if backup.newest_meta()?.meta != before {
            return Ok(false);
        }
        pages.sort_unstable();
        let page_size = u64::from(before.page_size);
        let mut one = vec![0; usize::try_from(before.page_size).unwrap_or(CHUNK)];
        let mut other = one.clone();
        for page in pages {
            let offset = page.saturating_mul(page_size);
            self.read(offset, &mut one)?;
            let read = backup.source().read_at(offset, &mut other);
            read.map_err(|source| EditError::Io {
                doing: format!("read page {page} of"),
                file: backup.source().name(),
                source,
            })?;
            if one != other {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), EditError> {
        let read = self.database.source().read_at(offset, bytes);
        read.map_err(|source| EditError::Io {
            doing: format!("read at offset {offset} of"),
            file: self.name(),
            source,
        })
    }
}

/// The name under which a copy is made: in the same folder, so that a rename is all that is left to do.
fn beside(to: &Path) -> io::Result<PathBuf> {
    let name = to.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut half = std::ffi::OsString::from(".");
    half.push(name);
    half.push(".half");
    Ok(to.with_file_name(half))
}

/// Renames, unless there is something of that name: also when it appeared just now.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can not do this can make a second name, which is as good.
        Err(Errno::INVAL | Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

fn sync_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
