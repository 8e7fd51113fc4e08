//! A finding: one instance of a class of inconsistency, with its evidence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceNumber, OperationId, PoolName, SnapshotId, ThinId, saga::Death};

/// Class of an inconsistency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingClass {
    /// containerd made the thin device, was stopped half way, marked its id faulty, and forgot its name: nothing will
    /// ever use or delete it.
    LeakedThin,
    /// A thin device that no record names and that nobody can prove containerd made.
    ForeignThin,
    /// A record whose snapshot is gone: containerd will never look at it again, and its thin device keeps its space.
    OrphanRecord,
    /// containerd's record of a device says Activated, no snapshot of containerd's uses it, and nobody is at work on
    /// it: every further snapshot fails with "already exists" (containerd#5646).
    Wedge,
    /// The record of the next snapshot is marked faulty: containerd overwrites it, and forgets the thin device's name.
    FaultyNext,
    /// A record is marked faulty and its snapshot exists: a good layer, mistaken for garbage at containerd's start.
    FaultyLive,
    /// A dm device of the snapshotter's is suspended, and nobody is at work who would resume it: whoever opens it hangs.
    SuspendedDevice,
    /// A snapshot without a record of its device: it can not be removed, nor can any of its parents.
    RowWithoutRecord,
    /// A snapshot and its record, without the thin device: its data are lost.
    RowWithoutThin,
    /// A dm device of the snapshotter's name without a record: the next device of that name fails with EBUSY.
    OrphanNode,
    /// A thin id that is marked faulty, or a record that is left over, with nothing in the pool: only the number is lost.
    BurnedId,
    /// A removal that failed in a live containerd, and that containerd never tries again.
    StuckCleanup,
    /// A dm device whose table was replaced by the `error` target: whoever uses it gets I/O errors.
    ErrorTable,
    /// Reads or writes fail on a device that the pool rests on, or on one of its thin devices.
    BlockErrors,
    /// The pool has no free data blocks.
    PoolOutOfSpace,
    /// The pool's metadata device is nearly full: once it is, the pool takes no more writes.
    PoolMetadataNearlyFull,
    /// The pool takes no writes and no messages.
    PoolReadOnly,
    /// The pool takes nothing at all.
    PoolFailed,
    /// The kernel wants the pool's metadata checked before they are written again.
    PoolNeedsCheck,
    /// Somebody holds a snapshot of the pool's metadata: it pins blocks, and keeps every other tool from making one.
    MetadataSnapshotHeld,
    /// A call that containerd makes to make, load, suspend or resume a device fails, at this moment and again.
    FailingCreate,
    /// A call that containerd makes to remove or delete a device fails, at this moment and again.
    FailingRemove,
}

impl FindingClass {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::LeakedThin,
        Self::ForeignThin,
        Self::OrphanRecord,
        Self::Wedge,
        Self::FaultyNext,
        Self::FaultyLive,
        Self::SuspendedDevice,
        Self::RowWithoutRecord,
        Self::RowWithoutThin,
        Self::OrphanNode,
        Self::BurnedId,
        Self::StuckCleanup,
        Self::ErrorTable,
        Self::BlockErrors,
        Self::PoolOutOfSpace,
        Self::PoolMetadataNearlyFull,
        Self::PoolReadOnly,
        Self::PoolFailed,
        Self::PoolNeedsCheck,
        Self::MetadataSnapshotHeld,
        Self::FailingCreate,
        Self::FailingRemove,
    ];

    /// Whether it is of what happens at this moment: only a running sidecar can see it, a check never does.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::FailingCreate | Self::FailingRemove)
    }

    /// Its name, as it is written in JSON, metrics and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeakedThin => "leaked-thin",
            Self::ForeignThin => "foreign-thin",
            Self::OrphanRecord => "orphan-record",
            Self::Wedge => "wedge",
            Self::FaultyNext => "faulty-next",
            Self::FaultyLive => "faulty-live",
            Self::SuspendedDevice => "suspended-device",
            Self::RowWithoutRecord => "row-without-record",
            Self::RowWithoutThin => "row-without-thin",
            Self::OrphanNode => "orphan-node",
            Self::BurnedId => "burned-id",
            Self::StuckCleanup => "stuck-cleanup",
            Self::ErrorTable => "error-table",
            Self::BlockErrors => "block-errors",
            Self::PoolOutOfSpace => "pool-out-of-space",
            Self::PoolMetadataNearlyFull => "pool-metadata-nearly-full",
            Self::PoolReadOnly => "pool-read-only",
            Self::PoolFailed => "pool-failed",
            Self::PoolNeedsCheck => "pool-needs-check",
            Self::MetadataSnapshotHeld => "metadata-snapshot-held",
            Self::FailingCreate => "failing-create",
            Self::FailingRemove => "failing-remove",
        }
    }
}

