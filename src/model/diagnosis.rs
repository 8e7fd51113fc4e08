//! A diagnosis: a finding as a person needs it, with what it means, whom it hits, and what would heal it.
//! A remedy is data: [`Act`]s in their order and the [`Condition`]s under which each may be done. `remedy` does them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceNumber, DeviceRecord, DeviceState, Finding, IdState, SnapshotId, ThinId, survey::Users};

/// How bad a finding is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// No new container can be started.
    Outage,
    /// Data are lost, or whoever uses them gets errors.
    Damage,
    /// Whoever touches it hangs, or can not remove it.
    Stuck,
    /// Space is lost.
    Space,
    /// Nobody is hurt; it is told because it explains something, or will matter later. It keeps no check from being
    /// clean.
    Notice,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::Damage => "damage",
            Self::Stuck => "stuck",
            Self::Space => "space",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a remedy may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// While containerd runs, or while it is stopped.
    Online,
    /// Only while containerd is stopped.
    Offline,
    /// suture never does it.
    Never,
}

/// What is done about a finding, in a word. The word is what JSON and the command line say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Delete the thin device from the pool.
    DeleteThin,
    /// Remove what a half-made or half-removed snapshot left: dm device, thin device and, offline, record and id.
    UndoHalfDone,
    /// Mark the record and its id faulty, as containerd's own start does: it overwrites such a record.
    MarkFaulty,
    /// Put the record of a good layer back to what it was.
    RestoreRecord,
    /// Resume the dm device.
    ResumeNode,
    /// Remove the dm device.
    RemoveNode,
    /// Give containerd a record that it can remove, so that it can remove the snapshot and its parents.
    InsertRemovedRecord,
    /// Take back the number, and the record that is left over.
    FreeId,
    /// Mark numbers that other thin devices have as not to be drawn.
    ReserveId,
    /// Nothing that suture does; the explanation says what a person can do.
    LeaveAlone,
}

impl Treatment {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeleteThin => "delete-thin",
            Self::UndoHalfDone => "undo-half-done",
            Self::MarkFaulty => "mark-faulty",
            Self::RestoreRecord => "restore-record",
            Self::ResumeNode => "resume-node",
            Self::RemoveNode => "remove-node",
            Self::InsertRemovedRecord => "insert-removed-record",
            Self::FreeId => "free-id",
            Self::ReserveId => "reserve-id",
            Self::LeaveAlone => "leave-alone",
        }
    }
}

/// One change to the world outside. Each is idempotent: done twice it changes nothing the second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum Act {
    /// Kernel: resume a dm device (`DM_DEV_SUSPEND` without its flag).
    ResumeNode {
        /// Its name.
        name: String,
        /// Its number when the plan was made.
        device: DeviceNumber,
    },
    /// Kernel: remove a dm device that nobody has open. Never forced, never deferred.
    RemoveNode {
        /// Its name.
        name: String,
        /// Its number when the plan was made.
        device: DeviceNumber,
    },
    /// Kernel: send `delete ID` to the pool.
    DeleteThin {
        /// The thin device.
        thin_id: ThinId,
    },
    /// Pool database, offline: record to Faulty and id to 2, in one transaction, as `MarkFaulty` of metadata.go does.
    MarkFaulty {
        /// The record as it was when the plan was made.
        record: DeviceRecord,
    },
    /// Pool database, offline: delete the record and set its id to 0, as `RemoveDevice` of metadata.go does.
    ForgetRecord {
        /// The record as it was when the plan was made, its state aside: an earlier act may have marked it faulty.
        record: DeviceRecord,
    },
    /// Pool database, offline: record to a state and id to 1.
    RestoreRecord {
        /// The record as it was when the plan was made.
        record: DeviceRecord,
        /// The state that it gets; its error is emptied.
        to: DeviceState,
    },
    /// Pool database, offline: insert a record in the state Removed with an id that is not in the pool, and set that
    /// id to 1.
    InsertRemovedRecord {
        /// The record's name.
        name: String,
        /// The snapshot that it is for.
        snapshot: SnapshotId,
        /// The id that it gets.
        thin_id: ThinId,
    },
    /// Pool database, offline: set an id to a state, from another.
    SetId {
        /// The id.
        thin_id: ThinId,
        /// What it was when the plan was made; nothing where it had never been drawn.
        from: Option<IdState>,
        /// What it becomes.
        to: IdState,
    },
    /// Pool database, offline: raise the sequence of `device_ids`, so that containerd draws higher numbers only. It is never
    /// lowered: several of these in one repair raise it step by step, and where it is high enough nothing is to be done.
    RaiseIdSequence {
        /// What it was.
        from: u64,
        /// What it becomes.
        to: u64,
    },
}

