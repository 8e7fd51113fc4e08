//! Blocks of the pool's metadata.

use std::{collections::BTreeSet, fs};

use suture::observe::{survey, thin_metadata::BLOCK_SIZE};

use super::{Said, Stage};

/// One block of the metadata after the other, and whether what reads it sees it.
#[test]
fn metadata_with_any_block_damaged_are_told_by_the_block() {
    let stage = Stage::new();
    let path = stage.places.metadata_device.clone().unwrap();
    let truth = stage.truth.ids();
    let image = &stage.world.metadata;
    let count = image.len() / BLOCK_SIZE;
    let (mut told, mut unharmed) = (BTreeSet::new(), BTreeSet::new());
    for (number, what, bytes) in block_damages(image) {
        let case = format!("block {number}, {what}");
        let said = stage.with(&path, &bytes);
        let Said::Told { unread, .. } = &said else {
            panic!("{case}: {said:?}")
        };
        if said == stage.truth {
            unharmed.insert(number);
            continue;
        }
        told.insert(number);
        assert!(!said.is_clean(), "{case}");
        let [unread] = unread.as_slice() else {
            panic!("{case}: {unread:?}")
        };
        assert!(
            unread.matters && unread.why.contains(path.to_str().unwrap()),
            "{case}: {unread:?}"
        );
        let block = number == 0 || unread.why.contains(&format!("block {number}"));
        assert!(block, "{case}: {unread:?}");
        assert!(said.ids().is_subset(&truth), "{case}: {:?}", said.ids());
        assert!(said.deletes().is_subset(&stage.truth.deletes()), "{case}");
    }
    // Superblock, and the tree of details: four leaves and what is above them.
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(
        told.iter().all(|block| !unharmed.contains(block)),
        "seen in one way and not in another: {told:?} {unharmed:?}"
    );
    assert_eq!(told.len() + unharmed.len(), count);
}

/// Damage to each block, one way after the other.
fn block_damages(image: &[u8]) -> Vec<(usize, String, Vec<u8>)> {
    let count = image.len() / BLOCK_SIZE;
    let mut all = Vec::new();
    for number in 0..count {
        let at = number * BLOCK_SIZE;
        let old = &image[at..at + BLOCK_SIZE];
        let mut add = |what: String, new: &[u8]| {
            let bytes = [&image[..at], new, &image[at + BLOCK_SIZE..]].concat();
            all.push((number, what, bytes));
        };
        add("zeroed".to_owned(), &[0; BLOCK_SIZE]);
        add("all ones".to_owned(), &[0xff; BLOCK_SIZE]);
        add("shifted".to_owned(), &[&old[1..], &[0]].concat());
        // What another block has, of each kind.
        for other in (0..count).filter(|other| *other != number) {
            add(
                format!("as block {other}"),
                &image[other * BLOCK_SIZE..(other + 1) * BLOCK_SIZE],
            );
        }
        // The header closely, the rest here and there.
        for bit in (0..40 * 8)
            .step_by(7)
            .chain((40 * 8..BLOCK_SIZE * 8).step_by(1997))
        {
            let mut new = old.to_vec();
            new[bit / 8] ^= 1 << (bit % 8);
            add(format!("bit {bit}"), &new);
        }
    }
    all
}

/// A copy that ends too early, as a `dd` without the right count makes it.
#[test]
fn metadata_that_are_cut_anywhere_are_told_or_whole() {
    let stage = Stage::new();
    let path = stage.places.metadata_device.clone().unwrap();
    let image = &stage.world.metadata;
    for length in (0..image.len()).step_by(BLOCK_SIZE / 2) {
        let said = stage.with(&path, &image[..length]);
        let Said::Told { unread, .. } = &said else {
            panic!("{length}: {said:?}")
        };
        // The tree of details comes last in this image: every cut takes something of it.
        assert!(
            !said.is_clean() && unread.iter().any(|one| one.matters),
            "{length}: {said:?}"
        );
        assert!(
            unread[0].why.contains(path.to_str().unwrap()),
            "{length}: {unread:?}"
        );
    }
}

/// `inspect` reads every tree: no block in use may be damaged without being told.
#[test]
fn space_is_never_told_from_a_damaged_block_without_saying_so() {
    let stage = Stage::new();
    let path = stage.places.metadata_device.clone().unwrap();
    let truth = survey::space(&stage.places, None, None).unwrap();
    assert_eq!(truth.0.incomplete, None);
    let mut told = BTreeSet::new();
    for (number, what, bytes) in block_damages(&stage.world.metadata).into_iter().step_by(3) {
        fs::write(&path, &bytes).unwrap();
        let why = match survey::space(&stage.places, None, None) {
            Ok(space) if space == truth => continue,
            Ok((space, _)) => space
                .incomplete
                .unwrap_or_else(|| panic!("block {number}, {what}: told as if whole")),
            Err(why) => why,
        };
        assert!(
            number == 0 || why.contains(&format!("block {number}")),
            "block {number}, {what}: {why}"
        );
        told.insert(number);
    }
    // Superblock; four leaves that devices share; the tree of devices, four leaves and what is above them.
    assert_eq!(told.len(), 10, "{told:?}");
}
