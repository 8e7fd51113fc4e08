//! The reader of thin-pool metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use suture::model::{Sectors, ThinId};
use suture::observe::thin_metadata::{
    BLOCK_SIZE, Block, BlockSource, DeviceSource, ThinDetails, ThinMetadata, ThinMetadataError,
};

use crate::databases::fixture;
use crate::thin_image::{
    Devices, Moving, NODE_SALT, SUPERBLOCK_SALT, ThinImage, Write, node, put32, put64, seal, superblock,
};

fn read(source: &mut impl BlockSource) -> Result<ThinMetadata, ThinMetadataError> {
    suture::observe::thin_metadata::read(source, &BTreeSet::new())
}

fn details(mapped_blocks: u64) -> ThinDetails {
    ThinDetails {
        mapped_blocks,
        transaction_id: 3,
        creation_time: 1,
        snapshotted_time: 2,
    }
}

fn devices() -> impl Strategy<Value = Devices> {
    let details = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(mapped_blocks, transaction_id, creation_time, snapshotted_time)| ThinDetails {
            mapped_blocks,
            transaction_id,
            creation_time,
            snapshotted_time,
        },
    );
    proptest::collection::btree_map((0..=ThinId::MAX.0).prop_map(ThinId), details, 0..200)
}

/// A fixture, unpacked to an image of that many bytes: block numbers, each with its block.
pub(crate) fn unpack(name: &str, bytes: usize, to: &Path) {
    let packed = std::fs::read(fixture(name)).unwrap();
    let mut image = vec![0; bytes];
    for record in packed.chunks_exact(8 + BLOCK_SIZE) {
        let at = usize::try_from(u64::from_le_bytes(record[..8].try_into().unwrap())).unwrap() * BLOCK_SIZE;
        image[at..at + BLOCK_SIZE].copy_from_slice(&record[8..]);
    }
    std::fs::write(to, image).unwrap();
}

#[test]
fn what_thin_restore_wrote_decodes_exactly() {
    let file = tempfile::NamedTempFile::new().unwrap();
    unpack("thin-400.blocks", 8 << 20, file.path());
    // The recipe in tests/fixtures/README.md.
    let devices = (0..400_u32).map(|i| {
        let mapped_blocks = if i % 20 == 0 { u64::from(i % 7 + 1) } else { 0 };
        let details = ThinDetails {
            mapped_blocks,
            transaction_id: 0,
            creation_time: i % 9,
            snapshotted_time: i % 9 + 1,
        };
        (ThinId(1 + 41 * i), details)
    });
    let expected = ThinMetadata {
        time: 9,
        transaction_id: 0,
        held_root: None,
        needs_check: false,
        data_block_size: Sectors(128),
        devices: devices.collect(),
        mapping_roots: BTreeMap::new(),
    };
    assert_eq!(
        read(&mut DeviceSource::open(file.path()).unwrap()).unwrap(),
        expected
    );
}

#[test]
fn an_image_cut_short_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    unpack("thin-400.blocks", 8 << 20, file.path());
    for blocks in 0..37_u64 {
        file.as_file().set_len(blocks * 4096 + 7).unwrap();
        let error = read(&mut DeviceSource::open(file.path()).unwrap()).unwrap_err();
        match error {
            ThinMetadataError::NotThinMetadata { .. } => assert_eq!(blocks, 0),
            ThinMetadataError::Damaged { ref problem, .. } => {
                assert!(problem.contains("beyond the end"), "{error}");
            }
            other => panic!("{blocks} blocks: {other}"),
        }
        unpack("thin-400.blocks", 8 << 20, file.path());
    }
}

#[test]
fn the_fields_of_the_superblock_are_told() {
    let mut image = ThinImage::new(&BTreeMap::new(), 5);
    let block = &mut image.blocks[0];
    put32(block, 4, 1);
    put32(block, 44, 77);
    put64(block, 48, 88);
    put64(block, 56, 99);
    seal(block, SUPERBLOCK_SALT);
    let expected = ThinMetadata {
        time: 77,
        transaction_id: 88,
        held_root: Some(99),
        needs_check: true,
        data_block_size: Sectors(128),
        devices: BTreeMap::new(),
        mapping_roots: BTreeMap::new(),
    };
    assert_eq!(read(&mut Moving::still(image.blocks)).unwrap(), expected);
}

