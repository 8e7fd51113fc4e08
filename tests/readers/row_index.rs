//! Rows and their index are held against each other only as of one transaction.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Duration,
};

use suture::{
    model::SnapshotDb,
    observe::{bbolt::BboltError, snapshot_db::SnapshotDbError},
};

use crate::bbolt_file::{BboltFile, Layout, Tree};

const LAYOUT: Layout = Layout {
    page_size: 1024,
    fan: 5,
    inline: 0,
};
/// Snapshots, each made from the one before.
const CHAIN: u8 = 60;
const COMMITS: u8 = 60;

fn key(number: u8) -> String {
    format!("k8s.io/{number}/key-{number}")
}

/// A chain of layers from `first` on, and what `index` says of each.
fn chain(first: u8, index: impl Fn(u8) -> Option<(u8, u8)>) -> Tree {
    let (mut snapshots, mut parents) = (Tree::default(), Tree::default());
    for number in first..first + CHAIN {
        let mut row = Tree::default();
        row.put(b"id", &[number]);
        row.put(b"kind", &[3]);
        if number > first {
            row.put(b"parent", key(number - 1).as_bytes());
        }
        if let Some((parent, child)) = index(number) {
            parents.put(&[parent, 0, child], key(number).as_bytes());
        }
        snapshots.nest(key(number).as_bytes(), row);
    }
    snapshots.sequence = 127;
    let mut version = Tree::default();
    version.nest(b"snapshots", snapshots);
    version.nest(b"parents", parents);
    let mut root = Tree::default();
    root.nest(b"v1", version);
    root
}

fn sound(first: u8) -> Tree {
    chain(first, |number| (number > first).then(|| (number - 1, number)))
}

fn read(tree: &Tree, path: &Path) -> Option<String> {
    fs::write(path, BboltFile::new(LAYOUT, tree).bytes).unwrap();
    SnapshotDb::read(path).unwrap().contradiction
}

#[test]
fn each_way_in_which_an_index_does_not_fit_is_told_with_row_and_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.db");
    assert_eq!(read(&sound(1), &path), None);
    let told = |index: fn(u8) -> Option<(u8, u8)>| read(&chain(1, index), &path).unwrap();
    let link = |number: u8| (number > 1).then(|| (number - 1, number));
    assert_eq!(link(2), Some((1, 2)));

    let lacks = told(|number| (number > 1 && number != 7).then(|| (number - 1, number)));
    assert_eq!(
        lacks,
        "snapshot `k8s.io/7/key-7` has the number 7, and was made from `k8s.io/6/key-6`; the index does not have it"
    );
    let more = told(|number| Some((number.max(2) - 1, number)));
    assert_eq!(
        more,
        "snapshot `k8s.io/1/key-1` has the number 1, and says that it was made from none; the index has it as 1, made from 1"
    );
    let number = told(|number| (number > 1).then(|| (number - 1, if number == 7 { 99 } else { number })));
    assert_eq!(
        number,
        "snapshot `k8s.io/7/key-7` has the number 7, and the index has it as 99"
    );
    let parent = told(|number| (number > 1).then(|| (if number == 7 { 5 } else { number - 1 }, number)));
    assert_eq!(
        parent,
        "snapshot `k8s.io/7/key-7` has the number 7, and was made from `k8s.io/6/key-6`, which has the number 6; the index has it as made from 5"
    );
    let none = told(|_| None);
    assert!(none.ends_with("; 58 more do not fit either"), "{none}");
}

#[test]
fn an_index_of_snapshots_that_are_not_there_is_told_and_one_of_no_rows_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.db");
    let with = |entries: &[(&[u8], &str)]| {
        let mut parents = Tree::default();
        for (entry, key) in entries {
            parents.put(entry, key.as_bytes());
        }
        let mut version = Tree::default();
        version.nest(b"snapshots", Tree::default());
        version.nest(b"parents", parents);
        let mut root = Tree::default();
        root.nest(b"v1", version);
        read(&root, &path)
    };
    assert_eq!(with(&[]), None);
    assert_eq!(
        with(&[(&[1, 0, 2], "a")]).unwrap(),
        "its index has 1 snapshot that is not there, such as number 2"
    );
    assert_eq!(
        with(&[(&[1, 0, 2], "a"), (&[1, 0, 3], "a")]).unwrap(),
        "its index has snapshot `a` twice, with the numbers 2 and 3"
    );
    assert_eq!(
        with(&[(&[1, 1], "a")]).unwrap(),
        "its index has the entry `\\x01\\x01`, which is none"
    );
}

#[test]
fn commits_between_the_rows_and_their_index_make_no_contradiction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.db");
    let mut file = BboltFile::new(LAYOUT, &sound(1));
    fs::write(&path, &file.bytes).unwrap();
    let commits: Vec<_> = (0..COMMITS).map(|nth| file.commit(&sound(2 - nth % 2))).collect();
    let writer = thread::spawn({
        let file = File::options().write(true).open(&path).unwrap();
        move || {
            for commit in commits {
                for (offset, data) in commit {
                    file.write_all_at(&data, u64::try_from(offset).unwrap()).unwrap();
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() {
        match SnapshotDb::read(&path) {
            Ok(read) => {
                assert_eq!(read.contradiction, None);
                reads += 1;
            }
            Err(SnapshotDbError::Database(BboltError::Busy { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    writer.join().unwrap();
    assert!(reads > 3, "{reads}");
}
