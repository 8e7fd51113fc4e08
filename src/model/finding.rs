//! A finding: one instance of a class of inconsistency, with its evidence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{OperationId, PoolName, ThinId};

/// Class of an inconsistency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingClass {
    /// containerd made the thin device, was stopped half way, marked its id faulty, and forgot its name: nothing will
    /// ever use or delete it.
    LeakedThin,
    /// A thin device that no record names and that nobody can prove containerd made.
    ForeignThin,
}

impl fmt::Display for FindingClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeakedThin => "leaked-thin",
            Self::ForeignThin => "foreign-thin",
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

/// One inconsistency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name.
    pub id: FindingId,
    /// Its class.
    pub class: FindingClass,
    /// In which pool.
    pub pool: PoolName,
    /// Which thin device.
    pub thin_id: ThinId,
    /// Who made it.
    pub provenance: Provenance,
    /// What was read, a sentence each.
    pub evidence: Vec<String>,
}

/// `leaked-thin: thin device 1 of tp`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: thin device {} of {}", self.class, self.thin_id, self.pool)
    }
}