#[test]
fn block_zero_of_something_else_is_told_from_damage() {
    let blank = read(&mut Moving::still(vec![[0; BLOCK_SIZE]; 2]));
    assert!(matches!(blank, Err(ThinMetadataError::Unformatted { .. })));
    let changes: [(usize, u32, &str); 5] = [
        (32, 1, "magic"),
        (40, 3, "version 3"),
        (8, 4, "block 4"),
        (340, 16, "16 sectors"),
        (360, 2, "features 0x2"),
    ];
    for (offset, value, says) in changes {
        let mut blocks = ThinImage::new(&BTreeMap::new(), 5).blocks;
        put32(&mut blocks[0], offset, value);
        let unsealed = read(&mut Moving::still(blocks.clone())).unwrap_err();
        seal(&mut blocks[0], SUPERBLOCK_SALT);
        let error = read(&mut Moving::still(blocks)).unwrap_err();
        assert!(
            matches!(&error, ThinMetadataError::NotThinMetadata { problem, .. } if problem.contains(says)),
            "{error}"
        );
        assert!(
            says == "magic" || unsealed.to_string().contains("checksum"),
            "{unsealed}"
        );
    }
}

fn id(key: u64, mapped: u64) -> (u64, Vec<u8>) {
    let mut value = mapped.to_le_bytes().to_vec();
    value.resize(24, 0);
    (key, value)
}

fn child(key: u64, block: u64) -> (u64, Vec<u8>) {
    (key, block.to_le_bytes().to_vec())
}

#[test]
fn hostile_nodes_are_named() {
    let leaf = |number, ids: &[u64]| {
        node(
            number,
            2,
            24,
            &ids.iter().map(|key| id(*key, 1)).collect::<Vec<_>>(),
        )
    };
    let change = |mut block: Block, offset, value| {
        put32(&mut block, offset, value);
        seal(&mut block, NODE_SALT);
        block
    };
    let good = leaf(1, &[1, 2]);
    let mut rotten = good;
    rotten[40] ^= 1;
    let cases: Vec<(&str, Vec<Block>, u64, &str)> = vec![
        ("a flipped bit", vec![rotten], 1, "checksum"),
        ("the wrong block", vec![leaf(2, &[1])], 1, "it says it is block 2"),
        ("no kind", vec![change(good, 4, 4)], 1, "flags"),
        ("both kinds", vec![change(good, 4, 3)], 1, "flags"),
        ("many entries", vec![change(good, 16, 127)], 1, "do not fit"),
        ("huge entries", vec![change(good, 16, u32::MAX)], 1, "do not fit"),
        ("huge room", vec![change(good, 20, u32::MAX)], 1, "do not fit"),
        ("other values", vec![change(good, 24, 16)], 1, "values of 16"),
        ("ids backwards", vec![leaf(1, &[2, 1])], 1, "key 1 follows key 2"),
        ("an id twice", vec![leaf(1, &[2, 2])], 1, "key 2 follows key 2"),
        (
            "an id above 24 bits",
            vec![leaf(1, &[1, 1 << 24])],
            1,
            "allowed are 0 to 16777215",
        ),
        (
            "an empty internal node",
            vec![node(1, 1, 8, &[])],
            1,
            "without entries",
        ),
        (
            "itself as child",
            vec![node(1, 1, 8, &[child(0, 1)])],
            1,
            "levels deep",
        ),
        (
            "the superblock as child",
            vec![node(1, 1, 8, &[child(0, 0)])],
            0,
            "used as a node",
        ),
        (
            "a child beyond the end",
            vec![node(1, 1, 8, &[child(0, 64)])],
            64,
            "beyond the end",
        ),
        (
            "a child far beyond",
            vec![node(1, 1, 8, &[child(0, u64::MAX)])],
            u64::MAX,
            "beyond the end",
        ),
        (
            "a leaf twice",
            vec![node(1, 1, 8, &[child(1, 2), child(3, 2)]), leaf(2, &[1, 2])],
            2,
            "allowed are 3",
        ),
        (
            "ids of a neighbour",
            vec![
                node(1, 1, 8, &[child(1, 2), child(3, 3)]),
                leaf(2, &[1, 3]),
                leaf(3, &[4]),
            ],
            2,
            "allowed are 1 to 2",
        ),
    ];
    for (what, nodes, at, says) in cases {
        let mut source = Moving::still([vec![superblock(1)], nodes].concat());
        let error = read(&mut source).expect_err(what);
        let ThinMetadataError::Damaged { block, problem, .. } = &error else {
            panic!("{what}: {error}")
        };
        assert_eq!((*block, problem.contains(says)), (at, true), "{what}: {error}");
        assert!(source.reads <= 2 * 18, "{what}");
    }
}

