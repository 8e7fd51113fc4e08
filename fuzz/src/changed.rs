//! Sound bbolt files with pages changed: refused, or different only in what hangs on the changed pages.

use std::{path::Path, sync::OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use suture::{
    model::{CoreDb, PoolDb, SnapshotDb},
    observe::bbolt::Database,
};

use crate::{
    bbolt_file::{BboltFile, Item, Layout, Tree, dump_all, fnv1a},
    bounds::bounded,
    page_map::{PageMap, differences},
};

/// A sound file, taken apart by the other walk.
struct Sound {
    bytes: Vec<u8>,
    map: PageMap,
}

fn sound() -> &'static [Sound] {
    static SOUND: OnceLock<Vec<Sound>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let layout = |page_size, fan, inline| Layout {
            page_size,
            fan,
            inline,
        };
        let made = [
            (layout(1024, 4, 0), 60),
            (layout(1024, 9, 200), 25),
            (layout(4096, 20, 1000), 150),
            (layout(1024, 2, 64), 12),
        ];
        let written = made.map(|(layout, devices)| {
            let mut file = BboltFile::new(layout, &databases(devices, 4));
            // Pages of an older transaction stay behind, with the same keys.
            file.commit(&databases(devices, 10));
            (file.bytes, layout.page_size)
        });
        let real: [&[u8]; 3] = [
            include_bytes!("../../tests/fixtures/pool.db"),
            include_bytes!("../../tests/fixtures/metadata.db"),
            include_bytes!("../../tests/fixtures/meta.db"),
        ];
        written
            .into_iter()
            .chain(real.map(|bytes| (bytes.to_vec(), 4096)))
            .map(|(bytes, page_size)| {
                let map = PageMap::of(&bytes, page_size, None).expect("a sound file");
                let all = Database::new(bytes.clone())
                    .snapshot(dump_all)
                    .expect("a sound file")
                    .0;
                assert_eq!(all, map.tree, "the two walks do not agree");
                Sound { bytes, map }
            })
            .collect()
    })
}

/// What is in containerd's databases, all in one: a pool database and a snapshot storage.
fn databases(devices: u32, state: u32) -> Tree {
    let (mut records, mut ids, mut rows) = (Tree::default(), Tree::default(), Tree::default());
    for id in 1..=devices {
        let name = format!("p-snap-{id}");
        // Some with values that take pages of their own.
        let error = if id % 11 == 0 {
            "e".repeat(2500)
        } else {
            String::new()
        };
        let record = format!(
            r#"{{"device_id":{id},"size":1,"name":"{name}","parent_name":"","state":{state},"error":"{error}"}}"#
        );
        records.put(name.as_bytes(), record.as_bytes());
        ids.put(id.to_string().as_bytes(), &[1]);
        let mut row = Tree::default();
        row.put(b"id", &[u8::try_from(id % 128).unwrap_or(0)]);
        row.put(b"kind", &[3]);
        let mut labels = Tree::default();
        labels.put(b"containerd.io/snapshot/devmapper/fstype", b"ext4");
        row.nest(b"labels", labels);
        rows.nest(format!("k8s.io/{id}/sha256:{id}").as_bytes(), row);
    }
    (ids.sequence, rows.sequence) = (devices.into(), devices.into());
    let (mut root, mut version) = (Tree::default(), Tree::default());
    version.nest(b"snapshots", rows);
    root.nest(b"devices", records);
    root.nest(b"device_ids", ids);
    root.nest(b"v1", version);
    root
}

/// One change to a file.
#[derive(Debug, Arbitrary)]
enum Change {
    /// Bytes anywhere in a page.
    Bytes {
        page: u8,
        at: u16,
        value: u64,
        width: u8,
    },
    /// A field of a page's header: its number, flags, count, overflow.
    Header { page: u8, field: u8, value: u16 },
    /// A field of an element, made a little larger or smaller.
    Element { page: u8, slot: u8, field: u8, by: i8 },
    /// A field of an element, given a value.
    Field {
        page: u8,
        slot: u8,
        field: u8,
        value: u32,
    },
    /// A page moved by some bytes.
    Shift { page: u8, by: u8 },
    /// A copy of another page, which says that it is this one.
    Copy { from: u8, to: u8, honest: bool },
    /// Two pages in each other's place.
    Swap { one: u8, other: u8 },
    /// Nothing behind this byte of a page any more.
    Cut { page: u8, at: u16 },
}

#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    file: u8,
    changes: Vec<Change>,
}

impl Input {
    fn sound(&self) -> &'static Sound {
        let all = sound();
        &all[usize::from(self.file) % all.len()]
    }

    /// The file with its changes, and the pages that they were made to.
    pub(crate) fn make(&self) -> (Vec<u8>, Vec<u64>) {
        let sound = self.sound();
        let mut changed = Changed {
            bytes: sound.bytes.clone(),
            page_size: sound.map.page_size,
            pages: Vec::new(),
        };
        for change in self.changes.iter().take(16) {
            let _ = changed.make(change);
        }
        changed.seal_metas();
        (changed.bytes, changed.pages)
    }
}

