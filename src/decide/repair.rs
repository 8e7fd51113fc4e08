//! From what a survey shows to what is done about it: an ordered list of plans, each with what is left out and why.

use std::collections::BTreeSet;

use super::{Handling, RepairPolicy};
use crate::model::{
    Act, Condition, Diagnoses, Diagnosis, FindingClass, FindingId, PlanId, RepairMode, RepairPlan, Subject,
    ThinId, Treatment, When,
};

/// What a repair is to look after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Whether containerd may run.
    pub mode: RepairMode,
    /// What may be done without a person's word.
    pub policy: RepairPolicy,
    /// Only findings of these classes; with none named, of every class.
    pub classes: BTreeSet<FindingClass>,
    /// Findings that a person named: the policy does not keep them from being healed.
    pub findings: BTreeSet<FindingId>,
    /// Findings whose very plan a person approved before: the policy does not keep them from being healed either, and others
    /// are looked after all the same.
    pub approved: BTreeSet<FindingId>,
    /// Thin devices of unknown origin that a person named to be deleted.
    pub delete_thin: BTreeSet<ThinId>,
}

impl Selection {
    /// Everything that the policy lets be done.
    #[must_use]
    pub fn all(mode: RepairMode, policy: RepairPolicy) -> Self {
        Self {
            mode,
            policy,
            classes: BTreeSet::new(),
            findings: BTreeSet::new(),
            approved: BTreeSet::new(),
            delete_thin: BTreeSet::new(),
        }
    }

    /// Whether a person named this finding.
    fn names(&self, diagnosis: &Diagnosis) -> bool {
        let id = &diagnosis.finding.id;
        self.findings.contains(id) || self.approved.contains(id) || self.deletes(diagnosis).is_some()
    }

    /// The thin device that it is to delete on a person's word. What is proven to be containerd's needs none.
    fn deletes(&self, diagnosis: &Diagnosis) -> Option<ThinId> {
        match (diagnosis.finding.class, &diagnosis.finding.subject) {
            (FindingClass::ForeignThin, Subject::ThinDevice { thin_id })
                if self.delete_thin.contains(thin_id) =>
            {
                Some(*thin_id)
            }
            _ => None,
        }
    }

    /// Whether it is to look after this finding at all.
    fn covers(&self, diagnosis: &Diagnosis) -> bool {
        let everything = self.classes.is_empty() && self.findings.is_empty() && self.delete_thin.is_empty();
        let named_leak = || {
            let thin = diagnosis.finding.subject.thin_id();
            diagnosis.finding.class == FindingClass::LeakedThin
                && thin.is_some_and(|id| self.delete_thin.contains(&id))
        };
        everything
            || self.classes.contains(&diagnosis.finding.class)
            || self.findings.contains(&diagnosis.finding.id)
            || self.deletes(diagnosis).is_some()
            || named_leak()
    }

    /// What was named and is not there, in a sentence each: whoever named it expects something to be done.
    #[must_use]
    pub fn not_found(&self, diagnoses: &Diagnoses) -> Vec<String> {
        let findings = self
            .findings
            .iter()
            .filter(|id| !diagnoses.found.iter().any(|one| one.finding.id == **id))
            .map(|id| format!("there is no finding {id}; `suture check` tells those that there are"));
        let covered = |id: &ThinId| {
            diagnoses.found.iter().any(|one| {
                matches!(&one.finding.subject, Subject::ThinDevice { thin_id } if thin_id == id)
                    && matches!(
                        one.finding.class,
                        FindingClass::ForeignThin | FindingClass::LeakedThin
                    )
            })
        };
        let thin = self.delete_thin.iter().filter(|id| !covered(id)).map(|id| {
            format!(
                "thin device {id} is not deleted: it is not in the pool, or a record of containerd's carries it; --delete-thin is for devices that nobody can prove containerd made"
            )
        });
        findings.chain(thin).collect()
    }
}

