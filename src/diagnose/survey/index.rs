//! A survey by the keys that its families ask for, built once: 100,000 devices are asked about in logarithmic time.

use std::{
    borrow::Borrow,
    cell::{Cell, OnceCell},
};

use crate::model::{DeviceRecord, IdState, Node, SnapshotId, Survey, ThinId, databases::SnapshotRow};

/// Pairs in the order of their keys; a key may come more than once.
pub(super) struct Sorted<K, V> {
    pairs: Vec<(K, V)>,
    /// Where the last key was found. Families ask in ascending order, so the next is mostly near.
    near: Cell<usize>,
}

/// Pairs that are looked at from there before the whole is searched.
const NEAR: usize = 4;

impl<K: Ord, V> Sorted<K, V> {
    pub(super) fn new(pairs: impl Iterator<Item = (K, V)>) -> Self {
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        Self {
            pairs,
            near: Cell::new(0),
        }
    }

    /// Where the pairs of a key begin, or would.
    fn begin<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let near = self.near.get();
        let is_less = |(known, _): &(K, V)| known.borrow() < key;
        let is_past = near
            .checked_sub(1)
            .and_then(|before| self.pairs.get(before))
            .is_none_or(is_less);
        let ahead = self.pairs.get(near..).unwrap_or_default();
        let found = ahead.iter().take(NEAR).position(|pair| !is_less(pair));
        let begin = match found {
            Some(steps) if is_past => near + steps,
            _ => self.pairs.partition_point(is_less),
        };
        self.near.set(begin);
        begin
    }

    /// All pairs of a key.
    pub(super) fn of<Q: Ord + ?Sized>(&self, key: &Q) -> &[(K, V)]
    where
        K: Borrow<Q>,
    {
        let rest = self.pairs.get(self.begin(key)..).unwrap_or_default();
        // Runs of equal keys are short, so a look at the next is cheaper than a second search.
        let length = rest.iter().take_while(|(known, _)| known.borrow() == key).count();
        rest.get(..length).unwrap_or_default()
    }

    pub(super) fn has<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        !self.of(key).is_empty()
    }

    /// All pairs, in the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.pairs.iter()
    }

    /// Keys that come more than once, each once.
    pub(super) fn repeated(&self) -> impl Iterator<Item = &K> {
        let twice = self.pairs.windows(2).filter_map(|pair| match pair {
            [(one, _), (other, _)] if one == other => Some(one),
            _ => None,
        });
        let mut last = None;
        twice.filter(move |key| last.replace(*key) != Some(*key))
    }
}

/// A row with its backend key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) key: &'a str,
    pub(super) row: &'a SnapshotRow,
}

/// The survey by its keys.
pub(super) struct Index<'a> {
    /// Records by the thin id that they carry.
    pub(super) carriers: Sorted<ThinId, &'a DeviceRecord>,
    /// Records by the snapshot that their name says. A number has one name only.
    pub(super) records: Sorted<SnapshotId, &'a DeviceRecord>,
    /// Records whose names are not of this pool.
    pub(super) strangers: Vec<&'a DeviceRecord>,
    /// Rows by their number.
    pub(super) rows: Sorted<SnapshotId, Row<'a>>,
    /// Backend keys that rows name as their parents. Long texts with long beginnings in common are slow to sort, and few
    /// families ask.
    parents: OnceCell<Sorted<&'a str, ()>>,
    /// Records whose snapshot is there, by the name of the record that theirs was made from. Only what looks left over asks.
    made_from: OnceCell<Sorted<&'a str, &'a DeviceRecord>>,
    /// Thin devices in the pool's metadata; nothing where those could not be read.
    thin: Option<Sorted<ThinId, ()>>,
    /// States of thin ids.
    ids: Sorted<ThinId, IdState>,
    /// dm devices by name.
    pub(super) nodes: Sorted<&'a str, &'a Node>,
    /// dm devices by the thin ids that their tables map.
    pub(super) holders: Sorted<ThinId, &'a Node>,
    /// dm devices whose tables could not be read: each may map any thin id.
    pub(super) unreadable: Vec<&'a Node>,
}

