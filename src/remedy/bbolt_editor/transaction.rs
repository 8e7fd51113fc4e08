//! One transaction in the making: trees changed copy-on-write, from the leaves up. Nothing is written here.
//!
//! A page that changes is given up and its entries go to new pages; the pages above it, which have to point there,
//! change with it. All else stays where it is. No page of the transaction before is taken for a new one.

use std::collections::BTreeMap;

use super::edit::{BucketChanges, Change, path};
use super::error::EditError;
use super::examine::Examined;
use super::free::{self, FreePages, Run};
use super::node::{BranchEntry, Entries, Entry, LeafEntry, cut, encode, size};
use crate::observe::bbolt::page::{BUCKET, BranchElement, LeafElement, Meta, NO_FREELIST, Node};
use crate::observe::bbolt::walk::{MAX_DEPTH, Origin};
use crate::observe::bbolt::{PageSource, Snapshot};

/// The changes of one bucket that fall into one subtree, in the order of keys.
type Changes<'c, 'e> = &'c [(&'e [u8], &'c Change<'e>)];

/// A transaction of which nothing is written yet: what is to be written, and how the file is used after it.
#[derive(Debug)]
pub struct Prepared {
    /// Of the transaction that it was made on: it fits no other.
    pub(super) before: Meta,
    pub(super) meta: Meta,
    /// Runs of whole pages by the number of the first.
    pub(super) pages: BTreeMap<u64, Vec<u8>>,
    /// What [`super::examine::examine`] will find.
    pub(super) after: Examined,
}

/// A child of a branch page, in the making.
enum Child {
    /// As it was.
    Same(BranchEntry, usize),
    /// New entries, not on a page yet.
    New(Entries),
}

/// A transaction in the making.
pub(super) struct Transaction<'t, S> {
    snapshot: &'t Snapshot<'t, S>,
    page_size: usize,
    /// Pages that nobody uses.
    free: FreePages,
    high_water: u64,
    /// Pages of the transaction before that this one does not need.
    given_up: Vec<Run>,
    written: BTreeMap<u64, Vec<u8>>,
}

impl<'t, S: PageSource> Transaction<'t, S> {
    /// Makes the transaction after `snapshot`'s. None when `changes` change nothing.
    pub(super) fn prepare(
        snapshot: &'t Snapshot<'t, S>,
        before: &Examined,
        changes: &BucketChanges<'_>,
    ) -> Result<Option<Prepared>, EditError> {
        let meta = snapshot.meta;
        let page_size = usize::try_from(meta.page_size).unwrap_or(usize::MAX);
        let mut transaction = Self {
            snapshot,
            page_size,
            free: before.free.clone(),
            high_water: meta.high_water,
            given_up: Vec::new(),
            written: BTreeMap::new(),
        };
        let origin = Origin { page: 0, slot: 0 };
        let Some(root) = transaction.tree(&mut Vec::new(), meta.root, origin, changes)? else {
            return Ok(None);
        };
        let freelist = match before.freelist {
            Some(run) => Some(transaction.write_freelist(run)?),
            None => None,
        };
        transaction.release();
        let txid = meta.txid.checked_add(1).ok_or_else(|| transaction.too_large())?;
        Ok(Some(Prepared {
            before: meta,
            meta: Meta {
                root,
                freelist: freelist.map_or(NO_FREELIST, |run| run.start),
                high_water: transaction.high_water,
                txid,
                ..meta
            },
            pages: transaction.written,
            after: Examined {
                free: transaction.free,
                freelist,
            },
        }))
    }

    /// Changes the tree of one bucket, and gives its new root page; none when nothing changed.
    fn tree(
        &mut self,
        names: &mut Vec<Vec<u8>>,
        root: u64,
        origin: Origin,
        changes: &BucketChanges<'_>,
    ) -> Result<Option<u64>, EditError> {
        let changes: Vec<_> = changes.keys.iter().map(|(key, change)| (*key, change)).collect();
        match self.node(names, root, origin, 0, &changes)? {
            Some(entries) => self.root(entries).map(Some),
            None => Ok(None),
        }
    }

