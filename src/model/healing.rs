//! What a running suture tells of its healing: what was decided about each finding, which plans there are, and what keeps it
//! from acting. Part of the `Status`; the agent fills it. As JSON it is stable, as the status is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{FindingId, PlanId, RepairPlan, Severity, Timestamp, Treatment, Verdict, policy::Mode};

/// What was decided about a finding, for programs; the decision in words is beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStatus {
    /// Its name, such as `await-approval`; see [`Verdict::name`].
    pub verdict: String,
    /// How bad the finding is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What the policy says for this finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The plan, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanId>,
    /// Whether a person is asked to approve it.
    #[serde(default)]
    pub asks: bool,
    /// When suture looks again, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl VerdictStatus {
    /// Of a verdict, under this mode.
    #[must_use]
    pub fn of(verdict: &Verdict, severity: Option<Severity>, mode: Option<Mode>) -> Self {
        Self {
            verdict: verdict.name().to_owned(),
            severity,
            mode,
            plan: verdict.plan().map(|(_, id)| id.clone()),
            asks: asks(verdict),
            until: match verdict {
                Verdict::Wait { until, .. } => Some(*until),
                _ => None,
            },
        }
    }
}

/// Whether a verdict waits for a person to approve its plan.
fn asks(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::AwaitApproval { .. } | Verdict::RestartAndRepair { approved: false, .. }
    )
}

/// A plan that a finding has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// Its name: an approval is for the plan of this name, and for no other.
    pub id: PlanId,
    /// About what.
    pub finding: FindingId,
    /// What the policy says for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What was decided, such as `await-approval`.
    pub verdict: String,
    /// Whether a person is asked to approve it.
    pub asks: bool,
    /// What would be done, and what must hold for it.
    pub plan: RepairPlan,
}

impl PlanStatus {
    /// The plan of a verdict, where it has one.
    #[must_use]
    pub fn of(verdict: &Verdict, mode: Option<Mode>) -> Option<Self> {
        let (plan, id) = verdict.plan()?;
        Some(Self {
            id: id.clone(),
            finding: plan.finding.clone(),
            mode,
            verdict: verdict.name().to_owned(),
            asks: asks(verdict),
            plan: plan.clone(),
        })
    }
}

/// Somebody said to do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedStatus {
    /// Who.
    pub who: String,
    /// Why; empty where they did not say.
    pub why: String,
    /// When.
    pub since: Timestamp,
    /// Until then; nothing until `resume`.
    pub until: Option<Timestamp>,
}

/// A kind of remedy that is given up, because it failed or did not help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// Which.
    pub remedy: Treatment,
    /// Since when.
    pub since: Timestamp,
    /// What the last failure was.
    pub why: String,
}

/// How the healing stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealingStatus {
    /// Whether somebody said to do nothing.
    pub paused: Option<PausedStatus>,
    /// The kill switch, while it is there or can not be looked for: a plain sentence.
    pub kill_switch: Option<String>,
    /// Kinds of remedies that are given up.
    pub breakers: Vec<BreakerStatus>,
    /// The plans that the findings have now. They are large, so they are no part of the status that is answered; they are
    /// asked for by themselves.
    #[serde(skip)]
    pub plans: Vec<Arc<PlanStatus>>,
}

impl HealingStatus {
    /// What keeps suture from acting, a plain sentence each.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let paused = self.paused.as_ref().map(|paused| {
            let until = paused.until.map_or_else(
                || "until `suture resume`".to_owned(),
                |until| format!("until {until}"),
            );
            let why = if paused.why.is_empty() {
                String::new()
            } else {
                format!(": {}", paused.why.escape_debug())
            };
            format!("paused {until} by {}{why}", paused.who.escape_debug())
        });
        let breaker = |one: &BreakerStatus| {
            format!(
                "{} is given up since {}, until `suture resume`: {}",
                one.remedy.name(),
                one.since,
                one.why.escape_debug()
            )
        };
        let breakers = self.breakers.iter().map(breaker);
        let switch = self.kill_switch.iter().cloned();
        paused.into_iter().chain(switch).chain(breakers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FindingClass, Provenance, Subject, ThinId, Treat, When};

    fn plan() -> RepairPlan {
        RepairPlan {
            finding: FindingId("wedge/tp/7".to_owned()),
            class: FindingClass::Wedge,
            severity: Severity::Outage,
            subject: Subject::ThinDevice { thin_id: ThinId(7) },
            provenance: Provenance::Unknown,
            remedy: Treat {
                action: Treatment::UndoHalfDone,
                when: When::Offline,
                guards: Vec::new(),
                acts: Vec::new(),
                why: String::new(),
            },
            acts: Vec::new(),
            conditions: Vec::new(),
            left_out: None,
        }
    }

    #[test]
    fn a_person_is_asked_where_the_verdict_waits_for_one_and_only_there() {
        let (plan, id, why) = (Box::new(plan()), PlanId::typed("wedge-1"), String::new());
        let restart = |approved| Verdict::RestartAndRepair {
            plan: plan.clone(),
            id: id.clone(),
            approved,
        };
        let awaits = Verdict::AwaitApproval {
            plan: plan.clone(),
            id: id.clone(),
            why: why.clone(),
        };
        let proposes = Verdict::Propose {
            plan: plan.clone(),
            id: id.clone(),
            why: why.clone(),
        };
        let waits = Verdict::Wait {
            until: Timestamp::from_nanoseconds(7),
            why,
        };
        for (verdict, asks, has_plan) in [
            (restart(false), true, true),
            (restart(true), false, true),
            (awaits, true, true),
            (proposes, false, true),
            (waits, false, false),
        ] {
            let status = VerdictStatus::of(&verdict, None, Some(Mode::Approve));
            assert_eq!(status.asks, asks, "{verdict:?}");
            assert_eq!(status.plan.is_some(), has_plan);
            assert_eq!(status.until.is_some(), !has_plan);
            let plan = PlanStatus::of(&verdict, Some(Mode::Approve));
            assert_eq!(plan.map(|plan| plan.asks), has_plan.then_some(asks));
        }
    }

    #[test]
    fn what_keeps_suture_from_acting_is_said_and_nothing_else() {
        assert!(HealingStatus::default().obstacles().is_empty());
        let since = Timestamp::from_nanoseconds(0);
        let healing = HealingStatus {
            paused: Some(PausedStatus {
                who: "root".to_owned(),
                why: "upgrade\n".to_owned(),
                since,
                until: None,
            }),
            kill_switch: Some("the kill switch is there".to_owned()),
            breakers: vec![BreakerStatus {
                remedy: Treatment::DeleteThin,
                since,
                why: "it failed".to_owned(),
            }],
            plans: Vec::new(),
        };
        let said = healing.obstacles();
        assert_eq!(said[0], "paused until `suture resume` by root: upgrade\\n");
        assert_eq!(said[1], "the kill switch is there");
        assert!(said[2].starts_with("delete-thin is given up since "), "{said:?}");
        assert_eq!(said.len(), 3);
    }
}
