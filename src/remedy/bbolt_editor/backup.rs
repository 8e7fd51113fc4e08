//! A copy of the file beside it, and whether an old transaction in the file is still what such a copy holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::error::EditError;
use super::storage::Storage;
use super::{Editor, TxId};
use crate::observe::bbolt::page::Meta;
use crate::observe::bbolt::{Database, PageSource};

/// How much is copied at a time.
const CHUNK: usize = 1 << 20;

/// A copy that is complete and on disk, and not under its name yet. It goes with this value, unless it is kept.
#[derive(Debug)]
pub struct Copied {
    half: PathBuf,
    to: PathBuf,
    /// The transaction that it was made at.
    meta: Meta,
    crc32c: u32,
}

impl Copied {
    /// CRC-32C of its bytes.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // It is no error of its own when that is not there any more.
        drop(fs::remove_file(&self.half));
    }
}

impl<S: PageSource> Editor<S> {
    /// Copies the whole file, byte for byte, readable by its owner alone, into the folder of `to`. When this returns the copy
    /// would survive a power cut. Without a lock too the copy holds the present transaction whole, as long as that is the
    /// newest one: [`Editor::keep`] looks again.
    pub fn copy(&self, to: &Path) -> Result<Copied, EditError> {
        self.ensure_known()?;
        let failed = |source| self.not_backed_up(to, source);
        if to.symlink_metadata().is_ok() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let half = beside(to).map_err(failed)?;
        // What a killed backup left behind; never followed, and never anything but a file of that name.
        if let Err(error) = fs::remove_file(&half)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let mut copied = Copied {
            half,
            to: to.to_owned(),
            meta: self.meta,
            crc32c: 0,
        };
        copied.crc32c = self.copy_bytes(&copied.half).map_err(failed)?;
        Ok(copied)
    }

    /// Gives the checksum of what was copied.
    fn copy_bytes(&self, to: &Path) -> io::Result<u32> {
        let source = self.database.source();
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        let size = source.size()?;
        let mut offset = 0;
        let mut sum = 0;
        let mut chunk = vec![0; CHUNK];
        while offset < size {
            let length = usize::try_from(size - offset).map_or(CHUNK, |left| left.min(CHUNK));
            let part = chunk.get_mut(..length).unwrap_or_default();
            source.read_at(offset, part)?;
            copy.write_all(part)?;
            sum = crc32c::crc32c_append(sum, part);
            offset += u64::try_from(length).map_err(io::Error::other)?;
        }
        copy.sync_all()?;
        Ok(sum)
    }

    fn not_backed_up(&self, to: &Path, source: io::Error) -> EditError {
        match source.kind() {
            io::ErrorKind::AlreadyExists => EditError::BackupExists {
                file: to.display().to_string(),
            },
            _ => EditError::Io {
                doing: format!("back up to {} the contents of", to.display()),
                file: self.name(),
                source,
            },
        }
    }
}

impl<S: Storage> Editor<S> {
    /// Copies the whole file to `to`, byte for byte, readable by its owner alone. When this returns the copy would
    /// survive a power cut. It appears under its name only when it is complete, and never takes another file's place.
    pub fn backup(&self, to: &Path) -> Result<(), EditError> {
        self.keep(self.copy(to)?)
    }

    /// Gives a copy its name, and returns when that would survive a power cut. Refuses a copy of another transaction, and
    /// never takes another file's place.
    pub fn keep(&self, copied: Copied) -> Result<(), EditError> {
        self.ensure_known()?;
        if copied.meta != self.meta {
            return Err(EditError::Moved {
                file: self.name(),
                expected: TxId(copied.meta.txid),
                found: self.txid(),
            });
        }
        let kept = rename_to_new(&copied.half, &copied.to).and_then(|()| sync_folder(&copied.to));
        let kept = kept.map_err(|source| self.not_backed_up(&copied.to, source));
        drop(copied);
        kept
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
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

fn sync_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
