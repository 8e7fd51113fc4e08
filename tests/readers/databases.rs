//! pool.db and metadata.db, as containerd writes them and as nobody should find them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use suture::model::{Bytes, DeviceRecord, DeviceState, IdState, SnapshotId, ThinId, TxId};
use suture::observe::bbolt::BboltError;
use suture::observe::pool_db::{PoolDb, PoolDbError};
use suture::observe::snapshot_db::{Presence, SnapshotDb, SnapshotDbError, SnapshotKind, SnapshotRow};

use crate::bbolt_file::{BboltFile, Layout, Tree};

const LAYOUT: Layout = Layout {
    page_size: 4096,
    fan: 10,
    inline: 512,
};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn write(folder: &Path, root: &Tree) -> PathBuf {
    let path = folder.join("some.db");
    std::fs::write(&path, BboltFile::new(LAYOUT, root).bytes).unwrap();
    path
}

#[test]
fn containerds_own_pool_db_decodes_exactly() {
    let record = |id, parent: &str, state| DeviceRecord {
        device_id: ThinId(id),
        size: Bytes(64 << 20),
        name: format!("pool-snap-{id}"),
        parent_name: parent.to_owned(),
        state,
        error: String::new(),
    };
    let (base, layer) = (
        record(1, "", DeviceState::Deactivated),
        record(2, "pool-snap-1", DeviceState::Activated),
    );
    let expected = PoolDb {
        devices: BTreeMap::from([(base.name.clone(), base), (layer.name.clone(), layer)]),
        device_ids: BTreeMap::from([(ThinId(1), IdState::Taken), (ThinId(2), IdState::Taken)]),
        id_sequence: 2,
        txid: TxId(18),
    };
    assert_eq!(PoolDb::read(fixture("pool.db")).unwrap(), expected);
}

#[test]
fn containerds_own_metadata_db_decodes_exactly() {
    let committed = SnapshotRow {
        id: SnapshotId(1),
        kind: SnapshotKind::Committed,
        parent: None,
    };
    let active = SnapshotRow {
        id: SnapshotId(2),
        kind: SnapshotKind::Active,
        parent: Some("ns/2/c".to_owned()),
    };
    let expected = SnapshotDb {
        snapshots: BTreeMap::from([("ns/2/c".to_owned(), committed), ("ns/3/act".to_owned(), active)]),
        sequence: 2,
        txid: Some(TxId(4)),
        presence: Presence::Complete,
        contradiction: None,
    };
    assert_eq!(SnapshotDb::read(fixture("metadata.db")).unwrap(), expected);
}

#[test]
fn one_database_is_not_taken_for_the_other() {
    // Read as "nothing there", either would make every thin device look like nobody's.
    assert!(matches!(
        PoolDb::read(fixture("metadata.db")),
        Err(PoolDbError::NotAPoolDb { .. })
    ));
    assert!(matches!(
        SnapshotDb::read(fixture("pool.db")),
        Err(SnapshotDbError::NotSnapshots { .. })
    ));
    let garbage = fixture("README.md");
    assert!(matches!(
        PoolDb::read(&garbage),
        Err(PoolDbError::Database(BboltError::NoMeta { .. }))
    ));
    assert!(matches!(
        SnapshotDb::read(&garbage),
        Err(SnapshotDbError::Database(BboltError::NoMeta { .. }))
    ));
}

#[test]
fn a_fresh_node_is_told_from_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.db");
    assert!(matches!(PoolDb::read(&path), Err(PoolDbError::Missing { .. })));
    assert_eq!(SnapshotDb::read(&path).unwrap().presence, Presence::NoFile);
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(
        PoolDb::read(&path),
        Err(PoolDbError::NotInitialised { .. })
    ));
    assert_eq!(SnapshotDb::read(&path).unwrap().presence, Presence::NoBuckets);
    write(folder.path(), &Tree::default());
    assert!(matches!(
        PoolDb::read(&path),
        Err(PoolDbError::NotInitialised { .. })
    ));
    let fresh = SnapshotDb::read(&path).unwrap();
    assert_eq!((fresh.presence, fresh.txid), (Presence::NoBuckets, Some(TxId(1))));
    let mut half = Tree::default();
    half.nest(b"devices", Tree::default());
    write(folder.path(), &half);
    assert!(matches!(
        PoolDb::read(&path),
        Err(PoolDbError::NotAPoolDb {
            bucket: "device_ids",
            ..
        })
    ));
    let bytes = std::fs::read(fixture("pool.db")).unwrap();
    std::fs::write(&path, &bytes[..0x4000]).unwrap();
    assert!(matches!(
        PoolDb::read(&path),
        Err(PoolDbError::Database(BboltError::Damaged { page: 4, .. }))
    ));
}

