//! The readers of containerd's databases, on any bytes.

use std::path::Path;

use suture::{
    model::{CoreDb, PoolDb, SnapshotDb},
    observe::bbolt::Database,
};

use crate::{bbolt_file::dump_all, bounds::bounded};

const NAME: &str = "input";

fn database(data: &[u8]) -> Database<Vec<u8>> {
    Database::new(data.to_vec())
}

/// `<pool>.db`. What is accepted obeys what the rest of suture relies on.
pub fn pool_db(data: &[u8]) {
    bounded(data.len(), || {
        let Ok(read) = PoolDb::read_from(&database(data), Path::new(NAME)) else {
            return;
        };
        assert!(read.devices.iter().all(|(name, record)| *name == record.name));
        assert!(read.device_ids.keys().all(|id| id.0 <= suture::model::ThinId::MAX.0));
    });
}

/// `metadata.db`, and all of any bbolt file.
pub fn snapshot_db(data: &[u8]) {
    bounded(data.len(), || {
        let read = SnapshotDb::read_from(&database(data), Path::new(NAME));
        let all = database(data).snapshot(dump_all);
        // What the whole walk refuses may be in a part that the other does not read; not the other way round.
        if let (Ok(read), Ok((tree, txid))) = (read, all) {
            assert_eq!(read.txid, Some(txid));
            assert!(tree.items.contains_key(b"v1".as_slice()) || read.snapshots.is_empty());
        }
    });
}

/// containerd's `meta.db`.
pub fn core_db(data: &[u8]) {
    bounded(data.len(), || {
        let _ = CoreDb::read_from(&database(data), Path::new(NAME));
    });
}