/// What is done about each finding that the selection covers: first what resumes dm devices, then what only edits or removes
/// dm devices, then what deletes thin devices; the worst finding first among equals.
#[must_use]
pub fn plan(diagnoses: &Diagnoses, selection: &Selection) -> Vec<RepairPlan> {
    let covered = diagnoses.found.iter().filter(|one| selection.covers(one));
    let mut plans: Vec<_> = covered.map(|diagnosis| one(diagnosis, selection)).collect();
    plans.sort_by_key(|plan| (rank(plan), plan.severity));
    plans
}

/// The findings whose plan, as it would be made now, is one of these that were approved. A plan that came to be another one has
/// another name, and nobody has approved that.
#[must_use]
pub fn still_approved(
    diagnoses: &Diagnoses,
    mode: RepairMode,
    approved: &BTreeSet<PlanId>,
) -> BTreeSet<FindingId> {
    if approved.is_empty() {
        return BTreeSet::new();
    }
    let everything = RepairPolicy::everything();
    let plans = plan(diagnoses, &Selection::all(mode, everything)).into_iter();
    let approved = plans.filter(|plan| approved.contains(&PlanId::of(plan)));
    approved.map(|plan| plan.finding).collect()
}

/// When it is its turn, by its most serious act: what resumes dm devices first, what deletes thin devices last.
pub(super) fn rank(plan: &RepairPlan) -> u8 {
    let of = |act: &Act| match act {
        Act::ResumeNode { .. } => 0,
        Act::DeleteThin { .. } => 2,
        _ => 1,
    };
    plan.acts.iter().map(of).max().unwrap_or(3)
}

/// The plan that carries out all of a remedy, where nothing keeps it from that: what it rests on.
#[must_use]
pub fn whole(diagnosis: &Diagnosis) -> RepairPlan {
    with(diagnosis, diagnosis.remedy.acts.clone(), None, false)
}

fn one(diagnosis: &Diagnosis, selection: &Selection) -> RepairPlan {
    let named = selection.deletes(diagnosis);
    let (acts, left_out) = match named {
        Some(thin_id) => (vec![Act::DeleteThin { thin_id }], None),
        None => acts(diagnosis, selection),
    };
    with(diagnosis, acts, left_out, named.is_some())
}

fn with(diagnosis: &Diagnosis, acts: Vec<Act>, left_out: Option<String>, named: bool) -> RepairPlan {
    let conditions = conditions(diagnosis, &acts, named);
    RepairPlan {
        finding: diagnosis.finding.id.clone(),
        class: diagnosis.finding.class,
        severity: diagnosis.severity,
        subject: diagnosis.finding.subject.clone(),
        provenance: diagnosis.finding.provenance.clone(),
        remedy: diagnosis.remedy.clone(),
        acts,
        conditions,
        left_out,
    }
}

/// The acts of a remedy that may be done now, and why not the others.
fn acts(diagnosis: &Diagnosis, selection: &Selection) -> (Vec<Act>, Option<String>) {
    let remedy = &diagnosis.remedy;
    let none = |why: String| (Vec::new(), Some(why));
    if remedy.when == When::Never || remedy.acts.is_empty() {
        return none(remedy.why.clone());
    }
    // Whatever a diagnosis says: nobody can prove who made these.
    let deletes = remedy
        .acts
        .iter()
        .any(|act| matches!(act, Act::DeleteThin { .. }));
    if diagnosis.finding.class == FindingClass::ForeignThin && deletes {
        return none("it is deleted only when it is named with --delete-thin".to_owned());
    }
    let class = diagnosis.finding.class;
    let named = selection.names(diagnosis) || selection.classes.contains(&class);
    if selection.policy.of(class) == Handling::Observe && !named {
        return none(format!(
            "the policy says to observe {class} only; name it with --only {class} or --finding {} to have it done",
            diagnosis.finding.id
        ));
    }
    match (selection.mode, remedy.when) {
        (RepairMode::Offline, _) => (remedy.acts.clone(), stays(diagnosis)),
        (RepairMode::Online, When::Online) => {
            let kernel = remedy.acts.iter().take_while(|act| !act.is_edit()).cloned();
            let kernel: Vec<_> = kernel.collect();
            if kernel.len() == remedy.acts.len() {
                (kernel, None)
            } else if kernel.is_empty() {
                none(OFFLINE_ONLY.to_owned())
            } else {
                let later = "containerd's record of it goes with the next offline repair";
                (kernel, Some(later.to_owned()))
            }
        }
        (RepairMode::Online, When::Offline | When::Never) => none(OFFLINE_ONLY.to_owned()),
    }
}

