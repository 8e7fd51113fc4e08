//! What a policy lets suture do about a finding, what a person says of a plan, and what is decided in the end: the words that
//! the engine, the ledger and the control socket share. Data only.

use std::{
    fmt::{self, Write as _},
    io,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{RepairPlan, Timestamp};

/// What may be done about a finding without a person. Later ones allow more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is told of.
    Observe,
    /// It is told of, with what would be done.
    Plan,
    /// It is healed once a person approved that very plan.
    Approve,
    /// It is healed.
    Auto,
}

impl Mode {
    /// All of them, from the one that allows least.
    pub const ALL: [Self; 4] = [Self::Observe, Self::Plan, Self::Approve, Self::Auto];

    /// Its name, as the configuration says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Plan => "plan",
            Self::Approve => "approve",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one plan: the finding, its remedy, its acts and their conditions. A plan that differs in any of these has another
/// name, so that an approval is for exactly what was shown. Written `leaked-thin-3f9a1c2b4d5e`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanId(String);

/// How many bytes of the hash are in the name: few enough to be typed, enough to tell apart what one node ever has.
const HASH_BYTES: usize = 6;

impl PlanId {
    /// The name of a plan.
    #[must_use]
    pub fn of(plan: &RepairPlan) -> Self {
        let mut hash = Sha256::new();
        let whole = (
            &plan.finding,
            plan.class,
            &plan.subject,
            &plan.provenance,
            plan.remedy.action,
            &plan.acts,
            &plan.conditions,
        );
        // Plain values always make JSON. Were it not so, the name would be of the error, and of the plan as it is printed.
        if let Err(error) = serde_json::to_writer(Hashed(&mut hash), &whole) {
            hash.update(format!("{error} {plan:?}"));
        }
        let hash = hash.finalize();
        let mut name = format!("{}-", plan.class);
        for byte in hash.iter().take(HASH_BYTES) {
            // Writing to a text does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        Self(name)
    }

    /// What a person typed, or a ledger kept. Whether there is such a plan is asked of the engine.
    #[must_use]
    pub fn typed(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

/// Takes what is written to it into a hash.
struct Hashed<'h>(&'h mut Sha256);

impl io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is decided about one finding in one round. `why` is a plain sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is told of, and nothing more.
    Observe {
        /// Why nothing more.
        why: String,
    },
    /// What would be done is told.
    Propose {
        /// That.
        plan: Box<RepairPlan>,
        /// Its name.
        id: PlanId,
        /// Why it is only told.
        why: String,
    },
    /// A person has to approve the plan.
    AwaitApproval {
        /// What is to be approved.
        plan: Box<RepairPlan>,
        /// Its name.
        id: PlanId,
        /// Why it needs a person.
        why: String,
    },
    /// Not yet.
    Wait {
        /// Look again then, at the latest.
        until: Timestamp,
        /// Why.
        why: String,
    },
    /// The plan is to be carried out now. Whoever is told so reports the outcome, whatever it is.
    Act {
        /// What.
        plan: Box<RepairPlan>,
        /// Its name.
        id: PlanId,
    },
    /// Nothing is done, until somebody or something takes the obstacle away.
    Blocked {
        /// Which.
        why: String,
    },
    /// containerd heals it by itself.
    LeftToContainerd {
        /// How.
        why: String,
    },
    /// Only the repair before containerd's next start can heal it.
    Offline {
        /// What is to be done then.
        plan: Box<RepairPlan>,
        /// Its name.
        id: PlanId,
        /// Why it waits for that.
        why: String,
        /// Whether it may be done at the next start.
        arm: bool,
    },
    /// containerd is to be stopped, the plan carried out, and containerd started again.
    RestartAndRepair {
        /// What is to be done while it is stopped.
        plan: Box<RepairPlan>,
        /// Its name.
        id: PlanId,
        /// Whether it is to be done now. Otherwise a person has to approve the plan. Whoever is told to do it now reports
        /// the outcome, whatever it is.
        approved: bool,
    },
}

impl Verdict {
    /// The plan and its name, where there is one.
    #[must_use]
    pub fn plan(&self) -> Option<(&RepairPlan, &PlanId)> {
        match self {
            Self::Propose { plan, id, .. }
            | Self::AwaitApproval { plan, id, .. }
            | Self::Act { plan, id }
            | Self::Offline { plan, id, .. }
            | Self::RestartAndRepair { plan, id, .. } => Some((plan, id)),
            Self::Observe { .. }
            | Self::Wait { .. }
            | Self::Blocked { .. }
            | Self::LeftToContainerd { .. } => None,
        }
    }

