//! Those parts of the pool database that acts are about, as they lie in the file, and what acts make of it: the edits of one transaction. Nothing is written here.
//! Every act is checked against what is there: another record, another state or another owner of the id refuses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::record_text::RecordText;
use crate::{
    model::{Act, DeviceRecord, DeviceState, IdState, PoolDb, SnapshotId, ThinId, TxId},
    observe::bbolt::{BboltError, Bucket as Bbolt, Database, PageSource, Value},
    remedy::bbolt_editor::Edit,
};

/// `devicesBucketName` and `deviceIDBucketName` (plugins/snapshots/devmapper/metadata.go).
const DEVICES: &[u8] = b"devices";
const DEVICE_IDS: &[u8] = b"device_ids";

/// Keys and values of a bucket.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is in the pool database of those records and ids that acts are about, with what is to become of it.
#[derive(Debug)]
pub(super) struct Book {
    txid: TxId,
    devices: Entries,
    ids: Entries,
    sequence: u64,
    /// How many records carry each of those ids.
    carriers: BTreeMap<ThinId, usize>,
    touched: BTreeSet<(Bucket, Vec<u8>)>,
    sequence_touched: bool,
    /// What the act list at hand has changed, the newest last: taken back when one of its acts is refused.
    trail: Vec<Was>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Devices,
    Ids,
}

impl Bucket {
    fn path(self) -> Vec<Vec<u8>> {
        let name = match self {
            Self::Devices => DEVICES,
            Self::Ids => DEVICE_IDS,
        };
        vec![name.to_vec()]
    }
}

#[derive(Debug)]
enum Was {
    Entry(Bucket, Vec<u8>, Option<Vec<u8>>),
    Sequence(u64),
    Carrier(ThinId, usize),
}

