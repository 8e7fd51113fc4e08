//! Reads containerd's pool database, `<root_path>/<pool_name>.db` (containerd `plugins/snapshots/devmapper/metadata.go`).
//!
//! Two top-level buckets: `devices` (device name to JSON record) and `device_ids` (decimal id to one byte), both made
//! in one transaction when containerd first opens the file. The database has no checksums of its own and no version.
//!
//! Whatever is not exactly as containerd writes it is an error that names the key. A record skipped here would make
//! its thin device look like nobody's.

use std::collections::BTreeMap;
use std::path::Path;

use super::bbolt::{
    BboltError, Bucket, Database, PageSource, Snapshot, Value,
    fold::{Entry, Found, Shape, Tables},
};
#[cfg(feature = "readers")]
use super::bbolt::{FileSource, Pages};
pub use crate::model::PoolDb;
use crate::model::{Bytes, DeviceRecord, DeviceState, IdState, ThinId, Untrusted, commit::EntryChange};

/// `devicesBucketName`, metadata.go.
const DEVICES: &str = "devices";
/// `deviceIDBucketName`, metadata.go.
const DEVICE_IDS: &str = "device_ids";
/// Longest record that is decoded, in bytes. A record is some 150 bytes; its error text holds what `dmsetup` printed.
const LONGEST_RECORD: usize = 1 << 20;
/// How often the file is opened again when it was replaced meanwhile.
#[cfg(feature = "readers")]
const OPENS: usize = 3;

/// Why there is no answer about the pool database.
#[derive(Debug, thiserror::Error)]
pub enum PoolDbError {
    /// No such file: containerd's devmapper snapshotter never started with this root and pool name, or lost all it had.
    #[error(
        "{path} does not exist: containerd's devmapper snapshotter has not started here yet, its databases were deleted, \
         or root_path or pool_name is another"
    )]
    Missing {
        /// The path.
        path: String,
    },
    /// The file exists, with nothing in it: containerd's first start was interrupted, or is happening now.
    #[error(
        "{path} holds no bucket yet: containerd's first start is under way or was interrupted; start containerd"
    )]
    NotInitialised {
        /// The path.
        path: String,
    },
    /// A bbolt database of something else, or one that lost a bucket.
    #[error(
        "{path} is a bbolt database without the bucket `{bucket}`, which containerd makes at its first start: \
         it is not a pool database; check the path"
    )]
    NotAPoolDb {
        /// The path.
        path: String,
        /// What is missing.
        bucket: &'static str,
    },
    /// The file could not be read, is no bbolt database, or is damaged.
    #[error(transparent)]
    Database(#[from] BboltError),
    /// An entry is not what containerd writes.
    #[error(
        "{path}, bucket `{bucket}`, key `{key}`: {problem}; nothing in this pool is judged until that is understood"
    )]
    BadEntry {
        /// The path.
        path: String,
        /// Which bucket.
        bucket: &'static str,
        /// The key, made printable.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Entries as they lie in the file, decoded only after the read proved consistent: the shorter that read, the rarer
/// a commit falls into it.
struct Raw {
    devices: Entries,
    device_ids: Entries,
    id_sequence: u64,
}

/// Keys and values one after the other: two allocations for each entry would cost as much as reading it.
#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    /// Of each entry, where its key and where its value ends.
    ends: Vec<(usize, usize)>,
}

impl Entries {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        begins.zip(&self.ends).filter_map(|(begin, (key_end, end))| {
            Some((self.bytes.get(begin..*key_end)?, self.bytes.get(*key_end..*end)?))
        })
    }
}

impl PoolDb {
    /// Reads the database at `path`, whether containerd runs or not. Takes no lock.
    #[cfg(feature = "readers")]
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PoolDbError> {
        Self::open_and_read(path.as_ref(), Database::new).map(|(read, _)| read)
    }

    /// The same, with the pages that were read.
    #[cfg(feature = "readers")]
    pub fn read_with_pages(path: impl AsRef<Path>) -> Result<(Self, Pages), PoolDbError> {
        Self::open_and_read(path.as_ref(), Database::keeping)
    }

    #[cfg(feature = "readers")]
    fn open_and_read(
        path: &Path,
        open: fn(FileSource) -> Database<FileSource>,
    ) -> Result<(Self, Pages), PoolDbError> {
        let mut opens = 1;
        loop {
            let read = FileSource::open(path).map(|source| open(source).with_free_list());
            let read = read.map_err(PoolDbError::from);
            let read =
                read.and_then(|database| Ok((Self::read_from(&database, path)?, database.into_kept())));
            match read {
                Err(PoolDbError::Database(BboltError::Replaced { .. })) if opens < OPENS => opens += 1,
                Err(PoolDbError::Database(BboltError::Missing { file })) => {
                    return Err(PoolDbError::Missing { path: file });
                }
                Err(PoolDbError::Database(BboltError::Empty { file })) => {
                    return Err(PoolDbError::NotInitialised { path: file });
                }
                other => return other,
            }
        }
    }