    /// Whether something is to be changed now.
    #[must_use]
    pub fn acts(&self) -> bool {
        matches!(
            self,
            Self::Act { .. } | Self::RestartAndRepair { approved: true, .. }
        )
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Observe { .. } => "observe",
            Self::Propose { .. } => "propose",
            Self::AwaitApproval { .. } => "await-approval",
            Self::Wait { .. } => "wait",
            Self::Act { .. } => "act",
            Self::Blocked { .. } => "blocked",
            Self::LeftToContainerd { .. } => "left-to-containerd",
            Self::Offline { .. } => "offline",
            Self::RestartAndRepair { .. } => "restart-and-repair",
        }
    }
}

/// As a person reads it.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let acts = |plan: &RepairPlan| {
            let acts: Vec<String> = plan.acts.iter().map(ToString::to_string).collect();
            acts.join(", then ")
        };
        match self {
            Self::Observe { why } => write!(f, "left to a person: {why}"),
            Self::Propose { plan, why, .. } => write!(f, "would {}, but only tells: {why}", acts(plan)),
            Self::AwaitApproval { plan, id, why } => write!(
                f,
                "waits for `suture approve {id}`, and would then {}: {why}",
                acts(plan)
            ),
            Self::Wait { why, .. } => write!(f, "waits: {why}"),
            Self::Act { plan, .. } => write!(f, "{}, if its conditions hold", acts(plan)),
            Self::Blocked { why } => write!(f, "nothing is done: {why}"),
            Self::LeftToContainerd { why } => write!(f, "left to containerd: {why}"),
            Self::Offline { id, why, arm, .. } => {
                write!(f, "{why}")?;
                if *arm {
                    Ok(())
                } else {
                    write!(f, " (`suture approve {id}`)")
                }
            }
            Self::RestartAndRepair {
                plan, approved: true, ..
            } => write!(
                f,
                "stops containerd, repairs ({}), and starts it again; containers go on running meanwhile",
                acts(plan)
            ),
            Self::RestartAndRepair { plan, id, .. } => write!(
                f,
                "waits for `suture approve {id}`, and would then stop containerd, {}, and start it again; containers go on running meanwhile",
                acts(plan)
            ),
        }
    }
}

/// What a person tells a running suture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Carry out this plan.
    Approve {
        /// Which.
        id: PlanId,
        /// Who says so.
        who: String,
    },
    /// Never carry out this plan.
    Reject {
        /// Which.
        id: PlanId,
        /// Who says so.
        who: String,
        /// Why.
        why: String,
    },
    /// Do nothing at all.
    Pause {
        /// Who says so.
        who: String,
        /// Why.
        why: String,
        /// Until then, or until somebody says otherwise.
        until: Option<Timestamp>,
    },
    /// Go on, and close every circuit breaker.
    Resume {
        /// Who says so.
        who: String,
    },
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case")]
pub enum Effect {
    /// The plan is carried out as soon as nothing else keeps it.
    Approved {
        /// Which.
        id: PlanId,
        /// About what.
        finding: super::FindingId,
    },
    /// The plan is not carried out.
    Rejected {
        /// Which.
        id: PlanId,
        /// About what.
        finding: super::FindingId,
    },
    /// Nothing is done.
    Paused {
        /// Until then, or until `resume`.
        until: Option<Timestamp>,
    },
    /// suture goes on.
    Resumed {
        /// Whether it had been paused.
        was_paused: bool,
        /// How many circuit breakers were open.
        breakers: usize,
    },
}

