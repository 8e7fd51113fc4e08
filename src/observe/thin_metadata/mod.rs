//! Reads the list of thin devices straight from a pool's metadata device, while the pool is live.
//!
//! The documented way is `reserve_metadata_snap`: a message that commits, can be held by only one tool, fails in a
//! read-only pool, and stays behind when its holder dies. Reading the device needs none of that, because of how the
//! kernel writes (drivers/md/dm-thin-metadata.c and persistent-data/):
//!
//! - Blocks are copied before they are changed, and the superblock is written last, after a flush of all others
//!   (`dm_tm_commit`, `dm_bm_flush`).
//! - A block that the committed superblock reaches is not handed out again in the transaction that frees it
//!   (`dm-space-map-metadata.c`: only blocks free in both the old and the new counts), so during the next
//!   transaction all of it stays intact; one commit later it may be overwritten.
//!
//! Hence the rule, as with a seqlock: superblock, walk, superblock; the walk is the truth of one transaction if and
//! only if both superblocks are equal to the byte and the device counted no write between. The counter closes the gap
//! that two commits can bring the same superblock back with other blocks behind it.
//!
//! A pool that commits all the time leaves no quiet moment for that: then, and only then, a snapshot is reserved
//! ([`read_pool`]), by a hand that is passed in.

mod btree;
mod error;
mod owners;
#[cfg(feature = "node")]
mod reserved;
mod source;
mod space;
mod superblock;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

pub use error::ThinMetadataError;
pub use owners::{owners, owners_of};
#[cfg(feature = "node")]
pub use reserved::{
    Answer, MetadataSnapshots, Reserve, ReserveError, Reserving, read_held, read_pool, space_of_pool,
};
pub use source::{BLOCK_SIZE, Block, BlockSource, DeviceSource, Generation, device_node};
pub use space::{From, space, space_of_set};

use super::little_endian::{u32_at, u64_at};
pub use crate::model::ThinDetails;
use crate::model::{Sectors, ThinId};
use btree::Node;
use superblock::Superblock;

/// Pauses before each read, in milliseconds; also how often one is tried. A pool under load commits once a second, or
/// at every flush that follows a new mapping.
const PAUSES: [u64; 12] = [0, 1, 2, 4, 8, 16, 32, 32, 32, 32, 32, 32];
/// Deepest tree that is followed; the kernel's own limit for a spine is 16 (`MAX_DEPTH`-sized stacks in dm-btree.c).
const MAX_DEPTH: u32 = 16;
/// Bytes of `struct disk_device_details`, dm-thin-metadata.c.
const DETAILS: usize = 24;
/// Bytes of a value in the upper tree of mappings: the number of a block.
const MAPPING_ROOT: usize = 8;

/// One committed transaction of a pool's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinMetadata {
    /// Grows by one with each snapshot (`__create_snap`); not a clock.
    pub time: u32,
    /// Set by `set_transaction_id`; 0 under containerd.
    pub transaction_id: u64,
    /// Block of the reserved metadata snapshot, if somebody holds one.
    pub held_root: Option<u64>,
    /// The kernel gave up on this metadata, and asks for `thin_check`.
    pub needs_check: bool,
    /// Size of a data block.
    pub data_block_size: Sectors,
    /// Every thin device, created and committed.
    pub devices: BTreeMap<ThinId, ThinDetails>,
    /// Of the devices that were asked for: the block where the device's own tree of mappings begins.
    pub mapping_roots: BTreeMap<ThinId, u64>,
}

/// Reads the metadata of the pool whose metadata device has that number. Nothing is written, reserved or locked.
///
/// The read waits with the device: while it is suspended (`lvextend` of the metadata, for moments), so is this call.
pub fn read_device(
    number: crate::model::DeviceNumber,
    with_roots: &BTreeSet<ThinId>,
) -> Result<ThinMetadata, ThinMetadataError> {
    read(&mut DeviceSource::open_device(number)?, with_roots)
}

/// Reads the metadata from a block device's node or from a copy of them in a regular file.
pub fn read_path(path: &Path, with_roots: &BTreeSet<ThinId>) -> Result<ThinMetadata, ThinMetadataError> {
    read(&mut DeviceSource::open(path)?, with_roots)
}

