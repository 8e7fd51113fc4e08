//! A saga: one operation of the snapshotter's, of any kind, as far as it was seen, and where it stands.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{
    DeviceState, Incarnation, ThinId, Timestamp, commit::DatabaseKind, databases::SnapshotKind,
    window::Window,
};

/// What containerd set out to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SagaKind {
    /// Make a snapshot without a parent (`Prepare`).
    Create,
    /// Make a snapshot of a parent whose dm device is not there (`Prepare`, `View`).
    Snapshot,
    /// Make a snapshot of a parent whose dm device is there, and is suspended meanwhile.
    SnapshotOfLoaded,
    /// Turn a snapshot into a layer (`Commit`).
    Commit,
    /// Remove a snapshot at once (`Remove`).
    Remove,
    /// Remove a snapshot's row, and leave its device to the clean-up (`Remove` with `async_remove`).
    RemoveLater,
    /// Remove the device of a snapshot that is gone (`Cleanup`).
    CleanUp,
    /// Make the dm device of a snapshot again at containerd's start (`ensureDeviceStates`).
    StartUp,
}

impl SagaKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Snapshot,
        Self::SnapshotOfLoaded,
        Self::Commit,
        Self::Remove,
        Self::RemoveLater,
        Self::CleanUp,
        Self::StartUp,
    ];

    /// Whether it makes a new device.
    #[must_use]
    pub fn makes(self) -> bool {
        matches!(self, Self::Create | Self::Snapshot | Self::SnapshotOfLoaded)
    }
}

impl fmt::Display for SagaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "making a snapshot without a parent",
            Self::Snapshot | Self::SnapshotOfLoaded => "making a snapshot of a parent",
            Self::Commit => "committing a snapshot",
            Self::Remove => "removing a snapshot",
            Self::RemoveLater => "removing a snapshot, its device later",
            Self::CleanUp => "cleaning up after a removed snapshot",
            Self::StartUp => "activating a snapshot's device at its start",
        })
    }
}

/// What a call to device-mapper did to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCall {
    /// `create_thin`.
    MakeThin,
    /// `create_snap`.
    MakeSnapshot,
    /// The dm device was created, without a table.
    Create,
    /// A `thin` table was loaded.
    Load,
    /// An `error` table was loaded: `dmsetup remove --force` does that first.
    LoadError,
    /// It was resumed, with the table that was loaded last.
    Resume,
    /// It was suspended.
    Suspend,
    /// It was removed, or will be when it is closed.
    Remove,
    /// `delete`.
    DeleteThin,
}

/// What was seen of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "seen", rename_all = "snake_case")]
pub enum Seen {
    /// A transaction of the pool database changed a record. Where several were noticed at once, it is their sum.
    Record {
        /// The record's name.
        name: String,
        /// Before; nothing where there was none, or one of another thin id.
        from: Option<DeviceState>,
        /// After.
        to: Option<DeviceState>,
        /// Set where it is the sum of several transactions.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sum: bool,
        /// What containerd noted as its failure; empty where it did not fail.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        error: String,
    },
    /// A call to device-mapper.
    Call {
        /// The dm device's name; nothing for a message to the pool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// What it did.
        call: NodeCall,
        /// Errno's name, where it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A transaction of another database: the snapshot's row, or the client's name for it.
    Row {
        /// Which database.
        database: DatabaseKind,
        /// Kind of the row after; nothing where it is gone.
        to: Option<SnapshotKind>,
    },
}

/// One step that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaStep {
    /// When it was done; of a commit, when it was noticed.
    pub at: Timestamp,
    /// What was seen.
    #[serde(flatten)]
    pub seen: Seen,
    /// How often in a row.
    pub count: u64,
}

/// In which window an operation was cut, as far as that can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows(pub BTreeSet<Window>);

impl Windows {
    /// The one window, where it is certain.
    #[must_use]
    pub fn only(&self) -> Option<Window> {
        self.0.first().filter(|_| self.0.len() == 1).copied()
    }
}

impl Windows {
    /// Between which steps they are, where they are all of one operation.
    fn between(&self) -> Option<(Window, Option<Window>)> {
        let (first, last) = (*self.0.first()?, *self.0.last()?);
        let one = |window: &Window| window.name().chars().next() == first.name().chars().next();
        self.0.iter().all(one).then(|| (first, last.next()))
    }

