//! The reader of a pool's metadata, on any blocks and on sound images with blocks changed under good checksums.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::OnceLock,
};

use arbitrary::{Arbitrary, Unstructured};
use suture::{
    model::{ThinId, ranges::Ranges},
    observe::thin_metadata::{
        BLOCK_SIZE, Block, BlockSource, Generation, ThinDetails, ThinMetadata, ThinMetadataError, owners,
        read,
    },
};

use crate::{
    bounds::bounded,
    thin_image::{NODE_SALT, SUPERBLOCK_SALT, ThinImage, node, put64, seal},
};

/// Blocks that hold still, on a device that counts its writes.
struct Blocks(Vec<Block>);

impl BlockSource for Blocks {
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()> {
        let at = usize::try_from(number).map_err(io::Error::other)?;
        *block = *self.0.get(at).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }

    fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    fn generation(&self) -> io::Result<Option<Generation>> {
        Ok(Some(Generation {
            writes: 1,
            in_flight: 0,
        }))
    }

    fn name(&self) -> String {
        "input".to_owned()
    }
}

fn look(blocks: &[Block], ids: &BTreeSet<ThinId>) -> Result<ThinMetadata, ThinMetadataError> {
    bounded(blocks.len() * BLOCK_SIZE, || {
        read(&mut Blocks(blocks.to_vec()), ids)
    })
}

fn reseal(number: usize, block: &mut Block) {
    seal(block, if number == 0 { SUPERBLOCK_SALT } else { NODE_SALT });
}

/// Blocks of any contents. Without checksums that fit nothing behind them would ever be reached, so they are made to fit;
/// where the first byte is odd they are left as they are.
pub fn thin_metadata(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut blocks: Vec<Block> = data
        .chunks(BLOCK_SIZE)
        .map(|chunk| {
            let mut block = [0; BLOCK_SIZE];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        })
        .collect();
    if how % 2 == 0 {
        for (number, block) in blocks.iter_mut().enumerate() {
            reseal(number, block);
        }
    }
    let ids = (0..8).map(ThinId).collect();
    let _ = look(&blocks, &ids);
    bounded(data.len(), || {
        let everything: Ranges = std::iter::once((0, u64::MAX)).collect();
        let _ = owners(&mut Blocks(blocks), &everything);
    });
}

/// A sound image, and for each block the ids whose entries hang on it.
struct Sound {
    blocks: Vec<Block>,
    details: BTreeMap<usize, std::ops::Range<u64>>,
    roots: BTreeMap<usize, std::ops::Range<u64>>,
    answer: ThinMetadata,
}

fn long(block: &Block, at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| block[at + byte]))
}

fn short(block: &Block, at: usize) -> usize {
    u32::from_le_bytes(std::array::from_fn(|byte| block[at + byte])) as usize
}

/// Which ids hang on each block of a tree.
fn regions(
    blocks: &[Block],
    number: u64,
    ids: std::ops::Range<u64>,
    found: &mut BTreeMap<usize, std::ops::Range<u64>>,
) {
    let at = usize::try_from(number).expect("a sound image");
    let block = &blocks[at];
    found.insert(at, ids.clone());
    if short(block, 4) == 1 {
        let (entries, room) = (short(block, 16), short(block, 20));
        for slot in 0..entries {
            // What is looked up below the first key goes nowhere, so the first child begins where its parent does.
            let from = if slot == 0 {
                ids.start
            } else {
                long(block, 32 + 8 * slot)
            };
            let to = if slot + 1 < entries {
                long(block, 40 + 8 * slot)
            } else {
                ids.end
            };
            regions(blocks, long(block, 32 + 8 * room + 8 * slot), from..to, found);
        }
    }
}

fn all_ids(devices: u32) -> BTreeSet<ThinId> {
    (0..devices * 3).map(ThinId).collect()
}

const DEVICES: u32 = 90;

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let details = |id: u32| ThinDetails {
            mapped_blocks: u64::from(id),
            transaction_id: 0,
            creation_time: id,
            snapshotted_time: id,
        };
        let devices: BTreeMap<_, _> = (0..DEVICES).map(|id| (ThinId(id * 3), details(id))).collect();
        let mut blocks = ThinImage::new(&devices, 9).blocks;
        // The upper tree of mappings: each device's own tree is said to begin far away.
        let mut children = Vec::new();
        let keys: Vec<u64> = devices.keys().map(|id| u64::from(id.0)).collect();
        for keys in keys.chunks(11) {
            let number = blocks.len() as u64;
            let entries: Vec<_> = keys
                .iter()
                .map(|key| (*key, (1000 + key).to_le_bytes().to_vec()))
                .collect();
            blocks.push(node(number, 2, 8, &entries));
            children.push((keys[0], number.to_le_bytes().to_vec()));
        }
        let root = blocks.len() as u64;
        blocks.push(node(root, 1, 8, &children));
        put64(&mut blocks[0], 320, root);
        seal(&mut blocks[0], SUPERBLOCK_SALT);
        let (mut of_details, mut of_roots) = (BTreeMap::new(), BTreeMap::new());
        regions(&blocks, long(&blocks[0], 328), 0..1 << 24, &mut of_details);
        regions(&blocks, root, 0..1 << 24, &mut of_roots);
        let answer = read(&mut Blocks(blocks.clone()), &all_ids(DEVICES)).expect("a sound image");
        assert_eq!(answer.devices, devices);
        Sound {
            blocks,
            details: of_details,
            roots: of_roots,
            answer,
        }
    })
}

