//! Which mode and which grace hold for a finding: the first rule that fits, else what its class says, and never more than is
//! proven.

use std::time::Duration;

use super::{
    pattern::Pattern,
    policy::{HealingPolicy, PolicyProblem, only_told},
};
use crate::model::{
    Diagnosis, FindingClass, Mode, Provenance, RepairPlan, Users,
    survey::{Container, Pod},
};

/// Labels that suture reads: those that Kubernetes puts on a container to name its pod.
pub const LABELS: [&str; 3] = [
    "io.kubernetes.pod.namespace",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.uid",
];

/// What holds for a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassRule {
    /// What may be done.
    pub mode: Mode,
    /// How long a finding must have stood unchanged before it is acted on.
    pub grace: Duration,
    /// The most that may be done where a thin device is deleted that suture did not itself see being made.
    pub unseen: Mode,
}

impl ClassRule {
    /// What is shipped: by itself only what can lose nothing and is proven.
    #[must_use]
    pub fn shipped(class: FindingClass) -> Self {
        let mode = match class {
            FindingClass::LeakedThin
            | FindingClass::OrphanRecord
            | FindingClass::SuspendedDevice
            | FindingClass::OrphanNode => Mode::Auto,
            FindingClass::ForeignThin => Mode::Observe,
            class if only_told(class) => Mode::Observe,
            _ => Mode::Approve,
        };
        Self {
            mode,
            grace: Duration::from_secs(15),
            unseen: match class {
                FindingClass::ForeignThin => Mode::Observe,
                class if only_told(class) => Mode::Observe,
                _ => Mode::Approve,
            },
        }
    }
}

/// A label of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Pattern,
}

/// A rule. What it does not name fits anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The class.
    pub class: Option<FindingClass>,
    /// The pool's name.
    pub pool: Option<Pattern>,
    /// containerd's namespace of whoever is affected.
    pub namespace: Option<Pattern>,
    /// A label of a container that is affected.
    pub label: Option<LabelRule>,
    /// What may be done.
    pub mode: Mode,
    /// How long a finding must have stood; nothing where the class says it.
    pub grace: Option<Duration>,
    /// The most that may be done where suture did not see the thin device being made; nothing where the class says it.
    pub unseen: Option<Mode>,
}

/// Somebody who is affected: a namespace, and the container where it is one.
type Affected<'a> = (&'a str, Option<&'a Container>);

impl Rule {
    /// Whether it fits a finding. One that lets suture act by itself has to fit everybody who is affected, any other fits as
    /// soon as it fits one of them.
    #[must_use]
    pub fn fits(&self, diagnosis: &Diagnosis) -> bool {
        let finding = &diagnosis.finding;
        if self.class.is_some_and(|class| class != finding.class) {
            return false;
        }
        let pool = self.pool.as_ref();
        if pool.is_some_and(|pattern| !pattern.fits(finding.pool.as_str())) {
            return false;
        }
        if !self.asks_for_users() {
            return true;
        }
        let users = &diagnosis.users;
        let affected = self.affected(users);
        if self.mode == Mode::Auto {
            let all_known = users.more_containers == 0;
            all_known && !affected.is_empty() && affected.iter().all(|one| self.fits_one(*one))
        } else {
            affected.iter().any(|one| self.fits_one(*one))
        }
    }

    fn asks_for_users(&self) -> bool {
        self.namespace.is_some() || self.label.is_some()
    }

