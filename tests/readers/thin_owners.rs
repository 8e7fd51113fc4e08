//! Whose data are in given blocks: trees of mappings as the kernel builds them, shared between snapshots, and damaged ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use suture::model::{DataOwners, ThinId, ranges::Ranges};
use suture::observe::thin_metadata::{Block, owners};

use crate::thin_image::{Moving, NODE_SALT, SUPERBLOCK_SALT, node, put64, seal, superblock};

/// Data blocks by virtual block.
pub(crate) type Mappings = BTreeMap<u64, u64>;

/// An image of devices; equal leaves are one block that several devices share, as snapshots do.
pub(crate) fn image(devices: &BTreeMap<u32, Mappings>, fan: usize) -> Vec<Block> {
    let mut blocks = vec![superblock(1)];
    blocks.push(node(1, 2, 24, &[]));
    let mut leaves: BTreeMap<Vec<(u64, u64)>, u64> = BTreeMap::new();
    let write = |blocks: &mut Vec<Block>, flags, entries: &[(u64, Vec<u8>)]| {
        let number = u64::try_from(blocks.len()).unwrap();
        blocks.push(node(number, flags, 8, entries));
        number
    };
    let mut roots = Vec::new();
    for (id, mappings) in devices {
        let all: Vec<(u64, u64)> = mappings.iter().map(|(at, block)| (*at, *block)).collect();
        let mut children = Vec::new();
        for chunk in all.chunks(fan) {
            let number = *leaves.entry(chunk.to_vec()).or_insert_with(|| {
                let entries: Vec<_> = chunk
                    .iter()
                    .map(|(at, block)| (*at, ((block << 24) | 5).to_le_bytes().to_vec()))
                    .collect();
                write(&mut blocks, 2, &entries)
            });
            children.push((chunk[0].0, number.to_le_bytes().to_vec()));
        }
        let root = if children.is_empty() {
            write(&mut blocks, 2, &[])
        } else {
            write(&mut blocks, 1, &children)
        };
        roots.push((u64::from(*id), root.to_le_bytes().to_vec()));
    }
    let root = write(&mut blocks, 2, &roots);
    put64(&mut blocks[0], 320, root);
    seal(&mut blocks[0], SUPERBLOCK_SALT);
    blocks
}

fn ranges(all: &[(u64, u64)]) -> Ranges {
    all.iter().copied().collect()
}

fn ask(blocks: Vec<Block>, wanted: &Ranges) -> DataOwners {
    owners(&mut Moving::still(blocks), wanted)
}

pub(crate) fn mappings() -> impl Strategy<Value = Mappings> {
    proptest::collection::btree_map(0..500_u64, 0..300_u64, 0..80)
}

proptest! {
    #[test]
    fn every_owner_is_found_with_its_count(
        devices in proptest::collection::btree_map(0..1000_u32, mappings(), 0..12),
        wanted in proptest::collection::vec((0..300_u64, 1..20_u64), 0..6),
        fan in 1..100_usize,
    ) {
        // A snapshot of each, changed in one place.
        let mut all = devices.clone();
        for (id, mappings) in devices {
            let mut snapshot = mappings;
            snapshot.insert(7, 299);
            all.insert(id + 1000, snapshot);
        }
        let wanted = ranges(&wanted.iter().map(|(start, length)| (*start, start + length)).collect::<Vec<_>>());
        let expected: BTreeMap<ThinId, u64> = all
            .iter()
            .map(|(id, mappings)| {
                let hits = mappings.values().filter(|block| wanted.contains(**block)).count();
                (ThinId(*id), u64::try_from(hits).unwrap())
            })
            .filter(|(_, hits)| *hits > 0)
            .collect();
        // A node of the upper tree holds 252 ids; the others are in a tree of their own, and that is tested elsewhere.
        let found = ask(image(&all, fan), &wanted);
        prop_assert_eq!(found.owners, expected);
        prop_assert_eq!(found.incomplete, None);
    }

    #[test]
    fn damage_under_good_checksums_is_answered(
        devices in proptest::collection::btree_map(0..9_u32, mappings(), 1..6),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..512_usize, any::<u64>()), 1..20),
    ) {
        let mut blocks = image(&devices, 9);
        for (which, slot, value) in damage {
            let at = which.index(blocks.len() - 1) + 1;
            put64(&mut blocks[at], (slot * 8).max(16), value);
            put64(&mut blocks[at], 8, u64::try_from(at).unwrap());
            seal(&mut blocks[at], NODE_SALT);
        }
        let _ = ask(blocks, &ranges(&[(0, 300)]));
    }
}

