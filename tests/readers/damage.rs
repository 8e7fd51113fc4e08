//! Damage in every page of every file that is read, one page at a time and in many ways: the answer is an error that names
//! the file, the page and what is wrong, or exactly what the undamaged file says: never less, and never something else.
//! Of meta.db it may be less.
//!
//! bbolt's data pages have no checksum, so what can be noticed is what bbolt never writes. Another byte inside a key or a
//! value that still is one can not be; those are left out here by construction. Everything that can make an entry
//! disappear is in.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::path::Path;

use suture::model::{CoreDb, PoolDb, SnapshotDb};
use suture::observe::bbolt::{BboltError, Database, PageSource};
use suture::observe::core_db::CoreDbError;
use suture::observe::pool_db::PoolDbError;
use suture::observe::snapshot_db::SnapshotDbError;

use crate::bbolt_file::{BboltFile, Layout, Tree, dump_all};
use crate::databases::fixture;
use crate::page_map::{PageMap, differences};

const NAME: &str = "/some/where.db";

/// Bytes of a file, under a name.
#[derive(Debug)]
struct Named(Vec<u8>);

impl PageSource for Named {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }
}

/// One way to damage a file, and the pages that it touches.
pub(crate) struct Damage {
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) pages: BTreeSet<u64>,
}

/// Every damage of every page.
pub(crate) fn every_damage(bytes: &[u8], page_size: usize) -> Vec<Damage> {
    let pages = bytes.len() / page_size;
    let mut all = Vec::new();
    for page in 0..pages {
        let at = page * page_size;
        let old = &bytes[at..at + page_size];
        let mut add = |what: String, new: &[u8]| {
            if new != old {
                let bytes = [&bytes[..at], new, &bytes[at + page_size..]].concat();
                all.push(Damage {
                    what,
                    bytes,
                    pages: BTreeSet::from([page as u64]),
                });
            }
        };
        add("zeroed".to_owned(), &vec![0; page_size]);
        add("all ones".to_owned(), &vec![0xff; page_size]);
        add(
            "shifted right".to_owned(),
            &[&[0], &old[..page_size - 1]].concat(),
        );
        add("shifted left".to_owned(), &[&old[1..], &[0]].concat());
        // Where no page begins there is the inside of a value, or nothing.
        let begins = old[..8] == (page as u64).to_le_bytes();
        for (what, change) in begins.then(|| changes(old)).into_iter().flatten() {
            let mut new = old.to_vec();
            for (offset, value) in change {
                new[offset..offset + value.len()].copy_from_slice(&value);
            }
            add(what, &new);
        }
        // The next ones, and the last.
        for other in [page + 1, page + 2, pages - 1] {
            if other <= page || other >= pages {
                continue;
            }
            let mut swapped = bytes.to_vec();
            swapped[at..at + page_size].copy_from_slice(&bytes[other * page_size..(other + 1) * page_size]);
            swapped[other * page_size..(other + 1) * page_size].copy_from_slice(old);
            if swapped != bytes {
                all.push(Damage {
                    what: format!("swapped with {other}"),
                    bytes: swapped,
                    pages: BTreeSet::from([page as u64, other as u64]),
                });
            }
        }
        for length in [at, at + 1, at + page_size / 2] {
            all.push(Damage {
                what: format!("cut to {length} bytes"),
                bytes: bytes[..length].to_vec(),
                pages: (page as u64..pages as u64).collect(),
            });
        }
    }
    all
}

type Change = Vec<(usize, Vec<u8>)>;

