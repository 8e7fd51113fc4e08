//! Repairs while containerd is stopped: edits that go first, what the kernel does, edits that go last.

use std::borrow::Cow;

use super::{
    Item, RepairError, Repairer, Results,
    acts::is_done,
    edits::{Edits, NotCommitted},
    kernel::life_of,
    pick, results,
};
use crate::{
    decide::{Evidence, conditions::first_refusal},
    diagnose,
    model::{
        Act, Condition, ConditionReading, Diagnoses, Knowledge, RepairMode, RepairOutcome, RepairPlan,
        Survey, TxId,
    },
    words::explain,
};

/// Conditions of the kernel's part alone: where one of them does not hold, a record is marked faulty all the same. That heals
/// the outage by itself, and is what containerd does at its own start.
const KERNEL_ONLY: [Condition; 5] = [
    Condition::PoolWritable,
    Condition::NotOpen,
    Condition::Provenance,
    Condition::ThinThere,
    Condition::NobodyAtWork,
];

/// What plans were made of.
#[derive(Debug, Clone, Copy)]
pub struct Found<'f> {
    /// What was seen.
    pub survey: &'f Survey,
    /// What was known beside it.
    pub knowledge: &'f Knowledge,
    /// What the two show: all of it, or the part that plans were made of.
    pub diagnoses: &'f Diagnoses,
}

impl<'f> Found<'f> {
    /// What a later look shows. Where nothing is otherwise than it was, that is what was found then.
    fn diagnosed(&self, survey: &Survey, knowledge: &Knowledge) -> Cow<'f, Diagnoses> {
        if knowledge == self.knowledge && survey.shows_what(self.survey) {
            Cow::Borrowed(self.diagnoses)
        } else {
            Cow::Owned(diagnose::survey(survey, knowledge))
        }
    }
}

impl Repairer<'_> {
    /// Refuses while containerd runs, or while it can not be told.
    pub fn ensure_stopped(&self) -> Result<(), RepairError> {
        match self.sight.holder() {
            Ok(None) => Ok(()),
            Ok(Some(who)) => Err(RepairError::ContainerdRuns { who }),
            Err(why) => Err(RepairError::Unproven(why)),
        }
    }

    /// Carries out plans that were made of what was found.
    pub fn offline(&mut self, plans: Vec<RepairPlan>, found: &Found<'_>) -> Result<Results, RepairError> {
        let mut items: Vec<Item> = plans.into_iter().map(Item::new).collect();
        if !items.iter().any(Item::is_open) {
            return Ok(Results {
                plans: results(items),
                ..Results::default()
            });
        }
        self.ensure_stopped()?;
        let life = life_of(found.survey);
        let survey = self.look(&self.roots(&items)).map_err(RepairError::Look)?;
        let without_kernel = self.read_conditions(&mut items, &survey, found);
        let open = open_with(&items, |_| true);
        let mut edits = Edits::new(self.backups, self.sight.now(), survey.pool_db.txid);
        let edits_any = items
            .iter()
            .any(|item| item.is_open() && item.plan.acts.iter().any(Act::is_edit));
        let folder = edits.folder.clone();
        self.intend(
            &mut items,
            &open,
            RepairMode::Offline,
            &survey,
            edits_any.then_some(folder.as_path()),
        )?;

        let which = open_with(&items, |item| !item.plan.first_edits().is_empty());
        let written = self.part(&mut items, &which, first, &survey, &mut edits);
        for (at, why) in without_kernel {
            if let Some(item) = items.get_mut(at).filter(|item| item.outcome.is_none()) {
                item.end(why, true);
            }
        }
        self.kernel_part(&mut items, RepairMode::Offline, life.as_ref(), Some(written))?;
        self.last_part(&mut items, written, &mut edits)?;
        let after = self.finish(&mut items)?;
        edits.end_copying(self.until, self.tell);
        Ok(Results {
            plans: results(items),
            after,
            backup: edits.backup.map(|backup| backup.folder),
            lock_held: edits.lock_held,
        })
    }

    /// Reads the conditions of all items. Gives those of which only the first edits are to be made, each with the reason.
    fn read_conditions(
        &self,
        items: &mut [Item],
        survey: &Survey,
        found: &Found<'_>,
    ) -> Vec<(usize, String)> {
        let knowledge = self.known_now();
        let diagnoses = found.diagnosed(survey, &knowledge);
        let life = life_of(found.survey);
        let evidence = Evidence::new(survey, &diagnoses, &knowledge, life.as_ref());
        let mut partly = Vec::new();
        for (at, item) in items.iter_mut().enumerate().filter(|(_, item)| item.is_open()) {
            item.readings = evidence.read(&item.plan);
            match verdict(&item.plan, &item.readings) {
                Verdict::Go => {}
                Verdict::FirstEditsOnly(why) => partly.push((at, why)),
                Verdict::Refused(why) => item.end(why, true),
            }
        }
        partly
    }

    /// One transaction. Where it can not be made all of its items end. Gives the transaction that the database is at.
    fn part(
        &mut self,
        items: &mut [Item],
        which: &[usize],
        part: for<'p> fn(&'p Item) -> &'p [Act],
        survey: &Survey,
        edits: &mut Edits,
    ) -> TxId {
        let before = survey.pool_db.txid;
        if which.is_empty() {
            return before;
        }
        match self.edit(items, which, part, survey, edits) {
            Ok(written) => written,
            Err(NotCommitted { why, refused }) => {
                for item in pick(items, which) {
                    if item.outcome.is_none() {
                        item.end(why.clone(), refused);
                    }
                }
                before
            }
        }
    }

    /// The edits that come after what the kernel did: only for what a new look shows to be done.
    fn last_part(&mut self, items: &mut [Item], written: TxId, edits: &mut Edits) -> Result<(), RepairError> {
        let which = open_with(items, |item| !item.plan.last_edits().is_empty());
        if which.is_empty() {
            return Ok(());
        }
        if self.over() {
            pick(items, &which).for_each(Item::not_reached);
            return self.conclude(items);
        }
        let roots = self.roots(items);
        let survey = match self.look(&roots) {
            Ok(survey) => survey,
            Err(error) => {
                let why = explain(&error);
                for item in pick(items, &which) {
                    item.end(why.clone(), false);
                }
                return self.conclude(items);
            }
        };
        let mut ready = Vec::new();
        for at in which {
            let Some(item) = items.get_mut(at) else { continue };
            let gone = item
                .plan
                .kernel_acts()
                .all(|act| is_done(act, &survey) == Some(true));
            if survey.pool_db.txid != written {
                item.end(
                    "same-transaction: somebody wrote to the pool database".to_owned(),
                    true,
                );
            } else if gone {
                ready.push(at);
            } else {
                item.end("what the kernel did can not be seen".to_owned(), false);
            }
        }
        self.part(items, &ready, last, &survey, edits);
        Ok(())
    }

    /// Looks at what came of all that is not ended yet, and stores it. Gives what it saw.
    fn finish(&mut self, items: &mut [Item]) -> Result<Option<Survey>, RepairError> {
        let which = open_with(items, |_| true);
        let mut survey = None;
        if !which.is_empty() {
            survey = self.look(&self.roots(items)).ok();
            for item in pick(items, &which) {
                let missing = survey.as_ref().and_then(|survey| {
                    let mut acts = item.plan.acts.iter();
                    acts.find(|act| is_done_after(act, &item.plan, survey) == Some(false))
                        .cloned()
                });
                match missing {
                    None => item.outcome = Some(RepairOutcome::Done),
                    Some(act) => item.end(format!("{act}: it was done, and can not be seen"), false),
                }
            }
        }
        self.conclude(items)?;
        Ok(survey)
    }
}