/// One change to an image.
#[derive(Debug, Arbitrary)]
enum Change {
    /// Bytes anywhere in a block.
    Bytes {
        block: u8,
        at: u16,
        value: u64,
        width: u8,
    },
    /// A field of the header: flags, number, entries, room, size of values.
    Header { block: u8, field: u8, value: u8 },
    /// A key, by its place.
    Key { block: u8, slot: u8, value: u16 },
    /// A value's first eight bytes, by its place: a child, or a number of blocks.
    Value { block: u8, slot: u8, value: u8 },
    /// A copy of another block.
    Copy { from: u8, to: u8 },
    /// Nothing behind this block any more.
    Cut { blocks: u8 },
}

#[derive(Debug, Arbitrary)]
struct Input {
    /// Whether checksums are made to fit after the changes.
    seal: bool,
    changes: Vec<Change>,
}

impl Change {
    /// Makes the change, and gives the block that it was made to.
    fn make(&self, blocks: &mut Vec<Block>) -> Option<usize> {
        let length = blocks.len();
        let pick = |block: &u8| usize::from(*block).checked_rem(length);
        let mut put = |at: usize, offset: usize, bytes: &[u8]| {
            let room = BLOCK_SIZE - bytes.len();
            blocks[at][offset.min(room)..][..bytes.len()].copy_from_slice(bytes);
            Some(at)
        };
        match self {
            Self::Bytes {
                block,
                at,
                value,
                width,
            } => {
                let width = usize::from(width % 8) + 1;
                put(pick(block)?, usize::from(*at), &value.to_le_bytes()[..width])
            }
            Self::Header { block, field, value } => {
                let offset = [4, 8, 16, 20, 24][usize::from(*field) % 5];
                put(pick(block)?, offset, &u32::from(*value).to_le_bytes())
            }
            Self::Key { block, slot, value } => put(
                pick(block)?,
                32 + 8 * usize::from(*slot),
                &u64::from(*value).to_le_bytes(),
            ),
            Self::Value { block, slot, value } => {
                let at = pick(block)?;
                let (room, size) = (short(&sound().blocks[at], 20), short(&sound().blocks[at], 24));
                put(
                    at,
                    32 + 8 * room + size * usize::from(*slot),
                    &u64::from(*value).to_le_bytes(),
                )
            }
            Self::Copy { from, to } => {
                let from = blocks[pick(from)?];
                let at = pick(to)?;
                blocks[at] = from;
                Some(at)
            }
            Self::Cut { blocks: left } => {
                blocks.truncate(usize::from(*left));
                None
            }
        }
    }
}

/// A sound image with changes: refused, or different only in what hangs on the changed blocks; without checksums that fit,
/// refused or not different at all.
pub fn thin_changed(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let sound = sound();
    let mut blocks = sound.blocks.clone();
    let mut changed: BTreeSet<usize> = BTreeSet::new();
    for change in input.changes.iter().take(16) {
        changed.extend(change.make(&mut blocks));
    }
    if input.seal {
        for number in &changed {
            if let Some(block) = blocks.get_mut(*number) {
                reseal(*number, block);
            }
        }
    }
    changed.retain(|number| blocks.get(*number) != sound.blocks.get(*number));
    let Ok(read) = look(&blocks, &all_ids(DEVICES)) else {
        return;
    };
    if changed.contains(&0) && input.seal {
        // Another root under a good checksum: nothing is left to compare with.
        return;
    }
    let hangs = |regions: &BTreeMap<usize, std::ops::Range<u64>>, id: &ThinId| {
        input.seal
            && changed
                .iter()
                .any(|at| regions.get(at).is_some_and(|ids| ids.contains(&u64::from(id.0))))
    };
    for id in sound.answer.devices.keys().chain(read.devices.keys()) {
        let same = sound.answer.devices.get(id) == read.devices.get(id);
        assert!(
            same || hangs(&sound.details, id),
            "the details of {} changed",
            id.0
        );
    }
    for id in sound.answer.mapping_roots.keys().chain(read.mapping_roots.keys()) {
        let same = sound.answer.mapping_roots.get(id) == read.mapping_roots.get(id);
        assert!(
            same || hangs(&sound.roots, id),
            "the mappings of {} changed",
            id.0
        );
    }
}
