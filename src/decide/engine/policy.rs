//! What the engine may do, how often and when: the policy as a value. One that makes no sense can not be made.

use std::{collections::BTreeMap, ops::Deref, path::PathBuf, time::Duration};

use super::{
    quiet::QuietHours,
    rules::{ClassRule, Rule},
};
use crate::{
    decide::RepairPolicy,
    model::{Bytes, FindingClass, Mode, Severity},
};

/// The longest time that a policy may name: more is a slip of the pen.
const LONGEST: Duration = Duration::from_hours(366 * 24);
const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// How much may be done in any hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Remedies that are begun.
    pub actions: u32,
    /// Mapped data of the thin devices that they delete, what is shared with others included.
    pub bytes: Bytes,
}

/// How long a finding is left alone after a remedy did not do its work: the first time, and at most. Each time doubles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first time.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

/// When a kind of remedy is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// After so many that failed or did not help.
    pub failures: u32,
    /// Within this time.
    pub within: Duration,
    /// A finding that is back within this time after it was healed was not helped.
    pub came_back_within: Duration,
    /// How long it is given up for; nothing where only a person takes it up again.
    pub closes_after: Option<Duration>,
}

/// Everything that a policy says, to be filled in. [`HealingPolicy::new`] makes a policy of it, or says what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyParts {
    /// While this file exists, nothing is done.
    pub kill_switch: PathBuf,
    /// Whether containerd may be stopped for a repair that needs that.
    pub restart_and_repair: Mode,
    /// Findings for which it may be: these and worse ones.
    pub restart_for: Severity,
    /// How long an approval is good for.
    pub approval_lasts: Duration,
    /// What holds for each class, where no rule says otherwise. A class that is missing is as shipped.
    pub classes: BTreeMap<FindingClass, ClassRule>,
    /// Rules; the first that fits a finding holds.
    pub rules: Vec<Rule>,
    /// For all pools together.
    pub node: Limits,
    /// For each pool.
    pub pool: Limits,
    /// After a remedy that did not do its work.
    pub back_off: BackOff,
    /// When remedies are given up.
    pub breaker: BreakerLimits,
    /// When nothing is done.
    pub quiet: QuietHours,
    /// What the repair before containerd's start does by itself.
    pub repair: RepairPolicy,
}

impl Default for PolicyParts {
    fn default() -> Self {
        Self {
            kill_switch: PathBuf::from("/etc/suture/stop"),
            restart_and_repair: Mode::Approve,
            restart_for: Severity::Outage,
            approval_lasts: DAY,
            classes: FindingClass::ALL
                .map(|class| (class, ClassRule::shipped(class)))
                .into(),
            rules: Vec::new(),
            node: Limits {
                actions: 60,
                bytes: Bytes(1 << 39),
            },
            pool: Limits {
                actions: 30,
                bytes: Bytes(1 << 38),
            },
            back_off: BackOff {
                first: Duration::from_secs(30),
                longest: HOUR,
            },
            breaker: BreakerLimits {
                failures: 3,
                within: HOUR,
                came_back_within: HOUR,
                closes_after: None,
            },
            quiet: QuietHours::default(),
            repair: RepairPolicy::default(),
        }
    }
}

/// Something about a policy: where it is said, and what is wrong or odd about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct PolicyProblem {
    /// The key, as the configuration names it: `policy.back-off.longest`, `policy.rule[2].mode`.
    pub key: String,
    /// What, and what is expected.
    pub what: String,
}

impl PolicyProblem {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            what: what.into(),
        }
    }
}

/// A policy that makes sense.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealingPolicy(PolicyParts);

impl Deref for HealingPolicy {
    type Target = PolicyParts;

    fn deref(&self) -> &PolicyParts {
        &self.0
    }
}

impl HealingPolicy {
    /// A policy, or everything that is wrong with it.
    pub fn new(mut parts: PolicyParts) -> Result<Self, Vec<PolicyProblem>> {
        for class in FindingClass::ALL {
            let shipped = || ClassRule::shipped(class);
            parts.classes.entry(class).or_insert_with(shipped);
        }
        let mut problems = Vec::new();
        of_times(&parts, &mut problems);
        for (class, rule) in &parts.classes {
            let key = format!("policy.class.{class}");
            problems.extend(foreign(Some(*class), rule.mode, &key));
            problems.extend(too_long(&key, rule.grace));
        }
        for (index, rule) in parts.rules.iter().enumerate() {
            let key = format!("policy.rule[{index}]");
            problems.extend(foreign(rule.class, rule.mode, &format!("{key}.mode")));
            problems.extend(
                rule.grace
                    .and_then(|grace| too_long(&format!("{key}.grace"), grace)),
            );
            problems.extend(rule.problem(&key));
        }
        if !parts.kill_switch.is_absolute() {
            let what = "it must be a path from the root, such as /etc/suture/stop";
            problems.push(PolicyProblem::new("policy.kill-switch", what));
        }
        if parts.breaker.failures == 0 {
            let what = "it must be at least 1; to have nothing done, set the modes to observe";
            problems.push(PolicyProblem::new("policy.breaker.failures", what));
        }
        if problems.is_empty() {
            Ok(Self(parts))
        } else {
            Err(problems)
        }
    }

