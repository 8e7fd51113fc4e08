//! A small world with a fault of each kind that files alone can show: containerd's three databases and the metadata of the
//! pool, each of several pages, with what an earlier transaction left in the pages that are free.

use std::{fs, path::Path};

use suture::{
    model::PoolName,
    observe::{survey::SurveyPlaces, thin_metadata::Block, world::Places},
};

use crate::{
    bbolt_file::{BboltFile, Layout, Tree},
    thin_image::{SUPERBLOCK_SALT, node, put64, seal, superblock},
};

pub(crate) const PAGE: usize = 4096;
const LAYOUT: Layout = Layout {
    page_size: PAGE,
    fan: 5,
    inline: 400,
};

/// What a check finds in it, in its order.
pub(crate) const FINDINGS: [&str; 7] = [
    "wedge/tp/tp-snap-19",
    "row-without-thin/tp/7",
    "orphan-record/tp/tp-snap-17",
    "stuck-cleanup/tp/tp-snap-18",
    "foreign-thin/tp/40",
    "burned-id/tp/20",
    "faulty-live/tp/tp-snap-6",
];

/// Snapshots that the snapshot storage lists: a chain of five layers, and others on top of it.
const ROWS: std::ops::RangeInclusive<u8> = 1..=16;
/// The last number that it drew; 17 and 18 were removed.
const DRAWN: u8 = 18;

/// The files, as bytes.
#[derive(Debug, Clone)]
pub(crate) struct SmallWorld {
    pub(crate) pool_db: Vec<u8>,
    pub(crate) snapshot_db: Vec<u8>,
    pub(crate) core_db: Vec<u8>,
    pub(crate) metadata: Vec<u8>,
}

fn of_two_commits(tree: impl Fn(bool) -> Tree) -> Vec<u8> {
    let mut file = BboltFile::new(LAYOUT, &tree(false));
    file.commit(&tree(true));
    file.bytes
}

fn nested(name: &str, inner: Tree) -> Tree {
    let mut tree = Tree::default();
    tree.nest(name.as_bytes(), inner);
    tree
}

fn backend_key(number: u8) -> String {
    format!("default/{number}/key-{number}")
}

/// `tp.db`; before its last commits there was no half-made snapshot, and none was faulty.
fn pool_db(now: bool) -> Tree {
    let (mut devices, mut ids) = (Tree::default(), Tree::default());
    for number in 1..=(if now { DRAWN + 1 } else { DRAWN }) {
        let (state, error) = match number {
            1..=5 | 17 => (10, String::new()),
            6 if now => (13, String::new()),
            // Long enough for overflow pages.
            18 => (9, "device or resource busy ".repeat(400)),
            _ => (4, String::new()),
        };
        let record = format!(
            r#"{{"device_id":{number},"size":67108864,"name":"tp-snap-{number}","parent_name":"","state":{state},"error":"{error}"}}"#
        );
        devices.put(format!("tp-snap-{number}").as_bytes(), record.as_bytes());
        let state = if number == 6 && now { 2 } else { 1 };
        ids.put(number.to_string().as_bytes(), &[state]);
    }
    ids.put(b"20", &[2]);
    ids.sequence = 20;
    let mut root = nested("devices", devices);
    root.nest(b"device_ids", ids);
    root
}

/// `metadata.db`; its last commit changed nothing.
fn snapshot_db() -> Tree {
    let (mut snapshots, mut parents) = (Tree::default(), Tree::default());
    for number in ROWS {
        let mut row = Tree::default();
        row.put(b"id", &[number]);
        row.put(b"kind", &[if number <= 5 { 3 } else { 2 }]);
        let parent = (number - 1).min(5);
        if parent > 0 {
            row.put(b"parent", backend_key(parent).as_bytes());
            parents.put(&[parent, 0, number], backend_key(number).as_bytes());
        }
        snapshots.nest(backend_key(number).as_bytes(), row);
    }
    snapshots.sequence = u64::from(DRAWN);
    let mut version = nested("snapshots", snapshots);
    version.nest(b"parents", parents);
    nested("v1", version)
}

/// `meta.db`.
fn core_db() -> Tree {
    let mut snapshots = Tree::default();
    for number in ROWS {
        let mut one = Tree::default();
        one.put(b"name", backend_key(number).as_bytes());
        snapshots.nest(format!("key-{number}").as_bytes(), one);
    }
    let namespace = nested("snapshots", nested("devmapper", snapshots));
    nested("v1", nested("default", namespace))
}

/// Metadata in which 7 is missing and 40 is nobody's; each device has a tree of its own, and some share a leaf.
fn metadata() -> Vec<Block> {
    let ids: Vec<u64> = (1..=u64::from(DRAWN) + 1)
        .chain([40])
        .filter(|id| *id != 7)
        .collect();
    let mut blocks = vec![superblock(0)];
    let mut write = |flags, size, entries: &[(u64, Vec<u8>)]| {
        let number = u64::try_from(blocks.len()).unwrap();
        blocks.push(node(number, flags, size, entries));
        (entries[0].0, number.to_le_bytes().to_vec())
    };
    let leaves: Vec<_> = (0..4_u64)
        .map(|nth| write(2, 8, &[(0, (nth << 24 | 1).to_le_bytes().to_vec())]))
        .collect();
    // One that nothing leads to any more.
    write(2, 8, &[(5, 9_u64.to_le_bytes().to_vec())]);
    let of_devices: Vec<_> = ids
        .iter()
        .zip(leaves.iter().cycle())
        .map(|(id, leaf)| (*id, leaf.1.clone()))
        .collect();
    let details: Vec<_> = ids
        .iter()
        .map(|id| (*id, [1_u64.to_le_bytes(), [0; 8], [0; 8]].concat()))
        .collect();
    let mut tree = |size, entries: &[(u64, Vec<u8>)]| {
        let children: Vec<_> = entries.chunks(6).map(|chunk| write(2, size, chunk)).collect();
        u64::from_le_bytes(write(1, 8, &children).1.try_into().unwrap())
    };
    let (mappings, details) = (tree(8, &of_devices), tree(24, &details));
    put64(&mut blocks[0], 320, mappings);
    put64(&mut blocks[0], 328, details);
    seal(&mut blocks[0], SUPERBLOCK_SALT);
    blocks
}

impl SmallWorld {
    pub(crate) fn new() -> Self {
        Self {
            pool_db: of_two_commits(pool_db),
            snapshot_db: of_two_commits(|_| snapshot_db()),
            core_db: of_two_commits(|_| core_db()),
            metadata: metadata().concat(),
        }
    }

    /// Writes the files as containerd lays them out.
    pub(crate) fn write(&self, folder: &Path) -> SurveyPlaces {
        let root = folder.join("devmapper");
        let core = folder.join("io.containerd.metadata.v1.bolt");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&core).unwrap();
        let places = SurveyPlaces {
            places: Places {
                pool: PoolName::new("tp"),
                root,
            },
            core_db: Some(core.join("meta.db")),
            async_remove: Some(false),
            metadata_device: Some(folder.join("tmeta")),
        };
        fs::write(places.places.pool_db(), &self.pool_db).unwrap();
        fs::write(places.places.snapshot_db(), &self.snapshot_db).unwrap();
        fs::write(core.join("meta.db"), &self.core_db).unwrap();
        fs::write(folder.join("tmeta"), &self.metadata).unwrap();
        places
    }
}
