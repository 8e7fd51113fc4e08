//! Observations: single facts with a time. What they mean is for `correlate` to say.

use std::fmt;

use serde::Serialize;

use super::{
    DeviceNumber, Sectors, Timestamp,
    dm::{DmIoctl, Process, describe_error},
    text::Untrusted,
};

/// Where a block error was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSource {
    /// A request of a request-based disk failed (`block_rq_error`).
    Request,
    /// A bio failed (`block_bio_complete`), also on bio-based devices such as device-mapper's.
    Bio,
}

/// Direction of a failed block operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Data were read.
    Read,
    /// Data were written.
    Write,
    /// Blocks were discarded.
    Discard,
    /// Caches were flushed.
    Flush,
    /// Something else, or unknown.
    Other,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Discard => "discard",
            Self::Flush => "flush",
            Self::Other => "operation",
        })
    }
}

/// One failed block request or bio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockError {
    /// When it completed.
    pub at: Timestamp,
    /// On which device.
    pub device: DeviceNumber,
    /// First sector.
    pub sector: Sectors,
    /// Length.
    pub length: Sectors,
    /// Errno, positive.
    pub errno: i32,
    /// What was attempted.
    pub direction: Direction,
    /// The kernel's letters for the operation, such as `WS`.
    pub operation: Untrusted,
    /// Where it was seen.
    pub source: BlockSource,
}

/// `write of 8 sectors at 2048 on 253:3 failed: EIO (i/o error)`
impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            length,
            sector,
            device,
            errno,
            ..
        } = self;
        write!(
            f,
            "{direction} of {length} sectors at {sector} on {device} failed: {}",
            describe_error(*errno)
        )
    }
}

/// A running containerd, told apart from a later one with the same pid by its start time, and from one after a reboot by
/// the boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
pub struct Incarnation {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
    /// Which boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "containerd [{}]", self.pid)
    }
}

/// What kind of events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// The ring of device-mapper ioctls was full.
    DmRingFull,
    /// Too many device-mapper ioctls were under way at once.
    DmInFlightFull,
    /// The ring of block errors was full.
    BlockRingFull,
    /// Parents of processes that could not be remembered.
    Lineage,
}

impl LossKind {
    /// Whether operations can have been missed: then nothing is deleted until the world was read anew.
    #[must_use]
    pub fn hides_operations(self) -> bool {
        !matches!(self, Self::BlockRingFull)
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DmRingFull => "device-mapper events: the ring buffer was full",
            Self::DmInFlightFull => "device-mapper events: too many calls at once",
            Self::BlockRingFull => "block errors: the ring buffer was full",
            Self::Lineage => "forks: whose child a caller is may not be known",
        })
    }
}

/// One fact. Its time is inside it where the kernel told one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Observation {
    /// A device-mapper ioctl finished.
    DmIoctl(Box<DmIoctl>),
    /// A block operation failed.
    BlockError(BlockError),
    /// Events were lost.
    Lost {
        /// When it was noticed; it happened between the previous look and this one.
        at: Timestamp,
        /// Of what kind.
        what: LossKind,
        /// How many since the last time it was said.
        count: u64,
    },
    /// A containerd that holds the pool's database was found running.
    ContainerdUp {
        /// When it was found.
        at: Timestamp,
        /// Which one.
        who: Incarnation,
    },
    /// A containerd that had been found running is gone.
    ContainerdGone {
        /// When that was noticed.
        at: Timestamp,
        /// Which one.
        who: Incarnation,
    },
}

impl Observation {
    /// When it happened, or was noticed where the kernel tells no time.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::DmIoctl(call) => call.finished(),
            Self::BlockError(error) => error.at,
            Self::Lost { at, .. } | Self::ContainerdUp { at, .. } | Self::ContainerdGone { at, .. } => *at,
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DmIoctl(call) => call.fmt(f),
            Self::BlockError(error) => error.fmt(f),
            Self::Lost { what, count, .. } => write!(f, "LOST {count} {what}"),
            Self::ContainerdUp { who, .. } => write!(f, "{who} is running"),
            Self::ContainerdGone { who, .. } => write!(f, "{who} is gone"),
        }
    }
}

impl Process {
    /// Whether the process goes by this name. A name proves nothing by itself.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.comm.as_str() == name
    }
}
