//! An operation: one thing that the snapshotter set out to do, as a sequence of steps.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    DeviceMark, DeviceState, Incarnation, PoolName, ThinId, Timestamp,
    dm::{Caller, Process},
};

/// Names one operation for as long as anybody speaks of it: derived from when and on what it began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(String);

impl OperationId {
    /// Of an operation that made a thin device at a time.
    #[must_use]
    pub fn new(began: Timestamp, id: ThinId) -> Self {
        Self(format!("create-{id}-{:x}", began.nanoseconds()))
    }

    /// As it was stored.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which side of the story a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// A device-mapper call.
    #[default]
    Call,
    /// What the pool or device-mapper did inside the kernel.
    Kernel,
    /// A transition of containerd's record, as it was committed.
    Database,
}

/// One step of an operation: a kernel call, something inside the kernel, or a commit to a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which side it belongs to.
    #[serde(default)]
    pub side: Side,
    /// When it entered the kernel; of a commit, when the database was last seen without it.
    pub entered: Timestamp,
    /// When it returned; of a commit, when it was noticed.
    pub finished: Timestamp,
    /// What was asked, as people read it.
    pub request: String,
    /// Errno's name, where it failed.
    pub error: Option<String>,
    /// Who called.
    pub process: Process,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OperationState {
    /// Its process lives and has not finished it.
    InFlight,
    /// Its process died; whether the operation was finished is not known before the databases are read.
    Orphaned {
        /// When the death was noticed.
        at: Timestamp,
    },
    /// Its process died before it was finished, and nobody will finish it.
    Abandoned {
        /// When the death was noticed.
        at: Timestamp,
        /// State of containerd's record of the device when that was established; none where it has no record (any more).
        record: Option<DeviceState>,
        /// What tells the device from another of its id: it must not change from then on.
        mark: DeviceMark,
    },
    /// The databases know the device as a snapshot's: whatever it is, it is referenced.
    Completed {
        /// When that was read.
        at: Timestamp,
    },
    /// The kernel refused to make the device.
    Failed {
        /// Errno's name.
        error: String,
    },
    /// The device is gone: deleted by its own process, or by somebody else.
    Deleted {
        /// When that was seen.
        at: Timestamp,
    },
    /// Somebody else made a device of the same id later, or the pool was taken down: what now bears the id may be
    /// something else.
    Superseded {
        /// When that was seen.
        at: Timestamp,
    },
}

impl OperationState {
    /// Whether a person may want to know.
    #[must_use]
    pub fn is_noteworthy(&self) -> bool {
        matches!(
            self,
            Self::Orphaned { .. } | Self::Abandoned { .. } | Self::Failed { .. }
        )
    }

    /// Whether nothing more is to be expected.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Completed { .. } | Self::Failed { .. } | Self::Deleted { .. } | Self::Superseded { .. }
        )
    }
}

/// containerd making a thin device, seen by suture's own probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// In which pool.
    pub pool: PoolName,
    /// The thin device it makes.
    pub thin_id: ThinId,
    /// What that is a snapshot of; none for an empty device.
    pub origin: Option<ThinId>,
    /// dm name of the device, once it was activated.
    pub device_name: Option<String>,
    /// Which containerd.
    pub actor: Incarnation,
    /// Who made the deciding call, and under whom.
    pub caller: Caller,
    /// Its steps so far, in the order of their ends, at most [`Operation::MAX_STEPS`].
    pub steps: Vec<Step>,
    /// Where it stands.
    #[serde(flatten)]
    pub state: OperationState,
}

impl Operation {
    /// More calls of one operation are not kept: a device that is suspended and resumed for ever is one operation.
    pub const MAX_STEPS: usize = 64;

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.steps
            .first()
            .map_or_else(Timestamp::default, |step| step.entered)
    }

    /// The call that made the device.
    #[must_use]
    pub fn first_call(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.side == Side::Call)
    }

    /// Adds a step where its time belongs, unless there are too many already: the databases' side is noticed a little
    /// later than the kernel's.
    pub fn push(&mut self, step: Step) {
        if self.steps.len() < Self::MAX_STEPS {
            let later = self
                .steps
                .iter()
                .rev()
                .take_while(|one| one.finished > step.finished);
            let place = self.steps.len().saturating_sub(later.count());
            self.steps.insert(place, step);
        }
    }
}

/// `containerd [512] makes thin device 7 of tp (tp-snap-3), a snapshot of 6`
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} makes thin device {} of {}",
            self.actor, self.thin_id, self.pool
        )?;
        if let Some(name) = &self.device_name {
            write!(f, " ({name})")?;
        }
        if let Some(origin) = self.origin {
            write!(f, ", a snapshot of {origin}")?;
        }
        Ok(())
    }
}