/// Reads consistent metadata from a source that may be written meanwhile: at most twelve walks in about 200 ms plus
/// the time of the walks, then [`ThinMetadataError::Busy`].
///
/// With a write counter, or a file that was not changed for a while, one walk between equal superblocks and equal counters is enough. Without one, two walks in
/// a row must give equal answers under equal superblocks. Damage must always be seen twice, and
/// with nothing in flight: a block read in the middle of a write looks damaged, and the write counts when it is over.
///
/// Of the devices in `with_roots` the mapping roots are read too.
pub fn read(
    source: &mut impl BlockSource,
    with_roots: &BTreeSet<ThinId>,
) -> Result<ThinMetadata, ThinMetadataError> {
    let mut previous: Option<Walk> = None;
    for pause in PAUSES {
        if pause > 0 {
            std::thread::sleep(Duration::from_millis(pause));
        }
        let before = generation(source)?;
        let first = block(source, 0, "the superblock")?;
        let answer = walk(source, &first, 0, with_roots);
        let last = block(source, 0, "the superblock")?;
        let after = generation(source)?;
        if first != last || before != after {
            previous = None;
            continue;
        }
        if before.is_some() && answer.is_ok() {
            return answer;
        }
        let now = Walk {
            superblock: first,
            outcome: answer.as_ref().map(Clone::clone).map_err(ToString::to_string),
        };
        if previous.as_ref() == Some(&now) && before.is_none_or(|count| count.in_flight == 0) {
            return answer;
        }
        previous = Some(now);
    }
    Err(ThinMetadataError::Busy {
        file: source.name(),
        tries: PAUSES.len(),
    })
}

/// A walk that may have been crossed by a commit, kept to be compared with the next one.
#[derive(Debug, PartialEq, Eq)]
struct Walk {
    superblock: Box<Block>,
    outcome: Result<ThinMetadata, String>,
}

fn generation(source: &impl BlockSource) -> Result<Option<Generation>, ThinMetadataError> {
    source.generation().map_err(|error| ThinMetadataError::Io {
        doing: "read the write counter of".to_owned(),
        file: source.name(),
        source: error,
    })
}

fn block(
    source: &mut impl BlockSource,
    number: u64,
    reading: &'static str,
) -> Result<Box<Block>, ThinMetadataError> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    if number >= source.blocks() {
        let problem = format!(
            "lies beyond the end of the device, which has {} blocks",
            source.blocks()
        );
        return Err(match number {
            0 => ThinMetadataError::NotThinMetadata {
                file: source.name(),
                problem: "smaller than one block".to_owned(),
            },
            block => ThinMetadataError::Damaged {
                file: source.name(),
                block,
                reading,
                problem,
            },
        });
    }
    source
        .read_block(number, &mut block)
        .map_err(|error| ThinMetadataError::Io {
            doing: format!("read block {number} ({reading}) of"),
            file: source.name(),
            source: error,
        })?;
    Ok(block)
}

fn walk(
    source: &mut impl BlockSource,
    superblock: &Block,
    number: u64,
    with_roots: &BTreeSet<ThinId>,
) -> Result<ThinMetadata, ThinMetadataError> {
    if number == 0 && superblock.iter().all(|byte| *byte == 0) {
        return Err(ThinMetadataError::Unformatted { file: source.name() });
    }
    let root = superblock_of(source, superblock, number)?;
    let left = source.blocks();
    let mut walk = DetailsWalk {
        source,
        left,
        devices: Vec::new(),
    };
    walk.node(root.details_root, 0..=u64::from(ThinId::MAX.0), 0)?;
    // They come in order, and become a tree at once.
    let devices = BTreeMap::from_iter(walk.devices);
    let mut mapping_roots = BTreeMap::new();
    for id in with_roots {
        if let Some(found) = mapping_root(source, root.data_mapping_root, *id)? {
            mapping_roots.insert(*id, found);
        }
    }
    Ok(ThinMetadata {
        time: root.time,
        transaction_id: root.transaction_id,
        held_root: root.held_root,
        needs_check: root.needs_check,
        data_block_size: Sectors(u64::from(root.data_block_size)),
        devices,
        mapping_roots,
    })
}

