//! A plan: what to do, and what must hold just before. Data only; who carries it out is `remedy`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceMark, DeviceNumber, FindingId, OperationId, PoolName, ThinId, Timestamp};

/// One change to the outside world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Send `delete ID` to the pool.
    DeleteThin {
        /// The pool.
        pool: PoolName,
        /// Its device number when the plan was made.
        pool_device: DeviceNumber,
        /// The thin device.
        thin_id: ThinId,
        /// What tells it from another device of its id, as it was when it was found abandoned.
        mark: DeviceMark,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteThin { pool, thin_id, .. } => {
                write!(f, "delete thin device {thin_id} from pool {pool}")
            }
        }
    }
}

/// What must hold just before an action, each read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// No kernel event was lost since the last full read of the world.
    NoEventsLost,
    /// The operation that made the device is still the one known, and abandoned.
    OperationAbandoned,
    /// The pool is the same device as when the plan was made.
    SamePool,
    /// The pool is in write mode and needs no check.
    PoolWritable,
    /// The device is in the pool, and as it was when it was found abandoned.
    DeviceUnchanged,
    /// containerd's database has the id marked faulty: it never hands it out again.
    IdFaulty,
    /// No record of containerd's carries the id.
    NoRecord,
    /// No dm device maps the id.
    NotOpen,
    /// containerd's databases did not change between the last read and the act.
    SameTransaction,
}

impl Guard {
    /// All guards of [`Action::DeleteThin`], in the order in which they are checked.
    pub const DELETE_THIN: [Guard; 9] = [
        Guard::NoEventsLost,
        Guard::OperationAbandoned,
        Guard::SamePool,
        Guard::PoolWritable,
        Guard::DeviceUnchanged,
        Guard::IdFaulty,
        Guard::NoRecord,
        Guard::NotOpen,
        Guard::SameTransaction,
    ];
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEventsLost => "no-events-lost",
            Self::OperationAbandoned => "operation-abandoned",
            Self::SamePool => "same-pool",
            Self::PoolWritable => "pool-writable",
            Self::DeviceUnchanged => "device-unchanged",
            Self::IdFaulty => "id-faulty",
            Self::NoRecord => "no-record",
            Self::NotOpen => "not-open",
            Self::SameTransaction => "same-transaction",
        })
    }
}

/// One guard as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardReading {
    /// Which.
    pub guard: Guard,
    /// Whether it holds.
    pub holds: bool,
    /// What was read.
    pub detail: String,
}

impl fmt::Display for GuardReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guard, self.detail)
    }
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// About what.
    pub finding: FindingId,
    /// The operation that it undoes.
    pub operation: OperationId,
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// What must hold.
    pub guards: Vec<Guard>,
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done; looking again showed it, where the world could be read.
    Done,
    /// The kernel said that there was nothing to do any more.
    AlreadyDone,
    /// A guard did not hold; nothing was done.
    Refused {
        /// Why.
        why: String,
    },
    /// The kernel refused; nothing was done.
    Failed {
        /// Why.
        why: String,
    },
    /// suture died between intent and outcome; looking afterwards showed that it had been done.
    SettledDone,
    /// suture died between intent and outcome; looking afterwards showed that nothing had been done.
    SettledNotDone,
}

impl Outcome {
    /// Whether the thing to be changed is as it was.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::Failed { .. } | Self::SettledNotDone
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::AlreadyDone => f.write_str("already done"),
            Self::Refused { why } => write!(f, "refused: {why}"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::SettledDone => f.write_str("done (settled after a restart of suture)"),
            Self::SettledNotDone => f.write_str("not done (settled after a restart of suture)"),
        }
    }
}

/// What was decided about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Carry out the plan, if its guards hold.
    Act(Plan),
    /// The plan would be carried out, if acting were allowed.
    Propose(Plan),
    /// Not yet.
    Wait {
        /// Look again then.
        until: Timestamp,
        /// Why.
        why: String,
    },
    /// Never by itself: a person decides.
    Tell {
        /// Why.
        why: String,
    },
}

impl Decision {
    /// The plan, where there is one.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Act(plan) | Self::Propose(plan) => Some(plan),
            Self::Wait { .. } | Self::Tell { .. } => None,
        }
    }
}
