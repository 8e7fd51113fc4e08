//! The findings of the healing rounds that stand, beside those of the brain. One thing has one name, whoever finds it: what
//! the brain has found too, it tells, stores and sees the end of; what only a round finds, the rounds do.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    brain::Standing,
    model::{Diagnoses, Finding, FindingId, Severity, Timestamp},
};

/// A finding of the rounds that stands, and what was told of it.
#[derive(Debug)]
struct Open {
    standing: Standing,
    /// Set where nobody is hurt by it: it is kept, and not called out.
    is_notice: bool,
}

/// Those that stand.
#[derive(Debug, Default)]
pub(super) struct OpenFindings(BTreeMap<FindingId, Open>);

/// What a round changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new, and to be told.
    Found(Finding),
    /// It is gone, and that is to be told.
    Resolved(Finding),
    /// It is to be stored.
    Store(Standing),
}

impl OpenFindings {
    /// Takes up a finding that stood open when an earlier suture ended.
    pub(super) fn remember(&mut self, standing: Standing) {
        let open = Open {
            standing,
            is_notice: false,
        };
        self.0.insert(open.standing.finding.id.clone(), open);
    }

    /// What was found and stands.
    pub(super) fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.0.values().map(|open| &open.standing)
    }

    /// Whether a finding was told of already.
    pub(super) fn has_told(&self, id: &FindingId) -> bool {
        self.0.get(id).is_some_and(|open| !open.is_notice)
    }

    /// What was decided about a finding last; nothing where nothing was.
    pub(super) fn decision(&self, id: &FindingId) -> Option<&str> {
        let decision = self.0.get(id)?.standing.decision.as_str();
        Some(decision).filter(|decision| !decision.is_empty())
    }

    /// Notes what was decided. Where that is new: how the finding stands, and whether nobody is hurt by it.
    pub(super) fn decided(&mut self, id: &FindingId, text: &str) -> Option<(Standing, bool)> {
        let open = self.0.get_mut(id)?;
        if open.standing.decision == text {
            return None;
        }
        text.clone_into(&mut open.standing.decision);
        Some((open.standing.clone(), open.is_notice))
    }

    /// The brain has told that it is gone: where a round finds it again, it is a new one.
    pub(super) fn forget(&mut self, id: &FindingId) {
        self.0.remove(id);
    }

    /// Takes in what a round found; `of_brain` are the findings that the brain has.
    pub(super) fn take_in(
        &mut self,
        judged: &Diagnoses,
        of_brain: &BTreeSet<FindingId>,
        at: Timestamp,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let still: BTreeSet<&FindingId> = judged.found.iter().map(|one| &one.finding.id).collect();
        let gone = self.0.extract_if(.., |id, _| !still.contains(id));
        for (_, open) in gone.filter(|(id, _)| !of_brain.contains(id)) {
            let mut standing = open.standing;
            standing.resolved = Some(at);
            standing.last_seen = at;
            if !open.is_notice {
                changes.push(Change::Resolved(standing.finding.clone()));
            }
            changes.push(Change::Store(standing));
        }
        for one in &judged.found {
            let finding = &one.finding;
            let own = !of_brain.contains(&finding.id);
            let is_notice = one.severity == Severity::Notice;
            if let Some(open) = self.0.get_mut(&finding.id) {
                open.standing.last_seen = at;
                let mut finding = finding.clone();
                finding.keep_from(&open.standing.finding);
                let is_news = !open.standing.finding.says_the_same(&finding);
                open.standing.finding = finding;
                open.is_notice = is_notice;
                if is_news && own {
                    changes.push(Change::Store(open.standing.clone()));
                }
                continue;
            }
            let standing = Standing {
                finding: finding.clone(),
                first_seen: at,
                last_seen: at,
                resolved: None,
                decision: String::new(),
            };
            if own && !is_notice {
                changes.push(Change::Found(finding.clone()));
            }
            if own {
                changes.push(Change::Store(standing.clone()));
            }
            self.0.insert(finding.id.clone(), Open { standing, is_notice });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlate::Correlator,
        diagnose,
        model::{DeviceState, FindingClass, IdState, Knowledge, PoolMode, Survey, World},
        testing::{self, Fill as _, at, by_containerd, gone, load, message, pool, up},
    };

    /// The record that keeps every further snapshot from being made, in a pool that takes no writes.
    fn broken(second: u64) -> World {
        let mut world = testing::world(second)
            .thin(1)
            .thin(9)
            .id(1, IdState::Taken)
            .record("tp-snap-1", 1, DeviceState::Activated)
            .node("tp-snap-1", 1);
        world.pool.mode = PoolMode::ReadOnly;
        world.pool.needs_check = true;
        world
    }

    fn of_brain(world: &World) -> BTreeSet<FindingId> {
        let mut known = Correlator::new(pool(), at(0));
        known.observe(&up(1));
        known.observe(&message(9, "create_thin 1", 0, by_containerd()));
        known.observe(&load(9, "tp-snap-1", 1, by_containerd()));
        known.observe(&gone(10));
        known.world(world);
        let found = diagnose::all(world, &known, world.begun);
        found.into_iter().map(|one| one.id).collect()
    }

    fn of_round(world: &World) -> Diagnoses {
        diagnose::survey(&Survey::of_world(world), &Knowledge::default())
    }

    #[test]
    fn what_the_brain_and_a_round_find_is_one_finding_with_one_name() {
        let world = broken(12);
        let (brain, round) = (of_brain(&world), of_round(&world));
        let classes: BTreeSet<_> = round.found.iter().map(|one| one.finding.class).collect();
        for class in [
            FindingClass::Wedge,
            FindingClass::ForeignThin,
            FindingClass::PoolReadOnly,
            FindingClass::PoolNeedsCheck,
        ] {
            assert!(classes.contains(&class), "{classes:?}");
        }
        let names: BTreeSet<_> = round.found.iter().map(|one| one.finding.id.clone()).collect();
        assert_eq!(names, brain);
        let mut open = OpenFindings::default();
        assert_eq!(
            open.take_in(&round, &brain, at(13)),
            [],
            "the brain tells of them"
        );
        assert_eq!(open.take_in(&Diagnoses::default(), &brain, at(14)), []);
    }

    #[test]
    fn what_only_a_round_finds_it_tells_also_of_a_class_that_the_brain_knows() {
        let round = of_round(&broken(12));
        let told = round
            .found
            .iter()
            .filter(|one| one.severity != Severity::Notice)
            .count();
        let mut open = OpenFindings::default();
        let nobody = BTreeSet::new();
        let changes = open.take_in(&round, &nobody, at(13));
        let found = |changes: &[Change]| {
            let found = changes.iter().filter(|one| matches!(one, Change::Found(_)));
            found.count()
        };
        assert_eq!(found(&changes), told);
        assert!(
            round
                .found
                .iter()
                .any(|one| one.finding.class == FindingClass::Wedge)
        );
        assert_eq!(open.take_in(&round, &nobody, at(14)), [], "once");
        let over = open.take_in(&Diagnoses::default(), &nobody, at(15));
        let resolved = over.iter().filter(|one| matches!(one, Change::Resolved(_)));
        assert_eq!(resolved.count(), told);
        assert_eq!(open.standings().count(), 0);
    }

    #[test]
    fn what_the_brain_saw_the_end_of_is_a_new_finding_where_a_round_finds_it_again() {
        let world = broken(12);
        let (brain, round) = (of_brain(&world), of_round(&world));
        let mut open = OpenFindings::default();
        open.take_in(&round, &brain, at(13));
        let wedge = FindingId("wedge/tp/tp-snap-1".to_owned());
        assert_eq!(open.decision(&wedge), None);
        let (standing, is_notice) = open.decided(&wedge, "waits for a person").unwrap();
        assert!(standing.decision == "waits for a person" && !is_notice);
        assert_eq!(open.decided(&wedge, "waits for a person"), None, "told already");
        assert_eq!(open.decision(&wedge), Some("waits for a person"));
        assert!(open.has_told(&wedge), "so the brain does not tell it again");
        open.forget(&wedge);
        let without: BTreeSet<_> = brain.into_iter().filter(|id| *id != wedge).collect();
        let again = open.take_in(&round, &without, at(14));
        assert!(
            matches!(again.as_slice(), [Change::Found(one), Change::Store(_)] if one.id == wedge),
            "{again:?}"
        );
    }
}