impl fmt::Display for FindingClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How it is known who made a thin device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Provenance {
    /// suture's probes saw containerd make it and saw the operation abandoned.
    SeenByProbe {
        /// That operation.
        operation: OperationId,
    },
    /// A record of containerd's that got past Created names it: containerd writes that state only after the kernel made
    /// the device for it (`CreateThinDevice`, `plugins/snapshots/devmapper/pool_device.go`).
    ToldByRecord {
        /// The record's name.
        name: String,
    },
    /// Nobody can tell.
    Unknown,
}

/// Names one finding for as long as it lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FindingId(pub String);

impl FindingId {
    /// The name of a finding of a class, by what tells it from others of its class: everybody who finds the same thing
    /// calls it by the same name. Names from outside are to be escaped by whoever gives the mark.
    #[must_use]
    pub fn new(class: FindingClass, pool: &PoolName, mark: impl fmt::Display) -> Self {
        Self(format!("{class}/{}/{mark}", pool.as_str().escape_debug()))
    }

    /// The name of a finding about a record of containerd's.
    #[must_use]
    pub fn of_record(class: FindingClass, pool: &PoolName, name: &str) -> Self {
        Self::new(class, pool, name.escape_debug())
    }

    /// The name of a finding about the pool as a whole.
    #[must_use]
    pub fn of_pool(class: FindingClass, pool: &PoolName) -> Self {
        Self::new(class, pool, "pool")
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub enum Subject {
    /// A thin device.
    ThinDevice {
        /// Its id.
        thin_id: ThinId,
    },
    /// A record of containerd's pool database.
    Record {
        /// The device's name.
        name: String,
        /// The thin id that it carries.
        thin_id: ThinId,
    },
    /// A number in containerd's `device_ids`, without a thin device.
    ThinId {
        /// The number.
        thin_id: ThinId,
    },
    /// A snapshot of containerd's.
    Snapshot {
        /// Its number. A finding has its own `id` beside it. Ledgers of before have it under that name where it stood by itself.
        #[serde(rename = "snapshot", alias = "id")]
        id: SnapshotId,
        /// Its backend key.
        key: String,
    },
    /// A dm device.
    Node {
        /// Its dm name.
        name: String,
        /// Its number.
        device: DeviceNumber,
    },
    /// A device of the snapshotter's, by the name that its record and its dm device bear, whether they are there or not.
    Device {
        /// Its name.
        name: String,
    },
    /// The pool as a whole.
    Pool,
    /// A block device that the pool rests on, or one of its own.
    BlockDevice {
        /// Which.
        device: DeviceNumber,
    },
}

impl Subject {
    /// The thin device that it is about, where it is about one.
    #[must_use]
    pub fn thin_id(&self) -> Option<ThinId> {
        match self {
            Self::ThinDevice { thin_id } | Self::Record { thin_id, .. } => Some(*thin_id),
            Self::ThinId { .. }
            | Self::Snapshot { .. }
            | Self::Node { .. }
            | Self::Device { .. }
            | Self::Pool
            | Self::BlockDevice { .. } => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThinDevice { thin_id } => write!(f, "thin device {thin_id}"),
            Self::Record { name, thin_id } => {
                write!(f, "record {} (thin device {thin_id})", name.escape_debug())
            }
            Self::ThinId { thin_id } => write!(f, "thin id {thin_id}"),
            Self::Snapshot { id, key } => write!(f, "snapshot {id} ({})", key.escape_debug()),
            Self::Node { name, device } => write!(f, "dm device {} ({device})", name.escape_debug()),
            Self::Device { name } => write!(f, "device {}", name.escape_debug()),
            Self::Pool => f.write_str("the whole pool"),
            Self::BlockDevice { device } => write!(f, "device {device}"),
        }
    }
}

/// One inconsistency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name.
    pub id: FindingId,
    /// Its class.
    pub class: FindingClass,
    /// In which pool.
    pub pool: PoolName,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// Who made it.
    pub provenance: Provenance,
    /// What was read, a sentence each.
    pub evidence: Vec<String>,
    /// The death of containerd's that left it, where suture saw one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died_in: Option<Death>,
}

impl Finding {
    /// What was seen of the same finding earlier, and can not be seen any more. Under the same name there may be another device
    /// by now, of which it says nothing.
    pub fn keep_from(&mut self, earlier: &Self) {
        if self.died_in.is_none() && self.subject == earlier.subject {
            self.died_in.clone_from(&earlier.died_in);
        }
    }