    /// Reads a database that is open already; `path` is only for messages.
    pub fn read_from<S: PageSource>(database: &Database<S>, path: &Path) -> Result<Self, PoolDbError> {
        let (raw, txid) = database.snapshot(|snapshot| collect(snapshot, path))?;
        let bad = |bucket, key: &[u8], problem: String| bad_entry(path, bucket, key, problem);
        // Collected before they become a map: what is in order already is made a tree at once.
        let devices = raw.devices.iter().map(|(key, value)| {
            let record = decode_record(key, value).map_err(|problem| bad(DEVICES, key, problem))?;
            Ok((record.name.clone(), record))
        });
        let devices: Vec<_> = devices.collect::<Result<_, PoolDbError>>()?;
        let device_ids = raw
            .device_ids
            .iter()
            .map(|(key, value)| decode_id(key, value).map_err(|problem| bad(DEVICE_IDS, key, problem)));
        let device_ids: Vec<_> = device_ids.collect::<Result<_, PoolDbError>>()?;
        Ok(Self {
            devices: BTreeMap::from_iter(devices),
            device_ids: BTreeMap::from_iter(device_ids),
            id_sequence: raw.id_sequence,
            txid,
        })
    }
}

const NOT_A_VALUE: &str = "is a bucket where a value belongs";

fn bad_entry(path: &Path, bucket: &'static str, key: &[u8], problem: impl Into<String>) -> PoolDbError {
    PoolDbError::BadEntry {
        path: path.display().to_string(),
        bucket,
        key: key.escape_ascii().to_string(),
        problem: problem.into(),
    }
}

/// Follows both buckets from commit to commit.
#[derive(Debug)]
pub struct PoolTables<'p> {
    /// The database, for messages.
    pub path: &'p Path,
}

impl Tables for PoolTables<'_> {
    type Change = EntryChange;
    type Error = PoolDbError;

    fn find<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, PoolDbError> {
        let buckets = buckets(snapshot, self.path)?.into_iter().flatten();
        let found = buckets.zip([DEVICES, DEVICE_IDS]).map(|(bucket, name)| Found {
            name: name.into(),
            bucket,
            shape: Shape::Values,
        });
        Ok(found.collect())
    }

    fn change(
        &self,
        table: &[u8],
        key: &[u8],
        from: Option<Entry<'_>>,
        to: Option<Entry<'_>>,
    ) -> Result<EntryChange, PoolDbError> {
        if table == DEVICES.as_bytes() {
            let record = |entry| self.decode(DEVICES, key, entry, |value| decode_record(key, value));
            return Ok(EntryChange::Device {
                name: Untrusted::from_bytes(key),
                from: record(from.as_ref())?,
                to: record(to.as_ref())?,
            });
        }
        let id = |entry| self.decode(DEVICE_IDS, key, entry, |value| decode_id(key, value));
        let (from, to) = (id(from.as_ref())?, id(to.as_ref())?);
        let Some((id, _)) = to.or(from) else {
            return Err(bad_entry(
                self.path,
                DEVICE_IDS,
                key,
                "is neither before nor after",
            ));
        };
        Ok(EntryChange::Id {
            id,
            from: from.map(|(_, state)| state),
            to: to.map(|(_, state)| state),
        })
    }
}

impl PoolTables<'_> {
    fn decode<T>(
        &self,
        bucket: &'static str,
        key: &[u8],
        entry: Option<&Entry<'_>>,
        decode: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, PoolDbError> {
        let decoded = match entry {
            None => return Ok(None),
            Some(Entry::Bytes(value)) => decode(value),
            Some(Entry::Parts(_) | Entry::Misfit) => Err(NOT_A_VALUE.to_owned()),
        };
        decoded
            .map(Some)
            .map_err(|problem| bad_entry(self.path, bucket, key, problem))
    }
}

