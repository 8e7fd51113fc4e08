//! What is remembered of a transaction: the pages of the followed buckets, by number.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::super::super::little_endian::{u32_at, u64_at};
use super::super::page::{Meta, Node, leaf_edges};
use super::{Entry, Shape};

/// The length that stands for "not there".
const ABSENT: u32 = u32::MAX;
/// Where the parts of a packed row begin.
const PARTS: usize = 8;

/// An entry that is a bucket: the page where it begins (0 when it lies inside its parent's page), its key, and the
/// values that are wanted of it, packed into one allocation. There may be a hundred thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(Arc<[u8]>);

impl Row {
    pub(super) fn pack(root: u64, key: &[u8], parts: &[Option<Vec<u8>>]) -> Self {
        let mut packed = root.to_le_bytes().to_vec();
        let all = std::iter::once(Some(key)).chain(parts.iter().map(Option::as_deref));
        for part in all {
            // An entry lies within one page run, whose size in bytes is itself checked; it is far below 4 GiB.
            let length = part.map_or(ABSENT, |bytes| u32::try_from(bytes.len()).unwrap_or(ABSENT));
            packed.extend(length.to_le_bytes());
            packed.extend(part.unwrap_or_default());
        }
        Self(packed.into())
    }

    /// An entry that is no bucket.
    fn misfit(key: &[u8]) -> Self {
        Self::pack(0, key, &[])
    }

    pub(super) fn root(&self) -> u64 {
        u64_at(&self.0, 0).unwrap_or_default()
    }

    pub(super) fn key(&self) -> &[u8] {
        self.fields().next().flatten().unwrap_or_default()
    }

    fn fields(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut at = PARTS;
        std::iter::from_fn(move || {
            let length = u32_at(&self.0, at)?;
            at += 4;
            if length == ABSENT {
                return Some(None);
            }
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            let field = self.0.get(at..end)?;
            at = end;
            Some(Some(field))
        })
    }
}

/// The entries of a leaf page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// The page itself, as far as it is used.
    Values(Box<[u8]>),
    /// The wanted parts of each bucket.
    Rows(Box<[Row]>),
}

/// An entry of a remembered leaf.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'e> {
    Value(&'e [u8]),
    Misfit,
    Row(&'e Row),
}

/// Where a row lies is no part of what it says.
impl PartialEq for Raw<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(one), Self::Value(other)) => one == other,
            (Self::Misfit, Self::Misfit) => true,
            (Self::Row(one), Self::Row(other)) => one.0.get(PARTS..) == other.0.get(PARTS..),
            _ => false,
        }
    }
}

impl<'e> Raw<'e> {
    pub(super) fn entry(self) -> Entry<'e> {
        match self {
            Self::Value(bytes) => Entry::Bytes(bytes),
            Self::Misfit => Entry::Misfit,
            Self::Row(row) => {
                let parts: Vec<_> = row.fields().skip(1).collect();
                if parts.is_empty() {
                    Entry::Misfit
                } else {
                    Entry::Parts(parts)
                }
            }
        }
    }
}

impl Leaf {
    /// Keeps a leaf page of plain values. `node` is what `page` decodes to.
    pub(super) fn of_values(page: &[u8], node: &Node<'_>) -> Self {
        let end = match node {
            Node::Leaf(elements) => elements
                .iter()
                .map(|element| element.value.as_ptr_range().end.addr())
                .max(),
            Node::Branch(_) => None,
        };
        let used = end.map_or(super::super::page::HEADER, |end| {
            end.saturating_sub(page.as_ptr().addr())
        });
        Self::Values(page.get(..used).unwrap_or(page).into())
    }

    /// The row of an entry that is a plain value where a bucket belongs.
    pub(super) fn misfit(key: &[u8]) -> Row {
        Row::misfit(key)
    }

    /// Every entry in the order of keys.
    pub(super) fn entries(&self) -> Vec<(&[u8], Raw<'_>)> {
        match self {
            Self::Values(page) => match Node::decode(page) {
                Ok(Node::Leaf(elements)) => elements
                    .into_iter()
                    .map(|element| {
                        let raw = if element.bucket {
                            Raw::Misfit
                        } else {
                            Raw::Value(element.value)
                        };
                        (element.key, raw)
                    })
                    .collect(),
                // It was decoded before it was kept.
                Ok(Node::Branch(_)) | Err(_) => Vec::new(),
            },
            Self::Rows(rows) => rows.iter().map(|row| (row.key(), Raw::Row(row))).collect(),
        }
    }

    fn edges(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Values(page) => leaf_edges(page),
            Self::Rows(rows) => Some((rows.first()?.key(), rows.last()?.key())),
        }
    }
}

