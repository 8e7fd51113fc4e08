//! Where the bytes of a database come from.

use std::io;

/// Random access to the bytes of a bbolt file that another process may be writing.
///
/// No method may lock the file: containerd waits for its own lock without a limit (`db.go`, `flock` with `Timeout` 0).
pub trait PageSource {
    /// Fills `buf` from `offset` (bytes), or fails; a short read is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Size now, in bytes. bbolt only ever grows a file (`db.go`, `grow`).
    fn size(&self) -> io::Result<u64>;

    /// Whether these bytes are there; asked before room is made for them.
    fn holds(&self, offset: u64, length: u64) -> io::Result<bool> {
        let size = self.size()?;
        Ok(offset.checked_add(length).is_some_and(|end| end <= size))
    }

    /// How many bytes may well be read in one go where their pages lie beside each other: less than two pages, and each is
    /// read by itself.
    fn read_ahead(&self) -> u64 {
        0
    }

    /// The same bytes for other threads that read beside this one; nothing where they are for one thread only.
    fn shared(&self) -> Option<&(dyn PageSource + Sync)> {
        None
    }

    /// Whether the name still leads to these bytes. False once the file was removed or another one put in its place.
    fn is_current(&self) -> io::Result<bool>;

    /// How errors call it: the path.
    fn name(&self) -> String;
}

/// Bytes that several threads read.
#[derive(Clone, Copy)]
pub(super) struct Shared<'s>(pub(super) &'s (dyn PageSource + Sync));

impl PageSource for Shared<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn holds(&self, offset: u64, length: u64) -> io::Result<bool> {
        self.0.holds(offset, length)
    }

    fn read_ahead(&self) -> u64 {
        self.0.read_ahead()
    }

    fn is_current(&self) -> io::Result<bool> {
        self.0.is_current()
    }

    fn name(&self) -> String {
        self.0.name()
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

    /// A few pages, so that whatever is read from memory is read as it is from a file.
    fn read_ahead(&self) -> u64 {
        16384
    }

    fn shared(&self) -> Option<&(dyn PageSource + Sync)> {
        Some(self)
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "bytes in memory".to_owned()
    }
}
