//! What a repair sets out to do about one finding, what must hold just before, and what came of it. Data only: `decide`
//! makes it, `remedy` carries it out, the ledger keeps it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    Act, Condition, DeviceMark, FindingClass, FindingId, PoolName, Provenance, Severity, Subject, ThinId,
    Treat, Treatment, TxId,
};

/// Whether containerd runs while a repair is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairMode {
    /// It may: only the kernel is asked to do anything.
    Online,
    /// It is stopped: its pool database may be edited.
    Offline,
}

impl fmt::Display for RepairMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Offline => "offline",
        })
    }
}

/// What is done about one finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairPlan {
    /// About what.
    pub finding: FindingId,
    /// Its class.
    pub class: FindingClass,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// How it is known who made its thin device.
    pub provenance: Provenance,
    /// The remedy as the diagnosis had it: just before the act a new one must have the same.
    pub remedy: Treat,
    /// Those of its acts that are carried out, in their order. Empty where nothing is done: then `left_out` says why.
    pub acts: Vec<Act>,
    /// What must hold: what the remedy names, and what its acts need however they came to be planned.
    pub conditions: Vec<Condition>,
    /// What is not done, and why; nothing where all of the remedy is.
    pub left_out: Option<String>,
}

impl RepairPlan {
    /// The acts up to the first that the kernel does: edits of the database that go first, because what the kernel does
    /// after them rests on them.
    #[must_use]
    pub fn first_edits(&self) -> &[Act] {
        let end = self.acts.iter().position(|act| !act.is_edit());
        self.acts
            .get(..end.unwrap_or(self.acts.len()))
            .unwrap_or_default()
    }

    /// The edits that come after what the kernel does.
    #[must_use]
    pub fn last_edits(&self) -> &[Act] {
        if self.first_edits().len() == self.acts.len() {
            return &[];
        }
        let last = self.acts.iter().rposition(|act| !act.is_edit());
        let begin = last.map_or(0, |last| last + 1);
        self.acts.get(begin..).unwrap_or_default()
    }

    /// What the kernel does.
    pub fn kernel_acts(&self) -> impl Iterator<Item = &Act> {
        self.acts.iter().filter(|act| !act.is_edit())
    }

    /// Thin devices that it deletes.
    pub fn deletes(&self) -> impl Iterator<Item = ThinId> + '_ {
        deleted_by(&self.acts)
    }
}

/// What is stored of a plan before it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairIntent {
    /// In which pool.
    pub pool: PoolName,
    /// Whether containerd may run.
    pub mode: RepairMode,
    /// About what.
    pub finding: FindingId,
    /// Its class; nothing for an undo.
    pub class: Option<FindingClass>,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// What is done, in a word; nothing for an undo.
    pub action: Option<Treatment>,
    /// The acts, in their order.
    pub acts: Vec<Act>,
    /// The transaction of an earlier repair's that is taken back; there are no acts then.
    pub undoes: Option<TxId>,
    /// Transaction of the pool database that the plan rests on. An edit makes the next one.
    pub pool_txid: TxId,
    /// Transaction of the snapshot database that it rests on.
    pub snapshot_txid: Option<TxId>,
    /// Folder of the backup that is made before an edit.
    pub backup: Option<String>,
    /// What tells the thin devices that are to be deleted from others of their ids: once the record is marked faulty, only
    /// this still says that they are containerd's.
    pub marks: BTreeMap<ThinId, DeviceMark>,
}

impl RepairIntent {
    /// Thin devices that it deletes.
    pub fn deletes(&self) -> impl Iterator<Item = ThinId> + '_ {
        deleted_by(&self.acts)
    }
}

fn deleted_by(acts: &[Act]) -> impl Iterator<Item = ThinId> + '_ {
    acts.iter().filter_map(|act| match act {
        Act::DeleteThin { thin_id } => Some(*thin_id),
        _ => None,
    })
}

/// One condition as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionReading {
    /// Which.
    pub condition: Condition,
    /// Whether it holds.
    pub holds: bool,
    /// What was read.
    pub detail: String,
}

