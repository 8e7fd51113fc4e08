//! Writes images of thin-pool metadata as the kernel does: copy-on-write, the superblock last, blocks of the committed
//! transaction untouched, those of the one before reused at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use suture::model::ThinId;
use suture::observe::thin_metadata::{BLOCK_SIZE, Block, BlockSource, Generation, ThinDetails};

pub(crate) type Devices = BTreeMap<ThinId, ThinDetails>;

/// One write: a block number, its bytes, and whether the write is over with this (or the block is only half written).
pub(crate) type Write = (usize, Block, bool);

/// Sets the checksum that belongs to a block's bytes.
pub(crate) fn seal(block: &mut Block, salt: u32) {
    let sum = !crc32c::crc32c(&block[4..]) ^ salt;
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

pub(crate) const SUPERBLOCK_SALT: u32 = 160_774;
pub(crate) const NODE_SALT: u32 = 121_107;

pub(crate) fn put32(block: &mut Block, offset: usize, value: u32) {
    block[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put64(block: &mut Block, offset: usize, value: u64) {
    block[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn superblock(details_root: u64) -> Block {
    let mut block = [0; BLOCK_SIZE];
    put64(&mut block, 32, 27_022_010);
    put32(&mut block, 40, 2);
    put32(&mut block, 44, 5);
    put64(&mut block, 320, 1);
    put64(&mut block, 328, details_root);
    put32(&mut block, 336, 128);
    put32(&mut block, 340, 8);
    seal(&mut block, SUPERBLOCK_SALT);
    block
}

/// A node; `flags` 1 for internal, 2 for leaf.
pub(crate) fn node(number: u64, flags: u32, value_size: usize, entries: &[(u64, Vec<u8>)]) -> Block {
    let mut block = [0; BLOCK_SIZE];
    let room = (BLOCK_SIZE - 32) / (8 + value_size) / 3 * 3;
    put32(&mut block, 4, flags);
    put64(&mut block, 8, number);
    put32(&mut block, 16, u32::try_from(entries.len()).unwrap());
    put32(&mut block, 20, u32::try_from(room).unwrap());
    put32(&mut block, 24, u32::try_from(value_size).unwrap());
    for (slot, (key, value)) in entries.iter().enumerate() {
        put64(&mut block, 32 + 8 * slot, *key);
        let at = 32 + 8 * room + value_size * slot;
        block[at..at + value_size].copy_from_slice(value);
    }
    seal(&mut block, NODE_SALT);
    block
}

fn value(details: &ThinDetails) -> Vec<u8> {
    [
        &details.mapped_blocks.to_le_bytes()[..],
        &details.transaction_id.to_le_bytes(),
        &details.creation_time.to_le_bytes(),
        &details.snapshotted_time.to_le_bytes(),
    ]
    .concat()
}

#[derive(Debug, Clone)]
pub(crate) struct ThinImage {
    pub(crate) blocks: Vec<Block>,
    used: BTreeSet<usize>,
    fan: usize,
}

impl ThinImage {
    pub(crate) fn new(devices: &Devices, fan: usize) -> Self {
        let mut image = Self {
            blocks: Vec::new(),
            used: BTreeSet::new(),
            fan,
        };
        image.commit(devices);
        image
    }

    /// Commits, and says which writes that took, in their order.
    pub(crate) fn commit(&mut self, devices: &Devices) -> Vec<Write> {
        let kept = std::mem::take(&mut self.used);
        let mut writes = Vec::new();
        let mut next = 1;
        let mut write = |flags, size, entries: &[(u64, Vec<u8>)]| {
            while kept.contains(&next) {
                next += 1;
            }
            let number = next;
            next += 1;
            let first = entries.first().map_or(0, |entry| entry.0);
            let child = u64::try_from(number).unwrap();
            writes.push((number, node(child, flags, size, entries), true));
            (first, child.to_le_bytes().to_vec())
        };
        let entries: Vec<_> = devices
            .iter()
            .map(|(id, details)| (u64::from(id.0), value(details)))
            .collect();
        let mut level: Vec<_> = if entries.is_empty() {
            vec![write(2, 24, &[])]
        } else {
            entries
                .chunks(self.fan)
                .map(|chunk| write(2, 24, chunk))
                .collect()
        };
        while level.len() > 1 {
            level = level
                .chunks(self.fan.max(2))
                .map(|chunk| write(1, 8, chunk))
                .collect();
        }
        let root = u64::from_le_bytes(level[0].1.clone().try_into().unwrap());
        self.used = writes.iter().map(|(number, ..)| *number).collect();
        let (old, new) = (
            self.blocks.first().copied().unwrap_or([0; BLOCK_SIZE]),
            superblock(root),
        );
        let mut torn = old;
        torn[..200].copy_from_slice(&new[..200]);
        writes.push((0, torn, false));
        writes.push((0, new, true));
        for write in &writes {
            apply(&mut self.blocks, write);
        }
        writes
    }
}

pub(crate) fn apply(blocks: &mut Vec<Block>, (number, block, _): &Write) {
    if blocks.len() <= *number {
        blocks.resize(number + 1, [0; BLOCK_SIZE]);
    }
    blocks[*number] = *block;
}

/// An image that others write to between two reads.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) blocks: Vec<Block>,
    /// Before read number n, this many of the writes that are left are applied.
    schedule: Vec<usize>,
    writes: std::vec::IntoIter<Write>,
    /// Whether the device counts its writes.
    counts: bool,
    written: u64,
    in_flight: u64,
    pub(crate) reads: usize,
}

impl Moving {
    pub(crate) fn new(blocks: Vec<Block>, schedule: Vec<usize>, writes: Vec<Write>, counts: bool) -> Self {
        Self {
            blocks,
            schedule,
            writes: writes.into_iter(),
            counts,
            written: 1,
            in_flight: 0,
            reads: 0,
        }
    }

    pub(crate) fn still(blocks: Vec<Block>) -> Self {
        Self::new(blocks, Vec::new(), Vec::new(), true)
    }
}

impl BlockSource for Moving {
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()> {
        let now = self.schedule.get(self.reads).copied().unwrap_or(0);
        for write in self.writes.by_ref().take(now) {
            apply(&mut self.blocks, &write);
            self.written += u64::from(write.2);
            self.in_flight = u64::from(!write.2);
        }
        self.reads += 1;
        *block = *self
            .blocks
            .get(usize::try_from(number).unwrap())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }

    fn blocks(&self) -> u64 {
        // A device is as large before a write as after it.
        u64::try_from(self.blocks.len().max(64)).unwrap()
    }

    fn generation(&self) -> io::Result<Option<Generation>> {
        Ok(self.counts.then_some(Generation {
            writes: self.written,
            in_flight: self.in_flight,
        }))
    }

    fn name(&self) -> String {
        "test".to_owned()
    }
}
