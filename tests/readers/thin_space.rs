//! Whose the pool's data blocks are: against what `thin_ls` says, against counting by hand, and with damage and commits in
//! the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::prelude::*;
use suture::{
    model::{Bytes, DeviceSpace, Space, ThinId},
    observe::thin_metadata::{Block, DeviceSource, From, space, space_of_set},
};

use crate::{
    thin::unpack,
    thin_image::{Moving, NODE_SALT, SUPERBLOCK_SALT, node, put64, seal},
    thin_owners::{Mappings, image, mappings},
};

fn told(blocks: Vec<Block>) -> Space {
    space(&mut Moving::still(blocks), From::Committed).unwrap()
}

/// The same, by counting.
fn counted(devices: &BTreeMap<u32, Mappings>) -> Space {
    let mut users: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    for (id, mappings) in devices {
        for block in mappings.values() {
            users.entry(*block).or_default().insert(*id);
        }
    }
    let count = |wanted: &dyn Fn(&BTreeSet<u32>) -> bool| {
        u64::try_from(users.values().filter(|users| wanted(users)).count()).unwrap()
    };
    Space {
        devices: devices
            .iter()
            .map(|(id, mappings)| {
                let space = DeviceSpace {
                    mapped: u64::try_from(mappings.len()).unwrap(),
                    exclusive: count(&|users| users.len() == 1 && users.contains(id)),
                };
                (ThinId(*id), space)
            })
            .collect(),
        mapped: count(&|_| true),
        shared: count(&|users| users.len() > 1),
        data_block: Bytes(65536),
        incomplete: None,
    }
}

/// Each device's blocks are its own, as the kernel has them, but for what its snapshots share with it.
fn histories() -> impl Strategy<Value = BTreeMap<u32, Mappings>> {
    let base = (
        mappings(),
        proptest::collection::vec((0..500_u64, 0..40_u64), 0..8),
    );
    proptest::collection::vec((base, 0..4_usize), 1..6).prop_map(|bases| {
        let mut devices = BTreeMap::new();
        let mut next_block = 0;
        for ((shape, writes), snapshots) in bases {
            let mut now: Mappings = BTreeMap::new();
            for at in shape.keys() {
                now.insert(*at, next_block);
                next_block += 1;
            }
            let id = u32::try_from(devices.len()).unwrap();
            devices.insert(id, now.clone());
            for number in 0..snapshots {
                for (at, _) in writes.iter().skip(number).step_by(2) {
                    now.insert(*at, next_block);
                    next_block += 1;
                }
                let id = u32::try_from(devices.len()).unwrap();
                devices.insert(id, now.clone());
            }
        }
        devices
    })
}

#[test]
fn it_agrees_with_thin_ls() {
    let file = tempfile::NamedTempFile::new().unwrap();
    unpack("thin-shared.blocks", 4 << 20, file.path());
    let answer = space(&mut DeviceSource::open(file.path()).unwrap(), From::Committed).unwrap();
    // The table in tests/fixtures/README.md.
    let table = [
        (1, 1000, 0, 1000),
        (2, 1000, 0, 1000),
        (3, 1015, 0, 1015),
        (4, 1022, 7, 1015),
        (5, 300, 297, 3),
        (6, 0, 0, 0),
        (7, 4, 1, 3),
    ];
    let found: Vec<_> = answer
        .devices
        .iter()
        .map(|(id, space)| (id.0, space.mapped, space.exclusive, space.shared()))
        .collect();
    assert_eq!(found, table);
    assert_eq!(
        (answer.mapped, answer.shared, answer.incomplete),
        (1358, 1053, None)
    );
    assert_eq!(answer.data_block, Bytes(65536));

    let freed = |ids: &[u32]| {
        let ids = ids.iter().copied().map(ThinId).collect();
        let mut source = DeviceSource::open(file.path()).unwrap();
        let freed = space_of_set(&mut source, From::Committed, &ids).unwrap();
        assert_eq!(freed.incomplete, None);
        freed.blocks
    };
    assert_eq!((freed(&[4]), freed(&[1, 2]), freed(&[3, 4])), (7, 35, 57));
    assert_eq!(
        (freed(&[1, 2, 3, 4]), freed(&[5, 7]), freed(&[6, 99])),
        (1057, 301, 0)
    );
    assert_eq!(freed(&[1, 2, 3, 4, 5, 6, 7]), 1358);
    assert_eq!(freed(&[]), 0);
}

