//! Writes bbolt files as bbolt does: copy-on-write, pages of the last transaction untouched, pages of the one before
//! it reused as soon as that is allowed (which is the worst that a reader can meet).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use suture::observe::bbolt::{BboltError, Bucket, Database, PageSource, Snapshot, Value, Visit};

/// What a bucket holds: the model that the reader is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tree {
    pub(crate) sequence: u64,
    pub(crate) items: BTreeMap<Vec<u8>, Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Bytes(Vec<u8>),
    Bucket(Tree),
}

impl Tree {
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.items.insert(key.to_vec(), Item::Bytes(value.to_vec()));
    }

    pub(crate) fn nest(&mut self, key: &[u8], tree: Tree) {
        self.items.insert(key.to_vec(), Item::Bucket(tree));
    }
}

/// How trees are laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) page_size: usize,
    /// Entries per page. More bytes than a page holds make overflow pages.
    pub(crate) fan: usize,
    /// Buckets whose leaf is at most this long are kept in their parent's value.
    pub(crate) inline: usize,
}

/// One write to the file: offset and bytes.
pub(crate) type Write = (usize, Vec<u8>);

#[derive(Debug, Clone)]
pub(crate) struct BboltFile {
    pub(crate) layout: Layout,
    pub(crate) bytes: Vec<u8>,
    pub(crate) txid: u64,
    high_water: u64,
    /// Pages of the last committed transaction.
    used: BTreeSet<u64>,
    /// Pages of the last transaction by what is on them, where such pages are used again: as bbolt does with subtrees
    /// that did not change.
    share: Option<Contents>,
}

/// Page runs by flags, count and body: page number and length in pages.
type Contents = HashMap<(u16, usize, Vec<u8>), Vec<(u64, u64)>>;

/// A commit in the making.
struct Commit<'f> {
    layout: Layout,
    kept: &'f BTreeSet<u64>,
    high_water: u64,
    used: BTreeSet<u64>,
    /// No page below is free.
    searched: u64,
    share: Option<Contents>,
    written: Contents,
    writes: Vec<Write>,
}

pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(crate) fn meta(page_size: usize, root: u64, sequence: u64, high_water: u64, txid: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xED0C_DAED_u32, 2, u32::try_from(page_size).unwrap(), 0] {
        bytes.extend(word.to_le_bytes());
    }
    // No freelist: all ones, as with NoFreelistSync.
    for long in [root, sequence, u64::MAX, high_water, txid] {
        bytes.extend(long.to_le_bytes());
    }
    bytes.extend(fnv1a(&bytes).to_le_bytes());
    bytes
}

pub(crate) fn header(id: u64, flags: u16, count: usize, overflow: u32) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(u16::try_from(count).unwrap().to_le_bytes());
    bytes.extend(overflow.to_le_bytes());
    bytes
}

/// Elements (with `pos` at byte 0 of a branch's, byte 4 of a leaf's) and their data, one behind the other.
fn page_body(elements: &[(Vec<u32>, Option<u64>, Vec<u8>)]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (slot, (words, page, bytes)) in elements.iter().enumerate() {
        let pos = u32::try_from((elements.len() - slot) * 16 + data.len()).unwrap();
        for word in words {
            // The place of `pos` is marked by this value.
            heads.extend(if *word == u32::MAX { pos } else { *word }.to_le_bytes());
        }
        heads.extend(page.map(u64::to_le_bytes).into_iter().flatten());
        data.extend(bytes);
    }
    [heads, data].concat()
}

fn leaf_body(entries: &[(Vec<u8>, u32, Vec<u8>)]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let elements: Vec<_> = entries
        .iter()
        .map(|(key, flags, value)| {
            (
                vec![*flags, u32::MAX, len(key), len(value)],
                None,
                [key.clone(), value.clone()].concat(),
            )
        })
        .collect();
    page_body(&elements)
}