    /// The parts, to be changed.
    #[must_use]
    pub fn into_parts(self) -> PolicyParts {
        self.0
    }

    /// What holds for a class, where no rule says otherwise.
    #[must_use]
    pub fn of(&self, class: FindingClass) -> ClassRule {
        let said = self.0.classes.get(&class).copied();
        said.unwrap_or_else(|| ClassRule::shipped(class))
    }

    /// What is no mistake, and probably not meant: rules that can never hold, and modes for what suture never heals.
    #[must_use]
    pub fn oddities(&self) -> Vec<PolicyProblem> {
        let mut odd = Vec::new();
        for (index, rule) in self.0.rules.iter().enumerate() {
            let earlier = self.0.rules.iter().take(index);
            if let Some(first) = earlier.enumerate().find(|(_, earlier)| earlier.covers(rule)) {
                let what = format!(
                    "this rule never holds: rule {} comes before it and fits whatever it fits",
                    first.0 + 1
                );
                odd.push(PolicyProblem::new(format!("policy.rule[{index}]"), what));
            }
            let class = rule.class.filter(|_| rule.mode > Mode::Plan);
            odd.extend(class.and_then(|class| no_remedy(class, format!("policy.rule[{index}].mode"))));
        }
        for (class, rule) in &self.0.classes {
            if rule.mode > Mode::Plan {
                odd.extend(no_remedy(*class, format!("policy.class.{class}")));
            }
        }
        odd
    }
}

/// Classes that suture only ever tells of.
pub(super) fn only_told(class: FindingClass) -> bool {
    match class {
        FindingClass::BlockErrors
        | FindingClass::PoolOutOfSpace
        | FindingClass::PoolMetadataNearlyFull
        | FindingClass::PoolReadOnly
        | FindingClass::PoolFailed
        | FindingClass::PoolNeedsCheck
        | FindingClass::MetadataSnapshotHeld
        | FindingClass::FailingCreate
        | FindingClass::FailingRemove => true,
        FindingClass::LeakedThin
        | FindingClass::ForeignThin
        | FindingClass::OrphanRecord
        | FindingClass::Wedge
        | FindingClass::FaultyNext
        | FindingClass::FaultyLive
        | FindingClass::SuspendedDevice
        | FindingClass::RowWithoutRecord
        | FindingClass::RowWithoutThin
        | FindingClass::OrphanNode
        | FindingClass::BurnedId
        | FindingClass::StuckCleanup
        | FindingClass::ErrorTable => false,
    }
}

fn no_remedy(class: FindingClass, key: String) -> Option<PolicyProblem> {
    let what = format!("suture has no remedy for {class} and only tells of it, whatever the mode");
    only_told(class).then(|| PolicyProblem::new(key, what))
}

fn of_times(parts: &PolicyParts, problems: &mut Vec<PolicyProblem>) {
    let times = [
        ("policy.approval-lasts", Some(parts.approval_lasts)),
        ("policy.back-off.first", Some(parts.back_off.first)),
        ("policy.back-off.longest", Some(parts.back_off.longest)),
        ("policy.breaker.within", Some(parts.breaker.within)),
        (
            "policy.breaker.came-back-within",
            Some(parts.breaker.came_back_within),
        ),
        ("policy.breaker.closes-after", parts.breaker.closes_after),
    ];
    for (key, time) in times {
        let Some(time) = time else { continue };
        if time.is_zero() {
            problems.push(PolicyProblem::new(key, "it must be longer than nothing"));
        }
        problems.extend(too_long(key, time));
    }
    if parts.back_off.longest < parts.back_off.first {
        let what = "the longest back-off must not be shorter than the first";
        problems.push(PolicyProblem::new("policy.back-off.longest", what));
    }
}

fn too_long(key: &str, time: Duration) -> Option<PolicyProblem> {
    (time > LONGEST).then(|| PolicyProblem::new(key, "it must be at most 366 days"))
}

/// What nobody can prove containerd made is never healed class by class.
fn foreign(class: Option<FindingClass>, mode: Mode, key: &str) -> Option<PolicyProblem> {
    let what = "thin devices that nobody can prove containerd made are never deleted by a policy: expected `observe` or `plan`; delete one with `suture repair --delete-thin ID`";
    let refused = class == Some(FindingClass::ForeignThin) && mode > Mode::Plan;
    refused.then(|| PolicyProblem::new(key, what))
}
