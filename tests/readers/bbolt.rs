//! The bbolt reader.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use suture::model::TxId;
use suture::observe::bbolt::{BboltError, Database, Value};

use crate::bbolt_file::{
    BboltFile, Item, Layout, Moving, READ_AHEAD, Tree, Write, apply, dump_all, dump_in_file_order, header,
    meta, read_still,
};

const LAYOUT: Layout = Layout {
    page_size: 1024,
    fan: 3,
    inline: 256,
};

fn layouts() -> impl Strategy<Value = Layout> {
    ((0..7_u32), (1..20_usize), prop_oneof![Just(0), Just(300_usize)]).prop_map(|(doublings, fan, inline)| {
        Layout {
            page_size: 1024 << doublings,
            fan,
            inline,
        }
    })
}

fn trees() -> impl Strategy<Value = Tree> {
    let key = || proptest::collection::vec(any::<u8>(), 1..10);
    let value = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => proptest::collection::vec(any::<u8>(), 0..5000),
    ];
    let flat = (
        any::<u64>(),
        proptest::collection::btree_map(key(), value.prop_map(Item::Bytes), 0..60),
    )
        .prop_map(|(sequence, items)| Tree { sequence, items });
    flat.prop_recursive(2, 300, 6, move |inner| {
        let buckets = proptest::collection::btree_map(key(), inner.clone().prop_map(Item::Bucket), 0..6);
        (inner, buckets).prop_map(|(mut tree, buckets)| {
            tree.items.extend(buckets);
            tree
        })
    })
}