/// Damage to the header and to the elements of a page.
fn changes(page: &[u8]) -> Vec<(String, Change)> {
    let short = |at: usize| u16::from_le_bytes(page[at..at + 2].try_into().unwrap());
    let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let mut all: Vec<(String, Change)> = Vec::new();
    for id in [0, 1, page[0].wrapping_add(1), 0xff] {
        all.push((format!("id {id}"), vec![(0, vec![id])]));
    }
    all.push(("a huge id".to_owned(), vec![(0, vec![0xff; 8])]));
    for flags in [0_u16, 1, 2, 3, 4, 0x10, 0x8002, 0xffff] {
        all.push((
            format!("flags {flags:#x}"),
            vec![(8, flags.to_le_bytes().to_vec())],
        ));
    }
    let count = short(10);
    for count in [
        0,
        1,
        count.wrapping_sub(1),
        count.wrapping_add(1),
        count / 2,
        0x7fff,
        0xffff,
    ] {
        all.push((format!("count {count}"), vec![(10, count.to_le_bytes().to_vec())]));
    }
    for overflow in [
        word(12).wrapping_sub(1),
        word(12).wrapping_add(1),
        3,
        0x7fff_ffff,
        u32::MAX,
    ] {
        all.push((
            format!("overflow {overflow}"),
            vec![(12, overflow.to_le_bytes().to_vec())],
        ));
    }
    let leaf = short(8) == 2;
    for slot in 0..usize::from(count).min((page.len() - 16) / 16) {
        let at = 16 + 16 * slot;
        // Where the position and the sizes are.
        let fields: &[usize] = if leaf { &[4, 8, 12] } else { &[0, 4] };
        for field in fields {
            let value = word(at + field);
            for new in [
                0,
                value.wrapping_add(1),
                value.wrapping_sub(1),
                value.wrapping_add(16),
                0x10_0000,
                u32::MAX,
            ] {
                let what = format!("element {slot}, field {field}: {new} for {value}");
                all.push((what, vec![(at + field, new.to_le_bytes().to_vec())]));
            }
        }
        if leaf {
            for flags in [1 - word(at).min(1), 2, u32::MAX] {
                all.push((
                    format!("element {slot}, flags {flags}"),
                    vec![(at, flags.to_le_bytes().to_vec())],
                ));
            }
        } else {
            for child in [0, 1, 2, u64::from(page[at + 8]) + 1, u64::from(page[0]), u64::MAX] {
                all.push((
                    format!("element {slot}, child {child}"),
                    vec![(at + 8, child.to_le_bytes().to_vec())],
                ));
            }
        }
    }
    if slot_of_two(count) && leaf {
        let swapped = [&page[32..48], &page[16..32]].concat();
        all.push(("elements in the other order".to_owned(), vec![(16, swapped)]));
    }
    all
}

fn slot_of_two(count: u16) -> bool {
    count >= 2
}

/// What an error is about: a page, or something else that it names.
enum About {
    Page(u64),
    Metas,
    Entry,
}

/// Reads each damaged file: an error that names what it should, or what `expected` says. Gives how many were refused.
fn hold<T: Debug + PartialEq, E: std::error::Error>(
    bytes: &[u8],
    read: impl Fn(Vec<u8>) -> Result<T, E>,
    about: impl Fn(&E) -> About,
    same: impl Fn(&T, &T) -> bool,
) -> usize {
    let page_size = 4096;
    let sound = PageMap::of(bytes, page_size, None).unwrap();
    let original = read(bytes.to_vec()).unwrap();
    let mut refused = 0;
    for damage in every_damage(bytes, page_size) {
        let case = format!("pages {:?}, {}", damage.pages, damage.what);
        match read(damage.bytes.clone()) {
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains(NAME), "{case}: {text}");
                match about(&error) {
                    About::Page(page) => {
                        assert!(text.contains(&format!("page {page}")), "{case}: {text}");
                        let near = damage.pages.contains(&page)
                            // A pointer in a damaged page leads to a wrong one, or twice to the same.
                            || sound.pages.keys().any(|used| damage.pages.contains(used));
                        assert!(near, "{case}: the damage is elsewhere: {text}");
                    }
                    About::Metas => assert!(damage.pages.iter().any(|page| *page < 2), "{case}: {text}"),
                    About::Entry => {
                        assert!(
                            sound.pages.keys().any(|used| damage.pages.contains(used)),
                            "{case}: {text}"
                        );
                    }
                }
            }
            // The newer meta is gone, and bbolt itself would open the database as the older one has it.
            Ok(answer) if same(&answer, &original) => {}
            Ok(answer) if damage.pages.contains(&sound.meta) => {
                let mut without = bytes.to_vec();
                let at = usize::try_from(sound.meta).unwrap() * page_size;
                without[at..at + page_size].fill(0);
                assert!(
                    answer == read(without).unwrap(),
                    "{case}: neither of the two transactions"
                );
            }
            Ok(answer) => panic!(
                "{case}: read as {}",
                differing(&format!("{original:?}"), &format!("{answer:?}"))
            ),
        }
    }
    refused
}

/// Where two texts begin to differ.
fn differing(one: &str, other: &str) -> String {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        text.chars()
            .skip(same.saturating_sub(60))
            .take(160)
            .collect::<String>()
    };
    format!("..{}.. instead of ..{}..", around(other), around(one))
}

fn about_database(error: &BboltError) -> About {
    match error {
        BboltError::Damaged { page, .. } => About::Page(*page),
        BboltError::NoMeta { .. } | BboltError::Empty { .. } => About::Metas,
        other => panic!("{other}"),
    }
}

fn pool(bytes: Vec<u8>) -> Result<PoolDb, PoolDbError> {
    PoolDb::read_from(&Database::new(Named(bytes)), Path::new(NAME))
}

fn about_pool(error: &PoolDbError) -> About {
    match error {
        PoolDbError::Database(error) => about_database(error),
        PoolDbError::NotAPoolDb { .. } | PoolDbError::BadEntry { .. } => About::Entry,
        other => panic!("{other}"),
    }
}

