//! Following a database commit by commit: every history, every moment, every size, and damage.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};
use suture::observe::bbolt::{
    BboltError, Database, PageSource, Snapshot,
    fold::{Entry, Fold, Folded, Found, Look, Shape, Tables},
};

use crate::bbolt_file::{BboltFile, Item, Layout, Moving, Tree, Write, apply};

/// What an entry says, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Bytes(Vec<u8>),
    Parts(Vec<Option<Vec<u8>>>),
    Misfit,
}

impl From<Entry<'_>> for Owned {
    fn from(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Entry::Parts(parts) => {
                Self::Parts(parts.into_iter().map(|part| part.map(<[u8]>::to_vec)).collect())
            }
            Entry::Misfit => Self::Misfit,
        }
    }
}

type Key = (Vec<u8>, Vec<u8>);
type Entries = BTreeMap<Key, Owned>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    key: Key,
    from: Option<Owned>,
    to: Option<Owned>,
}

/// Follows bucket `values` and the rows of bucket `rows`.
struct Both;

const PARTS: &[&str] = &["a", "b"];

impl Tables for Both {
    type Change = Change;
    type Error = BboltError;

    fn find<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, BboltError> {
        let mut found = Vec::new();
        for (name, shape) in [("values", Shape::Values), ("rows", Shape::Parts(PARTS))] {
            if let Some(bucket) = snapshot.bucket(&[name.as_bytes()])? {
                let name = name.into();
                found.push(Found { name, bucket, shape });
            }
        }
        Ok(found)
    }

    fn change(
        &self,
        table: &[u8],
        key: &[u8],
        from: Option<Entry<'_>>,
        to: Option<Entry<'_>>,
    ) -> Result<Change, BboltError> {
        Ok(Change {
            key: (table.to_vec(), key.to_vec()),
            from: from.map(Owned::from),
            to: to.map(Owned::from),
        })
    }
}

/// The entries that a tree has, by the model.
fn entries(root: &Tree) -> Entries {
    let mut all = Entries::new();
    if let Some(Item::Bucket(values)) = root.items.get(&b"values"[..]) {
        for (key, item) in &values.items {
            let entry = match item {
                Item::Bytes(bytes) => Owned::Bytes(bytes.clone()),
                Item::Bucket(_) => Owned::Misfit,
            };
            all.insert((b"values".to_vec(), key.clone()), entry);
        }
    }
    if let Some(Item::Bucket(rows)) = root.items.get(&b"rows"[..]) {
        for (key, item) in &rows.items {
            let part = |row: &Tree, part: &str| match row.items.get(part.as_bytes()) {
                Some(Item::Bytes(bytes)) => Ok(Some(bytes.clone())),
                Some(Item::Bucket(_)) => Err(()),
                None => Ok(None),
            };
            let entry = match item {
                Item::Bytes(_) => Owned::Misfit,
                Item::Bucket(row) => PARTS
                    .iter()
                    .map(|name| part(row, name))
                    .collect::<Result<_, _>>()
                    .map_or(Owned::Misfit, Owned::Parts),
            };
            all.insert((b"rows".to_vec(), key.clone()), entry);
        }
    }
    all
}

/// A fold, and what its answers add up to.
#[derive(Default)]
struct Follower {
    fold: Fold,
    sum: Entries,
}

impl Follower {
    /// Looks, and holds each change against what is known.
    fn look<S: PageSource>(&mut self, database: &Database<S>) -> Result<Look<Change>, BboltError> {
        let look = self.fold.look(database, &Both, usize::MAX)?;
        if let Look::Folded(folded) = &look {
            for change in &folded.changes {
                assert_ne!(change.from, change.to);
                let before = match change.to.clone() {
                    Some(to) => self.sum.insert(change.key.clone(), to),
                    None => self.sum.remove(&change.key),
                };
                assert_eq!(before, change.from, "{:?}", change.key);
            }
        }
        Ok(look)
    }
}

/// One edit of a tree.
#[derive(Debug, Clone)]
enum Edit {
    Value(u8, Option<Vec<u8>>),
    /// A row's part, or something in a nested bucket of the row, or the whole row.
    Row(u8, RowEdit),
    Many(u8, u8),
    Fewer(u8),
    Misfits(u8),
    DropBucket(bool),
    Elsewhere(u8),
}

#[derive(Debug, Clone)]
enum RowEdit {
    Part(bool, Option<Vec<u8>>),
    Label(Vec<u8>),
    Gone,
}

fn bucket<'t>(tree: &'t mut Tree, name: &[u8]) -> &'t mut Tree {
    let item = tree
        .items
        .entry(name.to_vec())
        .or_insert_with(|| Item::Bucket(Tree::default()));
    if matches!(item, Item::Bytes(_)) {
        *item = Item::Bucket(Tree::default());
    }
    match item {
        Item::Bucket(bucket) => bucket,
        Item::Bytes(_) => unreachable!(),
    }
}

