//! What goes on a page: elements in memory, cut into pages, and their bytes (bbolt `node.go`, `split` and `write`).

use crate::observe::bbolt::page::{
    BRANCH, BUCKET_ELEMENT, ELEMENT, HEADER, LEAF, LeafElement, MAGIC, META_SUMMED, Meta, Node, VERSION,
    fnv1a,
};

/// Page flags of a meta page.
pub(super) const META_PAGE: u16 = 0x04;

/// bbolt leaves a page whole that has no more elements, whatever their size (`minKeysPerPage` twice).
const KEPT_TOGETHER: usize = 4;
/// Fewest elements of a page that comes from a cut, but for the last (`minKeysPerPage`): with one child per branch a tree
/// has no end.
const FEWEST: usize = 2;
/// Most elements of a page (`node.write`).
const MOST: usize = 0xFFFE;

/// An entry of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeafEntry {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) bucket: bool,
}

impl From<&LeafElement<'_>> for LeafEntry {
    fn from(element: &LeafElement<'_>) -> Self {
        Self {
            key: element.key.to_vec(),
            value: element.value.to_vec(),
            bucket: element.bucket,
        }
    }
}

/// An entry of a branch: keys from `key` on are below `page`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BranchEntry {
    pub(super) key: Vec<u8>,
    pub(super) page: u64,
}

/// What the two kinds of entries have in common.
pub(super) trait Entry {
    /// The flags of a page of them.
    const FLAGS: u16;
    fn key(&self) -> &[u8];
    /// What is behind the key, on the page.
    fn value(&self) -> &[u8];
    /// The fixed part of the entry, whose bytes begin `position` bytes behind it. None when a number does not fit.
    fn head(&self, position: u32) -> Option<[u8; ELEMENT]>;

    /// Bytes on a page.
    fn size(&self) -> usize {
        ELEMENT + self.key().len() + self.value().len()
    }
}

/// Four numbers, as they follow each other on a page.
fn words(words: [u32; 4]) -> [u8; ELEMENT] {
    let mut bytes = [0; ELEMENT];
    let (chunks, _) = bytes.as_chunks_mut::<4>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    bytes
}

impl Entry for LeafEntry {
    const FLAGS: u16 = LEAF;

    fn key(&self) -> &[u8] {
        &self.key
    }

    fn value(&self) -> &[u8] {
        &self.value
    }

    fn head(&self, position: u32) -> Option<[u8; ELEMENT]> {
        let flags = if self.bucket { BUCKET_ELEMENT } else { 0 };
        let key = u32::try_from(self.key.len()).ok()?;
        Some(words([
            flags,
            position,
            key,
            u32::try_from(self.value.len()).ok()?,
        ]))
    }
}

impl Entry for BranchEntry {
    const FLAGS: u16 = BRANCH;

    fn key(&self) -> &[u8] {
        &self.key
    }

    fn value(&self) -> &[u8] {
        &[]
    }

    fn head(&self, position: u32) -> Option<[u8; ELEMENT]> {
        let key = u32::try_from(self.key.len()).ok()?;
        let low = u32::try_from(self.page & u64::from(u32::MAX)).ok()?;
        let high = u32::try_from(self.page >> u32::BITS).ok()?;
        Some(words([position, key, low, high]))
    }
}

/// The entries of one page, or of what will be several.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entries {
    Leaf(Vec<LeafEntry>),
    Branch(Vec<BranchEntry>),
}

impl Entries {
    pub(super) fn of(node: &Node<'_>) -> Self {
        match node {
            Node::Leaf(elements) => Self::Leaf(elements.iter().map(LeafEntry::from).collect()),
            Node::Branch(elements) => {
                let entry = |element: &crate::observe::bbolt::page::BranchElement<'_>| BranchEntry {
                    key: element.key.to_vec(),
                    page: element.page,
                };
                Self::Branch(elements.iter().map(entry).collect())
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(entries) => entries.is_empty(),
            Self::Branch(entries) => entries.is_empty(),
        }
    }

    /// Bytes that they take on one page.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Leaf(entries) => size(entries),
            Self::Branch(entries) => size(entries),
        }
    }

    /// Puts `later` behind these, unless it is of the other kind.
    pub(super) fn join(&mut self, later: Self) -> Result<(), Self> {
        match (self, later) {
            (Self::Leaf(entries), Self::Leaf(later)) => entries.extend(later),
            (Self::Branch(entries), Self::Branch(later)) => entries.extend(later),
            (_, later) => return Err(later),
        }
        Ok(())
    }
}

/// Bytes that entries take on one page.
pub(super) fn size<E: Entry>(entries: &[E]) -> usize {
    HEADER + entries.iter().map(Entry::size).sum::<usize>()
}