impl<'a> Index<'a> {
    pub(super) fn new(survey: &'a Survey) -> Self {
        let records = || survey.pool_db.devices.values();
        let rows = || survey.snapshots.snapshots.iter();
        let mut strangers = Vec::new();
        let mut named = |record: &'a DeviceRecord| {
            let snapshot = survey.snapshot_of(record);
            if snapshot.is_none() {
                strangers.push(record);
            }
            Some((snapshot?, record))
        };
        let by_snapshot = Sorted::new(records().filter_map(&mut named));
        Self {
            carriers: Sorted::new(records().map(|record| (record.device_id, record))),
            records: by_snapshot,
            strangers,
            rows: Sorted::new(rows().map(|(key, row)| (row.id, Row { key, row }))),
            parents: OnceCell::new(),
            made_from: OnceCell::new(),
            thin: survey
                .thin
                .as_ref()
                .map(|thin| Sorted::new(thin.keys().map(|id| (*id, ())))),
            ids: Sorted::new(survey.pool_db.device_ids.iter().map(|(id, state)| (*id, *state))),
            nodes: Sorted::new(survey.nodes.iter().map(|node| (node.name.as_str(), node))),
            holders: Sorted::new(
                survey
                    .nodes
                    .iter()
                    .flat_map(|node| node.thin_ids.iter().map(move |id| (*id, node))),
            ),
            unreadable: survey.nodes.iter().filter(|node| node.unreadable).collect(),
        }
    }

    /// Whether a row names this backend key as its parent.
    pub(super) fn is_parent(&self, key: &str) -> bool {
        let parent = |(_, row): &(SnapshotId, Row<'a>)| Some((row.row.parent.as_deref()?, ()));
        let parents = self
            .parents
            .get_or_init(|| Sorted::new(self.rows.iter().filter_map(parent)));
        parents.has(key)
    }

    /// A record whose snapshot is there, and whose device was made from the device of the record of this name.
    pub(super) fn made_from(&self, name: &str) -> Option<&'a DeviceRecord> {
        let made_from = self.made_from.get_or_init(|| {
            let listed = self
                .records
                .iter()
                .filter(|(id, record)| !record.parent_name.is_empty() && self.rows.has(id));
            Sorted::new(listed.map(|(_, record)| (record.parent_name.as_str(), *record)))
        });
        made_from.of(name).first().map(|(_, record)| *record)
    }

    /// What [`Survey::has_thin`] says, quicker where many are asked for in order.
    pub(super) fn has_thin(&self, id: ThinId) -> Option<bool> {
        self.thin.as_ref().map(|thin| thin.has(&id))
    }

    /// What [`Survey::id_state`] says, quicker where many are asked for in order.
    pub(super) fn id_state(&self, id: ThinId) -> Option<IdState> {
        self.ids.of(&id).first().map(|(_, state)| *state)
    }

    /// The record of a snapshot's name.
    pub(super) fn record(&self, id: SnapshotId) -> Option<&'a DeviceRecord> {
        self.records.of(&id).first().map(|(_, record)| *record)
    }

    /// dm devices of a name. The kernel knows a name once; what is read while it changes may hold it twice.
    pub(super) fn nodes_of(&self, name: &str) -> impl Iterator<Item = &'a Node> + use<'_, 'a> {
        self.nodes.of(name).iter().map(|(_, node)| *node)
    }

    /// dm devices that map a thin id, or may do so.
    pub(super) fn holders_of(&self, id: ThinId) -> impl Iterator<Item = &'a Node> {
        let readable = self.holders.of(&id).iter().map(|(_, node)| *node);
        readable
            .filter(|node| !node.unreadable)
            .chain(self.unreadable.iter().copied())
    }

    /// Whether more than one record carries a thin id.
    pub(super) fn is_shared(&self, id: ThinId) -> bool {
        self.carriers.of(&id).len() > 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_order_is_asked_in_all_pairs_of_a_key_are_found(
            keys in prop::collection::vec(0..40_u32, 0..60),
            asked in prop::collection::vec(0..42_u32, 0..60)
        ) {
            let sorted = Sorted::new(keys.iter().map(|key| (*key, ())));
            for key in asked.iter().copied().chain(0..42).chain((0..42).rev()) {
                prop_assert_eq!(sorted.of(&key).len(), keys.iter().filter(|known| **known == key).count());
                prop_assert!(sorted.of(&key).iter().all(|(known, ())| *known == key));
            }
        }
    }
}
