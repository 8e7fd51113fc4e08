//! Whose the pool's data blocks are: one walk of all mapping trees, each node read once however many snapshots share it.
//!
//! A data block is a device's own when it is mapped by one leaf alone and that leaf hangs on the device alone. Both are
//! found in passing. Each leaf counts the blocks that it is the first to map, and loses one when another leaf maps it
//! too; a node that is reached again is shared, and so is all below it. After the walk the counts of the leaves that are
//! not shared are added up.
//!
//! It costs a read and 24 bytes for each node, and 4 bytes for each data block between the first and the last of a
//! thousand that are in use: 7 MiB for a pool of 100 GiB in blocks of 64 KiB. What it may take is bounded by [`MOST_NODES`],
//! [`MOST_CHUNKS`] and [`PATIENCE`]; past those, the answer says that it is partial.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Block, BlockSource, Generation, MAPPING_ROOT, MAX_DEPTH, Node, ThinMetadataError, block, generation,
    superblock_of,
};
use crate::{
    model::{DeviceSpace, Reclaimable, Sectors, Space, ThinId},
    observe::little_endian::u64_at,
};

/// Nodes read at most: as many blocks as the largest metadata have (`THIN_METADATA_MAX_SECTORS`, dm-thin-metadata.h). Their
/// tables are 120 MiB then.
const MOST_NODES: usize = 255 << 14;
/// Thousands of data blocks that are kept count of: 256 MiB, for 4 TiB in blocks of 64 KiB.
const MOST_CHUNKS: usize = 1 << 16;
/// So long all walks together may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Walks tried while the pool commits.
const TRIES: usize = 4;
/// So many nodes are read before it is looked whether the pool committed meanwhile: a walk that is lost already costs
/// nobody more time.
const LOOK_AFTER: usize = 256;
/// In a leaf the data block lies above 24 bits of time (`unpack_block_time`, dm-thin-metadata.c).
const TIME_BITS: u32 = 24;
const READING: &str = "the trees of mappings";
/// No node: the parent of a device's root.
const NONE: u32 = u32::MAX;
/// In the table of data blocks: several leaves map it. Every other number is a leaf's place and one more.
const SHARED: u32 = u32::MAX;

/// Which state of the metadata is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The last transaction that was committed, and only if no other is committed meanwhile.
    Committed,
    /// The snapshot that is reserved at this block: it stays as it is while it is held.
    Reserved(u64),
}

/// The space of every thin device. Commits that come in between make it begin again, a few times; then the answer is
/// what the last walk found, and says so.
pub fn space(source: &mut impl BlockSource, from: From) -> Result<Space, ThinMetadataError> {
    space_and_whether_crossed(source, from).map(|(space, _)| space)
}

/// The same, and whether it is partial because the pool committed.
pub(super) fn space_and_whether_crossed(
    source: &mut impl BlockSource,
    from: From,
) -> Result<(Space, bool), ThinMetadataError> {
    let walk = walk(source, from, &BTreeSet::new())?;
    let sums = walk.sums();
    let space = Space {
        mapped: walk.distinct,
        shared: walk.distinct.saturating_sub(sums.iter().sum()),
        devices: walk
            .devices
            .iter()
            .zip(&walk.mapped)
            .zip(sums)
            .map(|(((id, _), mapped), exclusive)| {
                let space = DeviceSpace {
                    mapped: *mapped,
                    exclusive,
                };
                (*id, space)
            })
            .collect(),
        data_block: walk.data_block.bytes(),
        incomplete: walk.incomplete,
    };
    Ok((space, walk.crossed))
}

/// What deleting all of these devices would free: what is mapped by them and by nobody else. A device that the pool does
/// not have adds nothing.
pub fn space_of_set(
    source: &mut impl BlockSource,
    from: From,
    set: &BTreeSet<ThinId>,
) -> Result<Reclaimable, ThinMetadataError> {
    // The others come first: what the set adds to what they map is its own.
    let walk = walk(source, from, set)?;
    Ok(Reclaimable {
        blocks: walk.distinct.saturating_sub(walk.before_last),
        data_block: walk.data_block.bytes(),
        incomplete: walk.incomplete,
    })
}

