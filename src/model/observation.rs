//! Observations: single facts with a time. What they mean is for `correlate` to say.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    DeviceNumber, Sectors, Timestamp,
    commit::{Commit, DatabaseKind},
    dm::{Caller, DmIoctl, Process, describe_error},
    kernel::{DeviceChange, DeviceEnded, PoolCall, PoolStatus, ProcessChange},
    text::Untrusted,
};

/// Where a block error was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSource {
    /// A request of a request-based disk failed (`block_rq_error`).
    Request,
    /// A bio failed (`block_bio_complete`), also on bio-based devices such as device-mapper's.
    Bio,
    /// The kernel's log said so: what is left without BPF.
    KernelLog,
}

/// Direction of a failed block operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockError {
    /// When it completed.
    pub at: Timestamp,
    /// On which device.
    pub device: DeviceNumber,
    /// First sector. From the kernel's log of a buffer: computed with the usual size of the device's blocks.
    pub sector: Sectors,
    /// Length; 0 where it is not told, as in the kernel's log.
    pub length: Sectors,
    /// Errno, positive.
    pub errno: i32,
    /// What was attempted.
    pub direction: Direction,
    /// The kernel's letters for the operation, such as `WS`; from the kernel's log its words.
    pub operation: Untrusted,
    /// Where it was seen.
    pub source: BlockSource,
}

/// `write of 8 sectors at 2048 on 253:3 failed: EIO (i/o error)`, or
/// `read at 40 on 253:3 failed: EIO (i/o error), says the kernel's log: logical block 5, async page read`
impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            length,
            sector,
            device,
            errno,
            operation,
            source,
            ..
        } = self;
        let errno = describe_error(*errno);
        match source {
            BlockSource::Request | BlockSource::Bio => write!(
                f,
                "{direction} of {length} sectors at {sector} on {device} failed: {errno}"
            ),
            BlockSource::KernelLog => write!(
                f,
                "{direction} at {sector} on {device} failed: {errno}, says the kernel's log: {operation}"
            ),
        }
    }
}

/// A running containerd, told apart from a later one with the same pid by its start time, and from one after a reboot by
/// the boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// The ring of device-mapper's calls and of all other kernel events but block errors was full.
    DmRingFull,
    /// Too many device-mapper calls were under way at once.
    DmInFlightFull,
    /// A call's return was not seen: the kernel had no room left to watch it, or its thread was killed in it.
    ReturnMissed,
    /// The ring of block errors was full.
    BlockRingFull,
    /// Parents of processes that could not be remembered.
    Lineage,
    /// suture was not running, or was only starting.
    NotWatching,
    /// A database's file was replaced by another one.
    DatabaseReplaced {
        /// Which.
        database: DatabaseKind,
    },
    /// Commits to a database could not be followed one by one.
    DatabaseUnread {
        /// Which.
        database: DatabaseKind,
    },
    /// Without BPF: what happened between two looks.
    Polling,
    /// The kernel's log ran ahead of its reader.
    KernelLogOverrun,
}

impl LossKind {
    /// The names of all kinds, as metrics call them.
    pub const NAMES: [&str; 10] = [
        Self::DmRingFull.name(),
        Self::DmInFlightFull.name(),
        Self::ReturnMissed.name(),
        Self::BlockRingFull.name(),
        Self::Lineage.name(),
        Self::NotWatching.name(),
        Self::DatabaseReplaced {
            database: DatabaseKind::Pool,
        }
        .name(),
        Self::DatabaseUnread {
            database: DatabaseKind::Pool,
        }
        .name(),
        Self::Polling.name(),
        Self::KernelLogOverrun.name(),
    ];

    /// Whether operations can have been missed: then nothing is deleted until the world was read anew.
    #[must_use]
    pub fn hides_operations(self) -> bool {
        !matches!(
            self,
            Self::BlockRingFull | Self::KernelLogOverrun | Self::DatabaseUnread { .. }
        )
    }

    /// As metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DmRingFull => "dm_ring_full",
            Self::DmInFlightFull => "dm_in_flight_full",
            Self::ReturnMissed => "return_missed",
            Self::BlockRingFull => "block_ring_full",
            Self::Lineage => "lineage",
            Self::NotWatching => "not_watching",
            Self::DatabaseReplaced { .. } => "database_replaced",
            Self::DatabaseUnread { .. } => "database_unread",
            Self::Polling => "polling",
            Self::KernelLogOverrun => "kernel_log_overrun",
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DmRingFull => f.write_str("device-mapper events: the ring buffer was full"),
            Self::DmInFlightFull => f.write_str("device-mapper events: too many calls at once"),
            Self::ReturnMissed => f.write_str("device-mapper events: a call's return was not seen"),
            Self::BlockRingFull => f.write_str("block errors: the ring buffer was full"),
            Self::Lineage => f.write_str("forks: whose child a caller is may not be known"),
            Self::NotWatching => f.write_str("everything: suture was not watching"),
            Self::DatabaseReplaced { database } => {
                write!(f, "history of the {database}: its file was replaced")
            }
            Self::DatabaseUnread { database } => write!(f, "commits to the {database}"),
            Self::Polling => {
                f.write_str("device-mapper events: without BPF only the list of devices is seen")
            }
            Self::KernelLogOverrun => {
                f.write_str("lines of the kernel's log, which may tell of block errors")
            }
        }
    }
}

/// One fact. Its time is inside it where the kernel told one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Observation {
    /// A device-mapper ioctl finished.
    DmIoctl(Box<DmIoctl>),
    /// A block operation failed.
    BlockError(BlockError),
    /// A thin pool did something by itself, or for a call.
    PoolCall(PoolCall),
    /// A dm device ended.
    DeviceEnded(DeviceEnded),
    /// A containerd began or ended.
    Process(ProcessChange),
    /// containerd committed a transaction.
    Commit(Box<Commit>),
    /// Without BPF: a dm device came, went or changed between two looks.
    DeviceChange(DeviceChange),
    /// Without BPF: what a pool says of itself.
    PoolStatus(PoolStatus),
    /// Events were lost.
    Lost {
        /// When it was noticed last that none were lost: it happened between then and `at`.
        since: Timestamp,
        /// When it was noticed.
        at: Timestamp,
        /// Of what kind.
        what: LossKind,
        /// How many since the last time it was said; 0 where nobody can tell.
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
            Self::PoolCall(call) => call.finished(),
            Self::DeviceEnded(ended) => ended.at,
            Self::Process(change) => change.at,
            Self::Commit(commit) => commit.at,
            Self::DeviceChange(change) => change.at,
            Self::PoolStatus(status) => status.at,
            Self::Lost { at, .. } | Self::ContainerdUp { at, .. } | Self::ContainerdGone { at, .. } => *at,
        }
    }
}

impl Observation {
    /// Who did it, where it is somebody's doing.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Self::DmIoctl(call) => Some(&call.caller),
            Self::Process(change) => Some(&change.who),
            _ => None,
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DmIoctl(call) => call.fmt(f),
            Self::BlockError(error) => error.fmt(f),
            Self::PoolCall(call) => call.fmt(f),
            Self::DeviceEnded(ended) => ended.fmt(f),
            Self::Process(change) => change.fmt(f),
            Self::Commit(commit) => commit.fmt(f),
            Self::DeviceChange(change) => change.fmt(f),
            Self::PoolStatus(status) => status.fmt(f),
            Self::Lost { what, count: 0, .. } => write!(f, "LOST {what}"),
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