/// What a remedy that is carried out whole leaves behind on purpose.
fn stays(diagnosis: &Diagnosis) -> Option<String> {
    match (diagnosis.finding.class, &diagnosis.finding.subject) {
        (FindingClass::ForeignThin, Subject::ThinDevice { thin_id }) => Some(format!(
            "thin device {thin_id} itself stays, on purpose: nobody can prove that containerd made it; where it is known to be waste, `suture repair --delete-thin {thin_id}` deletes it"
        )),
        _ => None,
    }
}

const OFFLINE_ONLY: &str = "it can be done only while containerd is stopped: `suture repair --offline`, or the drop-in for containerd.service";

/// What the remedy names and what its acts need however they came to be planned, in the order in which they are read.
fn conditions(diagnosis: &Diagnosis, acts: &[Act], named: bool) -> Vec<Condition> {
    if acts.is_empty() {
        return Vec::new();
    }
    let mut wanted: BTreeSet<_> = diagnosis.remedy.guards.iter().copied().collect();
    wanted.extend([Condition::StillFound, Condition::SameTransaction]);
    for act in acts {
        wanted.extend(needs(act).iter().copied());
    }
    let deletes = acts.iter().any(|act| matches!(act, Act::DeleteThin { .. }));
    if deletes && !named {
        wanted.insert(Condition::Provenance);
    }
    if named {
        wanted.remove(&Condition::Provenance);
        wanted.extend([Condition::Named, Condition::NoRecord]);
    }
    // A device without a record has no name to ask for.
    if diagnosis.remedy.action == Treatment::DeleteThin {
        wanted.insert(Condition::NoRecord);
    }
    if !acts.iter().any(Act::is_edit) {
        // Left by a remedy of which only the kernel's part is done.
        wanted.remove(&Condition::BackedUp);
        if diagnosis.remedy.when == When::Online {
            wanted.remove(&Condition::ContainerdStopped);
        }
    }
    let last = wanted.remove(&Condition::SameTransaction);
    wanted
        .into_iter()
        .chain(last.then_some(Condition::SameTransaction))
        .collect()
}

/// What an act needs.
fn needs(act: &Act) -> &'static [Condition] {
    use Condition as C;
    match act {
        Act::ResumeNode { .. } => &[C::NobodyAtWork],
        Act::RemoveNode { .. } => &[C::NotOpen, C::NobodyAtWork],
        Act::DeleteThin { .. } => &[
            C::PoolWritable,
            C::NotOpen,
            C::NoRow,
            C::ThinThere,
            C::NobodyAtWork,
        ],
        Act::MarkFaulty { .. } | Act::RaiseIdSequence { .. } => {
            &[C::ContainerdStopped, C::BackedUp, C::NobodyAtWork]
        }
        Act::ForgetRecord { .. } => &[
            C::NoRow,
            C::ThinGone,
            C::ContainerdStopped,
            C::BackedUp,
            C::NobodyAtWork,
        ],
        Act::RestoreRecord { .. } => &[C::ThinThere, C::ContainerdStopped, C::BackedUp, C::NobodyAtWork],
        Act::InsertRemovedRecord { .. } => &[
            C::ThinGone,
            C::DatabasesWhole,
            C::ContainerdStopped,
            C::BackedUp,
            C::NobodyAtWork,
        ],
        Act::SetId { to, .. } => match to {
            crate::model::IdState::Free => &[C::ThinGone, C::NoRecord, C::ContainerdStopped, C::BackedUp],
            _ => &[C::ContainerdStopped, C::BackedUp],
        },
    }
}
