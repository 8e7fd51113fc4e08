//! The writer of bbolt files, on changed ones: it refuses them, or what it makes of them is what was in them, with its edits.

use std::{cell::RefCell, io};

use arbitrary::{Arbitrary, Unstructured};
use suture::{
    observe::bbolt::{Database, PageSource},
    remedy::bbolt_editor::{Edit, Editor, Storage},
};

use crate::{
    bbolt_file::{Item, Tree, dump_all},
    bounds::bounded,
    changed::Input,
};

/// A file in memory.
#[derive(Debug)]
struct Disk(RefCell<Vec<u8>>);

impl PageSource for &Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.borrow().read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.borrow().size()
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "input".to_owned()
    }
}

impl Storage for &Disk {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut all = self.0.borrow_mut();
        if all.len() < at + bytes.len() {
            all.resize(at + bytes.len(), 0);
        }
        all[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        self.0.borrow_mut().resize(size, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// One edit, in a bucket by its number among all.
#[derive(Debug, Arbitrary)]
enum Choice {
    Put {
        bucket: u8,
        key: u8,
        fresh: bool,
        length: u16,
    },
    Delete {
        bucket: u8,
        key: u8,
    },
    SetSequence {
        bucket: u8,
        to: u64,
    },
}

impl Choice {
    fn bucket(&self) -> u8 {
        match self {
            Self::Put { bucket, .. } | Self::Delete { bucket, .. } | Self::SetSequence { bucket, .. } => {
                *bucket
            }
        }
    }
}

/// The paths of all buckets below the root.
fn buckets(tree: &Tree, path: &mut Vec<Vec<u8>>, found: &mut Vec<Vec<Vec<u8>>>) {
    for (key, item) in &tree.items {
        if let Item::Bucket(inner) = item {
            path.push(key.clone());
            found.push(path.clone());
            buckets(inner, path, found);
            path.pop();
        }
    }
}

fn at<'t>(tree: &'t mut Tree, path: &[Vec<u8>]) -> Option<&'t mut Tree> {
    path.iter()
        .try_fold(tree, |tree, key| match tree.items.get_mut(key) {
            Some(Item::Bucket(inner)) => Some(inner),
            _ => None,
        })
}

/// Makes an edit of a choice, and makes it to the model too.
fn edit(choice: &Choice, path: &[Vec<u8>], tree: &mut Tree) -> Option<Edit> {
    let inside = at(tree, path)?;
    let bucket = path.to_vec();
    // One of the plain values that are there.
    let pick = |tree: &Tree, nth: u8| {
        let plain: Vec<_> = tree
            .items
            .iter()
            .filter(|(_, item)| matches!(item, Item::Bytes(_)))
            .collect();
        plain
            .get(usize::from(nth).checked_rem(plain.len())?)
            .map(|(key, _)| (*key).clone())
    };
    match choice {
        Choice::Put {
            key, fresh, length, ..
        } => {
            let key = if *fresh {
                vec![b'k', *key]
            } else {
                pick(inside, *key)?
            };
            if matches!(inside.items.get(&key), Some(Item::Bucket(_))) {
                return None;
            }
            let value = vec![b'v'; usize::from(*length) % 9000];
            inside.items.insert(key.clone(), Item::Bytes(value.clone()));
            Some(Edit::Put { bucket, key, value })
        }
        Choice::Delete { key, .. } => {
            let key = pick(inside, *key)?;
            inside.items.remove(&key);
            Some(Edit::Delete { bucket, key })
        }
        Choice::SetSequence { to, .. } => {
            inside.sequence = *to;
            Some(Edit::SetSequence {
                bucket,
                sequence: *to,
            })
        }
    }
}

/// A sound file with changes, and edits to it.
pub fn bbolt_editor(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let (Ok(file), Ok(choices)) = (Input::arbitrary(&mut input), Vec::<Choice>::arbitrary(&mut input)) else {
        return;
    };
    let (bytes, _) = file.make();
    // A writer holds more in its hands than a reader, and the edits are not part of the file.
    bounded(bytes.len() + 64 * 9000, || {
        let disk = Disk(RefCell::new(bytes));
        let Ok(mut editor) = Editor::on(&disk) else { return };
        let read = || Database::new(&disk).snapshot(dump_all).map(|(tree, _)| tree);
        let mut expected = read().expect("the writer accepts what the reader refuses");
        let mut paths = Vec::new();
        buckets(&expected, &mut Vec::new(), &mut paths);
        let edits: Vec<Edit> = choices
            .iter()
            .take(64)
            .filter_map(|choice| {
                let path = paths.get(usize::from(choice.bucket()).checked_rem(paths.len())?)?;
                edit(choice, path, &mut expected)
            })
            .collect();
        let before = read().expect("what was just read");
        match editor.commit(&edits) {
            Ok(_) => assert!(
                read().expect("what was just written") == expected,
                "not what was asked for"
            ),
            Err(_) => assert!(
                read().expect("what was left alone") == before,
                "refused, and changed all the same"
            ),
        }
    });
}