fn edit(root: &mut Tree, edit: &Edit) {
    let key = |number: &u8| format!("key {number:03}").into_bytes();
    match edit {
        Edit::Value(number, Some(value)) => bucket(root, b"values").put(&key(number), value),
        Edit::Value(number, None) => drop(bucket(root, b"values").items.remove(&key(number))),
        Edit::Row(number, RowEdit::Gone) => drop(bucket(root, b"rows").items.remove(&key(number))),
        Edit::Row(number, change) => {
            let row = bucket(bucket(root, b"rows"), &key(number));
            match change {
                RowEdit::Part(first, value) => {
                    let name: &[u8] = if *first { b"a" } else { b"b" };
                    match value {
                        Some(value) => row.put(name, value),
                        None => drop(row.items.remove(name)),
                    }
                }
                RowEdit::Label(value) => bucket(row, b"labels").put(b"label", value),
                RowEdit::Gone => {}
            }
        }
        Edit::Many(from, count) => {
            for number in 0..u16::from(*count) {
                let name = format!("key {:03}", (u16::from(*from) + number) % 256);
                bucket(root, b"values").put(name.as_bytes(), &[*count; 30]);
                bucket(bucket(root, b"rows"), name.as_bytes()).put(b"a", &[*count]);
            }
        }
        Edit::Fewer(below) => {
            for name in [&b"values"[..], b"rows"] {
                bucket(root, name).items.retain(|name, _| *name >= key(below));
            }
        }
        Edit::Misfits(number) => {
            bucket(bucket(root, b"values"), &key(number)).sequence += 1;
            bucket(root, b"rows").put(&key(number), b"plain");
            bucket(bucket(bucket(root, b"rows"), b"misfit"), b"a").sequence += 1;
        }
        Edit::DropBucket(values) => {
            let name: &[u8] = if *values { b"values" } else { b"rows" };
            root.items.remove(name);
        }
        Edit::Elsewhere(number) => bucket(root, b"other").put(&key(number), &[*number; 700]),
    }
}

fn edits() -> impl Strategy<Value = Edit> {
    let value = || {
        prop_oneof![
            6 => vec(any::<u8>(), 0..40),
            1 => vec(any::<u8>(), 1000..3000),
        ]
    };
    let row = prop_oneof![
        3 => (any::<bool>(), proptest::option::of(value())).prop_map(|(first, value)| RowEdit::Part(first, value)),
        2 => value().prop_map(RowEdit::Label),
        1 => Just(RowEdit::Gone),
    ];
    prop_oneof![
        8 => (0..60_u8, proptest::option::of(value())).prop_map(|(key, value)| Edit::Value(key, value)),
        8 => (0..60_u8, row).prop_map(|(key, row)| Edit::Row(key, row)),
        2 => (any::<u8>(), 0..100_u8).prop_map(|(from, count)| Edit::Many(from, count)),
        1 => (0..60_u8).prop_map(Edit::Fewer),
        1 => (0..60_u8).prop_map(Edit::Misfits),
        1 => any::<bool>().prop_map(Edit::DropBucket),
        2 => any::<u8>().prop_map(Edit::Elsewhere),
    ]
}

fn layouts() -> impl Strategy<Value = Layout> {
    ((0..4_u32), (2..20_usize), prop_oneof![Just(0), Just(300_usize)]).prop_map(|(doublings, fan, inline)| {
        Layout {
            page_size: 1024 << doublings,
            fan,
            inline,
        }
    })
}

/// A file at its first transaction, and for each later one the writes that it takes and the entries that it leaves.
struct History {
    first: Vec<u8>,
    commits: Vec<(Vec<Write>, Entries)>,
}

fn history(layout: Layout, steps: &[Vec<Edit>]) -> History {
    let mut tree = Tree::default();
    for one in [Edit::Many(0, 20), Edit::Row(3, RowEdit::Label(vec![1]))] {
        edit(&mut tree, &one);
    }
    let mut file = BboltFile::copy_on_write(layout, &tree);
    let mut first = file.bytes.clone();
    // bbolt makes both meta pages at once; transaction 0 is empty.
    first.resize(first.len().max(3 * layout.page_size), 0);
    let commits = steps
        .iter()
        .map(|edits| {
            for one in edits {
                edit(&mut tree, one);
            }
            (file.commit(&tree), entries(&tree))
        })
        .collect();
    History { first, commits }
}

fn steps() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    vec(vec(edits(), 0..4), 1..12)
}

