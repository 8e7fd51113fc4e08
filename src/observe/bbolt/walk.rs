//! Buckets, and the walk over their trees.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::super::little_endian::u64_at;
use super::ahead::{Ahead, PageBytes, Runs};
use super::claims::Claims;
pub(crate) use super::claims::Origin;
use super::error::BboltError;
use super::page::{BUCKET, Checked, HEADER, Header, LeafElement, Meta, Node};
use super::source::PageSource;
use crate::model::TxId;

/// Deepest tree that is followed. A tree of this depth with two entries per page would already need 2^64 pages.
pub(crate) const MAX_DEPTH: u32 = 64;

/// The origin of the root bucket's page. No real page can be the pointer: page 0 holds no elements.
const FROM_META: Origin = Origin { page: 0, slot: 0 };

/// The database as one transaction left it. Only valid inside [`super::Database::snapshot`], which throws the
/// result away when the file moved on meanwhile.
#[derive(Debug)]
pub struct Snapshot<'d, S> {
    pub(super) source: &'d S,
    /// Size of the file when the snapshot began; nothing beyond belongs to its transaction.
    pub(crate) size: u64,
    pub(crate) meta: Meta,
    /// What the other meta page held as this one was found, where that was a meta.
    pub(super) older: Option<Meta>,
    /// Every page read so far, with its owner.
    pub(super) claims: RefCell<Claims>,
    /// Pages that were read before they were asked for.
    pub(super) ahead: RefCell<Ahead>,
    /// The bytes of every page of a bucket read so far, with its overflow, where they are to be kept.
    reached: Option<RefCell<BTreeMap<u64, Vec<u8>>>>,
}

impl<'d, S: PageSource> Snapshot<'d, S> {
    pub(crate) fn new(source: &'d S, size: u64, meta: Meta, older: Option<Meta>, keep: bool) -> Self {
        Self {
            source,
            size,
            meta,
            older,
            claims: RefCell::default(),
            ahead: RefCell::default(),
            reached: keep.then(RefCell::default),
        }
    }

    /// For another thread, which reads the same transaction.
    pub(super) fn again(&self) -> Again {
        Again {
            size: self.size,
            meta: self.meta,
            older: self.older,
            keep: self.reached.is_some(),
        }
    }

    /// Who owns which of the pages that it read, and these where they were to be kept.
    pub(super) fn into_gathered(self) -> Gathered {
        (
            self.claims.into_inner(),
            self.reached.map(RefCell::into_inner).unwrap_or_default(),
        )
    }

    /// Takes in what other threads gathered. False, and nothing is, where any page has two owners.
    pub(super) fn gather(&self, all: Vec<Gathered>) -> bool {
        let mut claims = self.claims.borrow().clone();
        let mut kept = Vec::new();
        for (claimed, reached) in all {
            if !claims.merge(claimed) {
                return false;
            }
            kept.push(reached);
        }
        self.claims.replace(claims);
        if let Some(reached) = &self.reached {
            reached.borrow_mut().extend(kept.into_iter().flatten());
        }
        true
    }

    /// The pages that were read, where they were to be kept.
    pub(super) fn into_reached(self) -> BTreeMap<u64, Vec<u8>> {
        self.reached.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Which transaction is being read.
    #[must_use]
    pub fn txid(&self) -> TxId {
        TxId(self.meta.txid)
    }

    /// The bucket that holds the top-level buckets.
    #[must_use]
    pub fn root(&self) -> Bucket<'_, S> {
        Bucket {
            snapshot: self,
            sequence: self.meta.sequence,
            tree: Tree::Pages {
                root: self.meta.root,
                origin: FROM_META,
            },
        }
    }

