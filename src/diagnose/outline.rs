//! Whether everything has what it should have, told from the numbers alone. What fits can be left out of a survey: none of its
//! diagnoses would be about it, but for dm devices, which are judged with the records and rows that they are of.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Bytes, DeviceRecord, DeviceState, IdState, PoolDb, SnapshotDb, SnapshotId, Survey, ThinDetails, ThinId,
    databases::{Presence, SnapshotKind, SnapshotRow},
    outline::{Outline, RecordOutline},
};

/// A survey of what is left to be judged where every record has its row, its thin device and its id, and nothing else has one;
/// nothing where something does not fit.
///
/// The survey is good for one question: whether there is anything to find in it. Of a record it has the numbers and the state,
/// of a row its number.
#[must_use]
pub fn rest_of(outline: Outline) -> Option<Survey> {
    if !fits(&outline) {
        return None;
    }
    let Outline {
        pool_db,
        rows,
        mut rest,
    } = outline;
    let named = rest.nodes.iter();
    let named: BTreeSet<SnapshotId> = named
        .filter_map(|node| rest.pool_name.snapshot_of(node.name.as_str()))
        .collect();
    let mapped: BTreeSet<ThinId> = rest.nodes.iter().flat_map(|node| node.thin_ids.clone()).collect();
    let is_wanted =
        |record: &&RecordOutline| named.contains(&record.snapshot) || mapped.contains(&record.thin_id);
    let wanted: Vec<RecordOutline> = pool_db.records.iter().filter(is_wanted).copied().collect();
    let ids: BTreeSet<ThinId> = wanted.iter().map(|record| record.thin_id).collect();
    let thin = rest.thin.iter().flatten();
    let thin = thin.filter(|(id, _)| ids.contains(id));
    rest.thin = Some(thin.map(|(id, details)| (*id, *details)).collect());
    let records = wanted.iter().map(|record| {
        let name = format!("{}-snap-{}", rest.pool_name, record.snapshot);
        let of_name = DeviceRecord {
            device_id: record.thin_id,
            size: Bytes(0),
            name: name.clone(),
            parent_name: String::new(),
            state: record.state,
            error: String::new(),
        };
        (name, of_name)
    });
    rest.pool_db = PoolDb {
        devices: records.collect(),
        device_ids: ids.into_iter().map(|id| (id, IdState::Taken)).collect(),
        id_sequence: pool_db.id_sequence,
        txid: pool_db.txid,
    }
    .into();
    let found = wanted.iter().map(|record| {
        let row = SnapshotRow {
            id: record.snapshot,
            kind: SnapshotKind::Active,
            parent: None,
        };
        (record.snapshot.to_string(), row)
    });
    rest.snapshots = SnapshotDb {
        snapshots: found.collect(),
        sequence: rows.sequence,
        txid: Some(rows.txid),
        presence: Presence::Complete,
        contradiction: None,
    }
    .into();
    Some(rest)
}

fn fits(outline: &Outline) -> bool {
    let Outline { pool_db, rows, rest } = outline;
    let records = &pool_db.records;
    // With async_remove these wait for containerd's own clean-up, their snapshots gone and their devices there or not.
    let waits = |record: &RecordOutline| {
        record.state == DeviceState::Removed
            && rest.async_remove != Some(false)
            && record.snapshot.0 <= rows.sequence
    };
    let at_rest = |record: &RecordOutline| {
        matches!(
            record.state,
            DeviceState::Activated | DeviceState::Resumed | DeviceState::Deactivated
        )
    };
    let numbers = records.iter().filter(|record| !waits(record));
    let mut carried: Vec<(ThinId, bool)> = records
        .iter()
        .map(|record| (record.thin_id, at_rest(record)))
        .collect();
    carried.sort_unstable();
    records.iter().all(|record| at_rest(record) || waits(record))
        && numbers
            .map(|record| record.snapshot)
            .eq(rows.rows.iter().copied())
        && rows.rows.last().is_none_or(|last| last.0 <= rows.sequence)
        && carried
            .iter()
            .map(|(id, _)| *id)
            .eq(pool_db.taken.iter().copied())
        && carried.first().is_none_or(|(id, _)| *id != ThinId(0))
        && rest.thin.as_ref().is_some_and(|thin| all_there(&carried, thin))
}

/// Whether the pool has each thin device that it must have, and none that no record carries. Both are ascending.
fn all_there(carried: &[(ThinId, bool)], thin: &BTreeMap<ThinId, ThinDetails>) -> bool {
    let mut thin = thin.keys().peekable();
    carried
        .iter()
        .all(|(id, must)| thin.next_if(|there| *there == id).is_some() || !must)
        && thin.next().is_none()
}