impl Act {
    /// Whether it edits containerd's database, and so needs containerd stopped.
    #[must_use]
    pub fn is_edit(&self) -> bool {
        match self {
            Self::ResumeNode { .. } | Self::RemoveNode { .. } | Self::DeleteThin { .. } => false,
            Self::MarkFaulty { .. }
            | Self::ForgetRecord { .. }
            | Self::RestoreRecord { .. }
            | Self::InsertRemovedRecord { .. }
            | Self::SetId { .. }
            | Self::RaiseIdSequence { .. } => true,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResumeNode { name, device } => {
                write!(f, "resume dm device {} ({device})", name.escape_debug())
            }
            Self::RemoveNode { name, device } => {
                write!(f, "remove dm device {} ({device})", name.escape_debug())
            }
            Self::DeleteThin { thin_id } => write!(f, "delete thin device {thin_id} from the pool"),
            Self::MarkFaulty { record } => write!(
                f,
                "mark record {} and id {} faulty",
                record.name.escape_debug(),
                record.device_id
            ),
            Self::ForgetRecord { record } => write!(
                f,
                "delete record {} and free id {}",
                record.name.escape_debug(),
                record.device_id
            ),
            Self::RestoreRecord { record, to } => write!(
                f,
                "set record {} from {} to {to} and id {} to taken",
                record.name.escape_debug(),
                record.state,
                record.device_id
            ),
            Self::InsertRemovedRecord { name, thin_id, .. } => write!(
                f,
                "insert record {} as Removed, with the unused id {thin_id}",
                name.escape_debug()
            ),
            Self::SetId { thin_id, to, .. } => write!(f, "set id {thin_id} to {to}"),
            Self::RaiseIdSequence { to, .. } => write!(f, "let containerd draw ids above {to} only"),
        }
    }
}

/// What must hold just before a remedy is carried out; each is read anew, and the first that does not hold stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// A new read of everything, just before, finds the same finding with the same remedy.
    StillFound,
    /// The pool is the same device in the same activation, takes messages (in write mode, or out of data space), and needs no
    /// check.
    PoolWritable,
    /// No dm device other than the one to be removed maps the thin device, and that one is open nowhere and mounted
    /// nowhere.
    NotOpen,
    /// It is proven that containerd made the thin device: suture saw it, or a record past Created names it.
    Provenance,
    /// No snapshot has the record's number.
    NoRow,
    /// No record carries the id.
    NoRecord,
    /// The thin device is in the pool.
    ThinThere,
    /// The thin device is not in the pool.
    ThinGone,
    /// Nobody is at work: no program that containerd started works on devices, and what is to be changed stood still.
    NobodyAtWork,
    /// The databases are whole: neither was lost or replaced by an older one.
    DatabasesWhole,
    /// No containerd runs, and the lock on the pool database is suture's.
    ContainerdStopped,
    /// A backup of each database that is edited is on disk.
    BackedUp,
    /// containerd's databases are at the transactions of the last read, checked after the intent was stored.
    SameTransaction,
    /// A person named it on the command line.
    Named,
}

impl Condition {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StillFound => "still-found",
            Self::PoolWritable => "pool-writable",
            Self::NotOpen => "not-open",
            Self::Provenance => "provenance",
            Self::NoRow => "no-row",
            Self::NoRecord => "no-record",
            Self::ThinThere => "thin-there",
            Self::ThinGone => "thin-gone",
            Self::NobodyAtWork => "nobody-at-work",
            Self::DatabasesWhole => "databases-whole",
            Self::ContainerdStopped => "containerd-stopped",
            Self::BackedUp => "backed-up",
            Self::SameTransaction => "same-transaction",
            Self::Named => "named",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What would heal a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treat {
    /// In a word.
    pub action: Treatment,
    /// When.
    pub when: When,
    /// What must hold.
    pub guards: Vec<Condition>,
    /// The changes, in their order. Empty for [`Treatment::LeaveAlone`].
    pub acts: Vec<Act>,
    /// Why this, why not more, and what a person can do: plain sentences.
    pub why: String,
}

/// A finding as a person needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The finding.
    pub finding: Finding,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in a plain sentence.
    pub summary: String,
    /// What it does to the user, in a plain sentence.
    pub consequence: String,
    /// Whom it hits.
    pub users: Users,
    /// What would heal it.
    pub remedy: Treat,
    /// Set where an operation in flight looks the same for a moment: then it is a finding only once it has stood still.
    pub may_be_in_flight: bool,
}

/// What a survey shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Diagnoses {
    /// The findings, the worst first.
    pub found: Vec<Diagnosis>,
    /// What explains several findings together, such as a database that was lost: plain sentences.
    pub explanations: Vec<String>,
    /// What was read and is not understood, such as a state that no known containerd writes: plain sentences. It is never
    /// acted on, and while there is any, a survey without findings is incomplete and not clean.
    pub not_understood: Vec<String>,
}
