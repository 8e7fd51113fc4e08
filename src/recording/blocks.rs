//! The container: a stream of bytes in numbered, compressed, checked blocks. Each can be read without the ones before it,
//! so damage costs no more than what comes after it.

use std::io::{self, Read, Write};

use crc32c::{crc32c, crc32c_append};
use miniz_oxide::{deflate::compress_to_vec, inflate::decompress_to_vec_with_limit};

use super::error::Damage;

/// Most bytes in a block before compression.
pub(super) const LARGEST: usize = 1 << 20;
/// Most bytes of a block in the file: deflate adds at most five bytes to 16 KiB that can not be compressed (RFC 1951).
const LARGEST_STORED: usize = LARGEST + LARGEST / 1024;
/// Bytes before a block: number, raw length, stored length, checksum, each a little-endian u32.
const HEADER: usize = 16;
/// Of the checksum's own bytes.
const SUMMED: usize = 12;
/// How hard to compress (0 to 10): pages are mostly zeros and JSON repeats itself, so little work gains most of it.
const LEVEL: u8 = 3;

/// Writes blocks.
#[derive(Debug)]
pub(super) struct BlockWriter<W> {
    out: W,
    number: u32,
    raw: Vec<u8>,
    /// Bytes in the file so far.
    written: u64,
}

impl<W: Write> BlockWriter<W> {
    /// Goes on behind `written` bytes.
    pub(super) fn new(out: W, written: usize) -> Self {
        Self {
            out,
            number: 0,
            raw: Vec::new(),
            written: bytes(written),
        }
    }

    pub(super) fn push(&mut self, mut more: &[u8]) -> io::Result<()> {
        while !more.is_empty() {
            let (now, later) = more.split_at(more.len().min(LARGEST.saturating_sub(self.raw.len())));
            self.raw.extend_from_slice(now);
            more = later;
            if self.raw.len() >= LARGEST {
                self.end_block()?;
            }
        }
        Ok(())
    }

    /// Hands everything to the operating system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.end_block()?;
        }
        self.out.flush()
    }

    /// What it writes to.
    pub(super) fn into_output(self) -> W {
        self.out
    }

    /// Whether something waits for [`BlockWriter::flush`].
    pub(super) fn waits(&self) -> bool {
        !self.raw.is_empty()
    }

    /// How large the file is, or would be if nothing could be compressed.
    pub(super) fn size(&self) -> u64 {
        self.written.saturating_add(bytes(self.raw.len()))
    }

    fn end_block(&mut self) -> io::Result<()> {
        let stored = compress_to_vec(&self.raw, LEVEL);
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&self.number.to_le_bytes());
        for length in [self.raw.len(), stored.len()] {
            let length = u32::try_from(length).map_err(io::Error::other)?;
            header.extend_from_slice(&length.to_le_bytes());
        }
        let sum = crc32c_append(crc32c(&header), &stored);
        header.extend_from_slice(&sum.to_le_bytes());
        header.extend_from_slice(&stored);
        self.out.write_all(&header)?;
        self.written = self.written.saturating_add(bytes(header.len()));
        self.number = self.number.saturating_add(1);
        self.raw.clear();
        Ok(())
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Reads blocks.
#[derive(Debug)]
pub(super) struct BlockReader<R> {
    from: R,
    number: u32,
    raw: Vec<u8>,
    /// How much of `raw` was given already.
    given: usize,
}

impl<R: Read> BlockReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            number: 0,
            raw: Vec::new(),
            given: 0,
        }
    }

    /// The next `length` bytes; nothing at the end of the file, if it ends just here.
    pub(super) fn take(&mut self, length: usize) -> Result<Option<Vec<u8>>, Damage> {
        // Grows with what is really there, whatever length is claimed.
        let mut taken = Vec::new();
        while taken.len() < length {
            let left = self.raw.get(self.given..).unwrap_or_default();
            if left.is_empty() {
                if self.next_block()? {
                    continue;
                }
                return if taken.is_empty() {
                    Ok(None)
                } else {
                    Err(Damage::Cut)
                };
            }
            let now = left.get(..length - taken.len()).unwrap_or(left);
            taken.extend_from_slice(now);
            self.given += now.len();
        }
        Ok(Some(taken))
    }

    /// Whether there is nothing more, neither in this block nor behind it.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Damage> {
        Ok(self.given >= self.raw.len() && self.fill(1)?.is_empty())
    }

    /// Reads one block; false at the end of the file.
    fn next_block(&mut self) -> Result<bool, Damage> {
        let header = self.fill(HEADER)?;
        if header.is_empty() {
            return Ok(false);
        }
        let word = |index: usize| {
            let bytes = header.get(index * 4..index * 4 + 4)?;
            bytes.try_into().ok().map(u32::from_le_bytes)
        };
        let (Some(number), Some(raw), Some(stored), Some(sum)) = (word(0), word(1), word(2), word(3)) else {
            return Err(Damage::Cut);
        };
        let block = self.number;
        let damaged = |problem| Damage::Block { block, problem };
        if number != block {
            return Err(damaged("bears another number"));
        }
        let length =
            |claimed: u32, most: usize| usize::try_from(claimed).ok().filter(|length| *length <= most);
        let (Some(raw), Some(stored)) = (length(raw, LARGEST), length(stored, LARGEST_STORED)) else {
            return Err(damaged("claims to be longer than any"));
        };
        let bytes = self.fill(stored)?;
        if bytes.len() < stored {
            return Err(Damage::Cut);
        }
        let summed = header.get(..SUMMED).unwrap_or_default();
        if crc32c_append(crc32c(summed), &bytes) != sum {
            return Err(damaged("does not match its checksum"));
        }
        self.raw =
            decompress_to_vec_with_limit(&bytes, raw).map_err(|_| damaged("can not be decompressed"))?;
        if self.raw.len() != raw || raw == 0 {
            return Err(damaged("is not as long as it claims"));
        }
        self.given = 0;
        self.number = self.number.saturating_add(1);
        Ok(true)
    }

    /// As many bytes of the file as there are, up to `length`.
    fn fill(&mut self, length: usize) -> Result<Vec<u8>, Damage> {
        let mut read = Vec::new();
        let most = u64::try_from(length).unwrap_or(u64::MAX);
        match self.from.by_ref().take(most).read_to_end(&mut read) {
            Ok(_) => Ok(read),
            Err(source) => Err(Damage::Read {
                block: self.number,
                source,
            }),
        }
    }
}