#[test]
fn a_bad_entry_is_named_never_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let pool = |device: (&str, &str), id: (&str, &[u8])| {
        let (mut devices, mut ids) = (Tree::default(), Tree::default());
        devices.put(device.0.as_bytes(), device.1.as_bytes());
        ids.put(id.0.as_bytes(), id.1);
        let mut root = Tree::default();
        root.nest(b"devices", devices);
        root.nest(b"device_ids", ids);
        PoolDb::read(write(folder.path(), &root))
    };
    let record = r#"{"device_id":7,"size":1,"name":"p-snap-9","parent_name":"","state":13,"error":"x"}"#;
    let good = pool(("p-snap-9", record), ("7", &[2])).unwrap();
    assert_eq!(good.devices["p-snap-9"].state, DeviceState::Faulty);
    assert_eq!(good.device_ids, BTreeMap::from([(ThinId(7), IdState::Faulty)]));
    for (device, id, named) in [
        (("p-snap-8", record), ("7", &[2][..]), "p-snap-8"),
        (("p-snap-9", "{"), ("7", &[2][..]), "p-snap-9"),
        (("p-snap-9", record), ("seven", &[2][..]), "seven"),
        (("p-snap-9", record), ("7", &[][..]), "7"),
    ] {
        let error = pool(device, id).unwrap_err();
        assert!(
            matches!(&error, PoolDbError::BadEntry { key, .. } if key == named),
            "{error}"
        );
    }
}

#[test]
fn a_bad_row_is_named_never_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |fill: &dyn Fn(&mut Tree)| {
        let mut row = Tree::default();
        row.put(b"id", &[5]);
        row.put(b"kind", &[1]);
        fill(&mut row);
        let (mut snapshots, mut version, mut root) = (Tree::default(), Tree::default(), Tree::default());
        snapshots.nest(b"ns/9/view", row);
        snapshots.sequence = 5;
        version.nest(b"snapshots", snapshots);
        root.nest(b"v1", version);
        SnapshotDb::read(write(folder.path(), &root))
    };
    let view = SnapshotRow {
        id: SnapshotId(5),
        kind: SnapshotKind::View,
        parent: None,
    };
    assert_eq!(
        rows(&|_| ()).unwrap().snapshots,
        BTreeMap::from([("ns/9/view".to_owned(), view)])
    );
    let bad: [&dyn Fn(&mut Tree); 4] = [
        &|row| drop(row.items.remove(&b"id"[..])),
        &|row| row.put(b"kind", &[]),
        &|row| row.put(b"id", &[0x85]),
        &|row| row.nest(b"parent", Tree::default()),
    ];
    for (nth, bad) in bad.into_iter().enumerate() {
        let error = rows(bad).unwrap_err();
        assert!(
            matches!(&error, SnapshotDbError::BadRow { key, .. } if key == "ns/9/view"),
            "{nth}: {error}"
        );
    }
}

#[test]
fn ten_thousand_records_in_one_database_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let (mut devices, mut ids) = (
        Tree::default(),
        Tree {
            sequence: 10_000,
            ..Tree::default()
        },
    );
    for id in 1..=10_000_u32 {
        let name = format!("p-snap-{}", id + 50);
        let json = format!(
            r#"{{"device_id":{id},"size":1073741824,"name":"{name}","parent_name":"","state":10,"error":""}}"#
        );
        devices.put(name.as_bytes(), json.as_bytes());
        ids.put(id.to_string().as_bytes(), &[1]);
    }
    let mut root = Tree::default();
    root.nest(b"devices", devices);
    root.nest(b"device_ids", ids);
    let read = PoolDb::read(write(folder.path(), &root)).unwrap();
    assert_eq!(
        (read.devices.len(), read.device_ids.len(), read.id_sequence),
        (10_000, 10_000, 10_000)
    );
    assert_eq!(read.devices["p-snap-60"].device_id, ThinId(10));
}