/// Walks until nothing came in between. Devices of `last` are walked after all others.
fn walk(
    source: &mut impl BlockSource,
    from: From,
    last: &BTreeSet<ThinId>,
) -> Result<Walk, ThinMetadataError> {
    let until = Instant::now() + PATIENCE;
    let mut before: Option<Walk> = None;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut walk = Walk::begin(source, from, until)?;
        let _ = walk.all(source, last);
        let over = Instant::now() >= until || attempt >= TRIES;
        // Where nobody counts writes, two walks that agree under one superblock prove what the counter would.
        let counted = walk.generation.is_some() || matches!(from, From::Reserved(_));
        let agrees = before.as_ref().is_some_and(|before| before.agrees(&walk));
        if !walk.crossed && (counted || agrees) || over {
            if over && !walk.crossed && !counted && !agrees {
                walk.note("the metadata changed while they were walked".to_owned());
            }
            return Ok(walk);
        }
        before = (!walk.crossed).then_some(walk);
    }
}

/// What is kept of a node that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Read {
    /// The node above it, by its place, on the way that led to it first.
    parent: u32,
    /// The device that led to it first, by its place.
    device: u32,
    /// Of a leaf: data blocks that no other leaf maps.
    exclusive: u32,
    /// Whether it was reached again.
    shared: bool,
    /// Data blocks mapped at and below it.
    mapped: u64,
}

struct Walk {
    from: From,
    until: Instant,
    /// As they were when the walk began: with either another one, a commit may have come in between.
    superblock: Box<Block>,
    generation: Option<Generation>,
    root: u64,
    data_block: Sectors,
    /// Data blocks of the pool; nothing where the metadata do not say.
    data_blocks: Option<u64>,
    /// Devices in the order of the walk, with the roots of their trees.
    devices: Vec<(ThinId, u64)>,
    /// What each of them maps.
    mapped: Vec<u64>,
    reads: usize,
    nodes: Vec<Read>,
    /// By metadata block: place of its node, and one more.
    places: Table,
    /// By data block: see [`SHARED`].
    owners: Table,
    /// Data blocks that anybody maps.
    distinct: u64,
    /// The same, before the devices that were to come last.
    before_last: u64,
    incomplete: Option<String>,
    crossed: bool,
}

impl Walk {
    fn begin<S: BlockSource>(source: &mut S, from: From, until: Instant) -> Result<Self, ThinMetadataError> {
        let number = match from {
            From::Committed => 0,
            From::Reserved(root) => root,
        };
        let generation = generation(source)?;
        let superblock = block(source, number, "the superblock")?;
        let root = superblock_of(source, &superblock, number)?;
        Ok(Self {
            from,
            until,
            superblock,
            generation,
            root: root.data_mapping_root,
            data_block: Sectors(u64::from(root.data_block_size)),
            data_blocks: root.data_blocks,
            devices: Vec::new(),
            mapped: Vec::new(),
            reads: 0,
            nodes: Vec::new(),
            places: Table::default(),
            owners: Table::default(),
            distinct: 0,
            before_last: 0,
            incomplete: None,
            crossed: false,
        })
    }

    fn all<S: BlockSource>(&mut self, source: &mut S, last: &BTreeSet<ThinId>) -> ControlFlow<()> {
        let end = u64::from(ThinId::MAX.0);
        self.list(source, self.root, (0, end), 0)?;
        // Stable: the others keep their order.
        self.devices.sort_by_key(|(id, _)| last.contains(id));
        self.mapped = vec![0; self.devices.len()];
        let others = self
            .devices
            .iter()
            .take_while(|(id, _)| !last.contains(id))
            .count();
        for place in 0..self.devices.len() {
            if place == others {
                self.before_last = self.distinct;
            }
            let Some((_, root)) = self.devices.get(place).copied() else {
                break;
            };
            let device = u32::try_from(place).unwrap_or(NONE);
            let mapped = self.tree(source, root, device, NONE, 0)?;
            if let Some(slot) = self.mapped.get_mut(place) {
                *slot = mapped;
            }
        }
        if others == self.devices.len() {
            self.before_last = self.distinct;
        }
        self.confirm(source)
    }

    /// The upper tree: from thin ids to the roots of their own trees. Subtrees have disjoint ranges, so each of its nodes
    /// is there once.
    fn list<S: BlockSource>(
        &mut self,
        source: &mut S,
        number: u64,
        ids: (u64, u64),
        depth: u32,
    ) -> ControlFlow<()> {
        let Some(bytes) = self.read(source, number, depth)? else {
            return ControlFlow::Continue(());
        };
        let node = match Node::decode(&bytes, number, MAPPING_ROOT) {
            Ok(node) => node,
            Err(problem) => {
                self.damaged(number, &problem);
                return ControlFlow::Continue(());
            }
        };
        if let Some((first, last)) = node.edges()
            && (first < ids.0 || last > ids.1)
        {
            let problem = format!("has ids {first} to {last}, allowed are {} to {}", ids.0, ids.1);
            self.damaged(number, &problem);
            return ControlFlow::Continue(());
        }
        match node {
            Node::Internal(children) => {
                let ends = children.iter().skip(1).map(|(next, _)| next.saturating_sub(1));
                let ends: Vec<u64> = ends.chain([ids.1]).collect();
                for ((from, child), to) in children.into_iter().zip(ends) {
                    self.list(source, child, (from, to), depth.saturating_add(1))?;
                }
            }
            Node::Leaf(entries) => {
                let devices = entries
                    .iter()
                    .filter_map(|(key, value)| Some((ThinId(u32::try_from(*key).ok()?), u64_at(value, 0)?)));
                self.devices.extend(devices);
            }
        }
        ControlFlow::Continue(())
    }