fn snapshots(bytes: Vec<u8>) -> Result<SnapshotDb, SnapshotDbError> {
    SnapshotDb::read_from(&Database::new(Named(bytes)), Path::new(NAME))
}

fn about_snapshots(error: &SnapshotDbError) -> About {
    match error {
        SnapshotDbError::Database(error) => about_database(error),
        SnapshotDbError::NotSnapshots { .. } | SnapshotDbError::BadRow { .. } => About::Entry,
    }
}

/// The snapshots by all their names. A byte less in the name of a bucket is a bucket of another kind, as later releases
/// may have them: then this file tells less, and never something else. Nothing is judged to be better for a name that it
/// lacks, unless it has others of the same namespace.
fn core(bytes: Vec<u8>) -> Result<Vec<[String; 3]>, CoreDbError> {
    let core = CoreDb::read_from(&Database::new(Named(bytes)), Path::new(NAME))?;
    let names = core.snapshots.into_iter();
    Ok(names
        .map(|(backend, one)| [backend, one.namespace, one.key])
        .collect())
}

fn subset(answer: &[[String; 3]], original: &[[String; 3]]) -> bool {
    answer.is_empty() || answer == original
}

fn about_core(error: &CoreDbError) -> About {
    match error {
        CoreDbError::Database(error) => about_database(error),
        CoreDbError::NotCore { .. } | CoreDbError::BadEntry { .. } => About::Entry,
    }
}

#[test]
fn containerds_own_pool_db_with_each_page_damaged() {
    let bytes = std::fs::read(fixture("pool.db")).unwrap();
    assert!(hold(&bytes, pool, about_pool, PartialEq::eq) > 40);
}

#[test]
fn containerds_own_metadata_db_with_each_page_damaged() {
    let bytes = std::fs::read(fixture("metadata.db")).unwrap();
    assert!(hold(&bytes, snapshots, about_snapshots, PartialEq::eq) > 40);
}

#[test]
fn containerds_own_meta_db_with_each_page_damaged() {
    let bytes = std::fs::read(fixture("meta.db")).unwrap();
    assert!(hold(&bytes, core, about_core, |one, other| subset(one, other)) > 100);
}

/// Large enough for branch pages, with a record that takes overflow pages; a second transaction, so that there are free
/// pages with old data in them.
#[test]
fn a_pool_db_of_many_pages_with_each_damaged() {
    let tree = |state: u32| {
        let (mut devices, mut ids) = (Tree::default(), Tree::default());
        for id in 1..=24_u32 {
            let name = format!("tp-snap-{id}");
            let error = if id == 13 { "x".repeat(9000) } else { String::new() };
            let record = format!(
                r#"{{"device_id":{id},"size":1024,"name":"{name}","parent_name":"","state":{state},"error":"{error}"}}"#
            );
            devices.put(name.as_bytes(), record.as_bytes());
            ids.put(id.to_string().as_bytes(), &[1]);
        }
        ids.sequence = 24;
        let mut root = Tree::default();
        root.nest(b"devices", devices);
        root.nest(b"device_ids", ids);
        root
    };
    let layout = Layout {
        page_size: 4096,
        fan: 5,
        inline: 0,
    };
    let mut file = BboltFile::new(layout, &tree(4));
    file.commit(&tree(10));
    assert!(hold(&file.bytes, pool, about_pool, PartialEq::eq) > 1000);
}

/// Files that the real bbolt wrote, of any contents: what is accepted differs at most in what hangs on the damaged page.
#[test]
fn what_the_real_bbolt_writes_with_each_page_damaged() {
    let peer = xtask::setup::bbolt_peer(false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for seed in 1..=2 {
        let path = folder.path().join(format!("{seed}.db"));
        let made = std::process::Command::new(&peer)
            .args([
                Path::new("random"),
                &path,
                Path::new(&seed.to_string()),
                Path::new("4"),
            ])
            .status()
            .unwrap();
        assert!(made.success());
        let bytes = std::fs::read(&path).unwrap();
        let map = PageMap::of(&bytes, 4096, None).unwrap();
        let read = |bytes| {
            Database::new(Named(bytes))
                .snapshot(dump_all)
                .map(|(tree, _)| tree)
        };
        assert_eq!(read(bytes.clone()).unwrap(), map.tree, "seed {seed}");
        for damage in every_damage(&bytes, 4096) {
            if damage.pages.contains(&map.meta) {
                continue;
            }
            let Ok(tree) = read(damage.bytes) else { continue };
            for path in differences(&map.tree, &tree) {
                let covered = damage
                    .pages
                    .iter()
                    .any(|page| map.pages.get(page).is_some_and(|region| region.covers(&path)));
                assert!(
                    covered,
                    "seed {seed}, pages {:?}, {}: {path:?}",
                    damage.pages, damage.what
                );
            }
        }
    }
}