    /// Puts the entries of a root on pages, with as many branch pages above as it takes.
    fn root(&mut self, mut entries: Entries) -> Result<u64, EditError> {
        loop {
            if entries.is_empty() {
                entries = Entries::Leaf(Vec::new());
            }
            let level = match entries {
                // A root with a single child is not needed.
                Entries::Branch(level) if level.len() == 1 => level,
                other => self.write(other)?,
            };
            if let [only] = level.as_slice() {
                return Ok(only.page);
            }
            entries = Entries::Branch(level);
        }
    }

    /// The new entries of a page; none when they are what they were.
    fn node(
        &mut self,
        names: &mut Vec<Vec<u8>>,
        page: u64,
        origin: Origin,
        depth: u32,
        changes: Changes<'_, '_>,
    ) -> Result<Option<Entries>, EditError> {
        if changes.is_empty() {
            return Ok(None);
        }
        if depth >= MAX_DEPTH {
            return Err(self
                .snapshot
                .damaged(page, "a page of a bucket", "lies too deep")
                .into());
        }
        let bytes = self.snapshot.load(page, origin)?;
        let new = match self.decode(&bytes, page)? {
            Node::Leaf(elements) => self.leaf(names, page, &elements, changes)?.map(Entries::Leaf),
            Node::Branch(elements) => self.branch(names, page, depth, &elements, changes)?,
        };
        if new.is_some() {
            self.give_up(page, bytes.len());
        }
        Ok(new)
    }