fn superblock_of(
    source: &impl BlockSource,
    bytes: &Block,
    number: u64,
) -> Result<Superblock, ThinMetadataError> {
    let file = source.name();
    Superblock::decode(bytes, number).map_err(|problem| match number {
        0 => ThinMetadataError::NotThinMetadata { file, problem },
        block => ThinMetadataError::Damaged {
            file,
            block,
            reading: "the reserved metadata snapshot",
            problem,
        },
    })
}

/// Looks one device up in the upper tree of mappings (`tl_info`, dm-thin-metadata.c): its value is the block where the
/// device's own tree begins.
fn mapping_root(
    source: &mut impl BlockSource,
    root: u64,
    id: ThinId,
) -> Result<Option<u64>, ThinMetadataError> {
    let reading = "the tree of mappings";
    let wanted = u64::from(id.0);
    let mut number = root;
    for _ in 0..MAX_DEPTH {
        let block = block(source, number, reading)?;
        let node =
            Node::decode(&block, number, MAPPING_ROOT).map_err(|problem| ThinMetadataError::Damaged {
                file: source.name(),
                block: number,
                reading,
                problem,
            })?;
        match node {
            Node::Leaf(entries) => {
                let found = entries.iter().find(|(key, _)| *key == wanted);
                return Ok(found.and_then(|(_, value)| u64_at(value, 0)));
            }
            Node::Internal(children) => match children.iter().rev().find(|(from, _)| *from <= wanted) {
                Some((_, child)) => number = *child,
                None => return Ok(None),
            },
        }
    }
    Err(ThinMetadataError::Damaged {
        file: source.name(),
        block: number,
        reading,
        problem: format!("more than {MAX_DEPTH} levels deep"),
    })
}

struct DetailsWalk<'s, S> {
    source: &'s mut S,
    /// Blocks that may still be read: a tree never has more than the device.
    left: u64,
    devices: Vec<(ThinId, ThinDetails)>,
}

impl<S: BlockSource> DetailsWalk<'_, S> {
    /// Reads the subtree at block `number`, which may hold keys in `keys`. Subtrees have disjoint ranges, so no leaf
    /// with an entry is read twice.
    fn node(
        &mut self,
        number: u64,
        keys: std::ops::RangeInclusive<u64>,
        depth: u32,
    ) -> Result<(), ThinMetadataError> {
        let reading = "the tree of device details";
        let file = self.source.name();
        let damaged = |problem| ThinMetadataError::Damaged {
            file: file.clone(),
            block: number,
            reading,
            problem,
        };
        if depth >= MAX_DEPTH {
            return Err(damaged(format!("more than {MAX_DEPTH} levels deep")));
        }
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| damaged("the tree has more nodes than the device has blocks".to_owned()))?;
        if number == 0 {
            return Err(damaged("the superblock is used as a node".to_owned()));
        }
        let block = block(self.source, number, reading)?;
        let node = Node::decode(&block, number, DETAILS).map_err(damaged)?;
        if let Some((first, last)) = node.edges()
            && !(keys.contains(&first) && keys.contains(&last))
        {
            let problem = format!(
                "has ids {first} to {last}, allowed are {} to {}",
                keys.start(),
                keys.end()
            );
            return Err(damaged(problem));
        }
        match node {
            Node::Leaf(entries) => {
                for (key, value) in entries {
                    let (id, details) = details(key, value)
                        .ok_or_else(|| damaged(format!("the details of id {key} are no details")))?;
                    self.devices.push((id, details));
                }
            }
            Node::Internal(children) => {
                let ends = children
                    .iter()
                    .skip(1)
                    .map(|(next, _)| next.saturating_sub(1))
                    .chain([*keys.end()]);
                for ((from, child), to) in children.iter().zip(ends) {
                    self.node(*child, *from..=to, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

fn details(key: u64, value: &[u8]) -> Option<(ThinId, ThinDetails)> {
    let details = ThinDetails {
        mapped_blocks: u64_at(value, 0)?,
        transaction_id: u64_at(value, 8)?,
        creation_time: u32_at(value, 16)?,
        snapshotted_time: u32_at(value, 20)?,
    };
    Some((ThinId(u32::try_from(key).ok()?), details))
}