#[test]
fn a_tree_with_more_nodes_than_blocks_is_refused() {
    // Ranges keep nodes with entries apart; only empty leaves could be shared.
    let children: Vec<_> = (0..200).map(|key| child(key, 2)).collect();
    let mut source = Moving::still(vec![superblock(1), node(1, 1, 8, &children), node(2, 2, 24, &[])]);
    let error = read(&mut source).unwrap_err();
    assert!(error.to_string().contains("more nodes than"), "{error}");
    assert!(source.reads <= 2 * 66, "{} reads", source.reads);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn what_was_written_is_read(fan in 1..127_usize, all in proptest::collection::vec(devices(), 1..4)) {
        let mut image = ThinImage::new(&all[0], fan);
        for devices in &all[1..] {
            image.commit(devices);
        }
        let count = image.blocks.len();
        let mut source = Moving::still(image.blocks);
        prop_assert_eq!(&read(&mut source).unwrap().devices, all.last().unwrap());
        prop_assert!(source.reads <= count + 2);
    }

    #[test]
    fn damage_under_good_checksums_is_answered(
        devices in devices(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..1020_usize, prop_oneof![Just(0_u32), Just(u32::MAX), any::<u32>(), 0..130_u32]), 1..8),
        header_only in any::<bool>(),
    ) {
        let mut blocks = ThinImage::new(&devices, 7).blocks;
        for (which, word, value) in damage {
            let number = which.index(blocks.len());
            let place = if header_only { word % 12 } else { word };
            put32(&mut blocks[number], place * 4, value);
            seal(&mut blocks[number], if number == 0 { SUPERBLOCK_SALT } else { NODE_SALT });
        }
        let mut source = Moving::still(blocks);
        // Either answer is fine; it has to come, and soon.
        let _ = read(&mut source);
        prop_assert!(source.reads <= 2 * (source.blocks.len().max(64) + 2), "{} reads", source.reads);
    }

    #[test]
    fn every_flipped_bit_is_noticed(devices in devices(), bits in proptest::collection::vec(any::<prop::sample::Index>(), 20)) {
        let blocks = ThinImage::new(&devices, 7).blocks;
        for bit in bits {
            let bit = bit.index(blocks.len() * BLOCK_SIZE * 8);
            let mut damaged = blocks.clone();
            damaged[bit / 8 / BLOCK_SIZE][bit / 8 % BLOCK_SIZE] ^= 1 << (bit % 8);
            prop_assert!(read(&mut Moving::still(damaged)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_commit_at_any_moment_leaves_one_transaction(
        fan in 1..6_usize,
        schedule in proptest::collection::vec(prop_oneof![4 => Just(0_usize), 1 => 0..12_usize, 1 => 0..60_usize], 0..60),
    ) {
        let (first, writes) = uniform_history(fan, 12);
        check_uniform(&mut Moving::new(first, schedule, writes, true));
    }
}

/// Devices that all map as many blocks as the transaction has number.
fn uniform(transaction: u64) -> Devices {
    (1..=9).map(|id| (ThinId(id * 3), details(transaction))).collect()
}

fn uniform_history(fan: usize, commits: u64) -> (Vec<Block>, Vec<Write>) {
    let mut image = ThinImage::new(&uniform(1), fan);
    image.commit(&uniform(2));
    let first = image.blocks.clone();
    (
        first,
        (3..3 + commits)
            .flat_map(|transaction| image.commit(&uniform(transaction)))
            .collect(),
    )
}

fn check_uniform(source: &mut Moving) -> bool {
    match read(source) {
        Ok(metadata) => {
            let transaction = metadata.devices[&ThinId(3)].mapped_blocks;
            assert_eq!(metadata.devices, uniform(transaction));
            true
        }
        Err(ThinMetadataError::Busy { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_burst_of_writes_at_every_read_leaves_one_transaction() {
    let (first, writes) = uniform_history(2, 4);
    // The history brings equal superblocks back, so equality alone proves nothing.
    let superblocks: Vec<_> = writes
        .iter()
        .filter(|write| write.0 == 0 && write.2)
        .map(|write| write.1)
        .collect();
    assert_eq!(superblocks[0], superblocks[2]);
    for counts in [true, false] {
        let mut quiet = Moving::new(first.clone(), Vec::new(), Vec::new(), counts);
        assert!(check_uniform(&mut quiet));
        for at in 0..=quiet.reads {
            // A torn superblock that stays torn can not be told from damage when nobody counts writes.
            for burst in (1..=writes.len()).filter(|burst| counts || writes[burst - 1].2) {
                let mut schedule = vec![0; at];
                schedule.push(burst);
                let mut source = Moving::new(first.clone(), schedule, writes.clone(), counts);
                let whole = check_uniform(&mut source);
                assert!(
                    whole || !writes[burst - 1].2,
                    "one burst leaves quiet moments enough"
                );
            }
        }
    }
}

#[test]
fn two_equal_walks_under_a_moving_superblock_prove_nothing() {
    let leaf = |mapped| node(1, 2, 24, &[id(5, mapped)]);
    let mut other = superblock(1);
    put32(&mut other, 44, 6);
    seal(&mut other, SUPERBLOCK_SALT);
    let away = vec![(1, leaf(2), true), (0, other, true)];
    let back = vec![(1, leaf(1), true), (0, superblock(1), true)];
    let writes = [away.clone(), back.clone(), away, back].concat();
    // Each walk is superblock, leaf, superblock. Twice, all but its first read falls on the other state.
    let schedule = vec![0, 2, 0, 2, 2, 0, 2];
    let mut source = Moving::new(vec![superblock(1), leaf(1)], schedule, writes, false);
    let metadata = read(&mut source).unwrap();
    assert_eq!(
        (metadata.time, metadata.devices[&ThinId(5)].mapped_blocks),
        (5, 1)
    );
}

#[test]
fn metadata_that_never_rests_is_busy_not_damaged() {
    for counts in [true, false] {
        let (first, writes) = uniform_history(2, 300);
        let mut source = Moving::new(first, vec![3; writes.len()], writes, counts);
        let error = read(&mut source).unwrap_err();
        assert!(
            matches!(error, ThinMetadataError::Busy { tries: 12, .. }),
            "{error}"
        );
    }
}

/// The upper tree of mappings, two levels deep; ids between and beyond its keys are not there.
#[test]
fn the_mapping_roots_that_were_asked_for_are_found() {
    let ids: BTreeSet<ThinId> = (0..40).map(ThinId).collect();
    let devices: Devices = ids
        .iter()
        .filter(|id| id.0 % 2 == 1)
        .map(|id| (*id, details(1)))
        .collect();
    let mut blocks = ThinImage::new(&devices, 64).blocks;
    let first = u64::try_from(blocks.len()).unwrap();
    let keys: Vec<u64> = devices.keys().map(|id| u64::from(id.0)).collect();
    let mut children = Vec::new();
    for (number, keys) in (first..).zip(keys.chunks(7)) {
        let entries: Vec<_> = keys
            .iter()
            .map(|key| (*key, (1000 + key).to_le_bytes().to_vec()))
            .collect();
        blocks.push(node(number, 2, 8, &entries));
        children.push((keys[0], number.to_le_bytes().to_vec()));
    }
    let root = u64::try_from(blocks.len()).unwrap();
    blocks.push(node(root, 1, 8, &children));
    put64(&mut blocks[0], 320, root);
    seal(&mut blocks[0], SUPERBLOCK_SALT);
    let with_roots = |blocks| suture::observe::thin_metadata::read(&mut Moving::still(blocks), &ids);
    let expected: BTreeMap<ThinId, u64> = devices.keys().map(|id| (*id, 1000 + u64::from(id.0))).collect();
    assert_eq!(with_roots(blocks.clone()).unwrap().mapping_roots, expected);

    // A loop, a torn node and a child beyond the end are damage, not answers.
    for (slot, bytes) in [(root, root.to_le_bytes()), (root, u64::MAX.to_le_bytes())] {
        let mut hostile = blocks.clone();
        let children: Vec<_> = children.iter().map(|(key, _)| (*key, bytes.to_vec())).collect();
        hostile[usize::try_from(slot).unwrap()] = node(slot, 1, 8, &children);
        assert!(matches!(
            with_roots(hostile),
            Err(ThinMetadataError::Damaged { .. })
        ));
    }
    blocks[usize::try_from(first).unwrap()][100] ^= 1;
    assert!(matches!(
        with_roots(blocks),
        Err(ThinMetadataError::Damaged { .. })
    ));
}