    /// A device's own tree, or what of it was not walked yet: how many data blocks are mapped in it.
    fn tree<S: BlockSource>(
        &mut self,
        source: &mut S,
        number: u64,
        device: u32,
        parent: u32,
        depth: u32,
    ) -> ControlFlow<(), u64> {
        if let Some(place) = self.places.get(number).checked_sub(1) {
            let known = usize::try_from(place)
                .ok()
                .and_then(|place| self.nodes.get_mut(place));
            let Some(known) = known else {
                return ControlFlow::Continue(0);
            };
            let (mapped, twice) = (known.mapped, known.device == device);
            known.shared = true;
            if twice {
                self.damaged(number, "it is twice in the tree of one device");
            }
            return ControlFlow::Continue(mapped);
        }
        let Some(bytes) = self.read(source, number, depth)? else {
            return ControlFlow::Continue(0);
        };
        let place = self.nodes.len();
        let mark = u32::try_from(place).unwrap_or(NONE).saturating_add(1);
        self.nodes.push(Read {
            parent,
            device,
            exclusive: 0,
            shared: false,
            mapped: 0,
        });
        let noted = self.places.slot(number).map(|slot| *slot = mark);
        if noted.is_none() {
            self.give_up("its nodes are spread over more blocks than metadata can have".to_owned())?;
        }
        let mapped = match Node::decode(&bytes, number, MAPPING_ROOT) {
            Ok(Node::Internal(children)) => {
                let mut mapped: u64 = 0;
                let here = mark.saturating_sub(1);
                for (_, child) in children {
                    let below = self.tree(source, child, device, here, depth.saturating_add(1))?;
                    mapped = mapped.saturating_add(below);
                }
                mapped
            }
            Ok(Node::Leaf(entries)) => {
                for (_, value) in &entries {
                    if let Some(value) = u64_at(value, 0) {
                        self.map(value >> TIME_BITS, mark, number)?;
                    }
                }
                u64::try_from(entries.len()).unwrap_or(u64::MAX)
            }
            Err(problem) => {
                self.damaged(number, &problem);
                0
            }
        };
        if let Some(node) = self.nodes.get_mut(place) {
            node.mapped = mapped;
        }
        ControlFlow::Continue(mapped)
    }

