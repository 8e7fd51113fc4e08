//! The watch over real files: what is written to them is told, and what can not be told is said to be lost.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use suture::{
    model::{
        DeviceState, Observation, PoolName, TxId,
        commit::{Commit, DatabaseKind, EntryChange},
        observation::LossKind,
        sense::Quality,
    },
    observe::{databases::DatabaseWatch, world::Places},
};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

use crate::bbolt_file::{BboltFile, Layout, Tree};

const LAYOUT: Layout = Layout {
    page_size: 4096,
    fan: 10,
    inline: 1024,
};

/// The three databases as containerd would write them, in a folder.
struct Stage {
    folder: tempfile::TempDir,
    pool: Tree,
}

fn nested(tree: &mut Tree, name: &str, fill: impl FnOnce(&mut Tree)) {
    let mut inner = match tree.items.remove(name.as_bytes()) {
        Some(crate::bbolt_file::Item::Bucket(inner)) => inner,
        _ => Tree::default(),
    };
    fill(&mut inner);
    tree.nest(name.as_bytes(), inner);
}

fn set(pool: &mut Tree, id: u32, state: u32) {
    let name = format!("tp-snap-{id}");
    let record = format!(
        r#"{{"device_id":{id},"size":1,"name":"{name}","parent_name":"","state":{state},"error":""}}"#
    );
    nested(pool, "devices", |devices| {
        devices.put(name.as_bytes(), record.as_bytes());
    });
    nested(pool, "device_ids", |ids| ids.put(id.to_string().as_bytes(), &[1]));
}