/// The two buckets; none of them before containerd's first transaction.
pub(super) fn buckets<'s, S: PageSource>(
    snapshot: &'s Snapshot<'s, S>,
    path: &Path,
) -> Result<Option<[Bucket<'s, S>; 2]>, PoolDbError> {
    let root = snapshot.root();
    let bucket = match (
        root.bucket(DEVICES.as_bytes())?,
        root.bucket(DEVICE_IDS.as_bytes())?,
    ) {
        (Some(devices), Some(device_ids)) => return Ok(Some([devices, device_ids])),
        (None, None) if is_empty(&root)? => return Ok(None),
        (None, _) => DEVICES,
        (_, None) => DEVICE_IDS,
    };
    Err(PoolDbError::NotAPoolDb {
        path: path.display().to_string(),
        bucket,
    })
}

fn collect<S: PageSource>(snapshot: &Snapshot<'_, S>, path: &Path) -> Result<Raw, PoolDbError> {
    let path_text = || path.display().to_string();
    let Some([devices, device_ids]) = buckets(snapshot, path)? else {
        return Err(PoolDbError::NotInitialised { path: path_text() });
    };
    let entries = |bucket: &Bucket<'_, S>, name| {
        let mut entries = Entries::default();
        bucket.for_each(|key, value| match value {
            Value::Bytes(bytes) => {
                entries.push(key, &bytes);
                Ok(())
            }
            Value::Bucket(_) => Err(bad_entry(path, name, key, NOT_A_VALUE)),
        })?;
        Ok::<_, PoolDbError>(entries)
    };
    Ok(Raw {
        devices: entries(&devices, DEVICES)?,
        device_ids: entries(&device_ids, DEVICE_IDS)?,
        id_sequence: device_ids.sequence(),
    })
}

fn is_empty<S: PageSource>(bucket: &Bucket<'_, S>) -> Result<bool, BboltError> {
    let mut empty = true;
    bucket.for_each(|_, _| {
        empty = false;
        Ok::<_, BboltError>(())
    })?;
    Ok(empty)
}

fn decode_record(key: &[u8], value: &[u8]) -> Result<DeviceRecord, String> {
    if value.len() > LONGEST_RECORD {
        return Err(format!(
            "a record of {} bytes; at most {LONGEST_RECORD} are read",
            value.len()
        ));
    }
    let record: DeviceRecord = match plain_record(value) {
        Some(record) => record.into(),
        None => serde_json::from_slice(value).map_err(|error| format!("not a device record: {error}"))?,
    };
    if record.name.as_bytes() != key {
        return Err(format!("its record is named `{}`", record.name.escape_debug()));
    }
    if record.device_id > ThinId::MAX {
        return Err(format!(
            "thin id {} is above the kernel's largest, {}",
            record.device_id,
            ThinId::MAX
        ));
    }
    Ok(record)
}

/// A record in the very bytes in which Go's encoder writes one (fields in the order of `DeviceInfo`, `device_info.go`, no
/// spaces) and without escapes: nearly all of them. Nothing for any other, which may be a record all
/// the same.
pub(super) fn plain_record(value: &[u8]) -> Option<PlainRecord<'_>> {
    fn number<T: std::str::FromStr>(text: &str) -> Option<(T, &str)> {
        let end = text.find(|char: char| !char.is_ascii_digit())?;
        let (digits, rest) = text.split_at_checked(end)?;
        let plain = digits == "0" || !digits.starts_with('0');
        Some((digits.parse().ok().filter(|_| plain)?, rest))
    }
    fn string(text: &str) -> Option<(&str, &str)> {
        let (inside, rest) = text.strip_prefix('"')?.split_once('"')?;
        let plain = inside.bytes().all(|byte| byte >= b' ' && byte != b'\\');
        plain.then_some((inside, rest))
    }
    let text = std::str::from_utf8(value).ok()?;
    let (device_id, text) = number(text.strip_prefix("{\"device_id\":")?)?;
    let (size, text) = number(text.strip_prefix(",\"size\":")?)?;
    let (name, text) = string(text.strip_prefix(",\"name\":")?)?;
    let (parent_name, text) = string(text.strip_prefix(",\"parent_name\":")?)?;
    let (state, text) = number::<i64>(text.strip_prefix(",\"state\":")?)?;
    let (error, text) = string(text.strip_prefix(",\"error\":")?)?;
    (text == "}").then(|| PlainRecord {
        device_id: ThinId(device_id),
        size: Bytes(size),
        name,
        parent_name,
        state: state.into(),
        error,
    })
}

/// A record where it lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainRecord<'r> {
    pub(super) device_id: ThinId,
    size: Bytes,
    pub(super) name: &'r str,
    parent_name: &'r str,
    pub(super) state: DeviceState,
    pub(super) error: &'r str,
}