    /// A leaf maps a data block.
    fn map(&mut self, data: u64, leaf: u32, number: u64) -> ControlFlow<()> {
        if self.data_blocks.is_some_and(|blocks| data >= blocks) {
            self.damaged(
                number,
                &format!("maps data block {data}, beyond the end of the data device"),
            );
            return ControlFlow::Continue(());
        }
        let Some(owner) = self.owners.slot(data) else {
            return self.give_up(format!(
                "the data are spread over more than {MOST_CHUNKS} thousand blocks, which is more than is kept count of; \
                 thin_ls counts them"
            ));
        };
        let before = *owner;
        *owner = if before == 0 { leaf } else { SHARED };
        match before {
            0 => {
                self.distinct = self.distinct.saturating_add(1);
                self.change(leaf, 1);
            }
            SHARED => {}
            first => {
                self.change(first, -1);
                if self.device_of(first) == self.device_of(leaf) {
                    self.damaged(
                        number,
                        &format!("data block {data} is mapped twice by one device"),
                    );
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn at(mark: u32) -> Option<usize> {
        usize::try_from(mark.checked_sub(1)?).ok()
    }

    fn device_of(&self, mark: u32) -> Option<u32> {
        Some(self.nodes.get(Self::at(mark)?)?.device)
    }

    fn change(&mut self, mark: u32, by: i32) {
        if let Some(node) = Self::at(mark).and_then(|at| self.nodes.get_mut(at)) {
            node.exclusive = node.exclusive.saturating_add_signed(by);
        }
    }

    /// Reads a node's block; nothing where it can not be read, which is noted.
    fn read<S: BlockSource>(
        &mut self,
        source: &mut S,
        number: u64,
        depth: u32,
    ) -> ControlFlow<(), Option<Box<Block>>> {
        if self.reads >= MOST_NODES {
            self.give_up(format!("the walk was given up after {MOST_NODES} nodes"))?;
        }
        if Instant::now() >= self.until {
            self.give_up(format!("the walk was given up after {} s", PATIENCE.as_secs()))?;
        }
        if self.reads % LOOK_AFTER == LOOK_AFTER - 1 {
            self.confirm(source)?;
        }
        self.reads = self.reads.saturating_add(1);
        if depth >= MAX_DEPTH {
            self.damaged(number, &format!("more than {MAX_DEPTH} levels deep"));
            return ControlFlow::Continue(None);
        }
        if number == 0 {
            self.damaged(number, "the superblock is used as a node");
            return ControlFlow::Continue(None);
        }
        ControlFlow::Continue(match block(source, number, READING) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.note(error.to_string());
                None
            }
        })
    }

    /// What was found belongs to the transaction that the walk began in, unless the pool has committed since.
    fn confirm<S: BlockSource>(&mut self, source: &mut S) -> ControlFlow<()> {
        if matches!(self.from, From::Reserved(_)) {
            return ControlFlow::Continue(());
        }
        let same = block(source, 0, "the superblock").is_ok_and(|now| now == self.superblock)
            && generation(source).is_ok_and(|now| now == self.generation);
        if same {
            return ControlFlow::Continue(());
        }
        self.crossed = true;
        self.give_up(
            "the pool committed while its mappings were walked; try again when it is quieter".to_owned(),
        )
    }

    /// What belongs to each device alone: its leaves' own blocks, unless something on the way to a leaf is shared.
    fn sums(&self) -> Vec<u64> {
        let mut sums = vec![0_u64; self.devices.len()];
        // A node comes after the one that led to it first.
        let mut shared: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let above = usize::try_from(node.parent).ok().and_then(|at| shared.get(at));
            let is_shared = node.shared || above.copied().unwrap_or(false);
            shared.push(is_shared);
            let sum = usize::try_from(node.device).ok().and_then(|at| sums.get_mut(at));
            if let Some(sum) = sum.filter(|_| !is_shared) {
                *sum = sum.saturating_add(u64::from(node.exclusive));
            }
        }
        sums
    }

    fn agrees(&self, other: &Self) -> bool {
        self.superblock == other.superblock
            && self.devices == other.devices
            && self.nodes == other.nodes
            && self.incomplete == other.incomplete
    }

    fn damaged(&mut self, number: u64, problem: &str) {
        self.note(format!("block {number} of the metadata, in {READING}: {problem}"));
    }

    /// Keeps the first reason: the others mostly follow from it.
    fn note(&mut self, why: String) {
        self.incomplete.get_or_insert(why);
    }

    fn give_up(&mut self, why: String) -> ControlFlow<()> {
        self.incomplete = Some(why);
        ControlFlow::Break(())
    }
}

/// Numbers by number, 0 where none was set: a table of which only those thousands exist that are used.
#[derive(Debug, Default)]
struct Table {
    chunks: Vec<Box<[u32; CHUNK]>>,
    places: HashMap<u64, usize>,
    /// The chunk that was used last, with its place: neighbours are mostly asked for together.
    last: Option<(u64, usize)>,
}

/// Numbers in one piece of a table: a page.
const CHUNK: usize = 1024;
const CHUNK_BITS: u32 = 10;

impl Table {
    fn inside(number: u64) -> usize {
        usize::try_from(number).unwrap_or(usize::MAX) % CHUNK
    }

    fn get(&self, number: u64) -> u32 {
        let chunk = number >> CHUNK_BITS;
        let place = match self.last {
            Some((last, place)) if last == chunk => Some(place),
            _ => self.places.get(&chunk).copied(),
        };
        let chunk = place.and_then(|place| self.chunks.get(place));
        chunk
            .and_then(|chunk| chunk.get(Self::inside(number)))
            .copied()
            .unwrap_or(0)
    }

    /// The number's place; nothing where the table would become too large.
    fn slot(&mut self, number: u64) -> Option<&mut u32> {
        let chunk = number >> CHUNK_BITS;
        let place = match self.last {
            Some((last, place)) if last == chunk => place,
            _ => match self.places.entry(chunk) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(_) if self.chunks.len() >= MOST_CHUNKS => return None,
                Entry::Vacant(new) => {
                    self.chunks.push(Box::new([0; CHUNK]));
                    *new.insert(self.chunks.len().saturating_sub(1))
                }
            },
        };
        self.last = Some((chunk, place));
        self.chunks.get_mut(place)?.get_mut(Self::inside(number))
    }
}
