//! A database's file under another process's hands.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::error::BboltError;
use super::source::PageSource;

/// A file, read with `pread(2)`.
///
/// Not `mmap`: a mapping raises SIGBUS when the file is truncated, and goes stale when it grows.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl FileSource {
    /// Opens `path` for reading only, without any lock.
    pub fn open(path: &Path) -> Result<Self, BboltError> {
        Self::open_for(path, OFlags::RDONLY)
    }

    /// Opens `path` for the given `access`; it is never created.
    pub(crate) fn open_for(path: &Path, access: OFlags) -> Result<Self, BboltError> {
        // NONBLOCK so that a pipe at this path can not hold the agent; it means nothing for a regular file.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let name = || path.display().to_string();
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Err(BboltError::Missing { file: name() }),
            Err(errno) => {
                return Err(BboltError::Io {
                    doing: "open".to_owned(),
                    file: name(),
                    source: errno.into(),
                });
            }
        };
        let metadata = file.metadata().map_err(|source| BboltError::Io {
            doing: "look up the size of".to_owned(),
            file: name(),
            source,
        })?;
        if !metadata.is_file() {
            return Err(BboltError::NotAFile { file: name() });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl PageSource for FileSource {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    /// As much as stays in a processor's own cache until it is looked at.
    fn read_ahead(&self) -> u64 {
        256 << 10
    }

    fn shared(&self) -> Option<&(dyn PageSource + Sync)> {
        Some(self)
    }

    fn is_current(&self) -> io::Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(now) => Ok(now.dev() == self.device && now.ino() == self.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
