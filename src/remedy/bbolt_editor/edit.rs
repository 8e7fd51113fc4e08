//! What is to be changed: single edits, and the same gathered by bucket, in the order of keys.

use std::collections::BTreeMap;

use super::error::EditError;

/// One change. A bucket is named by the path to it, from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Gives a key a value, whether it was there or not. The bucket has to be there.
    Put {
        /// Path of the bucket.
        bucket: Vec<Vec<u8>>,
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Takes a key away, if it is there. It must not be a bucket.
    Delete {
        /// Path of the bucket.
        bucket: Vec<Vec<u8>>,
        /// The key.
        key: Vec<u8>,
    },
    /// Sets the counter behind bbolt's `NextSequence`.
    SetSequence {
        /// Path of the bucket.
        bucket: Vec<Vec<u8>>,
        /// Its new value.
        sequence: u64,
    },
}

/// bbolt's `MaxKeySize`.
const LONGEST_KEY: usize = 32768;
/// Longer than anything containerd keeps; bbolt's own limit is 2 GiB.
const LONGEST_VALUE: usize = 16 << 20;
/// Most buckets inside each other. containerd's deepest path has seven.
pub(super) const DEEPEST: usize = 32;

/// What becomes of a key.
#[derive(Debug)]
pub(super) enum Change<'e> {
    Put(&'e [u8]),
    Delete,
    /// The key is a bucket, with changes inside.
    Inside(BucketChanges<'e>),
}

/// All changes of one bucket and what is below.
#[derive(Debug, Default)]
pub(super) struct BucketChanges<'e> {
    pub(super) sequence: Option<u64>,
    pub(super) keys: BTreeMap<&'e [u8], Change<'e>>,
}

impl Edit {
    fn bucket(&self) -> &[Vec<u8>] {
        match self {
            Self::Put { bucket, .. } | Self::Delete { bucket, .. } | Self::SetSequence { bucket, .. } => {
                bucket
            }
        }
    }

    fn refuse(&self, file: &str, problem: &'static str) -> EditError {
        let bucket = path(self.bucket().iter().map(Vec::as_slice));
        let edit = match self {
            Self::Put { key, .. } => format!("putting `{}` into bucket `{bucket}`", key.escape_ascii()),
            Self::Delete { key, .. } => {
                format!("deleting `{}` from bucket `{bucket}`", key.escape_ascii())
            }
            Self::SetSequence { .. } => format!("setting the sequence of bucket `{bucket}`"),
        };
        EditError::Refused {
            file: file.to_owned(),
            edit,
            problem,
        }
    }
}

/// A path of names, as messages show it.
pub(super) fn path<'n>(names: impl Iterator<Item = &'n [u8]>) -> String {
    names
        .map(|name| name.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join("/")
}

impl<'e> BucketChanges<'e> {
    /// Gathers `edits`; of two for the same key the later one counts.
    pub(super) fn gather(file: &str, edits: &'e [Edit]) -> Result<Self, EditError> {
        let mut root = Self::default();
        for edit in edits {
            let refuse = |problem| Err(edit.refuse(file, problem));
            match edit.bucket().len() {
                0 => return refuse("the top of a database holds buckets only"),
                depth if depth > DEEPEST => return refuse("the bucket lies too deep"),
                _ => {}
            }
            let Some(bucket) = root.below(edit.bucket()) else {
                return refuse(
                    "another edit of the same transaction treats a bucket of that name as a value",
                );
            };
            let (key, change) = match edit {
                Edit::SetSequence { sequence, .. } => {
                    bucket.sequence = Some(*sequence);
                    continue;
                }
                Edit::Put { value, .. } if value.len() > LONGEST_VALUE => {
                    return refuse("the value is longer than 16 MiB");
                }
                Edit::Put { key, value, .. } => (key, Change::Put(value)),
                Edit::Delete { key, .. } => (key, Change::Delete),
            };
            if key.is_empty() || key.len() > LONGEST_KEY {
                return refuse("a key has 1 to 32768 bytes");
            }
            if let Some(Change::Inside(_)) = bucket.keys.insert(key, change) {
                return refuse(
                    "another edit of the same transaction treats a value of that name as a bucket",
                );
            }
        }
        Ok(root)
    }

    fn below(&mut self, path: &'e [Vec<u8>]) -> Option<&mut Self> {
        let mut bucket = self;
        for name in path {
            let inner = bucket
                .keys
                .entry(name)
                .or_insert_with(|| Change::Inside(Self::default()));
            let Change::Inside(inner) = inner else { return None };
            bucket = inner;
        }
        Some(bucket)
    }
}