/// Cuts entries into what belongs on one page each. Never an empty page, unless there is no entry at all.
///
/// The pages of a cut get three quarters full where entries are small: bbolt itself fills them to the half
/// (`DefaultFillPercent`), and accepts whatever fits.
pub(super) fn cut<E: Entry>(entries: Vec<E>, page_size: usize) -> Vec<Vec<E>> {
    let total = size(&entries);
    let fits = total <= page_size || entries.len() <= KEPT_TOGETHER;
    if fits && entries.len() <= MOST {
        return vec![entries];
    }
    let room = page_size - HEADER;
    let pages = (total - HEADER).div_ceil((room * 3 / 4).max(1)).max(2);
    let goal = ((total - HEADER) / pages).min(room);
    let mut left = entries.len();
    let mut cut = Vec::new();
    let (mut page, mut filled) = (Vec::new(), 0);
    for entry in entries {
        let bursts = filled + entry.size() > room;
        // A last page of one entry only where it would make the one before it longer than a page.
        let full = bursts || (filled >= goal && left >= FEWEST);
        if page.len() >= MOST || (full && page.len() >= FEWEST) {
            cut.push(std::mem::take(&mut page));
            filled = 0;
        }
        filled += entry.size();
        page.push(entry);
        left -= 1;
    }
    cut.push(page);
    cut
}

/// A page header.
pub(super) fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(overflow.to_le_bytes());
    bytes
}

/// A page of entries, to be put on page `id` with `overflow` pages behind it; without what fills it up. None when a
/// number is too large for its place.
pub(super) fn encode<E: Entry>(entries: &[E], id: u64, overflow: u32) -> Option<Vec<u8>> {
    let count = u16::try_from(entries.len()).ok()?;
    let mut bytes = header(id, E::FLAGS, count, overflow);
    bytes.reserve(size(entries) - HEADER);
    let mut data = HEADER + entries.len() * ELEMENT;
    for entry in entries {
        // Positions count from the entry's own fixed part.
        bytes.extend(entry.head(u32::try_from(data - bytes.len()).ok()?)?);
        data += entry.key().len() + entry.value().len();
    }
    for entry in entries {
        bytes.extend(entry.key());
        bytes.extend(entry.value());
    }
    Some(bytes)
}

/// A meta page up to the end of its checksum. What is behind it has no meaning.
pub(super) fn encode_meta(meta: &Meta) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [MAGIC, VERSION, meta.page_size, meta.flags] {
        body.extend(word.to_le_bytes());
    }
    for long in [
        meta.root,
        meta.sequence,
        meta.freelist,
        meta.high_water,
        meta.txid,
    ] {
        body.extend(long.to_le_bytes());
    }
    debug_assert_eq!(body.len(), META_SUMMED);
    body.extend(fnv1a(&body).to_le_bytes());
    let mut page = header(meta.txid % 2, META_PAGE, 0, 0);
    page.extend(body);
    page
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::bbolt::page::NO_FREELIST;

    fn entries() -> impl Strategy<Value = Vec<LeafEntry>> {
        let size = prop_oneof![8 => 0..60_usize, 2 => 0..900_usize, 1 => 0..9000_usize];
        proptest::collection::vec(size, 0..120).prop_map(|sizes| {
            let entry = |(at, size): (usize, usize)| LeafEntry {
                key: format!("{at:04}").into_bytes(),
                value: vec![7; size],
                bucket: at % 5 == 0,
            };
            sizes.into_iter().enumerate().map(entry).collect()
        })
    }

    proptest! {
        #[test]
        fn a_cut_loses_nothing_and_every_page_is_worth_it(entries in entries(), doublings in 0..4_u32) {
            let page_size = 1024 << doublings;
            let pages = cut(entries.clone(), page_size);
            prop_assert_eq!(pages.concat(), entries);
            for (at, page) in pages.iter().enumerate() {
                prop_assert!(at + 1 == pages.len() || page.len() >= FEWEST);
                prop_assert!(size(page) <= page_size || page.len() <= KEPT_TOGETHER, "{} entries", page.len());
            }
        }

        #[test]
        fn a_page_reads_back(entries in entries(), id in any::<u64>(), overflow in any::<u32>()) {
            let bytes = encode(&entries, id, overflow).unwrap();
            prop_assert_eq!(bytes.len(), size(&entries));
            prop_assert_eq!(Entries::of(&Node::decode(&bytes).unwrap()), Entries::Leaf(entries));
        }
    }

    #[test]
    fn branches_and_metas_read_back() {
        let branches: Vec<_> = (0..9_u64)
            .map(|at| BranchEntry {
                key: vec![u8::try_from(at + 1).unwrap(); 3],
                page: u64::MAX / (at + 1),
            })
            .collect();
        let bytes = encode(&branches, 3, 0).unwrap();
        assert_eq!(
            Entries::of(&Node::decode(&bytes).unwrap()),
            Entries::Branch(branches)
        );
        let meta = Meta {
            page_size: 4096,
            flags: 0,
            root: 3,
            sequence: 4,
            freelist: NO_FREELIST,
            high_water: 9,
            txid: 77,
        };
        let page = encode_meta(&meta);
        assert_eq!(Meta::decode(&page[HEADER..]), Ok(meta));
        assert_eq!(page[..10], [1, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
    }

    #[test]
    fn so_many_entries_as_a_header_can_not_count_are_cut_also_on_a_huge_page() {
        let entries = (0..70_000_u32)
            .map(|at| LeafEntry {
                key: at.to_be_bytes().to_vec(),
                value: Vec::new(),
                bucket: false,
            })
            .collect();
        let pages = cut(entries, 16 << 20);
        assert!(pages.len() == 2 && pages.iter().all(|page| page.len() <= MOST));
    }
}