#[test]
fn what_is_no_device_and_no_file_is_refused() {
    for path in ["/", "/dev/null"] {
        let error = suture::observe::thin_metadata::read_path(Path::new(path), &BTreeSet::new()).unwrap_err();
        assert!(
            error.to_string().contains("a regular file; check the path"),
            "{error}"
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    unpack("thin-shared.blocks", 4 << 20, file.path());
    let metadata = suture::observe::thin_metadata::read_path(file.path(), &[ThinId(3)].into()).unwrap();
    assert_eq!((metadata.devices.len(), metadata.mapping_roots.len()), (7, 1));
}

proptest! {
    #[test]
    fn every_block_is_counted_for_whom_it_is(devices in histories(), fan in 1..100_usize, set in proptest::collection::btree_set(0..20_u32, 0..8)) {
        let blocks = image(&devices, fan);
        prop_assert_eq!(told(blocks.clone()), counted(&devices));

        let outside: BTreeSet<u64> = devices.iter().filter(|(id, _)| !set.contains(id)).flat_map(|(_, all)| all.values().copied()).collect();
        let inside: BTreeSet<u64> = devices.iter().filter(|(id, _)| set.contains(id)).flat_map(|(_, all)| all.values().copied()).collect();
        let ids = set.iter().copied().map(ThinId).collect();
        let freed = space_of_set(&mut Moving::still(blocks), From::Committed, &ids).unwrap();
        prop_assert_eq!(freed.blocks, u64::try_from(inside.difference(&outside).count()).unwrap());
    }

    #[test]
    fn damage_under_good_checksums_is_answered(
        devices in histories(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..512_usize, prop_oneof![any::<u64>(), 0..40_u64]), 1..20),
    ) {
        let mut blocks = image(&devices, 9);
        for (which, slot, value) in damage {
            let at = which.index(blocks.len() - 1) + 1;
            put64(&mut blocks[at], (slot * 8).max(16), value);
            put64(&mut blocks[at], 8, u64::try_from(at).unwrap());
            seal(&mut blocks[at], NODE_SALT);
        }
        let mut source = Moving::still(blocks);
        let _ = space(&mut source, From::Committed);
        // Each node once, but for the upper tree, whose nodes have disjoint ranges, and a few looks at the superblock.
        prop_assert!(source.reads <= 3 * source.blocks.len() + 4, "{} of {}", source.reads, source.blocks.len());
    }
}

#[test]
fn each_node_is_read_once_however_many_snapshots_share_it() {
    let mappings: Mappings = (0..100).map(|at| (at, at)).collect();
    let devices: BTreeMap<u32, Mappings> = (0..200).map(|id| (id, mappings.clone())).collect();
    let mut source = Moving::still(image(&devices, 2));
    let answer = space(&mut source, From::Committed).unwrap();
    assert!(
        answer
            .devices
            .values()
            .all(|space| space.mapped == 100 && space.exclusive == 0)
    );
    assert_eq!((answer.mapped, answer.shared), (100, 100));
    // The superblock at the beginning and at the end, the upper leaf, 200 roots, 50 leaves.
    assert_eq!(source.reads, 2 + 1 + 200 + 50);
}

#[test]
fn what_can_not_be_is_told_as_partial() {
    let two: BTreeMap<u32, Mappings> = [
        (1, Mappings::from([(0, 5), (1, 5)])),
        (2, Mappings::from([(0, 6)])),
    ]
    .into();
    let twice = told(image(&two, 9));
    assert!(twice.incomplete.unwrap().contains("mapped twice by one device"));

    // The last block but one is the second device's root: it leads to itself.
    let mut circle = image(&[(1, Mappings::from([(0, 3)]))].into(), 1);
    circle[3] = node(
        3,
        1,
        8,
        &[
            (0, 3_u64.to_le_bytes().to_vec()),
            (1, 2_u64.to_le_bytes().to_vec()),
        ],
    );
    let answer = told(circle);
    assert!(
        answer
            .incomplete
            .unwrap()
            .contains("twice in the tree of one device")
    );
    assert_eq!(answer.devices[&ThinId(1)].mapped, 1);

    let mut beyond = image(&[(1, Mappings::from([(0, 30)]))].into(), 1);
    put64(&mut beyond[0], 64, 30);
    seal(&mut beyond[0], SUPERBLOCK_SALT);
    assert!(
        told(beyond.clone())
            .incomplete
            .unwrap()
            .contains("beyond the end of the data device")
    );
    put64(&mut beyond[0], 64, 31);
    seal(&mut beyond[0], SUPERBLOCK_SALT);
    assert_eq!(told(beyond).incomplete, None);

    // A node that can not be read.
    let mut torn = image(&two, 9);
    torn[2][100] ^= 1;
    let answer = told(torn);
    assert!(answer.incomplete.unwrap().contains("block 2"));
    assert_eq!(answer.devices[&ThinId(2)].mapped, 1);
}

#[test]
fn a_commit_in_the_way_is_never_mistaken_for_the_truth() {
    let devices: BTreeMap<u32, Mappings> = (0..100)
        .map(|id| (id, Mappings::from([(0, u64::from(id))])))
        .collect();
    let blocks = image(&devices, 1);
    let writes: Vec<_> = (0..5000).map(|_| (1, node(1, 2, 24, &[]), true)).collect();
    // Busy all the time: partial. Busy once: read again, and whole.
    let mut busy = Moving::new(blocks.clone(), vec![1; 5000], writes.clone(), true);
    let answer = space(&mut busy, From::Committed).unwrap();
    assert!(answer.incomplete.unwrap().contains("committed while"));
    let mut once = Moving::new(
        blocks.clone(),
        [vec![0; 50], vec![1]].concat(),
        writes.clone(),
        true,
    );
    assert_eq!(space(&mut once, From::Committed).unwrap(), counted(&devices));
    // Without a counter two walks must agree.
    let mut uncounted = Moving::new(blocks, Vec::new(), Vec::new(), false);
    assert_eq!(space(&mut uncounted, From::Committed).unwrap(), counted(&devices));
    assert!(uncounted.reads > 400, "{}", uncounted.reads);
}

/// A reserved snapshot is a superblock elsewhere, with its space maps wiped, whose blocks stay as they are.
#[test]
fn a_reserved_snapshot_is_read_while_the_pool_commits() {
    let devices: BTreeMap<u32, Mappings> = (0..10)
        .map(|id| (id, Mappings::from([(0, u64::from(id))])))
        .collect();
    let mut blocks = image(&devices, 1);
    let root = u64::try_from(blocks.len()).unwrap();
    let mut held = blocks[0];
    put64(&mut held, 8, root);
    seal(&mut held, SUPERBLOCK_SALT);
    blocks.push(held);
    let other = image(&BTreeMap::new(), 1)[0];
    let writes: Vec<_> = (0..500).map(|_| (0, other, true)).collect();
    let mut busy = Moving::new(blocks.clone(), vec![1; 500], writes.clone(), true);
    assert_eq!(space(&mut busy, From::Reserved(root)).unwrap(), counted(&devices));

    let mut busy = Moving::new(blocks.clone(), vec![1; 500], writes, true);
    let metadata = suture::observe::thin_metadata::read_held(&mut busy, root, &[ThinId(4)].into()).unwrap();
    assert_eq!(metadata.mapping_roots.len(), 1);
    // A superblock is not taken for a snapshot, nor any other block.
    for wrong in [0, root - 1] {
        let mut source = Moving::still(blocks.clone());
        assert!(
            suture::observe::thin_metadata::read_held(&mut source, wrong, &BTreeSet::new()).is_ok()
                == (wrong == 0)
        );
    }
}
