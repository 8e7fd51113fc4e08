//! Worlds through a recording: pages in, pages out, the same world.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use suture::brain::{Brain, Rules};
use suture::decide::Policy;
use suture::model::databases::Presence;
use suture::model::{
    DeviceNumber, Pool, PoolActivation, PoolDb, PoolMode, PoolName, SnapshotDb, ThinDetails, ThinId,
    Timestamp, Topology, World,
};
use suture::observe::bbolt::Database;
use suture::observe::pages::DatabasePages;
use suture::recording::{Header, Reader, Step, Writer};

use crate::bbolt_file::{BboltFile, Layout, Tree};

/// What happens to a node between two of its states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    /// A commit, and then a look.
    Seen,
    /// A commit that nobody looks at: pages come and go unseen.
    Unseen,
    /// The pool database is restored: another file, whose transactions begin anew.
    Restored,
}

/// One state of a node: records by number with the length of their error, whether there are snapshots, and how it came about.
type State = (BTreeMap<u32, u16>, Option<u8>, Happens);

fn states() -> impl Strategy<Value = Vec<State>> {
    // Long error texts make overflow pages, and their growth and end moves them about.
    let length = prop_oneof![4 => 0..40_u16, 1 => 900..6000_u16];
    let records = proptest::collection::btree_map(0..12_u32, length, 0..9);
    let happens = prop_oneof![
        4 => Just(Happens::Seen),
        4 => Just(Happens::Unseen),
        1 => Just(Happens::Restored),
    ];
    proptest::collection::vec((records, proptest::option::of(0..6_u8), happens), 1..16)
}

fn pool_tree(records: &BTreeMap<u32, u16>) -> Tree {
    let (mut devices, mut ids, mut root) = (Tree::default(), Tree::default(), Tree::default());
    for (id, length) in records {
        let name = format!("tp-snap-{id}");
        let error = "x".repeat(usize::from(*length));
        let json = format!(
            r#"{{"device_id":{id},"size":1,"name":"{name}","parent_name":"","state":4,"error":"{error}"}}"#
        );
        devices.put(name.as_bytes(), json.as_bytes());
        ids.put(id.to_string().as_bytes(), &[1]);
    }
    root.nest(b"devices", devices);
    root.nest(b"device_ids", ids);
    root
}

fn snapshot_tree(count: u8) -> Tree {
    let mut snapshots = Tree::default();
    for id in 0..count {
        let mut row = Tree::default();
        row.put(b"id", &[id]);
        row.put(b"kind", &[2]);
        snapshots.nest(format!("default/{id}/key").as_bytes(), row);
    }
    let (mut root, mut version) = (Tree::default(), Tree::default());
    version.nest(b"snapshots", snapshots);
    root.nest(b"v1", version);
    root
}

fn pool() -> Pool {
    let metadata_device = DeviceNumber { major: 7, minor: 0 };
    Pool {
        name: PoolName::new("tp"),
        device: DeviceNumber { major: 253, minor: 0 },
        metadata_device,
        table: String::new(),
        mode: PoolMode::ReadWrite,
        activation: PoolActivation {
            boot: "this".to_owned(),
            disk_sequence: None,
            metadata_device,
        },
        needs_check: false,
    }
}

fn writer() -> Writer<Vec<u8>> {
    let rules = Rules {
        policy: Policy {
            act: false,
            grace: Duration::ZERO,
        },
        ledger: false,
        verbose: false,
    };
    let began = Timestamp::default();
    let header = Header {
        suture: String::new(),
        pool: pool().name,
        boot: String::new(),
        kernel: String::new(),
        began,
    };
    Writer::begin(Vec::new(), &header, &Brain::new(pool().name, rules, began)).unwrap()
}