    /// Where a death in one of them was, as the rest of a sentence: `between "record Activated" and "the file system is made"
    /// (window B7)`.
    #[must_use]
    pub fn told(&self) -> String {
        let word = if self.0.len() == 1 { "window" } else { "windows" };
        match self.between() {
            None if self.0.is_empty() => "in a step that can not be told".to_owned(),
            None => format!("in {word} {self}"),
            Some((first, Some(next))) => {
                format!(
                    "between \"{}\" and \"{}\" ({word} {self})",
                    first.step(),
                    next.step()
                )
            }
            Some((first, None)) => format!("after \"{}\" ({word} {self})", first.step()),
        }
    }
}

/// The death of a containerd in an operation, as suture saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When it was noticed.
    pub at: Timestamp,
    /// Which containerd; nothing where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Incarnation>,
    /// In which operation: more than one where the steps seen fit several.
    pub operation: BTreeSet<SagaKind>,
    /// After which durable step.
    pub windows: Windows,
}

/// `containerd [500] died while it was making a snapshot without a parent, between "record Activated" and "the file system is made" (window
/// B7); that was noticed at 2026-11-21T02:29:08Z`
impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Some(who) => write!(f, "{who}")?,
            None => f.write_str("its containerd")?,
        }
        let mut kinds: Vec<String> = self.operation.iter().map(ToString::to_string).collect();
        kinds.dedup();
        write!(
            f,
            " died while it was {}, {}; that was noticed at {}",
            kinds.join(" or "),
            self.windows.told(),
            self.at
        )
    }
}

/// `B7`, or `B7 or B8 or B9`
impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|window| window.name()).collect();
        f.write_str(&names.join(" or "))
    }
}

/// Where a saga stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SagaState {
    /// containerd is at work on it.
    Running,
    /// It is finished.
    Completed {
        /// When that was seen.
        at: Timestamp,
    },
    /// It failed, and containerd took back what it had done.
    RolledBack {
        /// When that was seen.
        at: Timestamp,
    },
    /// It failed, and containerd left it as it is.
    Failed {
        /// When that was seen.
        at: Timestamp,
        /// What containerd, or the kernel, said.
        error: String,
    },
    /// Its containerd died in it.
    Died {
        /// When that was noticed.
        at: Timestamp,
        /// After which durable step.
        windows: Windows,
        /// Whether the world was read since: before that, steps may be unknown that were done just before the death.
        settled: bool,
    },
}

impl SagaState {
    /// Whether more of it is to be expected.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Running | Self::Died { settled: false, .. })
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// Which operation it may be: more than one while the steps seen fit several.
    pub kinds: BTreeSet<SagaKind>,
    /// Name of the device that it is about (`<pool>-snap-N`); nothing while only the thin id is known.
    pub device: Option<String>,
    /// Thin id of that device, once known.
    pub thin_id: Option<ThinId>,
    /// Name of the parent's device; nothing where there is none, or it is not known.
    pub parent: Option<String>,
    /// Thin id of the parent, once known.
    pub parent_id: Option<ThinId>,
    /// Which containerd does it; nothing where nobody knows.
    pub actor: Option<Incarnation>,
    /// Backend key of the snapshot, once its row was stored.
    pub key: Option<String>,
    /// What was seen of it, at most [`Saga::MAX_STEPS`].
    pub steps: Vec<SagaStep>,
    /// Whether steps may have been missed.
    pub gaps: bool,
    /// The steps that it may stand at, while it runs.
    pub stands_at: Windows,
    /// Where it stands.
    #[serde(flatten)]
    pub state: SagaState,
}

impl Saga {
    /// Steps kept of one saga. No operation has so many; beyond it the saga has gaps.
    pub const MAX_STEPS: usize = 64;

    /// How its containerd died in it; nothing where it did not.
    #[must_use]
    pub fn death(&self) -> Option<Death> {
        let SagaState::Died { at, windows, .. } = &self.state else {
            return None;
        };
        Some(Death {
            at: *at,
            who: self.actor.clone(),
            operation: self.kinds.clone(),
            windows: windows.clone(),
        })
    }

    /// When it began, as far as it was seen.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.steps.first().map_or_else(Timestamp::default, |step| step.at)
    }

    /// When it was last heard of.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        let last = self.steps.iter().map(|step| step.at).max();
        last.unwrap_or_default()
    }
}
