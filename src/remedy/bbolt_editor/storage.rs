//! The file under the editor, behind a trait so that tests can cut the power between any two of its bytes.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::error::EditError;
use crate::observe::bbolt::{FileSource, PageSource};

/// What a commit does to a file. Between two calls of [`Storage::sync`] the system may bring writes to the disk in any
/// order, and a power cut may leave any part of them.
pub trait Storage: PageSource {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file `size` bytes long. Only ever called to make it longer.
    fn grow(&self, size: u64) -> io::Result<()>;

    /// Returns when everything written so far would survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is open for writing, and not locked yet: nothing is written to it.
#[derive(Debug, Clone)]
pub struct OpenFile {
    source: Arc<FileSource>,
}

impl OpenFile {
    /// Opens the file; it is never created.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        let source = FileSource::open_for(path, OFlags::RDWR)?;
        Ok(Self {
            source: Arc::new(source),
        })
    }

    /// Takes the lock, or says at once that somebody has it: containerd would wait without a limit for whoever waits here
    /// and then holds it (`bolt.Open` without a timeout).
    pub fn lock(&self) -> Result<LockedFile, EditError> {
        let source = Arc::clone(&self.source);
        match rustix::fs::flock(source.file(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(LockedFile { source }),
            Err(Errno::WOULDBLOCK) => Err(EditError::Locked { file: source.name() }),
            Err(errno) => Err(EditError::Io {
                doing: "lock".to_owned(),
                file: source.name(),
                source: errno.into(),
            }),
        }
    }
}

impl PageSource for OpenFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.source.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.source.size()
    }

    fn is_current(&self) -> io::Result<bool> {
        self.source.is_current()
    }

    fn name(&self) -> String {
        self.source.name()
    }
}

/// A file that this process alone may write: it holds `flock(LOCK_EX)`, which is bbolt's own lock (`bolt_unix.go`). The
/// lock goes with this value, and with the process however that ends.
#[derive(Debug)]
pub struct LockedFile {
    source: Arc<FileSource>,
}

impl LockedFile {
    /// Opens the file and takes the lock, or says at once that somebody has it.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        OpenFile::open(path)?.lock()
    }
}

impl Drop for LockedFile {
    /// Closing the file would do, but for a child process that was just forked and still has it open too.
    fn drop(&mut self) {
        let _closed_anyway = rustix::fs::flock(self.source.file(), FlockOperation::Unlock);
    }
}

impl PageSource for LockedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.source.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.source.size()
    }

    fn is_current(&self) -> io::Result<bool> {
        self.source.is_current()
    }

    fn name(&self) -> String {
        self.source.name()
    }
}

impl Storage for LockedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.source.file().write_all_at(bytes, offset)
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        self.source.file().set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync(2), as bbolt: it brings the file's new size along with its data.
        self.source.file().sync_data()
    }
}