impl Book {
    /// Reads what `acts` are about, without a lock: whoever edits compares the transaction under the lock. `seen` is the same
    /// database as a survey has it; who carries an id is taken from there, and is so only in the same transaction.
    pub(super) fn read<'a>(
        path: &Path,
        seen: &PoolDb,
        acts: impl Iterator<Item = &'a Act>,
    ) -> Result<Self, BboltError> {
        let mut names = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for act in acts {
            let (name, id) = touches(act);
            names.extend(name.map(str::as_bytes));
            numbers.extend(id);
        }
        let keys: BTreeSet<_> = numbers.iter().map(ThinId::to_string).collect();
        let keys: BTreeSet<_> = keys.iter().map(String::as_bytes).collect();
        let database = Database::open(path)?;
        let ((devices, ids, sequence), txid) = database.snapshot(|snapshot| {
            let root = snapshot.root();
            let devices = match root.bucket(DEVICES)? {
                Some(bucket) => gather(&bucket, &names)?,
                None => Entries::new(),
            };
            let ids = root.bucket(DEVICE_IDS)?;
            let sequence = ids.as_ref().map_or(0, Bbolt::sequence);
            let ids = match ids {
                Some(bucket) => gather(&bucket, &keys)?,
                None => Entries::new(),
            };
            Ok::<_, BboltError>((devices, ids, sequence))
        })?;
        let mut carriers = BTreeMap::new();
        for record in seen.devices.values() {
            if numbers.contains(&record.device_id) {
                *carriers.entry(record.device_id).or_default() += 1;
            }
        }
        Ok(Self {
            txid,
            devices,
            ids,
            sequence,
            carriers,
            touched: BTreeSet::new(),
            sequence_touched: false,
            trail: Vec::new(),
        })
    }

    /// The transaction that was read.
    pub(super) fn txid(&self) -> TxId {
        self.txid
    }

    /// Takes up the edits among some acts, all or none; says why none.
    pub(super) fn apply(&mut self, acts: &[Act]) -> Result<(), String> {
        let done = acts.iter().try_for_each(|act| self.one(act));
        if done.is_err() {
            self.take_back();
        }
        self.trail.clear();
        done
    }

    /// The transaction that makes of the file what was taken up.
    pub(super) fn edits(&self) -> Vec<Edit> {
        let entries = self.touched.iter().map(|(bucket, key)| {
            let value = self.bucket(*bucket).get(key).cloned();
            let (bucket, key) = (bucket.path(), key.clone());
            match value {
                Some(value) => Edit::Put { bucket, key, value },
                None => Edit::Delete { bucket, key },
            }
        });
        let sequence = self.sequence_touched.then(|| Edit::SetSequence {
            bucket: Bucket::Ids.path(),
            sequence: self.sequence,
        });
        entries.chain(sequence).collect()
    }

    fn one(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::ResumeNode { .. } | Act::RemoveNode { .. } | Act::DeleteThin { .. } => Ok(()),
            Act::MarkFaulty { record } => {
                self.change_record(record, DeviceState::Faulty, false)?;
                self.set_id(record.device_id, IdState::Faulty);
                Ok(())
            }
            Act::RestoreRecord { record, to } => {
                self.sole_carrier(record.device_id)?;
                self.change_record(record, *to, true)?;
                self.set_id(record.device_id, IdState::Taken);
                Ok(())
            }
            Act::ForgetRecord { record } => self.forget(record),
            Act::InsertRemovedRecord {
                name,
                snapshot,
                thin_id,
            } => self.insert_removed(name, *snapshot, *thin_id),
            Act::SetId { thin_id, from, to } => {
                let now = self.id(*thin_id);
                if now != *from && now != Some(*to) {
                    return Err(format!("id {thin_id} is not what it was when this was planned"));
                }
                if *to == IdState::Free && self.carriers.get(thin_id).is_some_and(|count| *count > 0) {
                    return Err(format!("a record carries id {thin_id}"));
                }
                self.set_id(*thin_id, *to);
                Ok(())
            }
            Act::RaiseIdSequence { to, .. } => {
                self.raise_sequence(*to);
                Ok(())
            }
        }
    }

    /// The record as it is now; an error where it is not the one that was planned for. Its state may have come to be Faulty by
    /// an earlier act.
    fn record(&self, planned: &DeviceRecord) -> Result<(DeviceRecord, &[u8]), String> {
        let name = planned.name.escape_debug();
        let value = self
            .devices
            .get(planned.name.as_bytes())
            .ok_or_else(|| format!("the record {name} is gone"))?;
        let now: DeviceRecord = serde_json::from_slice(value)
            .map_err(|error| format!("understanding the record {name}: {error}"))?;
        let same = DeviceRecord {
            state: now.state,
            error: now.error.clone(),
            ..planned.clone()
        } == now;
        if !same || (now.state != planned.state && now.state != DeviceState::Faulty) {
            return Err(format!(
                "the record {name} is not what it was when this was planned"
            ));
        }
        Ok((now, value))
    }

    fn change_record(
        &mut self,
        planned: &DeviceRecord,
        to: DeviceState,
        clear_error: bool,
    ) -> Result<(), String> {
        let (_, value) = self.record(planned)?;
        let changed = RecordText::parse(value).and_then(|mut text| {
            text.set("state", &to)?;
            if clear_error {
                text.set("error", &"")?;
            }
            text.into_bytes()
        });
        let changed = changed
            .map_err(|error| format!("changing the record {}: {error}", planned.name.escape_debug()))?;
        self.set(Bucket::Devices, planned.name.as_bytes(), Some(changed));
        Ok(())
    }

    fn forget(&mut self, planned: &DeviceRecord) -> Result<(), String> {
        let id = planned.device_id;
        self.sole_carrier(id)?;
        self.record(planned)?;
        self.set(Bucket::Devices, planned.name.as_bytes(), None);
        self.set_carriers(id, 0);
        self.set_id(id, IdState::Free);
        Ok(())
    }

    fn insert_removed(&mut self, name: &str, snapshot: SnapshotId, id: ThinId) -> Result<(), String> {
        if self.devices.contains_key(name.as_bytes()) {
            return Err(format!("snapshot {snapshot} has a record by now"));
        }
        if self.carriers.get(&id).is_some_and(|count| *count > 0) {
            return Err(format!("a record carries id {id}"));
        }
        if matches!(self.id(id), Some(state) if state != IdState::Free) {
            return Err(format!("id {id} is not free any more"));
        }
        let record = DeviceRecord {
            device_id: id,
            size: crate::model::Bytes(0),
            name: name.to_owned(),
            parent_name: String::new(),
            state: DeviceState::Removed,
            error: String::new(),
        };
        let value = serde_json::to_vec(&record).map_err(|error| format!("writing a record: {error}"))?;
        self.set(Bucket::Devices, name.as_bytes(), Some(value));
        self.set_carriers(id, 1);
        self.set_id(id, IdState::Taken);
        // Otherwise containerd would draw it for the next device (`getNextDeviceID`, metadata.go).
        self.raise_sequence(u64::from(id.0));
        Ok(())
    }

    fn sole_carrier(&self, id: ThinId) -> Result<(), String> {
        match self.carriers.get(&id) {
            Some(count) if *count > 1 => Err(format!("{count} records carry id {id}")),
            _ => Ok(()),
        }
    }

    fn id(&self, id: ThinId) -> Option<IdState> {
        let value = self.ids.get(id.to_string().as_bytes())?;
        match value.as_slice() {
            [byte] => Some(IdState::from(*byte)),
            _ => Some(IdState::Other(u8::MAX)),
        }
    }

    fn set_id(&mut self, id: ThinId, to: IdState) {
        let byte = match to {
            IdState::Free => 0,
            IdState::Taken => 1,
            IdState::Faulty => 2,
            IdState::Other(byte) => byte,
        };
        self.set(Bucket::Ids, id.to_string().as_bytes(), Some(vec![byte]));
    }

    fn raise_sequence(&mut self, to: u64) {
        if to > self.sequence {
            self.trail.push(Was::Sequence(self.sequence));
            self.sequence = to;
            self.sequence_touched = true;
        }
    }

    fn set_carriers(&mut self, id: ThinId, count: usize) {
        let was = self.carriers.insert(id, count).unwrap_or_default();
        self.trail.push(Was::Carrier(id, was));
    }

    fn set(&mut self, bucket: Bucket, key: &[u8], value: Option<Vec<u8>>) {
        if self.bucket(bucket).get(key) != value.as_ref() {
            let was = self.put(bucket, key.to_vec(), value);
            self.touched.insert((bucket, key.to_vec()));
            self.trail.push(Was::Entry(bucket, key.to_vec(), was));
        }
    }

    fn put(&mut self, bucket: Bucket, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let entries = match bucket {
            Bucket::Devices => &mut self.devices,
            Bucket::Ids => &mut self.ids,
        };
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        }
    }

    fn bucket(&self, bucket: Bucket) -> &Entries {
        match bucket {
            Bucket::Devices => &self.devices,
            Bucket::Ids => &self.ids,
        }
    }

    fn take_back(&mut self) {
        while let Some(was) = self.trail.pop() {
            match was {
                Was::Entry(bucket, key, value) => {
                    self.put(bucket, key, value);
                }
                Was::Sequence(sequence) => self.sequence = sequence,
                Was::Carrier(id, count) => {
                    self.carriers.insert(id, count);
                }
            }
        }
    }
}

