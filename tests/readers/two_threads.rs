//! Many buckets are shared by several threads: what they say is what one thread says.

use std::{collections::HashSet, io, sync::Mutex, thread, thread::ThreadId};

use proptest::prelude::*;
use suture::observe::bbolt::{BboltError, Database, PageSource};

use crate::bbolt_file::{BboltFile, Layout, Moving, Tree, dump_in_file_order};

/// Each row on a page of its own.
const LAYOUT: Layout = Layout {
    page_size: 1024,
    fan: 5,
    inline: 0,
};
const ROWS: u32 = 300;

fn rows() -> (Tree, Vec<u8>) {
    let mut root = Tree::default();
    for number in 0..ROWS {
        let mut row = Tree::default();
        row.put(b"id", &number.to_le_bytes());
        root.nest(format!("row {number:03}").as_bytes(), row);
    }
    let bytes = BboltFile::new(LAYOUT, &root).bytes;
    (root, bytes)
}

/// A file in memory that several threads may read, and that knows which did.
struct Watched {
    bytes: Vec<u8>,
    readers: Mutex<HashSet<ThreadId>>,
}

impl PageSource for &Watched {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.readers.lock().unwrap().insert(thread::current().id());
        self.bytes.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }

    fn read_ahead(&self) -> u64 {
        8192
    }

    fn shared(&self) -> Option<&(dyn PageSource + Sync)> {
        Some(self)
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "test".to_owned()
    }
}

/// What one thread says of a file; errors as they are told.
fn by_one(bytes: &[u8]) -> Result<Tree, String> {
    let source = Moving::still(bytes.to_vec());
    told(Database::new(&source).snapshot(dump_in_file_order))
}

/// What several say, of which more than one must have read.
fn by_two(bytes: &[u8]) -> Result<Tree, String> {
    let source = Watched {
        bytes: bytes.to_vec(),
        readers: Mutex::default(),
    };
    told(Database::new(&source).snapshot(dump_in_file_order)).inspect(|_| {
        assert!(source.readers.lock().unwrap().len() > 1);
    })
}

fn told<T>(read: Result<(Tree, T), BboltError>) -> Result<Tree, String> {
    read.map(|(tree, _)| tree).map_err(|error| error.to_string())
}

#[test]
fn damage_in_any_row_is_told_as_by_one_thread() {
    let (root, bytes) = rows();
    assert_eq!(by_two(&bytes).unwrap(), root);
    let pages = bytes.len() / LAYOUT.page_size;
    let mut refused = 0;
    for page in 2..pages {
        let mut damaged = bytes.clone();
        // Its number, its flags, and its bytes behind the last element.
        for at in [0, 8, LAYOUT.page_size - 1] {
            damaged[page * LAYOUT.page_size + at] ^= 1;
            let two = by_two(&damaged);
            assert_eq!(two, by_one(&damaged), "page {page}, byte {at}");
            refused += usize::from(two.is_err());
            damaged[page * LAYOUT.page_size + at] ^= 1;
        }
    }
    assert!(
        refused > 3 * usize::try_from(ROWS).unwrap(),
        "{refused} were refused"
    );
}

#[test]
fn a_row_that_two_point_at_is_told_as_by_one_thread() {
    let (_, bytes) = rows();
    // The entry of the last row leads to the page of the first one: the value of an entry begins with a page number.
    let pages = bytes.len() / LAYOUT.page_size;
    let root_of = |bytes: &[u8], name: &[u8]| {
        let at = bytes
            .windows(name.len())
            .position(|window| window == name)
            .unwrap()
            + name.len();
        (at, u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
    };
    let mut damaged = bytes.clone();
    let (_, first) = root_of(&bytes, b"row 000");
    let (at, last) = root_of(&bytes, b"row 299");
    assert!(first != last && usize::try_from(first.max(last)).unwrap() < pages);
    damaged[at..at + 8].copy_from_slice(&first.to_le_bytes());
    let said = by_two(&damaged).unwrap_err();
    assert!(said.contains("in use twice"), "{said}");
    assert_eq!(Err(said), by_one(&damaged));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_threads_say_what_one_says(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        words in proptest::collection::vec((any::<prop::sample::Index>(), 0..400_u64), 0..3),
        cut in prop_oneof![4 => Just(0_usize), 1 => 0..100_000_usize],
    ) {
        let (_, mut bytes) = rows();
        let data = 2 * LAYOUT.page_size..bytes.len();
        for (place, value) in damage {
            bytes[data.start + place.index(data.len())] = value;
        }
        for (place, value) in words {
            let at = data.start + place.index(data.len() - 8);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes.truncate(data.end.saturating_sub(cut).max(data.start));
        prop_assert_eq!(by_two(&bytes), by_one(&bytes));
    }
}