    /// The bucket at the end of `path`, or none when any step of the path is missing.
    pub fn bucket(&self, path: &[&[u8]]) -> Result<Option<Bucket<'_, S>>, BboltError> {
        let mut bucket = self.root();
        for name in path {
            match bucket.bucket(name)? {
                Some(inner) => bucket = inner,
                None => return Ok(None),
            }
        }
        Ok(Some(bucket))
    }

    /// How errors call the file.
    #[cfg(feature = "readers")]
    pub(crate) fn name(&self) -> String {
        self.source.name()
    }

    /// The numbers of all pages read so far.
    pub(crate) fn loaded(&self) -> Vec<u64> {
        self.claims.borrow().pages()
    }

    pub(crate) fn damaged(&self, page: u64, reading: &'static str, problem: impl Into<String>) -> BboltError {
        BboltError::Damaged {
            file: self.source.name(),
            page,
            reading,
            problem: problem.into(),
        }
    }

    /// Reads a page with its overflow, after all checks that need no look at its elements.
    pub(crate) fn load(&self, page: u64, origin: Origin) -> Result<PageBytes, BboltError> {
        let bytes = self.load_as("a page of a bucket", page, origin)?;
        if let Some(reached) = &self.reached {
            reached.borrow_mut().insert(page, bytes.to_vec());
        }
        Ok(bytes)
    }

    /// The same, for a page that is `reading`. It is not kept.
    pub(crate) fn load_as(
        &self,
        reading: &'static str,
        page: u64,
        origin: Origin,
    ) -> Result<PageBytes, BboltError> {
        let page_size = u64::from(self.meta.page_size);
        if page < 2 || page >= self.meta.high_water {
            let problem = format!(
                "page {} points here, outside of the data pages 2 to {}",
                origin.page,
                self.meta.high_water.saturating_sub(1)
            );
            return Err(self.damaged(page, reading, problem));
        }
        let end_of = |pages: u64| {
            page.checked_add(pages)?
                .checked_mul(page_size)
                .filter(|end| *end <= self.size)
        };
        let Some(end) = end_of(1) else {
            return Err(self.damaged(
                page,
                reading,
                format!("the file was cut to {} bytes, before its end", self.size),
            ));
        };
        let mut bytes = self.read(end - page_size, page_size)?;
        let header =
            Header::decode(&bytes).ok_or_else(|| self.damaged(page, reading, "shorter than a header"))?;
        if header.id != page {
            return Err(self.damaged(page, reading, format!("its header says it is page {}", header.id)));
        }
        let pages = u64::from(header.overflow) + 1;
        let last = page.checked_add(pages).filter(|end| *end <= self.meta.high_water);
        let overflow = pages.saturating_sub(1).saturating_mul(page_size);
        if last.is_none() || end_of(pages).is_none() || (pages > 1 && !self.holds(end, overflow)?) {
            let problem = format!(
                "claims {} overflow pages, beyond the end of the data",
                header.overflow
            );
            return Err(self.damaged(page, reading, problem));
        }
        self.claim(reading, page, pages, origin)?;
        if pages > 1 {
            let mut whole = bytes.to_vec();
            whole.extend_from_slice(&self.read(end, overflow)?);
            bytes = whole.into();
        }
        Ok(bytes)
    }

    fn claim(&self, reading: &'static str, head: u64, pages: u64, origin: Origin) -> Result<(), BboltError> {
        let claimed = self.claims.borrow_mut().claim(head, pages, origin);
        claimed.map_err(|(page, other)| {
            let problem = format!("in use twice: from page {other} and from page {}", origin.page);
            self.damaged(page, reading, problem)
        })
    }

    fn holds(&self, offset: u64, length: u64) -> Result<bool, BboltError> {
        self.source
            .holds(offset, length)
            .map_err(|source| BboltError::Io {
                doing: format!("look for {length} bytes at offset {offset} of"),
                file: self.source.name(),
                source,
            })
    }

    /// Reads bytes that are known to lie inside the file, so the length is bounded by what is really there.
    fn read(&self, offset: u64, length: u64) -> Result<PageBytes, BboltError> {
        let failed = |source| BboltError::Io {
            doing: format!("read {length} bytes at offset {offset} of"),
            file: self.source.name(),
            source,
        };
        let length = usize::try_from(length)
            .map_err(std::io::Error::other)
            .map_err(failed)?;
        if let Some(bytes) = self.ahead.borrow().get(offset, length) {
            return Ok(bytes);
        }
        let mut bytes = vec![0; length];
        self.source.read_at(offset, &mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }
}

/// A transaction to be read by other threads too, each of which gathers by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    size: u64,
    meta: Meta,
    older: Option<Meta>,
    keep: bool,
}

impl Again {
    /// From these bytes.
    pub(super) fn of<S: PageSource>(self, source: &S) -> Snapshot<'_, S> {
        Snapshot::new(source, self.size, self.meta, self.older, self.keep)
    }
}

/// What a snapshot gathers on its way: who owns which page, and the pages where they are to be kept.
pub(super) type Gathered = (Claims, BTreeMap<u64, Vec<u8>>);