impl From<PlainRecord<'_>> for DeviceRecord {
    fn from(record: PlainRecord<'_>) -> Self {
        Self {
            device_id: record.device_id,
            size: record.size,
            name: record.name.to_owned(),
            parent_name: record.parent_name.to_owned(),
            state: record.state,
            error: record.error.to_owned(),
        }
    }
}

pub(super) fn decode_id(key: &[u8], value: &[u8]) -> Result<(ThinId, IdState), String> {
    // Go's strconv.FormatUint: digits only, no leading zero. Anything looser could name one id twice.
    let plain = key.iter().all(u8::is_ascii_digit) && (key == b"0" || !key.starts_with(b"0"));
    let id = std::str::from_utf8(key)
        .ok()
        .filter(|_| plain)
        .and_then(|digits| digits.parse().ok())
        .map(ThinId)
        .filter(|id| *id <= ThinId::MAX)
        .ok_or_else(|| format!("not a thin id in plain decimal, 0 to {}", ThinId::MAX))?;
    match value {
        [state] => Ok((id, IdState::from(*state))),
        _ => Err(format!(
            "a state of {} bytes where containerd writes one",
            value.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"device_id":2,"size":67108864,"name":"pool-snap-2","parent_name":"pool-snap-1","state":4,"error":""}"#;

    #[test]
    fn a_record_must_carry_its_key_and_a_possible_id() {
        assert!(decode_record(b"pool-snap-2", RECORD.as_bytes()).is_ok());
        assert!(
            decode_record(b"pool-snap-3", RECORD.as_bytes())
                .unwrap_err()
                .contains("pool-snap-2")
        );
        let huge = RECORD.replace("\"device_id\":2", "\"device_id\":16777216");
        assert!(
            decode_record(b"pool-snap-2", huge.as_bytes())
                .unwrap_err()
                .contains("16777216")
        );
        for broken in ["", "{}", "null", "[]", &RECORD[1..], &format!("{RECORD}x")] {
            assert!(
                decode_record(b"pool-snap-2", broken.as_bytes()).is_err(),
                "{broken}"
            );
        }
        let long = format!("{RECORD}{}", " ".repeat(LONGEST_RECORD));
        assert!(
            decode_record(b"pool-snap-2", long.as_bytes())
                .unwrap_err()
                .contains("at most")
        );
    }

    #[test]
    fn the_quick_way_knows_what_containerd_writes_and_leaves_the_rest() {
        assert!(plain_record(RECORD.as_bytes()).is_some());
        let escaped = RECORD.replace("\"error\":\"\"", "\"error\":\"a \\\" b\"");
        for other in [&escaped, &format!(" {RECORD}"), &RECORD.replace(":4", ":-4")] {
            assert_eq!(plain_record(other.as_bytes()), None, "{other}");
            assert!(decode_record(b"pool-snap-2", other.as_bytes()).is_ok(), "{other}");
        }
        for wrong in [":04", ":4.0", ":9999999999999999999", ":"] {
            let wrong = RECORD.replace(":4", wrong);
            assert_eq!(plain_record(wrong.as_bytes()), None, "{wrong}");
            assert!(
                decode_record(b"pool-snap-2", wrong.as_bytes()).is_err(),
                "{wrong}"
            );
        }
    }

    proptest::proptest! {
        /// Never another answer than the library's.
        #[test]
        fn the_quick_way_says_what_the_slow_one_says(
            at in 0..RECORD.len(), drop in 0..3_usize,
            put in proptest::prelude::prop_oneof!["[0-9\"\\\\{},: \u{1}]{0,3}", "\\PC{0,3}"],
        ) {
            let mut bytes = RECORD.as_bytes().to_vec();
            bytes.splice(at..(at + drop).min(RECORD.len()), put.into_bytes());
            if let Some(record) = plain_record(&bytes) {
                proptest::prop_assert_eq!(serde_json::from_slice::<DeviceRecord>(&bytes).ok(), Some(record.into()));
            }
        }
    }

    #[test]
    fn an_id_is_plain_decimal_with_one_byte() {
        assert_eq!(decode_id(b"59", &[2]), Ok((ThinId(59), IdState::Faulty)));
        assert_eq!(decode_id(b"16777215", &[7]), Ok((ThinId::MAX, IdState::Other(7))));
        for key in [
            "",
            "+5",
            "05",
            "00",
            "5 ",
            "-1",
            "0x5",
            "16777216",
            "99999999999",
            "5\0",
        ] {
            assert!(decode_id(key.as_bytes(), &[1]).is_err(), "{key:?}");
        }
        assert!(decode_id(b"5", &[]).is_err());
        assert!(decode_id(b"5", &[1, 0]).is_err());
    }
}