impl Commit<'_> {
    fn allocate(&mut self, pages: u64) -> u64 {
        let free = |page: &u64| !self.kept.contains(page) && !self.used.contains(page);
        self.searched = (self.searched..self.high_water)
            .find(free)
            .unwrap_or(self.high_water);
        let start = (self.searched..self.high_water)
            .find(|start| (*start..start + pages).all(|page| page < self.high_water && free(&page)))
            .unwrap_or(self.high_water);
        self.high_water = self.high_water.max(start + pages);
        self.used.extend(start..start + pages);
        start
    }

    fn write_page(&mut self, flags: u16, count: usize, body: &[u8]) -> u64 {
        let content = (flags, count, body.to_vec());
        if let Some((page, pages)) = self
            .share
            .as_mut()
            .and_then(|share| share.get_mut(&content)?.pop())
        {
            self.used.extend(page..page + pages);
            self.written.entry(content).or_default().push((page, pages));
            return page;
        }
        let pages = (16 + body.len()).div_ceil(self.layout.page_size);
        let page = self.allocate(u64::try_from(pages).unwrap());
        let mut bytes = header(page, flags, count, u32::try_from(pages - 1).unwrap());
        bytes.extend(body);
        bytes.resize(pages * self.layout.page_size, 0);
        self.writes
            .push((usize::try_from(page).unwrap() * self.layout.page_size, bytes));
        if self.share.is_some() {
            let run = (page, u64::try_from(pages).unwrap());
            self.written.entry(content).or_default().push(run);
        }
        page
    }

    /// Cuts entries into pages. Where pages are shared the cuts depend on the keys, so that one entry more or less
    /// changes one page and not all that follow, as in bbolt.
    fn pages<'e, T>(
        &self,
        entries: &'e [T],
        height: u32,
        fan: usize,
        key: impl Fn(&T) -> &[u8],
    ) -> Vec<&'e [T]> {
        if self.share.is_none() {
            return entries.chunks(fan).collect();
        }
        let mut pages = Vec::new();
        let mut begin = 0;
        for (at, entry) in entries.iter().enumerate().skip(1) {
            // Other bits at each height: a key that begins a page need not begin the page above.
            let cut = (fnv1a(key(entry)) >> (height * 8 % 56)).is_multiple_of(u64::try_from(fan).unwrap());
            if at - begin >= 2 && (cut || at - begin >= 4 * fan) {
                pages.push(&entries[begin..at]);
                begin = at;
            }
        }
        pages.push(&entries[begin..]);
        pages
    }

    fn write_tree(&mut self, tree: &Tree) -> u64 {
        let entries: Vec<_> = tree
            .items
            .iter()
            .map(|(key, item)| match item {
                Item::Bytes(value) => (key.clone(), 0, value.clone()),
                Item::Bucket(inner) => (key.clone(), 1, self.bucket_value(inner)),
            })
            .collect();
        if entries.is_empty() {
            return self.write_page(2, 0, &[]);
        }
        let mut level: Vec<(Vec<u8>, u64)> = self
            .pages(&entries, 0, self.layout.fan, |entry| &entry.0)
            .into_iter()
            .map(|chunk| {
                (
                    chunk[0].0.clone(),
                    self.write_page(2, chunk.len(), &leaf_body(chunk)),
                )
            })
            .collect();
        let mut height = 0;
        while level.len() > 1 {
            height += 1;
            level = self
                .pages(&level, height, self.layout.fan.max(2), |child| &child.0)
                .into_iter()
                .map(|chunk| {
                    let elements: Vec<_> = chunk
                        .iter()
                        .map(|(key, page)| {
                            (
                                vec![u32::MAX, u32::try_from(key.len()).unwrap()],
                                Some(*page),
                                key.clone(),
                            )
                        })
                        .collect();
                    (
                        chunk[0].0.clone(),
                        self.write_page(1, chunk.len(), &page_body(&elements)),
                    )
                })
                .collect();
        }
        level[0].1
    }

    fn bucket_value(&mut self, tree: &Tree) -> Vec<u8> {
        let size: usize = tree
            .items
            .iter()
            .map(|(key, item)| match item {
                Item::Bytes(value) => 16 + key.len() + value.len(),
                Item::Bucket(_) => 0,
            })
            .sum();
        let small = Some(tree).filter(|_| size <= self.layout.inline);
        let plain: Option<Vec<_>> = small
            .into_iter()
            .flat_map(|tree| &tree.items)
            .map(|(key, item)| match item {
                Item::Bytes(value) => Some((key.clone(), 0, value.clone())),
                Item::Bucket(_) => None,
            })
            .collect();
        let leaf = plain
            .filter(|_| small.is_some())
            .map(|entries| [header(0, 2, entries.len(), 0), leaf_body(&entries)].concat());
        let (root, leaf) = match leaf {
            Some(leaf) if leaf.len() <= self.layout.inline => (0, leaf),
            _ => (self.write_tree(tree), Vec::new()),
        };
        [
            root.to_le_bytes().to_vec(),
            tree.sequence.to_le_bytes().to_vec(),
            leaf,
        ]
        .concat()
    }
}

