//! Which thin devices have data in given blocks of the pool: a walk of all mapping trees, each node that snapshots share
//! read once. It costs a read for each node, so it is done only when there are errors to attribute, and is bounded.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Block, BlockSource, DeviceSource, Generation, MAX_DEPTH, Node, Superblock, ThinMetadataError, block,
    generation,
};
use crate::{
    model::{DataOwners, DeviceNumber, ThinId, ranges::Ranges},
    observe::little_endian::u64_at,
};

/// Nodes read at most in one walk: 32 MiB.
const MAX_NODES: usize = 8192;
/// So long all walks together may take: a read of the world waits for them.
const PATIENCE: Duration = Duration::from_secs(3);
/// Owners told at most.
const MAX_OWNERS: usize = 4096;
/// Walks tried while the pool commits.
const TRIES: usize = 3;
/// So many nodes are read before it is looked whether the pool committed meanwhile.
const LOOK_AFTER: usize = 64;
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

/// The owners of data blocks, from a source that may be written meanwhile. What was read before a commit is true of the
/// transaction before it; what may have been read after it is thrown away. Of several walks that commits broke off, the
/// one that found most is told.
#[must_use]
pub fn owners(source: &mut impl BlockSource, blocks: &Ranges) -> DataOwners {
    let until = Instant::now() + PATIENCE;
    let mut answer = DataOwners {
        blocks: blocks.clone(),
        owners: BTreeMap::new(),
        incomplete: Some(format!("{READING} could not be walked")),
    };
    for _ in 0..TRIES {
        match attempt(source, blocks, until) {
            Ok(walk) => {
                if walk.owners.len() >= answer.owners.len() || walk.incomplete.is_none() {
                    (answer.owners, answer.incomplete) = (walk.owners, walk.incomplete);
                }
                if !walk.crossed {
                    break;
                }
            }
            Err(error) => answer.incomplete = Some(error.to_string()),
        }
        if Instant::now() >= until {
            break;
        }
    }
    answer
}

fn attempt<'b, S: BlockSource>(
    source: &mut S,
    blocks: &'b Ranges,
    until: Instant,
) -> Result<Walk<'b>, ThinMetadataError> {
    let generation = generation(source)?;
    let superblock = block(source, 0, "the superblock")?;
    let root = Superblock::decode(&superblock, 0).map_err(|problem| ThinMetadataError::NotThinMetadata {
        file: source.name(),
        problem,
    })?;
    let mut walk = Walk {
        blocks,
        until,
        superblock,
        generation,
        hits: BTreeMap::new(),
        read: 0,
        looked: 0,
        found: Vec::new(),
        owners: BTreeMap::new(),
        incomplete: None,
        crossed: false,
    };
    let _ = walk.devices(source, root.data_mapping_root, 0);
    if !walk.crossed {
        let _ = walk.confirm(source);
    }
    Ok(walk)
}

struct Walk<'b> {
    blocks: &'b Ranges,
    until: Instant,
    /// As they were when the walk began: with either another one, a commit may have come in between.
    superblock: Box<Block>,
    generation: Option<Generation>,
    /// Of each node read: how many of its mappings lead to the blocks.
    hits: BTreeMap<u64, u64>,
    read: usize,
    /// How many were read when it was looked last whether the pool committed.
    looked: usize,
    /// Owners found since then.
    found: Vec<(ThinId, u64)>,
    /// Owners found before.
    owners: BTreeMap<ThinId, u64>,
    incomplete: Option<String>,
    crossed: bool,
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
                    self.found.extend(id.filter(|_| hits > 0).map(|id| (id, hits)));
                    if self.read.saturating_sub(self.looked) >= LOOK_AFTER {
                        self.confirm(source)?;
                    }
                    if self.owners.len().saturating_add(self.found.len()) >= MAX_OWNERS {
                        self.give_up(format!("{MAX_OWNERS} thin devices and more have data there"))?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// What was found belongs to the transaction that the walk began in, unless the pool has committed since.
    fn confirm<S: BlockSource>(&mut self, source: &mut S) -> ControlFlow<()> {
        self.looked = self.read;
        let superblock = block(source, 0, "the superblock");
        let same = superblock.is_ok_and(|now| now == self.superblock)
            && generation(source).is_ok_and(|now| now == self.generation);
        if same {
            self.owners.extend(self.found.drain(..));
            return ControlFlow::Continue(());
        }
        self.crossed = true;
        self.give_up("the pool committed while its mappings were walked".to_owned())
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
            self.give_up(format!(
                "the walk of the mappings was given up after {MAX_NODES} nodes"
            ))?;
        }
        if Instant::now() >= self.until {
            self.give_up(format!(
                "the walk of the mappings was given up after {} s",
                PATIENCE.as_secs()
            ))?;
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
