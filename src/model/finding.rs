//! A finding: one instance of a class of inconsistency, with its evidence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceNumber, OperationId, PoolName, ThinId};

/// Class of an inconsistency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingClass {
    /// containerd made the thin device, was stopped half way, marked its id faulty, and forgot its name: nothing will
    /// ever use or delete it.
    LeakedThin,
    /// A thin device that no record names and that nobody can prove containerd made.
    ForeignThin,
    /// containerd's record of a device says Activated, no snapshot of containerd's uses it, and nobody is at work on
    /// it: every further snapshot fails with "already exists" (containerd#5646).
    Wedge,
    /// Reads or writes fail on a device that the pool rests on, or on one of its thin devices.
    BlockErrors,
    /// The pool has no free data blocks.
    PoolOutOfSpace,
    /// The pool takes no writes and no messages.
    PoolReadOnly,
    /// The pool takes nothing at all.
    PoolFailed,
    /// The kernel wants the pool's metadata checked before they are written again.
    PoolNeedsCheck,
}

impl FindingClass {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LeakedThin,
        Self::ForeignThin,
        Self::Wedge,
        Self::BlockErrors,
        Self::PoolOutOfSpace,
        Self::PoolReadOnly,
        Self::PoolFailed,
        Self::PoolNeedsCheck,
    ];
}

impl fmt::Display for FindingClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeakedThin => "leaked-thin",
            Self::ForeignThin => "foreign-thin",
            Self::Wedge => "wedge",
            Self::BlockErrors => "block-errors",
            Self::PoolOutOfSpace => "pool-out-of-space",
            Self::PoolReadOnly => "pool-read-only",
            Self::PoolFailed => "pool-failed",
            Self::PoolNeedsCheck => "pool-needs-check",
        })
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
    /// Nobody can tell.
    Unknown,
}

/// Names one finding for as long as it lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FindingId(pub String);

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
            Self::Pool | Self::BlockDevice { .. } => None,
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
}

/// `leaked-thin: thin device 1 of tp`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.class, self.subject, self.pool)
    }
}