/// How a bucket is stored.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// A tree of pages.
    Pages { root: u64, origin: Origin },
    /// A leaf page inside the value of the parent's entry, which is on page `page`. Small buckets without
    /// sub-buckets are kept so (bbolt `bucket.go`, `inlineable`).
    Inline { page: u64, leaf: PageBytes },
}

/// A bucket: sorted keys, each with bytes or another bucket, and a counter.
#[derive(Debug)]
pub struct Bucket<'s, S> {
    pub(super) snapshot: &'s Snapshot<'s, S>,
    sequence: u64,
    pub(super) tree: Tree,
}

/// What a key leads to.
#[derive(Debug)]
pub enum Value<'v, 's, S> {
    /// A plain value.
    Bytes(Cow<'v, [u8]>),
    /// A nested bucket.
    Bucket(Bucket<'s, S>),
}

/// The part of the key space that a subtree may hold: from `from` on, below `below`. bbolt's own check
/// (`tx_check.go`, `recursivelyCheckPageKeyOrder`) holds pages to the same.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds<'k> {
    pub(super) from: Option<&'k [u8]>,
    pub(super) below: Option<&'k [u8]>,
}

impl Bounds<'_> {
    /// Whether keys from `first` to `last` may be here.
    pub(super) fn hold(self, first: &[u8], last: &[u8]) -> bool {
        self.from.is_none_or(|from| first >= from) && self.below.is_none_or(|below| last < below)
    }
}

impl<'s, S: PageSource> Bucket<'s, S> {
    /// One that has pages of its own.
    pub(super) fn of_pages(snapshot: &'s Snapshot<'s, S>, root: u64, origin: Origin, sequence: u64) -> Self {
        Self {
            snapshot,
            sequence,
            tree: Tree::Pages { root, origin },
        }
    }