/// Whether an act can be seen to be done where later acts of the same plan may have gone beyond it.
fn is_done_after(act: &Act, plan: &RepairPlan, survey: &Survey) -> Option<bool> {
    let forgotten = plan
        .acts
        .iter()
        .any(|act| matches!(act, Act::ForgetRecord { .. }));
    match act {
        Act::MarkFaulty { .. } if forgotten => Some(true),
        act => is_done(act, survey),
    }
}

fn first(item: &Item) -> &[Act] {
    item.plan.first_edits()
}

fn last(item: &Item) -> &[Act] {
    item.plan.last_edits()
}

fn open_with(items: &[Item], also: impl Fn(&Item) -> bool) -> Vec<usize> {
    let places = items.iter().enumerate();
    places
        .filter(|(_, item)| item.is_open() && also(item))
        .map(|(at, _)| at)
        .collect()
}

/// What may be done of a plan.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Go,
    FirstEditsOnly(String),
    Refused(String),
}

fn verdict(plan: &RepairPlan, readings: &[ConditionReading]) -> Verdict {
    let Some(refusal) = first_refusal(readings) else {
        return Verdict::Go;
    };
    let why = refusal.to_string();
    let marks = !plan.first_edits().is_empty()
        && plan
            .first_edits()
            .iter()
            .all(|act| matches!(act, Act::MarkFaulty { .. }));
    let of_the_kernel = readings
        .iter()
        .filter(|reading| !reading.holds)
        .all(|reading| KERNEL_ONLY.contains(&reading.condition));
    if marks && of_the_kernel {
        Verdict::FirstEditsOnly(why)
    } else {
        Verdict::Refused(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::DeviceState, testing};

    #[test]
    fn what_was_found_counts_as_long_as_nothing_is_otherwise() {
        let (survey, knowledge) = (testing::survey(), Knowledge::default());
        let diagnoses = Diagnoses {
            explanations: vec!["as it was found".to_owned()],
            ..Diagnoses::default()
        };
        let found = Found {
            survey: &survey,
            knowledge: &knowledge,
            diagnoses: &diagnoses,
        };
        let later = Survey {
            begun: testing::at(9),
            ..survey.clone()
        };
        assert_eq!(*found.diagnosed(&later, &knowledge), diagnoses);

        // A record more, and whatever is known besides, lead to a diagnosis of its own.
        let mut more = survey.clone();
        let record = testing::record("tp-snap-2", 2, DeviceState::Removing);
        more.pool_db.devices.insert(record.name.clone(), record);
        let anew = found.diagnosed(&more, &knowledge);
        assert_eq!(*anew, diagnose::survey(&more, &knowledge));
        assert!(!anew.found.is_empty());
        let watched = Knowledge {
            watched: true,
            ..Knowledge::default()
        };
        let anew = found.diagnosed(&survey, &watched);
        assert_eq!(*anew, Diagnoses::default());
    }
}
