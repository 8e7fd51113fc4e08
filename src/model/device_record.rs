//! What containerd's pool database (`<pool>.db`) can say about a device and about a thin id.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{Bytes, ThinId};

/// State of a device in `<pool>.db`, as containerd writes it (`DeviceState`, `plugins/snapshots/devmapper/device_info.go`).
///
/// A state ending in `-ing` is written before the step, its partner after it. One with an empty error text is in flight,
/// or its process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub enum DeviceState {
    /// 0: the record was added, nothing else happened yet.
    Unknown,
    /// 1: `create_thin` or `create_snap` is about to be sent.
    Creating,
    /// 2: the pool answered that the thin device exists.
    Created,
    /// 3: the dm device is about to be created.
    Activating,
    /// 4: the dm device is live.
    Activated,
    /// 5: about to be suspended.
    Suspending,
    /// 6: suspended.
    Suspended,
    /// 7: about to be resumed.
    Resuming,
    /// 8: resumed.
    Resumed,
    /// 9: the dm device is about to be removed.
    Deactivating,
    /// 10: the dm device is gone; the thin device stays. The rest state of image layers.
    Deactivated,
    /// 11: `delete` is about to be sent.
    Removing,
    /// 12: deleted, or (with `async_remove`) to be deleted at the next clean-up.
    Removed,
    /// 13: found in an intermediate state at containerd's start. **Not garbage**: good layers get it too.
    Faulty,
    /// A number that no known containerd writes; never acted on.
    Other(i64),
}

/// Every known state with its number and its name in containerd's log.
const STATES: [(i64, DeviceState, &str); 14] = [
    (0, DeviceState::Unknown, "Unknown"),
    (1, DeviceState::Creating, "Creating"),
    (2, DeviceState::Created, "Created"),
    (3, DeviceState::Activating, "Activating"),
    (4, DeviceState::Activated, "Activated"),
    (5, DeviceState::Suspending, "Suspending"),
    (6, DeviceState::Suspended, "Suspended"),
    (7, DeviceState::Resuming, "Resuming"),
    (8, DeviceState::Resumed, "Resumed"),
    (9, DeviceState::Deactivating, "Deactivating"),
    (10, DeviceState::Deactivated, "Deactivated"),
    (11, DeviceState::Removing, "Removing"),
    (12, DeviceState::Removed, "Removed"),
    (13, DeviceState::Faulty, "Faulty"),
];

impl From<i64> for DeviceState {
    fn from(number: i64) -> Self {
        STATES
            .iter()
            .find(|(known, ..)| *known == number)
            .map_or(Self::Other(number), |(_, state, _)| *state)
    }
}

impl From<DeviceState> for i64 {
    fn from(state: DeviceState) -> Self {
        match state {
            DeviceState::Other(number) => number,
            known => STATES
                .iter()
                .find(|(_, state, _)| *state == known)
                .map_or(-1, |(number, ..)| *number),
        }
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match STATES.iter().find(|(_, state, _)| state == self) {
            Some((.., name)) => f.write_str(name),
            None => write!(f, "unknown state {}", i64::from(*self)),
        }
    }
}

/// State of a thin id in the `device_ids` bucket (plugins/snapshots/devmapper/metadata.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdState {
    /// 0: may be handed out again.
    Free,
    /// 1: a record carries it.
    Taken,
    /// 2: its device was marked faulty; containerd never hands it out again.
    Faulty,
    /// A byte that no known containerd writes; never acted on.
    Other(u8),
}

impl From<u8> for IdState {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Free,
            1 => Self::Taken,
            2 => Self::Faulty,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for IdState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::Taken => f.write_str("taken"),
            Self::Faulty => f.write_str("faulty"),
            Self::Other(byte) => write!(f, "unknown id state {byte}"),
        }
    }
}

/// One record of the `devices` bucket: containerd's `DeviceInfo`, stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Thin id in the pool.
    pub device_id: ThinId,
    /// Virtual size.
    pub size: Bytes,
    /// dm name, `<pool>-snap-<snapshot id>`; also the record's key.
    pub name: String,
    /// dm name of the device it was snapshotted from, empty for a base device.
    #[serde(default)]
    pub parent_name: String,
    /// Where the device stands.
    pub state: DeviceState,
    /// Why the last step failed in a live containerd; empty when it did not.
    #[serde(default)]
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_keeps_its_meaning_both_ways() {
        for number in -3..20 {
            assert_eq!(i64::from(DeviceState::from(number)), number);
        }
        assert_eq!(DeviceState::from(13), DeviceState::Faulty);
        assert_eq!(DeviceState::from(99), DeviceState::Other(99));
        assert_eq!(DeviceState::Other(99).to_string(), "unknown state 99");
    }

    #[test]
    fn a_record_reads_as_containerd_writes_it() {
        // Real bytes, from a database that containerd 1.7 wrote.
        let json = r#"{"device_id":2,"size":67108864,"name":"pool-snap-2","parent_name":"pool-snap-1","state":4,"error":""}"#;
        let record: DeviceRecord = serde_json::from_str(json).unwrap();
        assert_eq!(record.device_id, ThinId(2));
        assert_eq!(record.state, DeviceState::Activated);
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
    }
}