    fn branch(
        &mut self,
        names: &mut Vec<Vec<u8>>,
        page: u64,
        depth: u32,
        elements: &[BranchElement<'_>],
        mut changes: Changes<'_, '_>,
    ) -> Result<Option<Entries>, EditError> {
        let mut children = Vec::with_capacity(elements.len());
        let mut differs = false;
        for (slot, element) in elements.iter().enumerate() {
            // As bbolt's cursor: a key that is below all others belongs to the first child.
            let own = elements.get(slot + 1).map_or(changes.len(), |next| {
                changes.partition_point(|(key, _)| *key < next.key)
            });
            let (inside, after) = changes.split_at_checked(own).unwrap_or((changes, &[]));
            changes = after;
            let new = self.node(names, element.page, Origin { page, slot }, depth + 1, inside)?;
            differs |= new.is_some();
            children.push(new.map_or_else(
                || {
                    let same = BranchEntry {
                        key: element.key.to_vec(),
                        page: element.page,
                    };
                    Child::Same(same, slot)
                },
                Child::New,
            ));
        }
        if !differs {
            return Ok(None);
        }
        self.children(page, children)
            .map(|entries| Some(Entries::Branch(entries)))
    }

    /// Writes the new children of a branch page. One that has become small is joined with a neighbour, as bbolt does
    /// (`node.go`, `rebalance`); one without entries goes.
    fn children(&mut self, page: u64, children: Vec<Child>) -> Result<Vec<BranchEntry>, EditError> {
        let mut joined: Vec<Child> = Vec::with_capacity(children.len());
        for child in children {
            if matches!(&child, Child::New(new) if new.is_empty()) {
                continue;
            }
            match joined.pop() {
                Some(last) if self.is_small(&last) || self.is_small(&child) => {
                    let mut last = self.entries(page, last)?;
                    let other_kind = last.join(self.entries(page, child)?).err();
                    joined.push(Child::New(last));
                    joined.extend(other_kind.map(Child::New));
                }
                last => {
                    joined.extend(last);
                    joined.push(child);
                }
            }
        }
        let mut entries = Vec::with_capacity(joined.len());
        for child in joined {
            match child {
                Child::Same(same, _) => entries.push(same),
                Child::New(new) => entries.extend(self.write(new)?),
            }
        }
        Ok(entries)
    }

    fn is_small(&self, child: &Child) -> bool {
        matches!(child, Child::New(entries) if entries.size() < self.page_size / 4)
    }

    /// The entries of a child of `page`. One that did not change is given up for that.
    fn entries(&mut self, page: u64, child: Child) -> Result<Entries, EditError> {
        let (same, slot) = match child {
            Child::New(entries) => return Ok(entries),
            Child::Same(same, slot) => (same, slot),
        };
        let bytes = self.snapshot.load(same.page, Origin { page, slot })?;
        let entries = Entries::of(&self.decode(&bytes, same.page)?);
        self.give_up(same.page, bytes.len());
        Ok(entries)
    }

    /// The new entries of a leaf; none when they are what they were.
    fn leaf(
        &mut self,
        names: &mut Vec<Vec<u8>>,
        page: u64,
        elements: &[LeafElement<'_>],
        changes: Changes<'_, '_>,
    ) -> Result<Option<Vec<LeafEntry>>, EditError> {
        let mut entries = Vec::with_capacity(elements.len() + changes.len());
        let mut differs = false;
        let mut left = elements;
        for (key, change) in changes {
            let below = left.partition_point(|element| element.key < *key);
            let (before, after) = left.split_at_checked(below).unwrap_or((left, &[]));
            entries.extend(before.iter().map(LeafEntry::from));
            let origin = Origin {
                page,
                slot: elements.len() - after.len(),
            };
            let present = after.first().filter(|element| element.key == *key);
            left = after.get(usize::from(present.is_some())..).unwrap_or_default();
            let new = self.entry(names, origin, key, change, present)?;
            differs |= new != present.map(LeafEntry::from);
            entries.extend(new);
        }
        entries.extend(left.iter().map(LeafEntry::from));
        Ok(differs.then_some(entries))
    }

    /// What becomes of one key.
    fn entry(
        &mut self,
        names: &mut Vec<Vec<u8>>,
        origin: Origin,
        key: &[u8],
        change: &Change<'_>,
        present: Option<&LeafElement<'_>>,
    ) -> Result<Option<LeafEntry>, EditError> {
        let bucket = present.filter(|element| element.bucket);
        let entry = |value, bucket| LeafEntry {
            key: key.to_vec(),
            value,
            bucket,
        };
        match (change, bucket) {
            (Change::Put(_) | Change::Delete, Some(_)) => {
                Err(self.refuse(names, key, "it is a bucket, not a value"))
            }
            (Change::Put(value), None) => Ok(Some(entry(value.to_vec(), false))),
            (Change::Delete, None) => Ok(None),
            (Change::Inside(_), None) => Err(self.refuse(names, key, "there is no such bucket")),
            (Change::Inside(changes), Some(bucket)) => {
                names.push(key.to_vec());
                let value = self.bucket(names, origin, bucket.value, changes)?;
                names.pop();
                Ok(Some(entry(value, true)))
            }
        }
    }

    /// The new value of an entry that is a bucket: root and sequence, and an inline bucket's page.
    fn bucket(
        &mut self,
        names: &mut Vec<Vec<u8>>,
        origin: Origin,
        value: &[u8],
        changes: &BucketChanges<'_>,
    ) -> Result<Vec<u8>, EditError> {
        let damaged = |problem: &str| {
            EditError::from(
                self.snapshot
                    .damaged(origin.page, "the header of a nested bucket", problem),
            )
        };
        let (header, leaf) = value
            .split_at_checked(BUCKET)
            .ok_or_else(|| damaged("shorter than 16 bytes"))?;
        let (root, rest) = header
            .split_first_chunk()
            .ok_or_else(|| damaged("shorter than 16 bytes"))?;
        let old_sequence = rest
            .first_chunk()
            .ok_or_else(|| damaged("shorter than 16 bytes"))?;
        let sequence = changes.sequence.map_or(*old_sequence, u64::to_le_bytes);
        let old_root = u64::from_le_bytes(*root);
        if old_root != 0 {
            let root = self.tree(names, old_root, origin, changes)?.unwrap_or(old_root);
            return Ok([&root.to_le_bytes()[..], &sequence, leaf].concat());
        }
        let Node::Leaf(elements) = self.decode(leaf, origin.page)? else {
            return Err(damaged("a branch page inside an inline bucket"));
        };
        let changes: Vec<_> = changes.keys.iter().map(|(key, change)| (*key, change)).collect();
        let Some(entries) = self.leaf(names, origin.page, &elements, &changes)? else {
            return Ok([root, &sequence[..], leaf].concat());
        };
        // bbolt's `inlineable`; there are no buckets in it, for there were none.
        if size(&entries) <= self.page_size / 4 {
            let page = encode(&entries, 0, 0).ok_or_else(|| self.too_large())?;
            return Ok([root, &sequence[..], &page].concat());
        }
        let root = self.root(Entries::Leaf(entries))?;
        Ok([root.to_le_bytes(), sequence].concat())
    }

    /// Puts entries on new pages, and says where.
    fn write(&mut self, entries: Entries) -> Result<Vec<BranchEntry>, EditError> {
        match entries {
            Entries::Leaf(entries) => self.write_all(entries),
            Entries::Branch(entries) => self.write_all(entries),
        }
    }

    fn write_all<E: Entry>(&mut self, entries: Vec<E>) -> Result<Vec<BranchEntry>, EditError> {
        let mut places = Vec::new();
        for entries in cut(entries, self.page_size) {
            let run = self.allocate(size(&entries))?;
            let overflow = self.overflow(run)?;
            let bytes = encode(&entries, run.start, overflow).ok_or_else(|| self.too_large())?;
            self.put(run, bytes);
            places.push(BranchEntry {
                key: entries
                    .first()
                    .map(|entry| entry.key().to_vec())
                    .unwrap_or_default(),
                page: run.start,
            });
        }
        Ok(places)
    }

    /// Writes the list of what will be free: now, the pages given up, and those of the list before.
    fn write_freelist(&mut self, before: Run) -> Result<Run, EditError> {
        self.given_up.push(before);
        let given_up: u64 = self.given_up.iter().map(|run| run.pages).sum();
        // The list's own pages may come out of the free ones; then it is shorter than its place.
        let bytes = free::size(self.free.count() + given_up).ok_or_else(|| self.too_large())?;
        let run = self.allocate(bytes)?;
        self.release();
        let mut list = free::encode(&self.free, run.start, self.overflow(run)?);
        // To the end of its place, as bbolt does: what was there before would look like numbers left out.
        list.resize(list.len().max(bytes), 0);
        self.put(run, list);
        Ok(run)
    }

    /// From here on nothing is allocated any more.
    fn release(&mut self) {
        for run in self.given_up.drain(..) {
            self.free.add(run);
        }
    }

    /// Pages for so many bytes, that no transaction before uses.
    fn allocate(&mut self, bytes: usize) -> Result<Run, EditError> {
        let pages = bytes.div_ceil(self.page_size);
        let pages = u64::try_from(pages).map_err(|_| self.too_large())?;
        if let Some(start) = self.free.take(pages) {
            return Ok(Run { start, pages });
        }
        let start = self.high_water;
        self.high_water = start.checked_add(pages).ok_or_else(|| self.too_large())?;
        Ok(Run { start, pages })
    }

    fn overflow(&self, run: Run) -> Result<u32, EditError> {
        u32::try_from(run.pages.saturating_sub(1)).map_err(|_| self.too_large())
    }

    fn put(&mut self, run: Run, mut bytes: Vec<u8>) {
        bytes.resize(bytes.len().next_multiple_of(self.page_size), 0);
        self.written.insert(run.start, bytes);
    }

    fn give_up(&mut self, page: u64, bytes: usize) {
        let pages = u64::try_from(bytes / self.page_size).unwrap_or(u64::MAX);
        self.given_up.push(Run { start: page, pages });
    }

    fn decode<'p>(&self, bytes: &'p [u8], page: u64) -> Result<Node<'p>, EditError> {
        Node::decode(bytes).map_err(|problem| {
            self.snapshot
                .damaged(page, "the entries of a bucket", problem)
                .into()
        })
    }

    fn refuse(&self, names: &[Vec<u8>], key: &[u8], problem: &'static str) -> EditError {
        let whole = names.iter().map(Vec::as_slice).chain([key]);
        EditError::Refused {
            file: self.snapshot.name(),
            edit: format!("an edit at `{}`", path(whole)),
            problem,
        }
    }

    fn too_large(&self) -> EditError {
        EditError::Refused {
            file: self.snapshot.name(),
            edit: "this transaction".to_owned(),
            problem: "a number in it is larger than the file format has room for",
        }
    }
}