    /// All that is to be told of it, a sentence each: what was read, and the death that left it.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        let death = self.died_in.as_ref().map(ToString::to_string);
        self.evidence.iter().cloned().chain(death)
    }

    /// Whether it says the same of the same thing.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.evidence == other.evidence && self.died_in == other.died_in
    }
}

/// `leaked-thin: thin device 1 of tp`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.class, self.subject, self.pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{SagaKind, Window, Windows},
        testing::{at, pool},
    };

    #[test]
    fn an_earlier_death_is_kept_for_the_same_device_only() {
        let finding = |thin_id, died: Option<Window>| Finding {
            id: FindingId::of_record(FindingClass::Wedge, &pool(), "tp-snap-2"),
            class: FindingClass::Wedge,
            pool: pool(),
            subject: Subject::Record {
                name: "tp-snap-2".to_owned(),
                thin_id: ThinId(thin_id),
            },
            provenance: Provenance::Unknown,
            evidence: Vec::new(),
            died_in: died.map(|window| Death {
                at: at(1),
                who: None,
                operation: [SagaKind::Create].into(),
                windows: Windows([window].into()),
            }),
        };
        let kept = |mut now: Finding, earlier: &Finding| {
            now.keep_from(earlier);
            now.died_in.and_then(|death| death.windows.only())
        };
        let earlier = finding(2, Some(Window::B7));
        assert_eq!(kept(finding(2, None), &earlier), Some(Window::B7));
        assert_eq!(
            kept(finding(3, None), &earlier),
            None,
            "another device of that name"
        );
        assert_eq!(
            kept(finding(2, Some(Window::B8)), &earlier),
            Some(Window::B8),
            "what is seen now"
        );
    }

    #[test]
    fn a_finding_of_whatever_it_is_about_is_read_as_it_was_written() {
        let name = || "tp-snap-7".to_owned();
        let device = DeviceNumber { major: 253, minor: 7 };
        let thin_id = ThinId(7);
        let snapshot = Subject::Snapshot {
            id: SnapshotId(7),
            key: "default/7/key".to_owned(),
        };
        for subject in [
            Subject::ThinDevice { thin_id },
            Subject::Record {
                name: name(),
                thin_id,
            },
            Subject::ThinId { thin_id },
            snapshot.clone(),
            Subject::Node { name: name(), device },
            Subject::Device { name: name() },
            Subject::Pool,
            Subject::BlockDevice { device },
        ] {
            let class = FindingClass::LeakedThin;
            let finding = Finding {
                id: FindingId::of_pool(class, &pool()),
                class,
                pool: pool(),
                subject: subject.clone(),
                provenance: Provenance::Unknown,
                evidence: vec!["it is there".to_owned()],
                died_in: None,
            };
            let text = serde_json::to_string(&finding).unwrap();
            assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), finding, "{text}");
            let text = serde_json::to_string(&subject).unwrap();
            assert_eq!(serde_json::from_str::<Subject>(&text).unwrap(), subject, "{text}");
        }
        // As it was stored before, by itself.
        let before = r#"{"subject":"snapshot","id":7,"key":"default/7/key"}"#;
        assert_eq!(serde_json::from_str::<Subject>(before).unwrap(), snapshot);
    }
}