    /// The counter behind bbolt's `NextSequence`.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The value of `key`, or none.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value<'static, 's, S>>, BboltError> {
        let (mut page, mut origin) = match &self.tree {
            Tree::Inline { page, leaf } => return self.find(leaf, *page, true, key),
            Tree::Pages { root, origin } => (*root, *origin),
        };
        for _ in 0..MAX_DEPTH {
            let bytes = self.snapshot.load(page, origin)?;
            let node = self.check(&bytes, page)?;
            if node.is_leaf {
                return self.find(&bytes, page, false, key);
            }
            let branches: Vec<_> = node.branch_elements().collect();
            // As bbolt's cursor: the last entry that is not above the key, or the first one.
            let slot = branches
                .partition_point(|element| element.key <= key)
                .saturating_sub(1);
            let Some(element) = branches.get(slot) else {
                return Ok(None);
            };
            (origin, page) = (Origin { page, slot }, element.page);
        }
        Err(self.too_deep(page))
    }

    /// The bucket of that name directly inside this one, or none.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'s, S>>, BboltError> {
        match self.get(name)? {
            Some(Value::Bucket(bucket)) => Ok(Some(bucket)),
            // As bbolt's `Bucket.Bucket`: a plain value is no bucket.
            Some(Value::Bytes(_)) | None => Ok(None),
        }
    }

    /// Calls `visit` for every entry in the order of the keys; stops at the first error.
    pub fn for_each<E: From<BboltError>>(
        &self,
        mut visit: impl FnMut(&[u8], Value<'_, 's, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.tree {
            Tree::Inline { page, leaf } => {
                self.visit_leaf(leaf, self.check(leaf, *page)?, *page, true, &mut visit)
            }
            Tree::Pages { root, origin } => self.walk(*root, *origin, Bounds::default(), 0, &mut visit),
        }
    }

    fn walk<E: From<BboltError>>(
        &self,
        page: u64,
        origin: Origin,
        bounds: Bounds<'_>,
        depth: u32,
        visit: &mut impl FnMut(&[u8], Value<'_, 's, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        if depth >= MAX_DEPTH {
            return Err(self.too_deep(page).into());
        }
        let bytes = self.snapshot.load(page, origin)?;
        let node = self.check(&bytes, page)?;
        if let Some((first, last)) = node.edges()
            && !bounds.hold(first, last)
        {
            return Err(self.out_of_order(page, origin).into());
        }
        if node.is_leaf {
            return self.visit_leaf(&bytes, node, page, false, visit);
        }
        let elements: Vec<_> = node.branch_elements().collect();
        let mut runs = Runs::of(
            self.snapshot,
            elements.iter().map(|element| element.page).collect(),
        );
        for (slot, element) in elements.iter().enumerate() {
            runs.go_to(slot);
            let below = elements.get(slot + 1).map_or(bounds.below, |next| Some(next.key));
            let inner = Bounds {
                from: Some(element.key),
                below,
            };
            self.walk(element.page, Origin { page, slot }, inner, depth + 1, visit)?;
        }
        Ok(())
    }

    fn visit_leaf<E: From<BboltError>>(
        &self,
        bytes: &PageBytes,
        node: Checked<'_>,
        page: u64,
        inline: bool,
        visit: &mut impl FnMut(&[u8], Value<'_, 's, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !node.is_leaf {
            return Err(self.inline_branch(page).into());
        }
        for (slot, element) in node.leaf_elements().enumerate() {
            let value = if element.bucket {
                let value = bytes.part(element.value);
                Value::Bucket(self.nested(&value, Origin { page, slot }, inline)?)
            } else {
                Value::Bytes(Cow::Borrowed(element.value))
            };
            visit(element.key, value)?;
        }
        Ok(())
    }

    /// Looks `key` up in a leaf page's bytes.
    fn find(
        &self,
        leaf: &PageBytes,
        page: u64,
        inline: bool,
        key: &[u8],
    ) -> Result<Option<Value<'static, 's, S>>, BboltError> {
        let node = self.check(leaf, page)?;
        if !node.is_leaf {
            return Err(self.inline_branch(page));
        }
        let elements: Vec<LeafElement<'_>> = node.leaf_elements().collect();
        let Ok(slot) = elements.binary_search_by(|element| element.key.cmp(key)) else {
            return Ok(None);
        };
        let Some(element) = elements.get(slot) else {
            return Ok(None);
        };
        if element.bucket {
            return self
                .nested(&leaf.part(element.value), Origin { page, slot }, inline)
                .map(|bucket| Some(Value::Bucket(bucket)));
        }
        Ok(Some(Value::Bytes(Cow::Owned(element.value.to_vec()))))
    }

    /// The bucket that a leaf entry's value describes.
    pub(super) fn nested(
        &self,
        value: &PageBytes,
        origin: Origin,
        inline: bool,
    ) -> Result<Bucket<'s, S>, BboltError> {
        let damaged = |problem: &str| {
            self.snapshot
                .damaged(origin.page, "the header of a nested bucket", problem)
        };
        if inline {
            return Err(damaged(
                "a bucket inside an inline bucket, which bbolt never writes",
            ));
        }
        let (Some(root), Some(sequence)) = (u64_at(value, 0), u64_at(value, 8)) else {
            return Err(damaged("shorter than 16 bytes"));
        };
        let tree = match value.get(BUCKET..) {
            Some(leaf) if root == 0 && leaf.len() >= HEADER => Tree::Inline {
                page: origin.page,
                leaf: value.part(leaf),
            },
            _ if root == 0 => return Err(damaged("an inline bucket without its page")),
            _ => Tree::Pages { root, origin },
        };
        Ok(Bucket {
            snapshot: self.snapshot,
            sequence,
            tree,
        })
    }

    pub(super) fn check<'p>(&self, bytes: &'p [u8], page: u64) -> Result<Checked<'p>, BboltError> {
        Checked::of(bytes).map_err(|problem| self.snapshot.damaged(page, "the entries of a bucket", problem))
    }

    pub(super) fn decode<'p>(&self, bytes: &'p [u8], page: u64) -> Result<Node<'p>, BboltError> {
        Node::decode(bytes).map_err(|problem| self.snapshot.damaged(page, "the entries of a bucket", problem))
    }

    pub(super) fn inline_branch(&self, page: u64) -> BboltError {
        self.snapshot.damaged(
            page,
            "the entries of a bucket",
            "a branch page inside an inline bucket",
        )
    }

    pub(super) fn out_of_order(&self, page: u64, origin: Origin) -> BboltError {
        let problem = format!(
            "holds keys outside of the range that page {} gives it",
            origin.page
        );
        self.snapshot.damaged(page, "the order of keys", problem)
    }

    pub(super) fn too_deep(&self, page: u64) -> BboltError {
        self.snapshot.damaged(
            page,
            "a page of a bucket",
            format!("lies more than {MAX_DEPTH} levels deep"),
        )
    }
}
