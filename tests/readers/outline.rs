//! The rows of the snapshot storage by their index: what it tells is what the rows say, or nothing.

use std::path::Path;

use proptest::prelude::*;
use suture::{
    model::{SnapshotDb, outline::RowsOutline},
    observe::{bbolt::Database, outline::rows_outline, snapshot_db::SnapshotDbError},
};

use crate::bbolt_file::{BboltFile, Layout, Tree};

const LAYOUT: Layout = Layout {
    page_size: 1024,
    fan: 5,
    inline: 0,
};

/// Go's `binary.PutUvarint`.
fn uvarint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn parent_key(parent: u64, child: u64) -> Vec<u8> {
    [uvarint(parent), vec![0], uvarint(child)].concat()
}

/// Snapshots by their numbers, each with the number of the one that it was made from.
type Story = Vec<(u64, Option<u64>)>;

fn key(id: u64) -> String {
    // The order of the keys is another one than that of the numbers.
    format!("k8s.io/{}/{}", id % 7, id)
}

/// What containerd writes for such snapshots; `index` may make the index another one.
fn written(story: &Story, index: impl FnOnce(&mut Vec<(Vec<u8>, String)>)) -> Vec<u8> {
    let mut snapshots = Tree::default();
    let mut entries = Vec::new();
    for (id, parent) in story {
        let has_children = story.iter().any(|(_, of)| of == &Some(*id));
        let mut row = Tree::default();
        row.put(b"id", &uvarint(*id));
        row.put(b"kind", &[if has_children { 3 } else { 2 }]);
        if let Some(parent) = parent {
            row.put(b"parent", key(*parent).as_bytes());
            entries.push((parent_key(*parent, *id), key(*id)));
        }
        let mut labels = Tree::default();
        labels.put(b"containerd.io/snapshot/devmapper/fstype", b"ext4");
        row.nest(b"labels", labels);
        snapshots.nest(key(*id).as_bytes(), row);
    }
    index(&mut entries);
    let mut parents = Tree::default();
    for (entry, key) in &entries {
        parents.put(entry, key.as_bytes());
    }
    let mut version = Tree::default();
    version.nest(b"snapshots", snapshots);
    version.nest(b"parents", parents);
    let mut root = Tree::default();
    root.nest(b"v1", version);
    BboltFile::new(LAYOUT, &root).bytes
}

fn read(bytes: &[u8]) -> Result<SnapshotDb, SnapshotDbError> {
    SnapshotDb::read_from(&Database::new(bytes.to_vec()), Path::new("metadata.db"))
}

fn outline(bytes: &[u8]) -> Result<Option<RowsOutline>, SnapshotDbError> {
    rows_outline(|| Ok(Database::new(bytes.to_vec())), 0, Path::new("metadata.db"))
}

/// Each snapshot from none, or from one before it.
fn stories() -> impl Strategy<Value = Story> {
    proptest::collection::vec((1..400_u64, any::<Option<prop::sample::Index>>()), 1..40).prop_map(|drawn| {
        let mut story = Story::new();
        let mut number = 0;
        for (step, from) in drawn {
            number += step;
            let parent = from.filter(|_| !story.is_empty());
            let parent = parent.map(|from| story[from.index(story.len())].0);
            story.push((number, parent));
        }
        story
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_index_tells_what_the_rows_say(story in stories()) {
        let bytes = written(&story, |_| {});
        prop_assert_eq!(outline(&bytes).unwrap(), RowsOutline::of(&read(&bytes).unwrap()));
    }

    #[test]
    fn an_index_that_lacks_or_adds_an_entry_tells_nothing(
        story in stories(), at in any::<prop::sample::Index>(), change in 0..3_u8,
    ) {
        let mut changed = false;
        let bytes = written(&story, |entries| {
            let made_from: Vec<_> = story.iter().filter_map(|(id, parent)| Some((*id, (*parent)?))).collect();
            changed = change == 2 || !made_from.is_empty();
            match change {
                // Of a snapshot that is not there.
                2 => entries.push((parent_key(1, 99_999), "k8s.io/0/99999".to_owned())),
                _ if made_from.is_empty() => {}
                0 => drop(entries.remove(at.index(entries.len()))),
                // Two of one snapshot.
                _ => {
                    let (id, parent) = made_from[at.index(made_from.len())];
                    entries.push((parent_key(parent + 1_000_000, id), key(id)));
                }
            }
        });
        if changed {
            prop_assert_eq!(outline(&bytes).unwrap(), None);
        } else {
            prop_assert_eq!(outline(&bytes).unwrap(), RowsOutline::of(&read(&bytes).unwrap()));
        }
    }

    #[test]
    fn of_a_damaged_file_it_tells_as_many_snapshots_as_there_are(
        story in stories(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = written(&story, |_| {});
        for (place, value) in damage {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        if let (Ok(Some(outline)), Ok(read)) = (outline(&bytes), read(&bytes)) {
            prop_assert_eq!(outline.rows.len(), read.snapshots.len());
        }
    }
}

#[test]
fn a_row_that_can_not_be_a_row_has_no_outline_either() {
    let bytes = written(&vec![(1, None), (2, Some(1))], |_| {});
    assert!(outline(&bytes).unwrap().is_some());
    // The number of the one that was made from none: it is read from its row.
    let at = bytes.windows(2).position(|window| window == b"id").unwrap();
    let mut damaged = bytes.clone();
    damaged[at + 2] = 0x80;
    assert!(matches!(outline(&damaged), Ok(None) | Err(_)));
}
