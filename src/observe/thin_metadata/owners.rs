//! Which thin devices have data in given blocks of the pool: a walk of all mapping trees, each node that snapshots share
//! read once. It costs a read for each node, so it is done only when there are errors to attribute, and is bounded.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{
    Block, BlockSource, DeviceSource, MAX_DEPTH, Node, Superblock, ThinMetadataError, block, generation,
};
use crate::{
    model::{DataOwners, DeviceNumber, ThinId, ranges::Ranges},
    observe::little_endian::u64_at,
};

/// Nodes read at most: 32 MiB, less than the second between two commits of a busy pool on any disk worth the name.
const MAX_NODES: usize = 8192;
/// Owners told at most.
const MAX_OWNERS: usize = 4096;
/// Walks tried while the pool commits.
const TRIES: usize = 3;
/// Bytes of a value in either tree of mappings: a block of the metadata, or a data block and a time.
const VALUE: usize = 8;
/// In a leaf of a device's own tree the data block lies above 24 bits of time (`unpack_block_time`, dm-thin-metadata.c).
const TIME_BITS: u32 = 24;
const READING: &str = "the trees of mappings";

/// The owners of data blocks, from the metadata device of that number. Never fails: what could not be read makes the
/// answer incomplete.
#[must_use]
pub fn owners_of(number: DeviceNumber, blocks: &Ranges) -> DataOwners {
    match DeviceSource::open_device(number) {
        Ok(mut source) => owners(&mut source, blocks),
        Err(error) => DataOwners {
            blocks: blocks.clone(),
            owners: BTreeMap::new(),
            incomplete: Some(error.to_string()),
        },
    }
}

/// The owners of data blocks, from a source that may be written meanwhile; a walk that a commit crossed is thrown away.
#[must_use]
pub fn owners(source: &mut impl BlockSource, blocks: &Ranges) -> DataOwners {
    let mut answer = DataOwners {
        blocks: blocks.clone(),
        owners: BTreeMap::new(),
        incomplete: Some("the pool committed during each walk of its mappings".to_owned()),
    };
    for _ in 0..TRIES {
        match attempt(source, blocks) {
            Ok(Some(walk)) => {
                (answer.owners, answer.incomplete) = (walk.owners, walk.incomplete);
                return answer;
            }
            Ok(None) => {}
            Err(error) => answer.incomplete = Some(error.to_string()),
        }
    }
    answer
}

/// One walk; nothing where the metadata changed in between.
fn attempt<'b, S: BlockSource>(
    source: &mut S,
    blocks: &'b Ranges,
) -> Result<Option<Walk<'b>>, ThinMetadataError> {
    let before = generation(source)?;
    let first = block(source, 0, "the superblock")?;
    let root = Superblock::decode(&first).map_err(|problem| ThinMetadataError::NotThinMetadata {
        file: source.name(),
        problem,
    })?;
    let mut walk = Walk {
        blocks,
        hits: BTreeMap::new(),
        read: 0,
        owners: BTreeMap::new(),
        incomplete: None,
    };
    let _ = walk.devices(source, root.data_mapping_root, 0);
    let last = block(source, 0, "the superblock")?;
    let quiet = first == last && before == generation(source)?;
    Ok(quiet.then_some(walk))
}

struct Walk<'b> {
    blocks: &'b Ranges,
    /// Of each node read: how many of its mappings lead to the blocks.
    hits: BTreeMap<u64, u64>,
    read: usize,
    owners: BTreeMap<ThinId, u64>,
    incomplete: Option<String>,
}

/// A child of an inner node, or a value of a leaf.
enum Entry {
    Child(u64),
    Value(u64, u64),
}

impl Walk<'_> {
    /// The upper tree: from thin ids to the roots of their own trees.
    fn devices<S: BlockSource>(&mut self, source: &mut S, number: u64, depth: u32) -> ControlFlow<()> {
        for entry in self.node(source, number, depth)? {
            match entry {
                Entry::Child(child) => self.devices(source, child, depth.saturating_add(1))?,
                Entry::Value(id, root) => {
                    let hits = self.mappings(source, root, 0)?;
                    let id = u32::try_from(id).ok().map(ThinId);
                    if let Some(id) = id.filter(|_| hits > 0) {
                        self.owners.insert(id, hits);
                    }
                    if self.owners.len() >= MAX_OWNERS {
                        return self.give_up(format!("more than {MAX_OWNERS} thin devices have data there"));
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// A device's own tree: how many of its mappings lead to the blocks.
    fn mappings<S: BlockSource>(&mut self, source: &mut S, number: u64, depth: u32) -> ControlFlow<(), u64> {
        if let Some(known) = self.hits.get(&number) {
            return ControlFlow::Continue(*known);
        }
        // While it is walked it counts nothing, so that a tree that bites its tail comes to an end.
        self.hits.insert(number, 0);
        let mut hits: u64 = 0;
        for entry in self.node(source, number, depth)? {
            let more = match entry {
                Entry::Child(child) => self.mappings(source, child, depth.saturating_add(1))?,
                Entry::Value(_, value) => u64::from(self.blocks.contains(value >> TIME_BITS)),
            };
            hits = hits.saturating_add(more);
        }
        self.hits.insert(number, hits);
        ControlFlow::Continue(hits)
    }

    /// The entries of a node; none of one that can not be read, which is noted.
    fn node<S: BlockSource>(
        &mut self,
        source: &mut S,
        number: u64,
        depth: u32,
    ) -> ControlFlow<(), Vec<Entry>> {
        if self.read >= MAX_NODES {
            self.give_up(format!("the mappings were given up after {MAX_NODES} nodes"))?;
        }
        self.read = self.read.saturating_add(1);
        if depth >= MAX_DEPTH {
            self.incomplete = Some(format!("{READING} are more than {MAX_DEPTH} levels deep"));
            return ControlFlow::Continue(Vec::new());
        }
        let read = block(source, number, READING).map_err(|error| error.to_string());
        let entries = read.and_then(|bytes| {
            entries(&bytes, number).map_err(|problem| format!("block {number} of the metadata: {problem}"))
        });
        ControlFlow::Continue(entries.unwrap_or_else(|problem| {
            self.incomplete = Some(problem);
            Vec::new()
        }))
    }

    fn give_up(&mut self, why: String) -> ControlFlow<()> {
        self.incomplete = Some(why);
        ControlFlow::Break(())
    }
}

fn entries(bytes: &Block, number: u64) -> Result<Vec<Entry>, String> {
    Ok(match Node::decode(bytes, number, VALUE)? {
        Node::Internal(children) => children
            .into_iter()
            .map(|(_, child)| Entry::Child(child))
            .collect(),
        Node::Leaf(values) => values
            .into_iter()
            .filter_map(|(key, value)| Some(Entry::Value(key, u64_at(value, 0)?)))
            .collect(),
    })
}