impl fmt::Display for ConditionReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.condition, self.detail)
    }
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum RepairOutcome {
    /// All of it was done; looking again showed it.
    Done,
    /// A condition did not hold; nothing was done.
    Refused {
        /// Which, and what was read.
        why: String,
    },
    /// It was tried, and nothing was changed.
    Failed {
        /// Why.
        why: String,
    },
    /// Some of it was done. What is left leaves nothing worse than it was, and the next repair goes on from there.
    Partly {
        /// How many of the acts were.
        done: usize,
        /// Why not the others.
        why: String,
    },
    /// The time was over before it was begun; nothing was done.
    NotReached,
    /// suture died between intent and outcome; looking afterwards showed that all of it had been done.
    SettledDone,
    /// suture died between intent and outcome; looking afterwards showed that nothing had been done.
    SettledNotDone,
    /// suture died between intent and outcome; looking afterwards showed that some of it had been done.
    SettledPartly {
        /// How many of the acts were.
        done: usize,
    },
}

impl RepairOutcome {
    /// Whether all of it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done | Self::SettledDone)
    }

    /// Whether a thin device may be left that only the ledger can still tell the maker of.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Partly { .. } | Self::SettledPartly { .. })
    }
}

/// What was done of a plan's acts.
fn first(done: usize) -> String {
    match done {
        1 => "the first act was done".to_owned(),
        more => format!("the first {more} acts were done"),
    }
}

impl fmt::Display for RepairOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused { why } => write!(f, "refused: {why}"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::Partly { done, why } => write!(f, "only {}: {why}", first(*done)),
            Self::NotReached => f.write_str("not begun: the time was over"),
            Self::SettledDone => f.write_str("done (settled after suture had died)"),
            Self::SettledNotDone => f.write_str("not done (settled after suture had died)"),
            Self::SettledPartly { done } => {
                write!(f, "{} (settled after suture had died)", first(*done))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, DeviceNumber, DeviceRecord, DeviceState, Treatment, When};

    fn plan(acts: Vec<Act>) -> RepairPlan {
        RepairPlan {
            finding: FindingId("wedge/tp/tp-snap-2".to_owned()),
            class: FindingClass::Wedge,
            severity: Severity::Outage,
            subject: Subject::Pool,
            provenance: Provenance::Unknown,
            remedy: Treat {
                action: Treatment::UndoHalfDone,
                when: When::Offline,
                guards: Vec::new(),
                acts: acts.clone(),
                why: String::new(),
            },
            acts,
            conditions: Vec::new(),
            left_out: None,
        }
    }

    #[test]
    fn edits_are_parted_by_what_the_kernel_does_between_them() {
        let record = DeviceRecord {
            device_id: ThinId(2),
            size: Bytes(1),
            name: "tp-snap-2".to_owned(),
            parent_name: String::new(),
            state: DeviceState::Activated,
            error: String::new(),
        };
        let mark = Act::MarkFaulty {
            record: record.clone(),
        };
        let remove = Act::RemoveNode {
            name: "tp-snap-2".to_owned(),
            device: DeviceNumber { major: 253, minor: 3 },
        };
        let delete = Act::DeleteThin { thin_id: ThinId(2) };
        let forget = Act::ForgetRecord { record };

        let whole = plan(vec![mark.clone(), remove.clone(), delete.clone(), forget.clone()]);
        assert_eq!(whole.first_edits(), std::slice::from_ref(&mark));
        assert_eq!(whole.last_edits(), std::slice::from_ref(&forget));
        assert_eq!(whole.kernel_acts().collect::<Vec<_>>(), [&remove, &delete]);
        assert_eq!(whole.deletes().collect::<Vec<_>>(), [ThinId(2)]);

        let edits = plan(vec![mark.clone(), forget.clone()]);
        assert_eq!(edits.first_edits(), [mark, forget.clone()]);
        assert_eq!(edits.last_edits(), []);
        let removal = plan(vec![delete, forget.clone()]);
        assert_eq!(removal.first_edits(), []);
        assert_eq!(removal.last_edits(), [forget]);

        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<RepairPlan>(&json).unwrap(), whole);
    }
}
