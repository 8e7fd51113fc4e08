//! The outline of the pool database.

use std::path::Path;

use crate::{
    model::{
        IdState, PoolName, ThinId, TxId,
        outline::{PoolOutline, RecordOutline},
    },
    observe::{
        bbolt::{Bucket, Database, PageSource, Snapshot, Value},
        pool_db::{PoolDbError, buckets, decode_id, plain_record},
    },
};

/// Reads it; nothing where a record or an id is anything but plain. `path` is only for messages.
pub fn pool_outline<S: PageSource>(
    database: &Database<S>,
    pool: &PoolName,
    path: &Path,
) -> Result<Option<PoolOutline>, PoolDbError> {
    let (outline, txid) = database.snapshot(|snapshot| collect(snapshot, pool, path))?;
    Ok(outline.map(|outline| sorted(outline, txid)))
}

fn collect<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    pool: &PoolName,
    path: &Path,
) -> Result<Option<PoolOutline>, PoolDbError> {
    let Some([devices, device_ids]) = buckets(snapshot, path)? else {
        return Ok(None);
    };
    let mut outline = PoolOutline {
        id_sequence: device_ids.sequence(),
        ..PoolOutline::default()
    };
    let records = each(&devices, |key, value| {
        outline.records.push(record(pool, key, value)?);
        Some(())
    })?;
    let ids = each(&device_ids, |key, value| {
        let (id, state) = decode_id(key, value).ok()?;
        match state {
            IdState::Taken => outline.taken.push(id),
            IdState::Free if id != ThinId(0) => {}
            IdState::Free | IdState::Faulty | IdState::Other(_) => return None,
        }
        Some(())
    })?;
    Ok((records && ids).then_some(outline))
}

/// Takes each entry; false where one of them was not taken.
fn each<S: PageSource>(
    bucket: &Bucket<'_, S>,
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<bool, PoolDbError> {
    let mut all = true;
    bucket.for_each(|key, value| {
        all &= match value {
            Value::Bytes(bytes) => all && take(key, &bytes).is_some(),
            Value::Bucket(_) => false,
        };
        Ok::<_, PoolDbError>(())
    })?;
    Ok(all)
}

/// A record as containerd's encoder writes one, of a name of this pool's, and without an error.
fn record(pool: &PoolName, key: &[u8], value: &[u8]) -> Option<RecordOutline> {
    let record = plain_record(value)?;
    let plain = record.name.as_bytes() == key && record.error.is_empty() && record.device_id <= ThinId::MAX;
    Some(RecordOutline {
        snapshot: pool.snapshot_of(record.name).filter(|_| plain)?,
        thin_id: record.device_id,
        state: record.state,
    })
}

fn sorted(mut outline: PoolOutline, txid: TxId) -> PoolOutline {
    outline.records.sort_unstable();
    outline.taken.sort_unstable();
    PoolOutline { txid, ..outline }
}