#[test]
fn what_snapshots_share_is_read_once() {
    let mappings: Mappings = (0..100).map(|at| (at, at)).collect();
    let devices: BTreeMap<u32, Mappings> = (0..200).map(|id| (id, mappings.clone())).collect();
    let mut source = Moving::still(image(&devices, 2));
    let found = owners(&mut source, &ranges(&[(10, 12)]));
    assert!(found.owners.len() == 200 && found.owners.values().all(|hits| *hits == 2));
    // The superblock, the upper leaf, 200 roots, 50 leaves; the superblock again after each 64 of them and at the end.
    assert_eq!(source.reads, 1 + 1 + 200 + 50 + 4);
}

#[test]
fn a_walk_that_would_take_too_long_is_given_up_and_says_so() {
    let devices: BTreeMap<u32, Mappings> = (0..40)
        .map(|id| (id, (0..250).map(|at| (at, u64::from(id) * 250 + at)).collect()))
        .collect();
    let blocks = image(&devices, 1);
    let mut source = Moving::still(blocks);
    let found = owners(&mut source, &ranges(&[(0, 20_000)]));
    assert!(found.incomplete.unwrap().contains("8192 nodes"));
    let ids: BTreeSet<u32> = found.owners.keys().map(|id| id.0).collect();
    assert!(ids.contains(&0) && !ids.contains(&39));
    assert!(source.reads <= 8192 + 8192 / 64 + 2);
}

#[test]
fn a_tree_that_bites_its_tail_comes_to_an_end() {
    let devices = BTreeMap::from([(1, Mappings::from([(0, 3)]))]);
    let mut blocks = image(&devices, 1);
    // Superblock, details, leaf, root: the root now leads to itself, many times over.
    let children: Vec<_> = (0..200).map(|key| (key, 3_u64.to_le_bytes().to_vec())).collect();
    blocks[3] = node(3, 1, 8, &children);
    assert_eq!(ask(blocks.clone(), &ranges(&[(0, 9)])).owners, BTreeMap::new());
    // The upper tree can do so too.
    blocks[4] = node(4, 1, 8, &[(0, 4_u64.to_le_bytes().to_vec())]);
    assert!(
        ask(blocks, &ranges(&[(0, 9)]))
            .incomplete
            .unwrap()
            .contains("levels deep")
    );
}

#[test]
fn what_was_found_before_a_commit_is_told_and_what_came_after_it_is_not() {
    let devices: BTreeMap<u32, Mappings> = (0..100)
        .map(|id| (id, Mappings::from([(u64::from(id), 5)])))
        .collect();
    let blocks = image(&devices, 1);
    let mut schedule = vec![0; 150];
    schedule.extend(vec![1; 2000]);
    let writes: Vec<_> = (0..2000).map(|_| (1, node(1, 2, 24, &[]), true)).collect();
    let found = owners(
        &mut Moving::new(blocks, schedule, writes, true),
        &ranges(&[(5, 6)]),
    );
    assert!(found.incomplete.unwrap().contains("committed while"));
    let ids: Vec<u32> = found.owners.keys().map(|id| id.0).collect();
    assert!(ids.len() > 60 && ids.len() < 100, "{}", ids.len());
}

#[test]
fn a_pool_that_never_rests_is_said_to_be_busy() {
    let devices = BTreeMap::from([(1, Mappings::from([(0, 3)]))]);
    let blocks = image(&devices, 1);
    let writes: Vec<_> = (0..100).map(|_| (1, node(1, 2, 24, &[]), true)).collect();
    let mut source = Moving::new(blocks, vec![1; 100], writes, true);
    let found = owners(&mut source, &ranges(&[(0, 9)]));
    assert!(found.owners.is_empty() && found.incomplete.unwrap().contains("committed while"));
}