fn world(
    pool_file: &BboltFile,
    snapshot_file: Option<&BboltFile>,
    thin: &BTreeMap<u32, u16>,
) -> (World, DatabasePages) {
    let name = Path::new("some.db");
    let database = Database::keeping(pool_file.bytes.clone());
    let pool_db = PoolDb::read_from(&database, name).unwrap();
    let (snapshots, snapshot_pages) = match snapshot_file {
        None => {
            let none = SnapshotDb {
                snapshots: BTreeMap::new(),
                sequence: 0,
                txid: None,
                presence: Presence::NoFile,
                contradiction: None,
            };
            (none, None)
        }
        Some(file) => {
            let database = Database::keeping(file.bytes.clone());
            (
                SnapshotDb::read_from(&database, name).unwrap(),
                Some(database.into_kept()),
            )
        }
    };
    let details = |blocks: &u16| ThinDetails {
        mapped_blocks: u64::from(*blocks),
        transaction_id: 0,
        creation_time: 0,
        snapshotted_time: 0,
    };
    let world = World {
        begun: Timestamp::from_nanoseconds(pool_file.txid),
        pool: pool(),
        pool_db,
        snapshots,
        thin: thin
            .iter()
            .map(|(id, blocks)| (ThinId(*id), details(blocks)))
            .collect(),
        mapping_roots: thin
            .keys()
            .map(|id| (ThinId(*id), u64::from(*id) + 100))
            .collect(),
        nodes: Vec::new(),
        topology: Topology::default(),
        data_owners: None,
    };
    let pages = DatabasePages {
        pool_db: database.into_kept(),
        snapshots: snapshot_pages,
    };
    (world, pages)
}

fn worlds_of(bytes: &[u8]) -> Vec<World> {
    let mut reader = Reader::open(bytes).unwrap();
    let mut worlds = Vec::new();
    while let Some(step) = reader.step().unwrap() {
        if let Step::World(world) = step {
            worlds.push(*world);
        }
    }
    worlds
}

proptest! {
    #[test]
    fn every_world_comes_back_as_it_was(doublings in 0..3_u32, fan in 2..8_usize, all in states()) {
        let layout = Layout { page_size: 1024 << doublings, fan, inline: 128 };
        let mut pool_file = BboltFile::new(layout, &pool_tree(&BTreeMap::new()));
        let mut snapshot_file: Option<BboltFile> = None;
        let mut writer = writer();
        let mut written = Vec::new();
        for (records, snapshots, happens) in &all {
            if *happens == Happens::Restored {
                pool_file = BboltFile::new(layout, &pool_tree(records));
            } else {
                pool_file.commit(&pool_tree(records));
            }
            snapshot_file = snapshots.map(|count| match snapshot_file.take() {
                Some(mut file) => { file.commit(&snapshot_tree(count)); file }
                None => BboltFile::new(layout, &snapshot_tree(count)),
            });
            if *happens == Happens::Unseen {
                continue;
            }
            let (world, pages) = world(&pool_file, snapshot_file.as_ref(), records);
            writer.world(&world, pages.clone()).unwrap();
            written.push(world);
        }
        prop_assert_eq!(worlds_of(&writer.end(false).unwrap()), written);
    }
}

#[test]
fn what_no_walk_reaches_is_not_recorded_and_what_did_not_change_not_again() {
    let layout = Layout {
        page_size: 4096,
        fan: 10,
        inline: 128,
    };
    let many: BTreeMap<u32, u16> = (0..300).map(|id| (id, 100)).collect();
    let mut file = BboltFile::new(layout, &pool_tree(&many));
    let mut with_secret = many.clone();
    with_secret.insert(999, 20);
    file.commit(&pool_tree(&with_secret));
    file.commit(&pool_tree(&many));
    let is_in = |bytes: &[u8]| bytes.windows(11).any(|window| window == b"tp-snap-999");
    assert!(is_in(&file.bytes), "the file still holds what was deleted");

    let mut writer = writer();
    let (first, pages) = world(&file, None, &many);
    assert!(!pages.pool_db.runs().values().any(|run| is_in(run)));
    let empty = writer.size();
    writer.world(&first, pages.clone()).unwrap();
    let whole = writer.size() - empty;
    assert!(whole > 40_000, "{whole}");
    // Nothing changed: nothing but the record itself.
    writer.world(&first, pages.clone()).unwrap();
    let again = writer.size() - empty - whole;
    assert!(again < 1000, "{again} bytes for a world that did not change");
    assert_eq!(worlds_of(&writer.end(false).unwrap()), [first.clone(), first]);
}
