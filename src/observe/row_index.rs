//! The index `v1/parents` beside the rows of the snapshot storage: an entry for each snapshot that was made from another one,
//! with the numbers of both (containerd `core/snapshots/storage/bolt.go`, `parentKey`). containerd writes it in the
//! transaction that writes the row (`createSnapshot`, `CommitActive`, `Remove`), so the two say the same.
//!
//! Pages of bbolt carry no checksum: a byte that is wrong in a row is another number, and a good layer's record then looks
//! as if its snapshot were gone. The index is what tells.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, RandomState},
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
};

use super::{
    bbolt::{BboltError, PageSource, Snapshot, Value},
    snapshot_db::uvarint,
};
use crate::{
    model::{
        SnapshotId,
        databases::{SnapshotKind, SnapshotRow},
    },
    words::{counted, one_or, thousands},
};

/// `bucketKeyParents`, bolt.go, beside the rows.
const PARENTS: [&[u8]; 2] = [b"v1", b"parents"];

/// So many times as many numbers as rows, at most, are close together.
const CLOSE: usize = 8;

/// Numbers of a snapshot that was made from another one, as the index has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) parent: u64,
    pub(super) child: u64,
}

/// The whole index.
#[derive(Default)]
pub(super) struct RowIndex {
    /// By the hash of the child's key. Long texts with long beginnings in common are slow to hold against each other.
    pub(super) by_key: HashMap<u64, Link>,
    /// What no containerd writes there: the first of it.
    pub(super) odd: Option<String>,
}