impl Stage {
    fn new() -> Self {
        let mut pool = Tree::default();
        nested(&mut pool, "devices", |_| ());
        nested(&mut pool, "device_ids", |_| ());
        Self {
            folder: tempfile::tempdir().unwrap(),
            pool,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn watch(&self) -> (DatabaseWatch, Receiver<Observation>) {
        let places = Places {
            pool: PoolName::new("tp"),
            root: self.folder.path().to_owned(),
        };
        DatabaseWatch::start(&places, Some(self.path("meta.db"))).unwrap()
    }

    fn pool_file(&self) -> BboltFile {
        let file = BboltFile::copy_on_write(LAYOUT, &self.pool);
        fs::write(self.path("tp.db"), &file.bytes).unwrap();
        file
    }

    /// As bbolt: one `pwrite` after the other, the meta page last.
    fn commit(&self, file: &mut BboltFile) {
        write(&self.path("tp.db"), file, &self.pool);
    }
}

fn write(path: &Path, file: &mut BboltFile, tree: &Tree) {
    let disk = fs::File::options().write(true).open(path).unwrap();
    for (offset, bytes) in file.commit(tree) {
        disk.write_all_at(&bytes, u64::try_from(offset).unwrap()).unwrap();
    }
}

fn next(receiver: &mut Receiver<Observation>) -> Observation {
    let begun = Instant::now();
    loop {
        match receiver.try_recv() {
            Ok(observation) => return observation,
            Err(TryRecvError::Empty) if begun.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("nothing was told: {error}"),
        }
    }
}

fn next_commit(receiver: &mut Receiver<Observation>) -> Commit {
    match next(receiver) {
        Observation::Commit(commit) => *commit,
        other => panic!("not a commit: {other}"),
    }
}

fn next_loss(receiver: &mut Receiver<Observation>) -> LossKind {
    match next(receiver) {
        Observation::Lost { since, at, what, .. } => {
            assert!(since <= at);
            what
        }
        other => panic!("not a loss: {other}"),
    }
}

fn nothing_more(receiver: &mut Receiver<Observation>) {
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

const POOL: DatabaseKind = DatabaseKind::Pool;

#[test]
fn each_commit_is_told_with_its_transition() {
    let mut stage = Stage::new();
    let mut file = stage.pool_file();
    let (watch, mut told) = stage.watch();
    assert_eq!(watch.senses().quality, Quality::Full, "{}", watch.senses());
    set(&mut stage.pool, 1, 0);
    let mut lines = Vec::new();
    for state in 0..5 {
        set(&mut stage.pool, 1, state);
        stage.commit(&mut file);
        let commit = next_commit(&mut told);
        assert!(commit.since <= commit.at);
        assert_eq!(
            (commit.from, commit.to),
            (Some(TxId(file.txid - 1)), TxId(file.txid))
        );
        lines.push(commit.to_string());
    }
    assert_eq!(
        lines,
        [
            "pool database transaction 2: tp-snap-1: none -> Unknown (thin id 1); id 1: none -> taken",
            "pool database transaction 3: tp-snap-1: Unknown -> Creating",
            "pool database transaction 4: tp-snap-1: Creating -> Created",
            "pool database transaction 5: tp-snap-1: Created -> Activating",
            "pool database transaction 6: tp-snap-1: Activating -> Activated",
        ]
    );
    // A transaction that changes nothing is nobody's business.
    stage.commit(&mut file);
    nothing_more(&mut told);
}

#[test]
fn a_file_that_comes_is_new_and_the_other_databases_are_told_too() {
    let mut stage = Stage::new();
    let (watch, mut told) = stage.watch();
    set(&mut stage.pool, 1, 0);
    stage.pool_file();
    let commit = next_commit(&mut told);
    assert_eq!((commit.from, commit.to, commit.changes.len()), (None, TxId(1), 2));

    let row = |row: &mut Tree| {
        row.put(b"id", &[1]);
        row.put(b"kind", &[2]);
        nested(row, "labels", |labels| labels.put(b"a", b"b"));
    };
    let mut snapshots = Tree::default();
    nested(&mut snapshots, "v1", |v1| {
        nested(v1, "snapshots", |rows| nested(rows, "default/1/one", row));
    });
    let path = stage.path("metadata.db");
    // bbolt makes an empty file first.
    fs::write(&path, b"").unwrap();
    let mut file = BboltFile::copy_on_write(LAYOUT, &snapshots);
    fs::write(&path, &file.bytes).unwrap();
    let text = next_commit(&mut told).to_string();
    assert_eq!(
        text,
        "snapshot database transaction 1: snapshot default/1/one: none -> Active 1"
    );
    nested(&mut snapshots, "v1", |v1| {
        nested(v1, "snapshots", |rows| {
            nested(rows, "default/1/one", |row| row.put(b"kind", &[3]));
        });
    });
    write(&path, &mut file, &snapshots);
    let text = next_commit(&mut told).to_string();
    assert_eq!(
        text,
        "snapshot database transaction 2: snapshot default/1/one: Active 1 -> Committed 1"
    );

    let mut core = Tree::default();
    let name = |tree: &mut Tree, namespace: &str, backend: &[u8]| {
        nested(tree, "v1", |v1| {
            v1.put(b"version", &[3]);
            nested(v1, namespace, |namespace| {
                nested(namespace, "images", |images| nested(images, "busybox", |_| ()));
                nested(namespace, "snapshots", |snapshots| {
                    nested(snapshots, "overlayfs", |other| nested(other, "x", |_| ()));
                    nested(snapshots, "devmapper", |ours| {
                        nested(ours, "key", |row| row.put(b"name", backend));
                    });
                });
            });
        });
    };
    name(&mut core, "default", b"default/1/one");
    let path = stage.path("meta.db");
    let mut file = BboltFile::copy_on_write(LAYOUT, &core);
    fs::write(&path, &file.bytes).unwrap();
    let text = next_commit(&mut told).to_string();
    assert_eq!(
        text,
        "containerd's meta.db transaction 1: snapshot key of namespace default: none -> default/1/one"
    );
    name(&mut core, "k8s.io", b"k8s.io/2/two");
    write(&path, &mut file, &core);
    let text = next_commit(&mut told).to_string();
    assert!(
        text.ends_with("of namespace k8s.io: none -> k8s.io/2/two"),
        "{text}"
    );
    core.items.clear();
    nested(&mut core, "v1", |_| ());
    write(&path, &mut file, &core);
    assert_eq!(next_commit(&mut told).changes.len(), 2);
    drop(watch);
    assert_eq!(told.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_replaced_a_removed_and_a_cut_file_begin_a_new_story() {
    let replaced = LossKind::DatabaseReplaced { database: POOL };
    let mut stage = Stage::new();
    set(&mut stage.pool, 1, 4);
    let mut file = stage.pool_file();
    let (_watch, mut told) = stage.watch();
    stage.commit(&mut file);
    // Another file under the same name.
    let backup = stage.path("backup.db");
    fs::copy(stage.path("tp.db"), &backup).unwrap();
    fs::rename(&backup, stage.path("tp.db")).unwrap();
    assert_eq!(next_loss(&mut told), replaced);
    set(&mut stage.pool, 2, 0);
    stage.commit(&mut file);
    assert_eq!(next_commit(&mut told).changes.len(), 2, "and it is followed");

    fs::remove_file(stage.path("tp.db")).unwrap();
    assert_eq!(next_loss(&mut told), replaced);
    let mut file = stage.pool_file();
    assert_eq!(next_commit(&mut told).from, None);
    set(&mut stage.pool, 3, 0);
    stage.commit(&mut file);
    assert_eq!(next_commit(&mut told).changes.len(), 2);

    let disk = fs::File::options().write(true).open(stage.path("tp.db")).unwrap();
    disk.set_len(4096 * 3).unwrap();
    assert_eq!(next_loss(&mut told), replaced);
    assert_eq!(next_loss(&mut told), LossKind::DatabaseUnread { database: POOL });
    nothing_more(&mut told);
}

#[test]
fn damage_is_told_once_and_what_it_hid_afterwards() {
    let mut stage = Stage::new();
    set(&mut stage.pool, 1, 0);
    let mut file = stage.pool_file();
    let (watch, mut told) = stage.watch();
    nested(&mut stage.pool, "devices", |devices| {
        devices.put(b"tp-snap-1", b"no record");
    });
    stage.commit(&mut file);
    assert_eq!(next_loss(&mut told), LossKind::DatabaseUnread { database: POOL });
    set(&mut stage.pool, 2, 1);
    stage.commit(&mut file);
    nothing_more(&mut told);
    let sense = watch.senses();
    assert!(
        sense.quality == Quality::Degraded && sense.why[0].contains("`tp-snap-1`"),
        "{sense}"
    );
    set(&mut stage.pool, 1, 2);
    stage.commit(&mut file);
    let commit = next_commit(&mut told);
    assert_eq!((commit.skipped(), commit.changes.len()), (2, 3));
    assert_eq!(
        commit.to_string(),
        "pool database transaction 4 (and 2 before it): tp-snap-1: Unknown -> Created; \
         tp-snap-2: none -> Creating (thin id 2); id 2: none -> taken"
    );
    assert_eq!(watch.senses().quality, Quality::Full);
}

#[test]
fn a_folder_that_comes_later_is_found() {
    let stage = Stage::new();
    let places = Places {
        pool: PoolName::new("tp"),
        root: stage.path("later"),
    };
    let (watch, mut told) = DatabaseWatch::start(&places, None).unwrap();
    assert_eq!(watch.senses().quality, Quality::Degraded, "{}", watch.senses());
    fs::create_dir(stage.path("later")).unwrap();
    let mut file = BboltFile::copy_on_write(LAYOUT, &stage.pool);
    fs::write(stage.path("later/tp.db"), &file.bytes).unwrap();
    assert_eq!(next_commit(&mut told).from, None);
    let begun = Instant::now();
    while watch.senses().quality != Quality::Full {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", watch.senses());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut pool = stage.pool.clone();
    set(&mut pool, 1, 0);
    write(&stage.path("later/tp.db"), &mut file, &pool);
    assert_eq!(next_commit(&mut told).changes.len(), 2);
}

#[test]
fn commits_that_come_faster_than_they_can_be_looked_at_add_up() {
    const COMMITS: u32 = 400;
    let mut stage = Stage::new();
    let mut file = stage.pool_file();
    let (watch, mut told) = stage.watch();
    for number in 0..COMMITS {
        set(&mut stage.pool, number % 40 + 1, number % 14);
        stage.commit(&mut file);
    }
    let mut states = BTreeMap::new();
    let mut at = TxId(1);
    while at < TxId(file.txid) {
        match next(&mut told) {
            Observation::Commit(commit) => {
                assert_eq!(commit.from, Some(at), "nothing is between two commits");
                at = commit.to;
                for change in commit.changes {
                    if let EntryChange::Device { name, from, to } = change {
                        let now = to.map(|record| record.state).unwrap();
                        let before = states.insert(name.to_string(), now);
                        assert_eq!(before, from.map(|record| record.state), "{name}");
                    }
                }
            }
            // While the file never rests it can not be read.
            Observation::Lost { what, .. } => {
                assert_eq!(what, LossKind::DatabaseUnread { database: POOL });
            }
            other => panic!("{other}"),
        }
    }
    let expected = (COMMITS - 40..COMMITS).map(|number| {
        let last = DeviceState::from(i64::from(number % 14));
        (format!("tp-snap-{}", number % 40 + 1), last)
    });
    assert_eq!(states, expected.collect());
    drop(watch);
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_the_end_up() {
    let mut stage = Stage::new();
    let mut file = stage.pool_file();
    let (watch, told) = stage.watch();
    for state in 0..300 {
        set(&mut stage.pool, 1, state % 14);
        stage.commit(&mut file);
    }
    drop(watch);
    drop(told);
}