/// What a look of somebody who sees the database for the first time gives.
fn afresh<S: PageSource>(database: &Database<S>) -> Result<Entries, BboltError> {
    let mut follower = Follower::default();
    follower.look(database)?;
    Ok(follower.sum)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_history_is_followed_also_with_commits_skipped(
        layout in layouts(),
        steps in steps(),
        looks in vec(prop_oneof![3 => Just(true), 1 => Just(false)], 12),
    ) {
        let history = history(layout, &steps);
        let source = Moving::still(history.first);
        let database = Database::new(&source);
        let mut follower = Follower::default();
        follower.look(&database).unwrap();
        for ((writes, expected), look) in history.commits.iter().zip(looks) {
            for write in writes {
                apply(&mut source.bytes.borrow_mut(), write);
            }
            if look {
                let before = follower.fold.txid();
                let seen = follower.look(&database).unwrap();
                let folded = matches!(seen, Look::Folded(Folded { from, more: 0, .. }) if from == before);
                prop_assert!(folded);
                prop_assert_eq!(&follower.sum, expected);
                prop_assert_eq!(follower.look(&database).unwrap(), Look::Unchanged);
            }
        }
    }

    #[test]
    fn commits_at_any_moment_of_a_look_leave_one_transaction(
        layout in layouts(),
        steps in steps(),
        schedule in vec(prop_oneof![6 => Just(0_usize), 1 => 0..8_usize, 1 => 0..40_usize], 0..200),
    ) {
        let history = history(layout, &steps);
        let mut all = BTreeMap::new();
        for (txid, (_, entries)) in (2_u64..).zip(&history.commits) {
            all.insert(txid, entries.clone());
        }
        all.insert(1, afresh(&Database::new(&Moving::still(history.first.clone()))).unwrap());
        let writes = history.commits.into_iter().flat_map(|(writes, _)| writes).collect();
        let source = Moving::new(history.first, schedule, writes);
        let database = Database::new(&source);
        let mut follower = Follower::default();
        for _ in 0..20 {
            match follower.look(&database) {
                Ok(Look::Replaced) => prop_assert!(false, "these are all one file's"),
                Ok(_) | Err(BboltError::Busy { .. }) => {}
                Err(other) => prop_assert!(false, "{}", other),
            }
            if let Some(txid) = follower.fold.txid() {
                prop_assert_eq!(&follower.sum, &all[&txid.0]);
            }
        }
    }

    #[test]
    fn damage_never_gives_another_answer_than_a_full_read_and_poisons_nothing(
        layout in layouts(),
        steps in steps(),
        damage in vec((any::<Index>(), any::<Index>(), prop_oneof![1 => any::<u8>(), 3 => 0..12_u8]), 1..4),
        skip in any::<bool>(),
    ) {
        let history = history(layout, &steps);
        let source = Moving::still(history.first);
        let database = Database::new(&source);
        let mut follower = Follower::default();
        follower.look(&database).unwrap();
        for (at, (writes, expected)) in history.commits.iter().enumerate() {
            for write in writes {
                apply(&mut source.bytes.borrow_mut(), write);
            }
            if skip && at % 2 == 0 {
                continue;
            }
            let good = source.bytes.borrow().clone();
            // The pages that this commit wrote; the last two writes are the meta page.
            let pages = &writes[..writes.len() - 2];
            for (page, byte, value) in damage.iter().filter(|_| !pages.is_empty()) {
                let (offset, bytes) = &pages[page.index(pages.len())];
                source.bytes.borrow_mut()[offset + byte.index(bytes.len())] = *value;
            }
            let before = (follower.fold.txid(), follower.sum.clone());
            match (follower.look(&database), afresh(&database)) {
                (Ok(_), full) => {
                    prop_assert_eq!(&follower.sum, &full.unwrap());
                    // An answer out of bytes that nobody can tell from good ones; begin anew with good ones.
                    follower = Follower::default();
                }
                (Err(_), Err(_)) => prop_assert_eq!((follower.fold.txid(), follower.sum.clone()), before),
                (Err(error), Ok(_)) => prop_assert!(false, "only the fold fails: {}", error),
            }
            *source.bytes.borrow_mut() = good;
            follower.look(&database).unwrap();
            prop_assert_eq!(&follower.sum, expected);
        }
    }
}

const LAYOUT: Layout = Layout {
    page_size: 4096,
    fan: 24,
    inline: 1024,
};

fn record(id: u32, state: u32) -> String {
    format!(
        r#"{{"device_id":{id},"size":10737418240,"name":"tp-snap-{id}","parent_name":"tp-snap-1","state":{state},"error":""}}"#
    )
}

fn set(root: &mut Tree, id: u32, state: u32) {
    let name = format!("tp-snap-{id}");
    bucket(root, b"values").put(name.as_bytes(), record(id, state).as_bytes());
}