/// Why a command was not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// No finding has this plan now.
    #[error(
        "no finding has the plan {id}: it was carried out, or what was found has changed and has another plan; `suture findings` lists those there are"
    )]
    NoSuchPlan {
        /// What was named.
        id: PlanId,
    },
    /// The policy does not leave this plan to a person.
    #[error("the plan {id} needs no approval, or can not be approved: {why}")]
    NotToBeApproved {
        /// Which.
        id: PlanId,
        /// Why.
        why: String,
    },
    /// It is too late to reject it.
    #[error("the plan {id} is being carried out at this moment")]
    BeingCarriedOut {
        /// Which.
        id: PlanId,
    },
    /// So many are kept already.
    #[error(
        "{kept} approvals and rejections are kept already, and no more are taken; old ones go by themselves"
    )]
    TooMany {
        /// How many.
        kept: usize,
    },
    /// This suture makes no healing rounds.
    #[error("this suture only watches, and has nothing to approve or to pause")]
    OnlyWatches,
    /// It could not be stored, and leave to act is nothing that may be forgotten.
    #[error("it could not be stored, so nothing was changed: {why}")]
    NotStored {
        /// Why.
        why: String,
    },
    /// To do less is followed in any case.
    #[error("it holds as long as this suture runs, and could not be stored for the next: {why}")]
    NotKept {
        /// Why.
        why: String,
    },
    /// A pause that would be over already.
    #[error("the pause would end at {until}, which is over; give a time to come")]
    Over {
        /// When.
        until: Timestamp,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Act, Condition, FindingClass, FindingId, Provenance, Severity, Subject, ThinId, Treat, Treatment,
        When,
    };

    fn plan() -> RepairPlan {
        let acts = vec![Act::DeleteThin { thin_id: ThinId(7) }];
        RepairPlan {
            finding: FindingId("leaked-thin/tp/7".to_owned()),
            class: FindingClass::LeakedThin,
            severity: Severity::Space,
            subject: Subject::ThinDevice { thin_id: ThinId(7) },
            provenance: Provenance::Unknown,
            remedy: Treat {
                action: Treatment::DeleteThin,
                when: When::Online,
                guards: Vec::new(),
                acts: acts.clone(),
                why: "so".to_owned(),
            },
            acts,
            conditions: vec![Condition::StillFound],
            left_out: None,
        }
    }

    #[test]
    fn a_plan_keeps_its_name_and_any_other_plan_has_another() {
        let name = PlanId::of(&plan());
        assert_eq!(name, PlanId::of(&plan()));
        // It is in ledgers: another name for the same plan would void every approval.
        assert_eq!(name.as_str(), "leaked-thin-19cce592b327");
        let changes: [fn(&mut RepairPlan); 5] = [
            |plan| plan.finding.0.push('1'),
            |plan| plan.acts = vec![Act::DeleteThin { thin_id: ThinId(8) }],
            |plan| plan.conditions.push(Condition::NotOpen),
            |plan| plan.subject = Subject::ThinId { thin_id: ThinId(7) },
            |plan| {
                plan.provenance = Provenance::ToldByRecord {
                    name: "tp-snap-7".to_owned(),
                }
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = plan();
            change(&mut other);
            assert_ne!(PlanId::of(&other), name, "change {number}");
        }
        // Words for people are not part of it.
        let mut reworded = plan();
        reworded.remedy.why = "thus".to_owned();
        assert_eq!(PlanId::of(&reworded), name);
    }

    #[test]
    fn a_mode_that_allows_more_comes_later() {
        assert!(Mode::ALL.is_sorted());
        for mode in Mode::ALL {
            let json = format!("\"{mode}\"");
            assert_eq!(serde_json::from_str::<Mode>(&json).unwrap(), mode);
        }
    }
}