/// A file that is being changed.
struct Changed {
    bytes: Vec<u8>,
    page_size: usize,
    pages: Vec<u64>,
}

impl Changed {
    fn page(&mut self, number: u8) -> Option<&mut [u8]> {
        let count = self.bytes.len() / self.page_size;
        let number = usize::from(number).checked_rem(count)?;
        self.pages.push(number as u64);
        self.bytes
            .get_mut(number * self.page_size..(number + 1) * self.page_size)
    }

    fn make(&mut self, change: &Change) -> Option<()> {
        let page_size = self.page_size;
        let put = |page: &mut [u8], at: usize, bytes: &[u8]| {
            let at = at.min(page.len() - bytes.len());
            page[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let element = |slot: u8, field: u8| {
            (16 + 16 * usize::from(slot) + 4 * usize::from(field % 4)) % (page_size - 3)
        };
        match change {
            Change::Bytes {
                page,
                at,
                value,
                width,
            } => {
                let width = usize::from(width % 8) + 1;
                put(
                    self.page(*page)?,
                    usize::from(*at) % page_size,
                    &value.to_le_bytes()[..width],
                );
            }
            Change::Header { page, field, value } => {
                let at = [0, 8, 10, 12][usize::from(field % 4)];
                put(self.page(*page)?, at, &value.to_le_bytes());
            }
            Change::Element {
                page,
                slot,
                field,
                by,
            } => {
                let page = self.page(*page)?;
                let at = element(*slot, *field);
                let old = u32::from_le_bytes(std::array::from_fn(|byte| page[at + byte]));
                put(page, at, &old.wrapping_add_signed(i32::from(*by)).to_le_bytes());
            }
            Change::Field {
                page,
                slot,
                field,
                value,
            } => {
                put(self.page(*page)?, element(*slot, *field), &value.to_le_bytes());
            }
            Change::Shift { page, by } => self.page(*page)?.rotate_right(usize::from(*by)),
            Change::Copy { from, to, honest } => {
                let mut copy = self.page(*from)?.to_vec();
                let to = self.page(*to)?;
                if !honest {
                    copy[..8].copy_from_slice(&to[..8]);
                }
                to.copy_from_slice(&copy);
            }
            Change::Swap { one, other } => {
                let old = self.page(*one)?.to_vec();
                let other = self.page(*other)?;
                let moved = other.to_vec();
                other.copy_from_slice(&old);
                self.page(*one)?.copy_from_slice(&moved);
            }
            Change::Cut { page, at } => {
                let length = usize::from(*page) * page_size + usize::from(*at) % page_size;
                self.bytes.truncate(length);
            }
        }
        Some(())
    }

    /// Makes the checksums of changed metas fit, where they still are metas.
    fn seal_metas(&mut self) {
        for page in self.pages.iter().filter(|page| **page < 2) {
            let at = usize::try_from(*page).unwrap_or_default() * self.page_size + 16;
            if let Some(meta) = self.bytes.get_mut(at..at + 64) {
                let sum = fnv1a(&meta[..56]);
                meta[56..].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

/// A sound file with changes.
pub fn bbolt_changed(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let sound = input.sound();
    let (bytes, pages) = input.make();
    let name = Path::new("input");
    let (pool, snapshots, tree) = bounded(bytes.len(), || {
        let database = || Database::new(bytes.clone());
        let _ = CoreDb::read_from(&database(), name);
        (
            PoolDb::read_from(&database(), name),
            SnapshotDb::read_from(&database(), name),
            database().snapshot(dump_all),
        )
    });
    let Ok((tree, _)) = tree else { return };
    // A root of its own: nothing is left to compare with.
    if pages.iter().any(|page| *page < 2) {
        return;
    }
    for path in differences(&sound.map.tree, &tree) {
        let covered = pages.iter().any(|page| {
            sound
                .map
                .pages
                .get(page)
                .is_some_and(|region| region.covers(&path))
        });
        assert!(
            covered,
            "{path:?} is not what it was, and hangs on none of the pages {pages:?}"
        );
    }
    // What the readers make of it is all that is in it.
    let entries = |path: &[&str]| {
        let mut at = &tree;
        for name in path {
            match at.items.get(name.as_bytes()) {
                Some(Item::Bucket(inner)) => at = inner,
                _ => return 0,
            }
        }
        at.items.len()
    };
    if let Ok(pool) = pool {
        assert_eq!(pool.devices.len(), entries(&["devices"]));
        assert_eq!(pool.device_ids.len(), entries(&["device_ids"]));
    }
    if let Ok(snapshots) = snapshots {
        assert_eq!(snapshots.snapshots.len(), entries(&["v1", "snapshots"]));
    }
}
