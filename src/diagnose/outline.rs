//! Whether everything has what it should have, told from the numbers alone. What fits can be left out of a survey: none of its
//! diagnoses would be about it, but for dm devices, which are judged with the records and rows that they are of.

use std::collections::{BTreeMap, BTreeSet};

use super::survey;
use crate::model::{
    Bytes, DeviceRecord, DeviceState, Diagnoses, IdState, Knowledge, PoolDb, SnapshotDb, SnapshotId, Survey,
    ThinDetails, ThinId,
    databases::{Presence, SnapshotKind, SnapshotRow},
    outline::{Outline, PoolOutline, RecordOutline, RowsOutline},
};

/// Fewer records than these are judged whole as quickly.
const MANY: usize = 4096;

/// A glance at an outline: where it shows nothing at all, the survey of everything beside the databases; else nothing, and it is
/// to be looked at whole.
#[must_use]
pub fn glance(outline: &Outline, knowledge: &Knowledge) -> Option<Survey> {
    nothing_in(&outline.pool_db, &outline.rows, &outline.rest, knowledge)
}

/// Whether a survey shows nothing at all, told from its numbers where there are so many that this is much quicker. False where it
/// is to be judged whole.
pub(super) fn shows_nothing(survey: &Survey, knowledge: &Knowledge) -> bool {
    survey.pool_db.devices.len() >= MANY && is_seen_at_a_glance(survey, knowledge)
}

/// The same, however many there are.
pub(super) fn is_seen_at_a_glance(survey: &Survey, knowledge: &Knowledge) -> bool {
    // Each row has one record; only records in this state may be without a row. What does not add up needs no glance.
    let records = survey.pool_db.devices.values();
    let removed = records
        .filter(|record| record.state == DeviceState::Removed)
        .count();
    let (rows, records) = (survey.snapshots.snapshots.len(), survey.pool_db.devices.len());
    if rows > records || records.saturating_sub(removed) > rows {
        return false;
    }
    let pool_db = PoolOutline::of(&survey.pool_db, &survey.pool_name);
    let numbers = pool_db.zip(RowsOutline::of(&survey.snapshots));
    numbers.is_some_and(|(pool_db, rows)| nothing_in(&pool_db, &rows, survey, knowledge).is_some())
}

fn nothing_in(
    pool_db: &PoolOutline,
    rows: &RowsOutline,
    of: &Survey,
    knowledge: &Knowledge,
) -> Option<Survey> {
    let rest = rest(pool_db, rows, of)?;
    // Judged whole, however much it is: a glance at what is left of a glance would never end.
    (survey::judged(&rest, knowledge) == Diagnoses::default()).then_some(rest)
}

/// A survey of what is left to be judged where every record has its row, its thin device and its id, and nothing else has one;
/// nothing where something does not fit. Of the databases in the one that it is made of nothing is used.
///
/// It is good for one question: whether there is anything to find in it. Of a record it has the numbers and the state, of a row
/// its number.
fn rest(pool_db: &PoolOutline, rows: &RowsOutline, of: &Survey) -> Option<Survey> {
    if !fits(pool_db, rows, of) {
        return None;
    }
    let named = of.nodes.iter();
    let named: BTreeSet<SnapshotId> = named
        .filter_map(|node| of.pool_name.snapshot_of(node.name.as_str()))
        .collect();
    let mapped: BTreeSet<ThinId> = of.nodes.iter().flat_map(|node| node.thin_ids.clone()).collect();
    let is_wanted =
        |record: &&RecordOutline| named.contains(&record.snapshot) || mapped.contains(&record.thin_id);
    let wanted: Vec<RecordOutline> = pool_db.records.iter().filter(is_wanted).copied().collect();
    let ids: BTreeSet<ThinId> = wanted.iter().map(|record| record.thin_id).collect();
    let thin = ids
        .iter()
        .filter_map(|id| Some((*id, *of.thin.as_ref()?.get(id)?)));
    let thin = Some(thin.collect());
    let records = wanted.iter().map(|record| {
        let name = format!("{}-snap-{}", of.pool_name, record.snapshot);
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
    let found = PoolDb {
        devices: records.collect(),
        device_ids: ids.into_iter().map(|id| (id, IdState::Taken)).collect(),
        id_sequence: pool_db.id_sequence,
        txid: pool_db.txid,
    };
    let listed = wanted.iter().map(|record| {
        let row = SnapshotRow {
            id: record.snapshot,
            kind: SnapshotKind::Active,
            parent: None,
        };
        (record.snapshot.to_string(), row)
    });
    let listed = SnapshotDb {
        snapshots: listed.collect(),
        sequence: rows.sequence,
        txid: Some(rows.txid),
        presence: Presence::Complete,
        contradiction: None,
    };
    Some(Survey {
        begun: of.begun,
        pool_name: of.pool_name.clone(),
        pool: of.pool.clone(),
        usage: of.usage,
        pool_db: found.into(),
        snapshots: listed.into(),
        thin,
        mapping_roots: of.mapping_roots.clone(),
        nodes: of.nodes.clone(),
        core: of.core.clone(),
        mounts: of.mounts.clone(),
        containerd: of.containerd.clone(),
        async_remove: of.async_remove,
        unread: of.unread.clone(),
    })
}

fn fits(pool_db: &PoolOutline, rows: &RowsOutline, rest: &Survey) -> bool {
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
