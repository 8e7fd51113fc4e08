//! Where the bytes of a database come from: a file under another process's hands, or memory in tests.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::error::BboltError;

/// Random access to the bytes of a bbolt file that another process may be writing.
///
/// No method may lock the file: containerd waits for its own lock without a limit (`db.go`, `flock` with `Timeout` 0).
pub trait PageSource {
    /// Fills `buf` from `offset` (bytes), or fails; a short read is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Size now, in bytes. bbolt only ever grows a file (`db.go`, `grow`).
    fn size(&self) -> io::Result<u64>;

    /// Whether the name still leads to these bytes. False once the file was removed or another one put in its place.
    fn is_current(&self) -> io::Result<bool>;

    /// How errors call it: the path.
    fn name(&self) -> String;
}

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
        let name = || path.display().to_string();
        // NONBLOCK so that a pipe at this path can not hold the agent; it means nothing for a regular file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
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
}

impl PageSource for FileSource {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
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

/// Bytes in memory: a recorded file, or a test's.
impl PageSource for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let wanted = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(wanted);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        u64::try_from(self.len()).map_err(io::Error::other)
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "bytes in memory".to_owned()
    }
}
