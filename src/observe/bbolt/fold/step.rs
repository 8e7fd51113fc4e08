//! Reads the way from the remembered transaction to the newest one. Nothing remembered is changed before the read has
//! proved consistent.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::super::{
    BboltError, Bucket, PageSource, Snapshot, Value,
    page::{LeafElement, Meta, Node},
    walk::{Bounds, MAX_DEPTH, Origin, Tree},
};
use super::{
    Found, Shape, Tables,
    cache::{Leaf, Page, Row, State, Stored, Table},
};

/// What a look showed, to be believed when the file held still meanwhile.
#[derive(Debug)]
pub(super) enum Seen {
    /// The remembered transaction.
    Same,
    /// Not a continuation of the remembered one.
    Foreign,
    /// What was skipped and what was read do not fit together.
    Odd,
    Step(Step),
}

/// The way to another transaction.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) tables: Vec<(Vec<u8>, TableStep)>,
}

/// The way of one bucket.
#[derive(Debug)]
pub(super) enum TableStep {
    /// Nothing in it changed.
    Same,
    /// These pages came and went, all others stayed.
    Partly {
        root: u64,
        fresh: HashMap<u64, Page>,
        dropped: Vec<u64>,
    },
    /// All of it was read.
    Whole(Table),
}

/// Why a bucket was not read to its end.
enum Halt {
    Odd,
    Error(BboltError),
}

impl From<BboltError> for Halt {
    fn from(error: BboltError) -> Self {
        Self::Error(error)
    }
}

/// Looks at the newest transaction. `trust` allows to skip what one single commit can not have changed.
pub(super) fn see<S: PageSource, T: Tables>(
    snapshot: &Snapshot<'_, S>,
    tables: &T,
    state: Option<&State>,
    trust: bool,
) -> Result<Seen, T::Error> {
    let (meta, size) = (snapshot.meta, snapshot.size);
    let mut next = false;
    if let Some(before) = state {
        if meta == before.meta && size >= before.size {
            return Ok(Seen::Same);
        }
        let repeats = |one: &Meta| one.txid == before.meta.txid && *one != before.meta;
        if size < before.size
            || meta.txid <= before.meta.txid
            || meta.page_size != before.meta.page_size
            || snapshot.older.as_ref().is_some_and(repeats)
        {
            return Ok(Seen::Foreign);
        }
        // The remembered transaction must still be on the other meta page: a number alone proves no kinship.
        next = meta.txid - before.meta.txid == 1 && snapshot.older == Some(before.meta);
    }
    let trusted = trust && next;
    let mut steps = Vec::new();
    for found in tables.find(snapshot)? {
        let old = state.and_then(|state| state.table(&found.name));
        match table_step(&found, old, trusted) {
            Ok(step) => steps.push((found.name, step)),
            // An error may come from a wrong trust as well; without it, it is the file's.
            Err(_) if trusted => return Ok(Seen::Odd),
            Err(Halt::Odd) => return Ok(Seen::Odd),
            Err(Halt::Error(error)) => return Err(error.into()),
        }
    }
    if let Some(state) = state.filter(|_| trusted)
        && snapshot.loaded().iter().any(|page| state.owns(*page))
    {
        // A page that the remembered transaction uses can not be new in the next one.
        return Ok(Seen::Odd);
    }
    Ok(Seen::Step(Step {
        meta,
        size,
        tables: steps,
    }))
}

fn table_step<S: PageSource>(
    found: &Found<'_, S>,
    old: Option<&Table>,
    trusted: bool,
) -> Result<TableStep, Halt> {
    let old = old.filter(|old| old.shape == found.shape);
    let mut reader = Reader {
        bucket: &found.bucket,
        shape: found.shape,
        old,
        trusted,
        fresh: HashMap::new(),
        kept: HashSet::new(),
    };
    match &found.bucket.tree {
        Tree::Inline { page, leaf } => {
            let node = found.bucket.decode(leaf, *page)?;
            if matches!(node, Node::Branch(_)) {
                return Err(found.bucket.inline_branch(*page).into());
            }
            let leaf = reader.leaf(leaf, &node, *page, true)?;
            Ok(TableStep::Whole(Table::new(
                found.shape,
                Stored::Inline(Arc::new(leaf)),
            )))
        }
        Tree::Pages { root, origin } => {
            if trusted
                && old.is_some_and(
                    |old| matches!(&old.stored, Stored::Pages { root: before, .. } if before == root),
                )
            {
                return Ok(TableStep::Same);
            }
            reader.walk(*root, *origin, Bounds::default(), 0)?;
            let Reader { fresh, kept, .. } = reader;
            let Some(old) = old.filter(|_| trusted) else {
                let stored = Stored::Pages {
                    root: *root,
                    pages: fresh,
                };
                return Ok(TableStep::Whole(Table::new(found.shape, stored)));
            };
            if matches!(old.stored, Stored::Inline(_)) {
                let stored = Stored::Pages {
                    root: *root,
                    pages: fresh,
                };
                return Ok(TableStep::Whole(Table::new(found.shape, stored)));
            }
            let dropped = old.dropped(&kept);
            if dropped.kept != kept.len() {
                // A kept subtree lies inside of another one.
                return Err(Halt::Odd);
            }
            Ok(TableStep::Partly {
                root: *root,
                fresh,
                dropped: dropped.pages,
            })
        }
    }
}