impl BboltFile {
    /// A file with transaction 1 in it.
    pub(crate) fn new(layout: Layout, root: &Tree) -> Self {
        Self::make(layout, root, None)
    }

    /// The same, and each commit will use the pages again that it does not change.
    pub(crate) fn copy_on_write(layout: Layout, root: &Tree) -> Self {
        Self::make(layout, root, Some(Contents::new()))
    }

    fn make(layout: Layout, root: &Tree, share: Option<Contents>) -> Self {
        let mut file = Self {
            share,
            layout,
            bytes: Vec::new(),
            txid: 0,
            high_water: 2,
            used: BTreeSet::new(),
        };
        file.commit(root);
        file
    }

    /// Commits, and says which writes that took, in their order. The meta page comes last, in two halves: a reader may
    /// see it torn.
    pub(crate) fn commit(&mut self, root: &Tree) -> Vec<Write> {
        let mut commit = Commit {
            layout: self.layout,
            kept: &self.used,
            high_water: self.high_water,
            used: BTreeSet::new(),
            searched: 2,
            share: self.share.take(),
            written: Contents::new(),
            writes: Vec::new(),
        };
        let page = commit.write_tree(root);
        let Commit {
            high_water,
            used,
            mut writes,
            share,
            written,
            ..
        } = commit;
        self.share = share.map(|_| written);
        self.txid += 1;
        (self.high_water, self.used) = (high_water, used);
        let id = self.txid % 2;
        let bytes = [
            header(id, 4, 0, 0),
            meta(self.layout.page_size, page, root.sequence, high_water, self.txid),
        ]
        .concat();
        let offset = usize::try_from(id).unwrap() * self.layout.page_size;
        writes.push((offset, bytes[..48].to_vec()));
        writes.push((offset + 48, bytes[48..].to_vec()));
        for write in &writes {
            apply(&mut self.bytes, write);
        }
        writes
    }

    /// Where a page begins.
    pub(crate) fn at(&self, page: u64) -> usize {
        usize::try_from(page).unwrap() * self.layout.page_size
    }
}

/// Applies a write to the bytes of a file, which grows as needed.
pub(crate) fn apply(bytes: &mut Vec<u8>, (offset, data): &Write) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[*offset..end].copy_from_slice(data);
}