impl RowIndex {
    pub(super) fn read<S: PageSource>(
        snapshot: &Snapshot<'_, S>,
        hasher: &RandomState,
    ) -> Result<Self, BboltError> {
        let mut index = Self::default();
        let Some(parents) = snapshot.bucket(&PARENTS)? else {
            return Ok(index);
        };
        parents.for_each(|entry, value| {
            let (Some((parent, child)), Value::Bytes(key)) = (both_numbers(entry), value) else {
                index.say(|| {
                    format!(
                        "its index has the entry `{}`, which is none",
                        entry.escape_ascii()
                    )
                });
                return Ok(());
            };
            let link = Link { parent, child };
            if let Some(other) = index.by_key.insert(hasher.hash_one(key.as_ref()), link) {
                index.say(|| {
                    format!(
                        "its index has snapshot `{}` twice, with the numbers {} and {child}",
                        key.escape_ascii(),
                        other.child
                    )
                });
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(index)
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.odd.is_none() {
            self.odd = Some(what());
        }
    }

    /// How the rows of the same transaction contradict it, or each other; nothing where they do not.
    pub(super) fn contradiction(
        &self,
        rows: &BTreeMap<String, SnapshotRow>,
        hasher: &RandomState,
    ) -> Option<String> {
        if self.fits(rows, hasher) {
            return None;
        }
        self.first_contradiction(rows, hasher)
    }

    /// Whether there is none, told quickly where numbers lie close together, as containerd gives them out. False also where that
    /// can not be told so.
    fn fits(&self, rows: &BTreeMap<String, SnapshotRow>, hasher: &RandomState) -> bool {
        let list: Vec<(&String, &SnapshotRow)> = rows.iter().collect();
        let largest = list.iter().map(|(_, row)| row.id.0).max().unwrap_or_default();
        let close = usize::try_from(largest)
            .ok()
            .filter(|largest| *largest < list.len().saturating_mul(CLOSE));
        let (None, Some(largest)) = (&self.odd, close) else {
            return false;
        };
        let mut by_number = vec![None; largest.saturating_add(1)];
        for row in &list {
            let place = usize::try_from(row.1.id.0).ok();
            match place.and_then(|place| by_number.get_mut(place)) {
                Some(free @ None) => *free = Some(*row),
                _ => return false,
            }
        }
        let fitting = |rows: &[(&String, &SnapshotRow)]| {
            let mut linked = 0_usize;
            for (key, row) in rows {
                let Some(parent) = &row.parent else { continue };
                let link = self.by_key.get(&hasher.hash_one(key.as_bytes()))?;
                let place = usize::try_from(link.parent).ok()?;
                let (name, of) = by_number.get(place).copied().flatten()?;
                let fits = link.child == row.id.0 && name == parent && may_be_parent(of);
                linked = linked.saturating_add(usize::from(fits));
                fits.then_some(())?;
            }
            Some(linked)
        };
        let (one, other) = list.split_at(list.len() / 2);
        let (one, other) = beside(|| fitting(one), || fitting(other));
        // As many rows with a parent as there are entries, each with one of its own: no other row has one.
        one.zip(other)
            .is_some_and(|(one, other)| one.saturating_add(other) == self.by_key.len())
    }

    fn first_contradiction(
        &self,
        rows: &BTreeMap<String, SnapshotRow>,
        hasher: &RandomState,
    ) -> Option<String> {
        if let Some(odd) = &self.odd {
            return Some(odd.clone());
        }
        let place = |key: &str| hasher.hash_one(key.as_bytes());
        let by_key: HashMap<_, _> = rows.iter().map(|(key, row)| (place(key), row)).collect();
        let linked = rows.values().filter(|row| row.parent.is_some()).count();
        let mut told = rows.iter().filter_map(|(key, row)| {
            let link = self.by_key.get(&place(key)).copied();
            let parent = row.parent.as_deref();
            let parent = parent.map(|parent| (parent, by_key.get(&place(parent)).copied()));
            let what = row_contradiction(row, parent, link)?;
            Some(format!(
                "snapshot `{}` has the number {}, {what}",
                key.escape_debug(),
                row.id
            ))
        });
        if let Some(first) = told.next() {
            let more = told.count();
            return Some(match more {
                0 => first,
                more => format!(
                    "{first}; {} more {} not fit either",
                    thousands(more),
                    one_or(more, "does", "do")
                ),
            });
        }
        // Each row with a parent has its entry, and no other row has one.
        let left = self.by_key.len().saturating_sub(linked);
        let nobodys = self.by_key.iter().filter(|(key, _)| !by_key.contains_key(key));
        let first = nobodys.map(|(_, link)| link.child).min()?;
        Some(format!(
            "its index has {} that {} not there, such as number {first}",
            counted(left, "snapshot"),
            one_or(left, "is", "are")
        ))
    }
}

/// How a row contradicts its entry, or its parent's row.
fn row_contradiction(
    row: &SnapshotRow,
    parent: Option<(&str, Option<&SnapshotRow>)>,
    link: Option<Link>,
) -> Option<String> {
    let (name, parent, link) = match (parent, link) {
        (None, None) => return None,
        (None, Some(link)) => {
            return Some(format!(
                "and says that it was made from none; the index has it as {}, made from {}",
                link.child, link.parent
            ));
        }
        (Some((name, _)), None) => {
            return Some(format!(
                "and was made from `{}`; the index does not have it",
                name.escape_debug()
            ));
        }
        (Some((name, parent)), Some(link)) => (name.escape_debug(), parent, link),
    };
    if SnapshotId(link.child) != row.id {
        return Some(format!("and the index has it as {}", link.child));
    }
    let Some(parent) = parent else {
        return Some(format!("and was made from `{name}`, which is not there"));
    };
    if SnapshotId(link.parent) != parent.id {
        return Some(format!(
            "and was made from `{name}`, which has the number {}; the index has it as made from {}",
            parent.id, link.parent
        ));
    }
    (!may_be_parent(parent)).then(|| format!("and was made from `{name}`, which was never committed"))
}

/// Nothing else is ever made from (`createSnapshot`). A kind that is not known is told elsewhere.
fn may_be_parent(row: &SnapshotRow) -> bool {
    !matches!(row.kind, SnapshotKind::Active | SnapshotKind::View)
}

/// Does the first in a thread of its own, such as to read the index, while the rows are read in this one. Where no thread can be
/// had, one after the other.
pub(super) fn beside<I: Send, R>(index: impl Fn() -> I + Sync, rows: impl FnOnce() -> R) -> (I, R) {
    thread::scope(|scope| {
        let named = thread::Builder::new().name("parents".to_owned());
        let started = named.spawn_scoped(scope, &index);
        let rows = rows();
        let index = match started.map(ScopedJoinHandle::join) {
            Ok(Ok(index)) => index,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => index(),
        };
        (index, rows)
    })
}

/// The numbers in a key of the index: parent and child, each as an unsigned varint, with a zero between.
pub(super) fn both_numbers(key: &[u8]) -> Option<(u64, u64)> {
    let (parent, rest) = first_uvarint(key)?;
    let (child, rest) = first_uvarint(rest.strip_prefix(&[0])?)?;
    rest.is_empty().then_some((parent, child))
}

fn first_uvarint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| *byte < 0x80)?;
    let (number, rest) = bytes.split_at_checked(end.checked_add(1)?)?;
    Some((uvarint(number)?, rest))
}