fn check_gets<S: suture::observe::bbolt::PageSource + std::fmt::Debug>(
    bucket: &suture::observe::bbolt::Bucket<'_, S>,
    tree: &Tree,
) -> Result<(), BboltError> {
    for (key, item) in &tree.items {
        match (bucket.get(key)?, item) {
            (Some(Value::Bytes(found)), Item::Bytes(expected)) => assert_eq!(&*found, expected),
            (Some(Value::Bucket(found)), Item::Bucket(expected)) => {
                assert_eq!(found.sequence(), expected.sequence);
                check_gets(&found, expected)?;
            }
            other => panic!("{key:?}: {other:?}"),
        }
        let mut absent = key.clone();
        absent.push(0);
        if !tree.items.contains_key(&absent) {
            assert!(bucket.get(&absent)?.is_none());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn what_was_written_is_read(layout in layouts(), trees in proptest::collection::vec(trees(), 1..4)) {
        let mut file = BboltFile::new(layout, &trees[0]);
        for tree in &trees[1..] {
            file.commit(tree);
        }
        let last = trees.last().unwrap();
        let size = file.bytes.len();
        let txid = TxId(file.txid);
        let source = Moving::still(file.bytes);
        let database = Database::new(&source);
        prop_assert_eq!(database.newest_txid().unwrap(), txid);
        let (tree, read) = database.snapshot(dump_all).unwrap();
        prop_assert_eq!(&tree, last);
        prop_assert_eq!(read, txid);
        prop_assert!(source.bytes_read.get() <= size + 2000, "each page is read once");
        let gets = database.snapshot(|snapshot| check_gets(&snapshot.root(), last));
        prop_assert!(gets.is_ok(), "{:?}", gets.err());
    }

    #[test]
    fn damage_is_answered_and_costs_no_more_than_the_file(
        layout in layouts(),
        tree in trees(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0_u32), Just(1), Just(u32::MAX), any::<u32>(), 0..64_u32]), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = BboltFile::new(layout, &tree).bytes;
        // Beyond the meta pages, which have a checksum and tests of their own.
        let data = 2 * layout.page_size..bytes.len();
        for (place, value) in damage {
            bytes[data.start + place.index(data.len())] = value;
        }
        for (place, value) in words {
            let at = (data.start + place.index(data.len())) & !3;
            apply(&mut bytes, &(at, value.to_le_bytes().to_vec()));
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let size = bytes.len();
        let (_, read) = read_still(bytes);
        prop_assert!(read <= size + 6000, "{read} bytes read of {size}");
    }

    #[test]
    fn buckets_in_the_order_of_the_file_hold_what_they_hold_one_by_one(
        layout in layouts(),
        tree in trees(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        words in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(1_u32), 0..64_u32]), 0..3),
    ) {
        let mut bytes = BboltFile::new(layout, &tree).bytes;
        let data = 2 * layout.page_size..bytes.len();
        for (place, value) in damage {
            bytes[data.start + place.index(data.len())] = value;
        }
        for (place, value) in words {
            let at = (data.start + place.index(data.len())) & !3;
            apply(&mut bytes, &(at, value.to_le_bytes().to_vec()));
        }
        let size = bytes.len();
        let one_by_one = read_still(bytes.clone()).0;
        let source = Moving::still(bytes);
        let in_order = Database::new(&source).snapshot(dump_in_file_order).map(|(tree, _)| tree);
        // Of several kinds of damage either may come first.
        prop_assert_eq!(in_order.ok(), one_by_one.ok());
        let read = source.bytes_read.get();
        prop_assert!(read <= size + 6000 + usize::try_from(READ_AHEAD).unwrap(), "{read} bytes read of {size}");
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..10_000)) {
        let refused = matches!(read_still(bytes).0, Err(BboltError::NoMeta { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn a_commit_at_any_moment_leaves_one_transaction(
        fan in 1..6_usize,
        schedule in proptest::collection::vec(prop_oneof![4 => Just(0_usize), 1 => 0..12_usize, 1 => 0..60_usize], 0..60),
    ) {
        let (mut file, first) = uniform_file(fan);
        let writes = uniform_commits(&mut file, 12);
        check_uniform(&Moving::new(first, schedule, writes));
    }
}

#[test]
fn neighbours_are_read_in_one_go_and_only_those_that_were_read_are_kept() {
    let mut root = Tree::default();
    for number in 0..100 {
        let mut row = Tree::default();
        row.put(b"id", &[number]);
        root.nest(format!("row {number:03}").as_bytes(), row);
    }
    let bytes = BboltFile::new(Layout { inline: 0, ..LAYOUT }, &root).bytes;
    let reads = |bytes: Vec<u8>, in_order: bool| {
        let source = Moving::still(bytes);
        let database = Database::keeping(&source);
        let read = if in_order { dump_in_file_order } else { dump_all };
        assert_eq!(database.snapshot(read).unwrap().0, root);
        (source.reads.get(), database.into_kept())
    };
    let (one_by_one, kept) = reads(bytes.clone(), false);
    let (in_order, kept_in_order) = reads(bytes, true);
    assert!(one_by_one - in_order > 60, "{one_by_one} and {in_order} reads");
    assert_eq!(kept_in_order, kept);
}

/// A tree whose every value and sequence is the id of the transaction that writes it.
fn uniform(txid: u64) -> Tree {
    let mut bucket = Tree {
        sequence: txid,
        items: BTreeMap::new(),
    };
    // The number of keys changes, and with it which page is what.
    for key in 0..(7 + txid % 5) {
        bucket.put(format!("key {key:03}").as_bytes(), &txid.to_le_bytes().repeat(20));
    }
    let mut root = Tree {
        sequence: txid,
        items: BTreeMap::new(),
    };
    root.nest(b"bucket", bucket);
    root
}

fn uniform_file(fan: usize) -> (BboltFile, Vec<u8>) {
    let mut file = BboltFile::new(
        Layout {
            page_size: 1024,
            fan,
            inline: 0,
        },
        &uniform(1),
    );
    file.commit(&uniform(2));
    let bytes = file.bytes.clone();
    (file, bytes)
}

fn uniform_commits(file: &mut BboltFile, commits: u64) -> Vec<Write> {
    (0..commits)
        .flat_map(|_| file.commit(&uniform(file.txid + 1)))
        .collect()
}

/// The only answers that are right: one transaction, whole; or that there was no quiet moment.
fn check_uniform(source: &Moving) -> bool {
    match Database::new(source).snapshot(dump_all) {
        Ok((tree, TxId(txid))) => {
            assert_eq!(tree, uniform(txid));
            true
        }
        Err(BboltError::Busy { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_burst_of_writes_at_every_read_leaves_one_transaction() {
    let (mut file, first) = uniform_file(2);
    let writes = uniform_commits(&mut file, 4);
    let quiet = Moving::still(first.clone());
    assert!(check_uniform(&quiet));
    for at in 0..=quiet.reads.get() {
        for burst in 1..=writes.len() {
            let mut schedule = vec![0; at];
            schedule.push(burst);
            let source = Moving::new(first.clone(), schedule, writes.clone());
            assert!(check_uniform(&source), "one burst leaves quiet moments enough");
        }
    }
}

#[test]
fn commits_do_not_hide_behind_a_torn_meta() {
    let (mut file, first) = uniform_file(2);
    let writes = uniform_commits(&mut file, 4);
    let quiet = Moving::still(first.clone());
    assert!(check_uniform(&quiet));
    // One burst as the walk begins, another between the last two reads, which are the two meta pages.
    for early in 0..=writes.len() {
        for late in 0..=writes.len() - early {
            let mut schedule = vec![0; quiet.reads.get()];
            schedule[2] = early;
            *schedule.last_mut().unwrap() = late;
            check_uniform(&Moving::new(first.clone(), schedule, writes.clone()));
        }
    }
}

#[test]
fn a_file_that_is_just_being_made_is_not_called_damaged() {
    let file = BboltFile::new(LAYOUT, &uniform(1));
    // Zeros where the metas belong, until this read.
    for at in 1..6 {
        let mut schedule = vec![0; at];
        schedule.push(1);
        let source = Moving::new(vec![0; file.bytes.len()], schedule, vec![(0, file.bytes.clone())]);
        assert!(check_uniform(&source), "after {at} reads");
    }
}

#[test]
fn a_file_that_never_rests_is_busy_not_damaged() {
    let (mut file, first) = uniform_file(2);
    let writes = uniform_commits(&mut file, 100);
    let source = Moving::new(first, vec![3; writes.len()], writes);
    let Err(error) = Database::new(&source).snapshot(dump_all) else {
        panic!("an answer out of a moving file")
    };
    assert!(
        matches!(
            error,
            BboltError::Busy {
                tries: 10,
                first: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_real_file_under_a_real_writer_is_read_whole() {
    let (mut file, first) = uniform_file(3);
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().write_all_at(&first, 0).unwrap();
    let database = Database::open(disk.path()).unwrap();
    let stop = AtomicBool::new(false);
    let (mut whole, mut busy, mut seen) = (0, 0, std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (offset, bytes) in uniform_commits(&mut file, 1) {
                    disk.as_file()
                        .write_all_at(&bytes, u64::try_from(offset).unwrap())
                        .unwrap();
                }
                // Sometimes a pause, as containerd makes them; sometimes none.
                if file.txid % 7 == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(file.txid % 900));
                }
            }
        });
        let begin = std::time::Instant::now();
        let mut fault = None;
        // How often a reader gets between two commits is up to the machine.
        let enough = |whole: u32, seen: usize, busy: u32| whole > 10 && seen > 5 && busy + whole > 200;
        while begin.elapsed() < std::time::Duration::from_mins(1)
            && !enough(whole, seen.len(), busy)
            && fault.is_none()
        {
            match database.snapshot(dump_all) {
                Ok((tree, TxId(txid))) if tree == uniform(txid) => {
                    whole += 1;
                    seen.insert(txid);
                }
                Ok((_, txid)) => fault = Some(format!("transaction {txid} is mixed with another")),
                Err(BboltError::Busy { .. }) => busy += 1,
                Err(other) => fault = Some(other.to_string()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(fault, None);
    });
    assert!(
        whole > 10 && seen.len() > 5,
        "{whole} whole reads of {} transactions, {busy} busy",
        seen.len()
    );
}

#[test]
fn a_replaced_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pool.db");
    let bytes = BboltFile::new(LAYOUT, &uniform(1)).bytes;
    std::fs::write(&path, &bytes).unwrap();
    let database = Database::open(&path).unwrap();
    assert!(database.snapshot(dump_all).is_ok());
    std::fs::rename(&path, folder.path().join("backup.db")).unwrap();
    assert!(
        matches!(database.snapshot(dump_all), Err(BboltError::Replaced { .. })),
        "gone"
    );
    std::fs::write(&path, &bytes).unwrap();
    assert!(
        matches!(database.snapshot(dump_all), Err(BboltError::Replaced { .. })),
        "another file"
    );
    assert!(matches!(database.newest_txid(), Err(BboltError::Replaced { .. })));
}

#[test]
fn what_is_no_database_has_an_error_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pool.db");
    assert!(matches!(Database::open(&path), Err(BboltError::Missing { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(
        Database::open(&path).unwrap().newest_txid(),
        Err(BboltError::Empty { .. })
    ));
    assert!(matches!(
        Database::open(folder.path()),
        Err(BboltError::NotAFile { .. })
    ));
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert!(
        matches!(Database::open(&pipe), Err(BboltError::NotAFile { .. })),
        "and without waiting for a writer"
    );
}

#[test]
fn either_meta_page_is_enough_at_every_page_size() {
    for doublings in 0..=6 {
        let layout = Layout {
            page_size: 1024 << doublings,
            fan: 3,
            inline: 0,
        };
        let mut file = BboltFile::new(layout, &uniform(1));
        file.commit(&uniform(2));
        // Transaction 2 is on page 0, 1 on page 1; pages of 1 are intact until 3 comes.
        for (damaged, left) in [(0, 1), (1, 2)] {
            let mut bytes = file.bytes.clone();
            bytes[file.at(damaged) + 20] ^= 1;
            assert_eq!(
                read_still(bytes).0.unwrap(),
                uniform(left),
                "page size {}",
                layout.page_size
            );
        }
        let mut bytes = file.bytes.clone();
        bytes[20] ^= 1;
        bytes[file.at(1) + 20] ^= 1;
        let error = read_still(bytes).0.unwrap_err();
        assert!(
            matches!(error, BboltError::NoMeta { .. }) && error.to_string().contains("format version"),
            "{error}"
        );
    }
}

/// A file whose root bucket is page 2; further pages follow.
fn crafted(pages: &[Vec<u8>]) -> Vec<u8> {
    let high_water = u64::try_from(pages.len()).unwrap() + 2;
    let mut bytes = Vec::new();
    for (at, page) in [
        [header(0, 4, 0, 0), meta(1024, 2, 0, high_water, 8)].concat(),
        Vec::new(),
    ]
    .iter()
    .chain(pages)
    .enumerate()
    {
        apply(&mut bytes, &(at * 1024, page.clone()));
        bytes.resize((at + 1) * 1024, 0);
    }
    bytes
}

/// A branch page with keys a, b, ..
fn branch(id: u64, children: &[u64]) -> Vec<u8> {
    let mut bytes = header(id, 1, children.len(), 0);
    for (slot, child) in children.iter().enumerate() {
        let pos = (children.len() - slot) * 16 + slot;
        bytes.extend(u32::try_from(pos).unwrap().to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(child.to_le_bytes());
    }
    bytes.extend((b'a'..).take(children.len()));
    bytes
}

/// A leaf page with one entry of the given flags, key and value.
fn leaf(id: u64, flags: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = header(id, 2, 1, 0);
    for word in [
        flags,
        16,
        u32::try_from(key.len()).unwrap(),
        u32::try_from(value.len()).unwrap(),
    ] {
        bytes.extend(word.to_le_bytes());
    }
    [bytes, key.to_vec(), value.to_vec()].concat()
}

fn nested(root: u64) -> Vec<u8> {
    [root.to_le_bytes(), [0; 8]].concat()
}

/// Each case: what it is, the pages from page 2 on, the page that the error must name, and what it must say.
fn check_hostile(cases: Vec<(&str, Vec<Vec<u8>>, u64, &str)>) {
    for (what, pages, at, says) in cases {
        let (answer, read) = read_still(crafted(&pages));
        let error = answer.expect_err(what);
        let BboltError::Damaged { page, problem, .. } = &error else {
            panic!("{what}: {error}")
        };
        assert_eq!((*page, problem.contains(says)), (at, true), "{what}: {error}");
        assert!(read < 10_000, "{what}: {read} bytes read");
    }
}

#[test]
fn hostile_pointers_are_named() {
    // Its value goes on to the end of the next page, where another one lies.
    let mut run = leaf(3, 0, b"a", &[0; 2 * 1024 - 16 - 16 - 1]);
    run[12] = 1;
    let leaf = |id, key: &[u8]| leaf(id, 0, key, b"");
    let outside = "outside of the data pages";
    check_hostile(vec![
        (
            "a page that is its own child",
            vec![branch(2, &[2])],
            2,
            "in use twice",
        ),
        (
            "a loop of two",
            vec![branch(2, &[3]), branch(3, &[2])],
            2,
            "in use twice",
        ),
        (
            "a child with two parents",
            vec![branch(2, &[3, 3]), leaf(3, b"a")],
            3,
            "in use twice",
        ),
        (
            "overlapping runs",
            vec![branch(2, &[3, 4]), run, leaf(4, b"b")],
            4,
            "in use twice",
        ),
        ("a child that is a meta page", vec![branch(2, &[1])], 1, outside),
        ("a child beyond the end", vec![branch(2, &[3])], 3, outside),
        (
            "a child far beyond",
            vec![branch(2, &[u64::MAX])],
            u64::MAX,
            outside,
        ),
        (
            "the wrong page",
            vec![leaf(7, b"a")],
            2,
            "its header says it is page 7",
        ),
        (
            "keys too low",
            vec![branch(2, &[3, 4]), leaf(3, b"a"), leaf(4, b"a")],
            4,
            "range",
        ),
        (
            "keys too high",
            vec![branch(2, &[3, 4]), leaf(3, b"b"), leaf(4, b"b")],
            3,
            "range",
        ),
    ]);
}

#[test]
fn hostile_pages_are_named() {
    let mut huge = leaf(2, 0, b"a", b"value");
    huge[10..12].copy_from_slice(&u16::MAX.to_le_bytes());
    let mut run = leaf(2, 0, b"a", b"value");
    run[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut outside = leaf(2, 0, b"a", b"value");
    outside[20..24].copy_from_slice(&(u32::MAX - 3).to_le_bytes());
    let mut inside = leaf(2, 0, b"a", b"value");
    inside[20] = 0;
    let bucket = |value: &[u8]| vec![leaf(2, 1, b"a", value)];
    let inner = leaf(0, 1, b"b", &nested(2)).split_off(16);
    let inline = [nested(0), header(0, 2, 1, 0), inner].concat();
    check_hostile(vec![
        ("a freelist", vec![header(2, 0x10, 0, 0)], 2, "page flags 0x0010"),
        ("an empty branch", vec![branch(2, &[])], 2, "without elements"),
        ("a huge count", vec![huge], 2, "65535 elements do not fit"),
        ("a huge overflow", vec![run], 2, "overflow pages"),
        ("a key outside", vec![outside], 2, "element 0"),
        ("a key among the elements", vec![inside], 2, "element 0"),
        ("unknown flags", vec![leaf(2, 2, b"a", b"")], 2, "element 0"),
        ("a bucket inside itself", bucket(&nested(2)), 2, "in use twice"),
        ("a short bucket header", bucket(&[1; 15]), 2, "shorter than 16"),
        (
            "an inline bucket without page",
            bucket(&[0; 20]),
            2,
            "without its page",
        ),
        (
            "a bucket in an inline bucket",
            bucket(&inline),
            2,
            "inside an inline bucket",
        ),
    ]);
}

#[test]
fn a_tree_deeper_than_any_real_one_is_refused() {
    let mut pages: Vec<_> = (2..100).map(|page| branch(page, &[page + 1])).collect();
    pages.push(leaf(100, 0, b"a", b""));
    let error = read_still(crafted(&pages)).0.unwrap_err();
    assert!(error.to_string().contains("more than 64 levels"), "{error}");
    let source = crafted(&pages);
    let error = Database::new(source)
        .snapshot(|snapshot| snapshot.root().get(b"a").map(|_| ()))
        .unwrap_err();
    assert!(error.to_string().contains("more than 64 levels"), "{error}");
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let file = BboltFile::new(LAYOUT, &uniform(1));
    for length in 1..file.bytes.len() {
        let mut bytes = file.bytes.clone();
        bytes.truncate(length);
        let error = read_still(bytes).0.unwrap_err();
        assert!(
            matches!(error, BboltError::NoMeta { .. } | BboltError::Damaged { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    let mut tree = uniform(1);
    tree.nest(
        b"inline",
        Tree {
            sequence: 3,
            items: BTreeMap::from([(b"k".to_vec(), Item::Bytes(vec![1]))]),
        },
    );
    let file = BboltFile::new(LAYOUT, &tree);
    let size = file.bytes.len();
    let mut noticed = 0;
    for bit in 2 * 1024 * 8..size * 8 {
        let mut bytes = file.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (answer, read) = read_still(bytes);
        assert!(read <= size + 2000);
        noticed += usize::from(answer.is_err());
    }
    assert!(noticed > 500, "{noticed} flips were noticed");
}