fn add_row(root: &mut Tree, id: u32, kind: u8) {
    let key = format!("k8s.io/{id}/sha256:{id:064}");
    let row = bucket(bucket(root, b"rows"), key.as_bytes());
    row.put(b"a", &id.to_le_bytes());
    row.put(b"b", &[kind]);
    // As containerd's rows: with labels in a bucket, so each row has a page of its own.
    bucket(row, b"labels").put(b"containerd.io/snapshot/devmapper/fstype", b"ext4");
}

/// The most reads that a look took, over several kinds of commits in a database of so many devices.
fn dearest_look(devices: u32) -> usize {
    let mut root = Tree::default();
    for id in 1..=devices {
        set(&mut root, id, 10);
        add_row(&mut root, id, 3);
    }
    let mut file = BboltFile::copy_on_write(LAYOUT, &root);
    let source = Moving::still(file.bytes.clone());
    let database = Database::new(&source);
    let mut fold = Fold::default();
    fold.look(&database, &Both, 0).unwrap();
    let mut dearest = 0;
    let mut commit = |root: &Tree, changes: usize| {
        for write in file.commit(root) {
            apply(&mut source.bytes.borrow_mut(), &write);
        }
        let before = source.reads.get();
        let Ok(Look::Folded(folded)) = fold.look(&database, &Both, 100) else {
            panic!("a commit was not seen")
        };
        assert_eq!(folded.changes.len(), changes);
        dearest = dearest.max(source.reads.get() - before);
    };
    set(&mut root, devices / 2, 11);
    commit(&root, 1);
    set(&mut root, devices + 1, 0);
    commit(&root, 1);
    add_row(&mut root, devices + 1, 2);
    commit(&root, 1);
    bucket(&mut root, b"values").items.remove(&b"tp-snap-7"[..]);
    commit(&root, 1);
    add_row(&mut root, devices / 3, 1);
    commit(&root, 1);
    dearest
}

#[test]
fn one_commit_costs_the_same_in_a_small_and_in_a_large_database() {
    let (small, large) = (dearest_look(1_000), dearest_look(100_000));
    // Two meta pages before and two after, the path to each bucket, and the changed pages, each of which may take two
    // reads: a hundred times as many entries make for one or two levels more, and never for more than that.
    assert!(
        large <= small + 8 && large <= 24,
        "{small} reads in a database of 1000 devices, {large} in one of 100000"
    );
}

fn small(fill: u8) -> Tree {
    let mut root = Tree::default();
    edit(&mut root, &Edit::Many(0, fill));
    root
}

#[test]
fn a_file_restored_in_place_is_no_continuation() {
    let file = |fills: &[u8]| {
        let mut file = BboltFile::copy_on_write(LAYOUT, &small(fills[0]));
        for fill in &fills[1..] {
            file.commit(&small(*fill));
        }
        file.bytes
    };
    let source = Moving::still(file(&[1, 2, 3, 4]));
    let database = Database::new(&source);
    // Back in time; the same number with something else in it; a next transaction of another past.
    for other in [&[1, 2, 3][..], &[1, 2, 3, 9], &[1, 2, 3, 9, 5]] {
        *source.bytes.borrow_mut() = file(&[1, 2, 3, 4]);
        let mut follower = Follower::default();
        follower.look(&database).unwrap();
        let mut bytes = file(other);
        bytes.resize(bytes.len().max(source.bytes.borrow().len()), 0);
        *source.bytes.borrow_mut() = bytes;
        assert_eq!(follower.look(&database).unwrap(), Look::Replaced, "{other:?}");
        assert_eq!(follower.fold.txid(), None);
        follower.sum.clear();
        follower.look(&database).unwrap();
        assert_eq!(follower.sum, entries(&small(*other.last().unwrap())));
    }
    // A shorter file.
    let mut follower = Follower::default();
    *source.bytes.borrow_mut() = file(&[100, 100]);
    follower.look(&database).unwrap();
    *source.bytes.borrow_mut() = file(&[1, 1, 1]);
    assert_eq!(follower.look(&database).unwrap(), Look::Replaced);
}

#[test]
fn changes_beyond_the_limit_are_counted() {
    let mut file = BboltFile::copy_on_write(LAYOUT, &small(0));
    let source = Moving::still(file.bytes.clone());
    let database = Database::new(&source);
    let mut fold = Fold::default();
    fold.look(&database, &Both, 5).unwrap();
    file.commit(&small(100));
    *source.bytes.borrow_mut() = file.bytes;
    let Look::Folded(folded) = fold.look(&database, &Both, 5).unwrap() else {
        panic!("a commit was not seen")
    };
    assert_eq!((folded.changes.len(), folded.more), (5, 195));
}