/// Everything below a bucket, and on the way whether `get` agrees with the walk.
pub(crate) fn dump<S: PageSource>(bucket: &Bucket<'_, S>) -> Result<Tree, BboltError> {
    let mut tree = Tree {
        sequence: bucket.sequence(),
        items: BTreeMap::new(),
    };
    bucket.for_each(|key, value| {
        let item = match value {
            Value::Bytes(bytes) => Item::Bytes(bytes.into_owned()),
            Value::Bucket(inner) => Item::Bucket(dump(&inner)?),
        };
        assert!(
            tree.items.insert(key.to_vec(), item).is_none(),
            "a key came twice"
        );
        Ok::<_, BboltError>(())
    })?;
    Ok(tree)
}

pub(crate) fn dump_all<S: PageSource>(snapshot: &Snapshot<'_, S>) -> Result<Tree, BboltError> {
    dump(&snapshot.root())
}

/// What a file in memory has read in one go, in bytes: a few of its smaller pages.
pub(crate) const READ_AHEAD: u64 = 5000;

/// A file in memory that others write to between two reads, and that counts what is read.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) bytes: RefCell<Vec<u8>>,
    /// Before read number n, this many of the writes that are left are applied.
    schedule: Vec<usize>,
    writes: RefCell<std::vec::IntoIter<Write>>,
    pub(crate) reads: Cell<usize>,
    pub(crate) bytes_read: Cell<usize>,
}

impl Moving {
    pub(crate) fn new(bytes: Vec<u8>, schedule: Vec<usize>, writes: Vec<Write>) -> Self {
        Self {
            bytes: RefCell::new(bytes),
            schedule,
            writes: RefCell::new(writes.into_iter()),
            reads: Cell::new(0),
            bytes_read: Cell::new(0),
        }
    }

    /// A file that holds still.
    pub(crate) fn still(bytes: Vec<u8>) -> Self {
        Self::new(bytes, Vec::new(), Vec::new())
    }
}

impl PageSource for &Moving {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let now = self.schedule.get(self.reads.get()).copied().unwrap_or(0);
        for write in self.writes.borrow_mut().by_ref().take(now) {
            apply(&mut self.bytes.borrow_mut(), &write);
        }
        self.reads.set(self.reads.get() + 1);
        self.bytes_read.set(self.bytes_read.get() + buf.len());
        self.bytes.borrow().read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.borrow().size()
    }

    fn read_ahead(&self) -> u64 {
        READ_AHEAD
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "test".to_owned()
    }
}

/// Reads all that is in each of many buckets.
struct Dump;

impl Visit for Dump {
    type Made = Tree;
    type Error = BboltError;

    fn visit<S: PageSource>(&self, _: usize, bucket: &Bucket<'_, S>) -> Result<Tree, BboltError> {
        dump(bucket)
    }
}

/// The same, the buckets of the root in the order in which they lie in the file.
pub(crate) fn dump_in_file_order<S: PageSource>(snapshot: &Snapshot<'_, S>) -> Result<Tree, BboltError> {
    let root = snapshot.root();
    let mut tree = Tree {
        sequence: root.sequence(),
        items: BTreeMap::new(),
    };
    let (mut keys, mut buckets) = (Vec::new(), Vec::new());
    root.for_each(|key, value| {
        match value {
            Value::Bytes(bytes) => drop(tree.items.insert(key.to_vec(), Item::Bytes(bytes.into_owned()))),
            Value::Bucket(inner) => {
                keys.push(key.to_vec());
                buckets.push(inner);
            }
        }
        Ok::<_, BboltError>(())
    })?;
    let dumped = snapshot.in_file_order(&buckets, &Dump)?;
    assert_eq!(dumped.len(), keys.len());
    let items = dumped.into_iter().map(Item::Bucket);
    tree.items.extend(keys.into_iter().zip(items));
    Ok(tree)
}

/// Reads everything from bytes that hold still, and how many bytes that took.
pub(crate) fn read_still(bytes: Vec<u8>) -> (Result<Tree, BboltError>, usize) {
    let source = Moving::still(bytes);
    let database = Database::new(&source);
    let tree = database.snapshot(dump_all).map(|(tree, _)| tree);
    (tree, source.bytes_read.get())
}
