use std::path::Path;

use super::*;
use crate::{
    model::{
        DeviceState, PoolDb, PoolName, SnapshotDb,
        outline::{PoolOutline, RowsOutline},
    },
    observe::{bbolt::Database, row_index::both_numbers},
};

#[test]
fn a_key_of_the_index_has_both_numbers() {
    assert_eq!(both_numbers(&[1, 0, 2]), Some((1, 2)));
    assert_eq!(both_numbers(&[0x80, 0x01, 0, 0xbb, 0x08]), Some((128, 1083)));
    for bytes in [
        &[][..],
        &[1],
        &[1, 0],
        &[1, 2],
        &[1, 0, 2, 0],
        &[1, 0, 0x80],
        &[1, 1, 2],
    ] {
        assert_eq!(both_numbers(bytes), None, "{bytes:?}");
    }
}

#[test]
fn what_containerd_wrote_has_the_numbers_that_are_read_of_it() {
    let path = Path::new("metadata.db");
    let bytes = include_bytes!("../../../tests/fixtures/metadata.db").to_vec();
    let database = Database::new(bytes.clone());
    let read = SnapshotDb::read_from(&database, path).unwrap();
    assert!(read.snapshots.values().any(|row| row.parent.is_some()));
    let outline = rows_outline(|| Ok(Database::new(bytes.clone())), 0, path).unwrap();
    assert!(outline.is_some());
    assert_eq!(outline, RowsOutline::of(&read));

    let path = Path::new("pool.db");
    let database = Database::new(include_bytes!("../../../tests/fixtures/pool.db").to_vec());
    let read = PoolDb::read_from(&database, path).unwrap();
    let pool = PoolName::new("pool");
    assert!(
        read.devices
            .values()
            .any(|record| record.state == DeviceState::Activated)
    );
    let outline = pool_outline(&database, &pool, path).unwrap();
    assert_eq!(outline, PoolOutline::of(&read, &pool));
    // Another pool's records are not this one's.
    assert_eq!(
        pool_outline(&database, &PoolName::new("other"), path).unwrap(),
        None
    );
}
