//! What the kernel tells beside device-mapper's calls: what thin pools did by themselves, which devices ended, which
//! processes began and ended.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    DeviceNumber, PoolMode, PoolName, ThinId, Timestamp,
    dm::{CallResult, Caller, Process, nanoseconds},
    numbers,
    text::Untrusted,
};

/// What a thin pool's own function was called for (drivers/md/dm-thin.c and dm-thin-metadata.c).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
pub enum PoolFunction {
    /// `dm_pool_create_thin`.
    CreateThin {
        /// The new device.
        id: ThinId,
    },
    /// `dm_pool_create_snap`.
    CreateSnap {
        /// The new device.
        id: ThinId,
        /// What it is a snapshot of.
        origin: ThinId,
    },
    /// `dm_pool_delete_thin_device`.
    DeleteThin {
        /// The device.
        id: ThinId,
    },
    /// `dm_pool_commit_metadata`. Only a failed one is told, and the first good one after a create or a delete: a pool
    /// in use commits with every flush.
    Commit,
    /// `dm_pool_abort_metadata`: everything since the last commit is rolled back, acknowledged or not.
    Abort,
    /// `metadata_operation_failed`; the pool is about to be aborted and made read-only.
    OperationFailed {
        /// The kernel's name for what failed, such as `dm_pool_commit_metadata`.
        operation: Untrusted,
    },
    /// `set_pool_mode`.
    SetMode {
        /// The mode that was asked for; a pool that needs a check stays read-only.
        mode: PoolMode,
    },
}

impl fmt::Display for PoolFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateThin { id } => write!(f, "create thin device {id}"),
            Self::CreateSnap { id, origin } => write!(f, "create thin device {id}, a snapshot of {origin}"),
            Self::DeleteThin { id } => write!(f, "delete thin device {id}"),
            Self::Commit => f.write_str("commit metadata"),
            Self::Abort => f.write_str("roll metadata back to the last commit"),
            Self::OperationFailed { operation } => write!(f, "give up on {operation}"),
            Self::SetMode { mode } => write!(f, "switch to {mode}"),
        }
    }
}

/// One call of a thin pool's own function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCall {
    /// When it was entered.
    pub entered: Timestamp,
    /// How long it took, in nanoseconds.
    #[serde(rename = "duration_ns", with = "nanoseconds")]
    pub duration: Duration,
    /// The device that holds the pool's metadata: what the pool is known by in there. None where the kernel's type
    /// information does not tell how to find it.
    pub metadata_device: Option<DeviceNumber>,
    /// What for.
    pub what: PoolFunction,
    /// What came of it.
    #[serde(rename = "error")]
    pub result: CallResult,
    /// In whose context: the caller of an ioctl, or a worker of the kernel's.
    pub process: Process,
}

impl PoolCall {
    /// When it returned.
    #[must_use]
    pub fn finished(&self) -> Timestamp {
        self.entered.plus(self.duration)
    }
}

/// `pool on 253:0: commit metadata -> EIO (i/o error), kworker/u2:1 [77]`
impl fmt::Display for PoolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.metadata_device {
            Some(device) => write!(f, "pool on {device}: ")?,
            None => f.write_str("a pool: ")?,
        }
        write!(f, "{} -> {}, {}", self.what, self.result, self.process)
    }
}

/// A dm device that ended (`dm_destroy`): at once, or when the last user of a deferred removal let go of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEnded {
    /// When.
    pub at: Timestamp,
    /// Which; none where the kernel's type information does not tell how to find its number.
    pub device: Option<DeviceNumber>,
    /// Whether a removal that had been put off until the last close did it (`do_deferred_remove`).
    pub deferred: bool,
    /// In whose context.
    pub process: Process,
}

impl fmt::Display for DeviceEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(device) => write!(f, "dm device {device} is gone")?,
            None => f.write_str("a dm device is gone")?,
        }
        if self.deferred {
            f.write_str(": its deferred removal is complete")?;
        }
        write!(f, ", {}", self.process)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Ending {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// The kernel killed it because memory ran out.
    OutOfMemory,
    /// The kernel's type information does not tell where the exit code is.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Signalled { signal } => match numbers::signal(*signal) {
                Some(name) => write!(f, "was ended by {name}"),
                None => write!(f, "was ended by signal {signal}"),
            },
            Self::OutOfMemory => f.write_str("was killed by the kernel because memory ran out"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// A process named containerd began (`exec`) or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessChange {
    /// When.
    pub at: Timestamp,
    /// Which, and who started it.
    pub who: Caller,
    /// How it ended; nothing when it began.
    pub ended: Option<Ending>,
}

impl fmt::Display for ProcessChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ending) = &self.ended {
            return write!(f, "{} {ending}", self.who.process);
        }
        write!(f, "{} started", self.who.process)?;
        match self.who.ancestors.first() {
            Some(parent) => write!(f, " under {parent}"),
            None => Ok(()),
        }
    }
}

/// What happened to a dm device between two looks at the list of all of them: the sense that is left without BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum DeviceChangeKind {
    /// It is there, and was not.
    Appeared,
    /// It was there, and is not.
    Disappeared,
    /// Its event number moved: its table was replaced, or its target had something to say.
    Event {
        /// The number now.
        event_nr: u32,
    },
}

/// A change seen by comparing lists of dm devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceChange {
    /// When the list was read.
    pub at: Timestamp,
    /// When the one before was read: it happened in between.
    pub since: Timestamp,
    /// dm name.
    pub name: Untrusted,
    /// Device number.
    pub device: DeviceNumber,
    /// What.
    #[serde(flatten)]
    pub what: DeviceChangeKind,
}

impl fmt::Display for DeviceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, device, .. } = self;
        match self.what {
            DeviceChangeKind::Appeared => write!(f, "dm device {name} ({device}) has appeared"),
            DeviceChangeKind::Disappeared => write!(f, "dm device {name} ({device}) has disappeared"),
            DeviceChangeKind::Event { event_nr } => {
                write!(f, "dm device {name} ({device}) is at event {event_nr}")
            }
        }
    }
}

/// What a pool's status line says: read when its event number moved, where no probe tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// When it was read.
    pub at: Timestamp,
    /// Which pool.
    pub pool: PoolName,
    /// What it can do.
    pub mode: PoolMode,
    /// Whether the kernel wants it checked before it is written to again.
    pub needs_check: bool,
}

impl fmt::Display for PoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = if self.needs_check {
            " and needs a check"
        } else {
            ""
        };
        write!(f, "pool {} is {}{check}", self.pool, self.mode)
    }
}