    /// Only containers have labels.
    fn affected<'a>(&self, users: &'a Users) -> Vec<Affected<'a>> {
        let snapshot = users.snapshot.iter().filter(|_| self.label.is_none());
        let snapshot = snapshot.map(|one| (one.namespace.as_str(), None));
        let containers = users.containers.iter();
        snapshot
            .chain(containers.map(|one| (one.namespace.as_str(), Some(one))))
            .collect()
    }

    fn fits_one(&self, (namespace, container): Affected<'_>) -> bool {
        let by_label = self.label.as_ref().is_none_or(|wanted| {
            let pod = container.and_then(|container| container.pod.as_ref());
            let value = pod.and_then(|pod| label(pod, &wanted.key));
            value.is_some_and(|value| wanted.value.fits(value))
        });
        by_label
            && self
                .namespace
                .as_ref()
                .is_none_or(|wanted| wanted.fits(namespace))
    }

    /// Whether it fits whatever another one fits.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let pattern = |mine: &Option<Pattern>, others: &Option<Pattern>| match (mine, others) {
            (None, _) => true,
            (Some(mine), Some(others)) => mine.covers(others),
            (Some(_), None) => false,
        };
        let label = match (&self.label, &other.label) {
            (None, _) => true,
            (Some(mine), Some(others)) => mine.key == others.key && mine.value.covers(&others.value),
            (Some(_), None) => false,
        };
        // One that asks everybody fits less than one that asks anybody; and labels leave out those that have none.
        let asks_more = self.mode == Mode::Auto
            && self.asks_for_users()
            && (other.mode != Mode::Auto || self.label.is_some() != other.label.is_some());
        (self.class.is_none() || self.class == other.class)
            && pattern(&self.pool, &other.pool)
            && pattern(&self.namespace, &other.namespace)
            && label
            && !asks_more
    }

    pub(super) fn problem(&self, key: &str) -> Option<PolicyProblem> {
        let label = self.label.as_ref()?;
        let known = LABELS.contains(&label.key.as_str());
        let what = format!(
            "suture does not read the label {}: expected one of {}",
            label.key.escape_debug(),
            LABELS.join(", ")
        );
        (!known).then(|| PolicyProblem::new(format!("{key}.label"), what))
    }
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let [namespace, name, uid] = LABELS;
    match key {
        key if key == namespace => Some(&pod.namespace),
        key if key == name => Some(&pod.name),
        key if key == uid => Some(&pod.uid),
        _ => None,
    }
}

/// What holds for one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) mode: Mode,
    pub(super) grace: Duration,
    /// Where that is said: "rule 2 of the policy says so".
    pub(super) why: String,
}

impl HealingPolicy {
    /// Under which mode a plan for a finding is.
    #[must_use]
    pub fn mode_of(&self, diagnosis: &Diagnosis, plan: &RepairPlan) -> Mode {
        self.setting(diagnosis, plan).mode
    }

    /// What holds for a finding with its plan.
    pub(super) fn setting(&self, diagnosis: &Diagnosis, plan: &RepairPlan) -> Setting {
        let class = diagnosis.finding.class;
        let of_class = self.of(class);
        let rule = self
            .rules
            .iter()
            .enumerate()
            .find(|(_, rule)| rule.fits(diagnosis));
        let (mut mode, grace, unseen, mut why) = match rule {
            Some((index, rule)) => (
                rule.mode,
                rule.grace.unwrap_or(of_class.grace),
                rule.unseen.unwrap_or(of_class.unseen),
                format!("rule {} of the policy says {}", index + 1, rule.mode),
            ),
            None => (
                of_class.mode,
                of_class.grace,
                of_class.unseen,
                format!("the policy says {} for {class}", of_class.mode),
            ),
        };
        let most = match (&plan.provenance, plan.deletes().next()) {
            (_, None) | (Provenance::SeenByProbe { .. }, Some(_)) => Mode::Auto,
            (Provenance::ToldByRecord { .. }, Some(_)) => unseen,
            (Provenance::Unknown, Some(_)) => Mode::Observe,
        };
        if most < mode {
            mode = most;
            why = format!(
                "suture did not itself see the thin device being made, and then the policy says {most}"
            );
        }
        // Whatever a rule for everything says.
        if class == FindingClass::ForeignThin && mode > Mode::Plan {
            mode = Mode::Observe;
            "nobody can prove that containerd made it, so only a person who names it can have it deleted"
                .clone_into(&mut why);
        }
        Setting { mode, grace, why }
    }
}