/// The record's key and the thin id that an edit looks at or changes.
fn touches(act: &Act) -> (Option<&str>, Option<ThinId>) {
    match act {
        Act::MarkFaulty { record } | Act::RestoreRecord { record, .. } | Act::ForgetRecord { record } => {
            (Some(&record.name), Some(record.device_id))
        }
        Act::InsertRemovedRecord { name, thin_id, .. } => (Some(name), Some(*thin_id)),
        Act::SetId { thin_id, .. } => (None, Some(*thin_id)),
        Act::ResumeNode { .. }
        | Act::RemoveNode { .. }
        | Act::DeleteThin { .. }
        | Act::RaiseIdSequence { .. } => (None, None),
    }
}

/// The entries of these keys. What is no plain value is no record; the survey has refused such a file already.
fn gather<S: PageSource>(bucket: &Bbolt<'_, S>, keys: &BTreeSet<&[u8]>) -> Result<Entries, BboltError> {
    let mut entries = Entries::new();
    // Both are in the order of their keys, so one goes along with the other.
    let mut wanted = keys.iter().copied().peekable();
    bucket.for_each(|key, value| {
        while wanted.next_if(|wanted| *wanted < key).is_some() {}
        if wanted.next_if_eq(&key).is_some()
            && let Value::Bytes(bytes) = value
        {
            entries.insert(key.to_vec(), bytes.into_owned());
        }
        Ok::<_, BboltError>(())
    })?;
    Ok(entries)
}
