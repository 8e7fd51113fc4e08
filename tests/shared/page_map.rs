//! A slow second opinion on a sound bbolt file: a walk that shares nothing with the reader, and says of every page which
//! entries hang on it. A damaged page may be refused, or change those entries; nothing else.

use std::collections::BTreeMap;

use crate::bbolt_file::{Item, Tree, fnv1a};

/// A path of keys: through buckets to an entry.
pub(crate) type EntryPath = Vec<Vec<u8>>;

/// What hangs on a page: of one bucket, the entries from one key on, below another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) bucket: EntryPath,
    pub(crate) from: Option<Vec<u8>>,
    pub(crate) below: Option<Vec<u8>>,
}

impl Region {
    /// Whether an entry, or anything in it, hangs on the page.
    pub(crate) fn covers(&self, path: &[Vec<u8>]) -> bool {
        let Some(([key, ..], true)) = path
            .split_at_checked(self.bucket.len())
            .map(|(bucket, rest)| (rest, bucket == self.bucket))
        else {
            return false;
        };
        self.from.as_ref().is_none_or(|from| key >= from)
            && self.below.as_ref().is_none_or(|below| key < below)
    }
}

/// A file that is sound, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct PageMap {
    pub(crate) page_size: usize,
    /// The page of the meta that counts.
    pub(crate) meta: u64,
    /// Pages in use by what hangs on them, overflow pages too.
    pub(crate) pages: BTreeMap<u64, Region>,
    /// All that is in the file.
    pub(crate) tree: Tree,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl PageMap {
    /// Takes a sound file apart, as its newest meta has it; with `but_not`, as the other one has it. Nothing where no meta
    /// is valid, or where that one leads nowhere.
    pub(crate) fn of(bytes: &[u8], page_size: usize, but_not: Option<u64>) -> Option<Self> {
        let valid = |page: &u64| {
            let at = usize::try_from(*page).unwrap() * page_size + 16;
            bytes
                .get(at..at + 64)
                .is_some_and(|meta| fnv1a(&meta[..56]) == u64_at(meta, 56) && u32_at(meta, 0) == 0xED0C_DAED)
        };
        let at = |page: u64| usize::try_from(page).unwrap() * page_size + 16;
        let meta = [0, 1]
            .into_iter()
            .filter(|page| but_not != Some(*page))
            .filter(valid)
            .max_by_key(|page| u64_at(bytes, at(*page) + 48))?;
        let root = u64_at(bytes, at(meta) + 16);
        let mut map = Self {
            page_size,
            meta,
            pages: BTreeMap::new(),
            tree: Tree::default(),
        };
        let all = Region {
            bucket: Vec::new(),
            from: None,
            below: None,
        };
        let mut tree = Tree {
            sequence: u64_at(bytes, at(meta) + 24),
            items: BTreeMap::new(),
        };
        map.page(bytes, root, &all, &mut tree)?;
        map.tree = tree;
        Some(map)
    }

    fn page(&mut self, bytes: &[u8], number: u64, region: &Region, tree: &mut Tree) -> Option<()> {
        let begin = usize::try_from(number).ok()?.checked_mul(self.page_size)?;
        let overflow = u32_at(bytes.get(begin..begin + 16)?, 12);
        let page = bytes.get(begin..begin + (overflow + 1) * self.page_size)?;
        if u64_at(page, 0) != number {
            return None;
        }
        for one in number..=number + u64::try_from(overflow).unwrap() {
            if self.pages.insert(one, region.clone()).is_some() {
                return None;
            }
        }
        match u16_at(page, 8) {
            1 => {
                let elements: Vec<_> = (0..u16_at(page, 10))
                    .map(|slot| {
                        let at = 16 + 16 * slot;
                        let key = at + u32_at(page, at);
                        (
                            page[key..key + u32_at(page, at + 4)].to_vec(),
                            u64_at(page, at + 8),
                        )
                    })
                    .collect();
                for (slot, (key, child)) in elements.iter().enumerate() {
                    // What lies below the first key of the first child goes there too, as in bbolt's search.
                    let from = if slot == 0 {
                        region.from.clone()
                    } else {
                        Some(key.clone())
                    };
                    let below = elements
                        .get(slot + 1)
                        .map_or(region.below.clone(), |next| Some(next.0.clone()));
                    let inner = Region {
                        bucket: region.bucket.clone(),
                        from,
                        below,
                    };
                    self.page(bytes, *child, &inner, tree)?;
                }
                Some(())
            }
            2 => self.leaf(bytes, page, &region.bucket, tree),
            _ => None,
        }
    }

    fn leaf(&mut self, bytes: &[u8], page: &[u8], bucket: &[Vec<u8>], tree: &mut Tree) -> Option<()> {
        for slot in 0..u16_at(page, 10) {
            let at = 16 + 16 * slot;
            let key_at = at + u32_at(page, at + 4);
            let value_at = key_at + u32_at(page, at + 8);
            let key = page.get(key_at..value_at)?.to_vec();
            let value = page.get(value_at..value_at + u32_at(page, at + 12))?;
            let item = if u32_at(page, at) == 0 {
                Item::Bytes(value.to_vec())
            } else {
                let mut inner = Tree {
                    sequence: u64_at(value, 8),
                    items: BTreeMap::new(),
                };
                let inside = [bucket, std::slice::from_ref(&key)].concat();
                match u64_at(value, 0) {
                    0 => self.leaf(bytes, &value[16..], &inside, &mut inner)?,
                    root => {
                        let region = Region {
                            bucket: inside,
                            from: None,
                            below: None,
                        };
                        self.page(bytes, root, &region, &mut inner)?;
                    }
                }
                Item::Bucket(inner)
            };
            tree.items.insert(key, item);
        }
        Some(())
    }
}

/// Where two trees differ: entries that only one has, or that are not the same. A bucket's sequence counts as the bucket's.
pub(crate) fn differences(one: &Tree, other: &Tree) -> Vec<EntryPath> {
    let mut found = Vec::new();
    differ(&mut Vec::new(), one, other, &mut found);
    found
}

fn differ(path: &mut EntryPath, one: &Tree, other: &Tree, found: &mut Vec<EntryPath>) {
    if one.sequence != other.sequence {
        found.push(path.clone());
    }
    let keys = one
        .items
        .keys()
        .chain(other.items.keys().filter(|key| !one.items.contains_key(*key)));
    for key in keys {
        path.push(key.clone());
        match (one.items.get(key), other.items.get(key)) {
            (Some(Item::Bucket(one)), Some(Item::Bucket(other))) => differ(path, one, other, found),
            (one, other) if one == other => {}
            _ => found.push(path.clone()),
        }
        path.pop();
    }
}
