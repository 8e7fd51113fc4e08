//! The readers of containerd's databases, on any bytes.

use std::path::Path;

use suture::{
    model::{CoreDb, PoolDb, SnapshotDb},
    observe::bbolt::Database,
};

use crate::{
    bbolt_file::{dump_all, fnv1a},
    bounds::bounded,
};

const NAME: &str = "input";

/// The bytes as a database. Behind a wrong checksum nothing would ever be reached, so those of both metas are made to fit,
/// unless the last byte is odd.
fn database(data: &[u8]) -> Database<Vec<u8>> {
    let mut bytes = data.to_vec();
    if bytes.last().is_some_and(|last| last % 2 == 0) {
        let page_size = bytes.get(24..28).map_or(0, |size| {
            size.iter()
                .rev()
                .fold(0, |all: usize, byte| (all << 8) | usize::from(*byte))
        });
        for page in [0, page_size] {
            let meta = page.checked_add(80).and_then(|end| bytes.get_mut(page + 16..end));
            if let Some(meta) = meta {
                let sum = fnv1a(&meta[..56]);
                meta[56..].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
    Database::new(bytes)
}

/// `<pool>.db`. What is accepted obeys what the rest of suture relies on.
pub fn pool_db(data: &[u8]) {
    bounded(data.len(), || {
        let Ok(read) = PoolDb::read_from(&database(data), Path::new(NAME)) else {
            return;
        };
        assert!(read.devices.iter().all(|(name, record)| *name == record.name));
        assert!(
            read.device_ids
                .keys()
                .all(|id| id.0 <= suture::model::ThinId::MAX.0)
        );
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