/// One page of a followed bucket.
#[derive(Debug)]
pub(super) enum Page {
    /// The pages below it.
    Branch(Box<[u64]>),
    Leaf(Arc<Leaf>),
}

/// How a followed bucket is stored.
#[derive(Debug)]
pub(super) enum Stored {
    /// Inside its parent's page.
    Inline(Arc<Leaf>),
    Pages {
        root: u64,
        pages: HashMap<u64, Page>,
    },
}

/// A followed bucket.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) shape: Shape,
    pub(super) stored: Stored,
    /// Rows that have pages of their own, by the page where they begin.
    pub(super) rows: HashMap<u64, Row>,
}

/// Pages of a bucket that another transaction no longer uses.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) pages: Vec<u64>,
    /// How many of the kept subtrees were met on the way.
    pub(super) kept: usize,
}

impl Table {
    pub(super) fn new(shape: Shape, stored: Stored) -> Self {
        let mut table = Self {
            shape,
            stored,
            rows: HashMap::new(),
        };
        let leaves: Vec<_> = table.leaves().cloned().collect();
        for leaf in leaves {
            table.note_rows(&leaf);
        }
        table
    }

    /// Remembers where the rows of a leaf begin.
    pub(super) fn note_rows(&mut self, leaf: &Leaf) {
        if let Leaf::Rows(rows) = leaf {
            let placed = rows.iter().filter(|row| row.root() != 0);
            self.rows.extend(placed.map(|row| (row.root(), row.clone())));
        }
    }

    /// Forgets where the rows of a leaf begin.
    pub(super) fn forget_rows(&mut self, leaf: &Leaf) {
        if let Leaf::Rows(rows) = leaf {
            for row in rows {
                self.rows.remove(&row.root());
            }
        }
    }

    pub(super) fn page(&self, page: u64) -> Option<&Page> {
        match &self.stored {
            Stored::Pages { pages, .. } => pages.get(&page),
            Stored::Inline(_) => None,
        }
    }

    /// Whether a page belongs to this bucket, or to one of its rows begins there.
    pub(super) fn owns(&self, page: u64) -> bool {
        self.page(page).is_some() || self.rows.contains_key(&page)
    }

    pub(super) fn leaf(&self, page: u64) -> Option<&Arc<Leaf>> {
        match self.page(page)? {
            Page::Leaf(leaf) => Some(leaf),
            Page::Branch(_) => None,
        }
    }

    pub(super) fn leaves(&self) -> impl Iterator<Item = &Arc<Leaf>> {
        let (inline, pages) = match &self.stored {
            Stored::Inline(leaf) => (Some(leaf), None),
            Stored::Pages { pages, .. } => (None, Some(pages)),
        };
        let in_pages = pages
            .into_iter()
            .flat_map(HashMap::values)
            .filter_map(|page| match page {
                Page::Leaf(leaf) => Some(leaf),
                Page::Branch(_) => None,
            });
        inline.into_iter().chain(in_pages)
    }

    /// First and last key below a page; none where there is none.
    pub(super) fn edges(&self, page: u64) -> Option<(&[u8], &[u8])> {
        let first = self.edge(page, <[u64]>::first)?.edges()?.0;
        let last = self.edge(page, <[u64]>::last)?.edges()?.1;
        Some((first, last))
    }

    fn edge(&self, mut page: u64, side: impl Fn(&[u64]) -> Option<&u64>) -> Option<&Leaf> {
        // The depth was limited when the pages were read.
        loop {
            match self.page(page)? {
                Page::Leaf(leaf) => return Some(leaf),
                Page::Branch(children) => page = *side(children)?,
            }
        }
    }

    /// Which pages are no longer used when only the subtrees at `kept` are.
    pub(super) fn dropped(&self, kept: &HashSet<u64>) -> Dropped {
        let mut dropped = Dropped::default();
        let Stored::Pages { root, .. } = &self.stored else {
            return dropped;
        };
        let mut open = vec![*root];
        while let Some(page) = open.pop() {
            if kept.contains(&page) {
                dropped.kept += 1;
                continue;
            }
            dropped.pages.push(page);
            if let Some(Page::Branch(children)) = self.page(page) {
                open.extend(children.iter());
            }
        }
        dropped
    }
}

/// Everything remembered of one transaction.
#[derive(Debug)]
pub(super) struct State {
    pub(super) meta: Meta,
    /// Size of the file then; it never shrinks.
    pub(super) size: u64,
    pub(super) tables: Vec<(Vec<u8>, Table)>,
}

impl State {
    pub(super) fn table(&self, name: &[u8]) -> Option<&Table> {
        self.tables
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, table)| table)
    }

    pub(super) fn owns(&self, page: u64) -> bool {
        self.tables.iter().any(|(_, table)| table.owns(page))
    }
}