/// Reads one bucket.
struct Reader<'b, 's, S> {
    bucket: &'b Bucket<'s, S>,
    shape: Shape,
    old: Option<&'b Table>,
    trusted: bool,
    fresh: HashMap<u64, Page>,
    kept: HashSet<u64>,
}

impl<S: PageSource> Reader<'_, '_, S> {
    fn walk(&mut self, page: u64, origin: Origin, bounds: Bounds<'_>, depth: u32) -> Result<(), Halt> {
        if depth >= MAX_DEPTH {
            return Err(self.bucket.too_deep(page).into());
        }
        if let Some(old) = self.old.filter(|_| self.trusted)
            && old.page(page).is_some()
        {
            let fits = old
                .edges(page)
                .is_none_or(|(first, last)| bounds.hold(first, last));
            return if fits && self.kept.insert(page) {
                Ok(())
            } else {
                Err(Halt::Odd)
            };
        }
        let bytes = self.bucket.snapshot.load(page, origin)?;
        let node = self.bucket.decode(&bytes, page)?;
        if let Some((first, last)) = node.edges()
            && !bounds.hold(first, last)
        {
            return Err(self.bucket.out_of_order(page, origin).into());
        }
        let Node::Branch(elements) = &node else {
            let leaf = self.leaf(&bytes, &node, page, false)?;
            // What is the same as before need not be there twice, nor be compared entry by entry.
            let before = self.old.and_then(|old| old.leaf(page));
            let leaf = match before {
                Some(before) if **before == leaf => Arc::clone(before),
                _ => Arc::new(leaf),
            };
            self.fresh.insert(page, Page::Leaf(leaf));
            return Ok(());
        };
        for (slot, element) in elements.iter().enumerate() {
            let below = elements.get(slot + 1).map_or(bounds.below, |next| Some(next.key));
            let inner = Bounds {
                from: Some(element.key),
                below,
            };
            self.walk(element.page, Origin { page, slot }, inner, depth + 1)?;
        }
        let children = elements.iter().map(|element| element.page).collect();
        self.fresh.insert(page, Page::Branch(children));
        Ok(())
    }

    /// What is to be remembered of a leaf page.
    fn leaf(&self, bytes: &[u8], node: &Node<'_>, page: u64, inline: bool) -> Result<Leaf, Halt> {
        let (Shape::Parts(parts), Node::Leaf(elements)) = (self.shape, node) else {
            return Ok(Leaf::of_values(bytes, node));
        };
        let rows = elements
            .iter()
            .enumerate()
            .map(|(slot, element)| self.row(element, Origin { page, slot }, inline, parts));
        Ok(Leaf::Rows(rows.collect::<Result<_, _>>()?))
    }

    fn row(
        &self,
        element: &LeafElement<'_>,
        origin: Origin,
        inline: bool,
        wanted: &[&str],
    ) -> Result<Row, Halt> {
        if !element.bucket {
            return Ok(Leaf::misfit(element.key));
        }
        let bucket = self
            .bucket
            .nested(&element.value.to_vec().into(), origin, inline)?;
        let root = match &bucket.tree {
            Tree::Inline { .. } => 0,
            Tree::Pages { root, .. } => *root,
        };
        if let Some(old) = self.old.filter(|_| self.trusted)
            && let Some(row) = old.rows.get(&root)
        {
            // A bucket that was changed begins on another page, and none moves to another key.
            return if row.key() == element.key {
                Ok(row.clone())
            } else {
                Err(Halt::Odd)
            };
        }
        let mut parts = vec![None; wanted.len()];
        let mut misfit = false;
        bucket.for_each(|name, value| {
            let slot = wanted.iter().position(|wanted| wanted.as_bytes() == name);
            if let Some(part) = slot.and_then(|slot| parts.get_mut(slot)) {
                match value {
                    Value::Bytes(bytes) => *part = Some(bytes.into_owned()),
                    Value::Bucket(_) => misfit = true,
                }
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(if misfit {
            Row::pack(root, element.key, &[])
        } else {
            Row::pack(root, element.key, &parts)
        })
    }
}

impl Step {
    /// What is remembered after this step.
    pub(super) fn apply(self, before: Option<State>) -> State {
        let mut old: HashMap<_, _> = before.into_iter().flat_map(|state| state.tables).collect();
        let mut tables = Vec::new();
        for (name, step) in self.tables {
            let before = old.remove(&name);
            let table = match (step, before) {
                (TableStep::Whole(table), _) => Some(table),
                (TableStep::Same, before) => before,
                (TableStep::Partly { root, fresh, dropped }, Some(table)) => {
                    Some(table.moved_on(root, fresh, &dropped))
                }
                // A step is only partly where there was a table.
                (TableStep::Partly { .. }, None) => None,
            };
            tables.extend(table.map(|table| (name, table)));
        }
        State {
            meta: self.meta,
            size: self.size,
            tables,
        }
    }
}

impl Table {
    fn moved_on(mut self, root: u64, fresh: HashMap<u64, Page>, dropped: &[u64]) -> Self {
        for page in dropped {
            if let Some(leaf) = self.leaf(*page).cloned() {
                self.forget_rows(&leaf);
            }
            if let Stored::Pages { pages, .. } = &mut self.stored {
                pages.remove(page);
            }
        }
        for page in fresh.values() {
            if let Page::Leaf(leaf) = page {
                self.note_rows(leaf);
            }
        }
        if let Stored::Pages { root: at, pages } = &mut self.stored {
            *at = root;
            pages.extend(fresh);
        }
        self
    }
}
