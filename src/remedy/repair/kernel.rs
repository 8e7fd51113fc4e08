//! What the kernel does in a repair, for many plans: a look, as many acts as may rest on it, and a look that verifies.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{
    FRESH, GROUP, Item, RepairError, Repairer, activation,
    acts::{self, NotDone, is_done},
    pick,
};
use crate::{
    decide::{Evidence, conditions::first_refusal},
    diagnose,
    model::{Act, Knowledge, PoolActivation, RepairMode, RepairOutcome, Survey, ThinId, TxId},
    words::explain,
};

/// How often a plan is taken up again after containerd wrote between its intent and its act.
const CROSSINGS: u32 = 3;

/// How it went between an intent and the last of its acts.
enum Went {
    Done,
    /// containerd wrote meanwhile: what was read has to be read anew.
    Crossed,
    Ended,
}

impl Repairer<'_> {
    /// Does what the kernel is to do for those of the items that are open. Those with edits that come after it stay open.
    pub(super) fn kernel_part(
        &mut self,
        items: &mut [Item],
        mode: RepairMode,
        life: Option<&PoolActivation>,
        mut written: Option<TxId>,
    ) -> Result<(), RepairError> {
        let has_part = |item: &Item| item.is_open() && item.plan.kernel_acts().next().is_some();
        let places = items.iter().enumerate();
        let mut queue: VecDeque<usize> = places
            .filter(|(_, item)| has_part(item))
            .map(|(at, _)| at)
            .collect();
        let roots = self.roots(items);
        let mut next = None;
        while !queue.is_empty() {
            if self.over() {
                let left: Vec<usize> = queue.drain(..).collect();
                pick(items, &left).for_each(Item::not_reached);
                break;
            }
            let looked = next.take().map_or_else(|| self.look(&roots), Ok);
            let survey = match looked {
                Ok(survey) => survey,
                Err(error) => {
                    end_all(items, queue.drain(..), &explain(&error));
                    break;
                }
            };
            // Offline nobody else writes. If somebody did, what was planned rests on nothing any more.
            if written.is_some_and(|written| survey.pool_db.txid != written) {
                end_all(
                    items,
                    queue.drain(..),
                    "same-transaction: somebody wrote to the pool database",
                );
                break;
            }
            if mode == RepairMode::Offline {
                written = Some(survey.pool_db.txid);
            }
            let tried = self.rest_on(&survey, items, &mut queue, mode, life)?;
            if !tried.is_empty() {
                next = self.verify(items, &tried, &roots);
            }
            self.conclude(items)?;
        }
        self.conclude(items)
    }

    /// What is known at this moment: somebody may be at work by now, and what was at work may go on with its next step.
    pub(super) fn known_now(&self) -> Knowledge {
        let mut known = self.knowledge.clone();
        known.at_work.extend(self.sight.at_work());
        known
    }

    /// Does as much as may rest on one look. Gives those that were tried.
    fn rest_on(
        &mut self,
        survey: &Survey,
        items: &mut [Item],
        queue: &mut VecDeque<usize>,
        mode: RepairMode,
        life: Option<&PoolActivation>,
    ) -> Result<Vec<usize>, RepairError> {
        let knowledge = self.known_now();
        let diagnoses = diagnose::survey(survey, &knowledge);
        let evidence = Evidence::new(survey, &diagnoses, &knowledge, life);
        let looked = Instant::now();
        let mut tried = Vec::new();
        while !queue.is_empty() && looked.elapsed() < FRESH && !self.over() {
            let group: Vec<usize> = queue.drain(..queue.len().min(GROUP)).collect();
            let mut go = Vec::new();
            for at in group {
                let Some(item) = items.get_mut(at) else { continue };
                let readings = if item.done > 0 {
                    evidence.read_after_edits(&item.plan)
                } else {
                    evidence.read(&item.plan)
                };
                let refusal = first_refusal(&readings).map(ToString::to_string);
                if item.done == 0 {
                    item.readings = readings;
                }
                match refusal {
                    Some(why) => item.end(why, true),
                    None => go.push(at),
                }
            }
            self.intend(items, &go, mode, survey, None)?;
            let mut crossed = false;
            for at in go {
                let Some(item) = items.get_mut(at) else { continue };
                if crossed {
                    queue.push_back(at);
                    continue;
                }
                match self.one(item, survey, mode) {
                    Went::Done => tried.push(at),
                    Went::Ended if item.done > 0 => tried.push(at),
                    Went::Ended => {}
                    Went::Crossed => {
                        crossed = true;
                        queue.push_back(at);
                    }
                }
            }
            if crossed {
                break;
            }
        }
        Ok(tried)
    }

    fn one(&self, item: &mut Item, survey: &Survey, mode: RepairMode) -> Went {
        match self.sight.transactions() {
            Ok(now) if now == survey.transactions() => {}
            Ok(_) if item.crossed < CROSSINGS => {
                item.crossed += 1;
                return Went::Crossed;
            }
            Ok(_) => {
                item.end(
                    "same-transaction: containerd wrote to its databases just now".to_owned(),
                    true,
                );
                return Went::Ended;
            }
            Err(error) => {
                item.end(format!("same-transaction: {}", explain(&error)), true);
                return Went::Ended;
            }
        }
        let acts: Vec<Act> = item.plan.kernel_acts().cloned().collect();
        for act in acts {
            if mode == RepairMode::Offline
                && let Err(why) = self.nobody_holds()
            {
                item.end(why, true);
                return Went::Ended;
            }
            (self.tell)(&act.to_string());
            match acts::act(&act, &self.places.pool, self.hands) {
                Ok(()) => item.done += 1,
                Err(not_done) => {
                    let refused = matches!(not_done, NotDone::Refused(_));
                    item.end(not_done.why().to_owned(), refused);
                    return Went::Ended;
                }
            }
        }
        Went::Done
    }

    /// That no containerd holds the lock at this moment; else why not.
    pub(super) fn nobody_holds(&self) -> Result<(), String> {
        match self.sight.holder() {
            Ok(None) => Ok(()),
            Ok(Some(who)) => Err(format!(
                "containerd-stopped: {who} holds the pool database by now"
            )),
            Err(why) => Err(format!("containerd-stopped: {why}")),
        }
    }

    /// Looks whether what was done can be seen, and ends what nothing more is to be done about.
    fn verify(&self, items: &mut [Item], tried: &[usize], roots: &BTreeSet<ThinId>) -> Option<Survey> {
        // The kernel's word stands where nothing can be read at this moment.
        let survey = self.look(roots).ok();
        for item in pick(items, tried).filter(|item| item.outcome.is_none()) {
            let missing = survey.as_ref().and_then(|survey| {
                let mut acts = item.plan.kernel_acts();
                acts.find(|act| is_done(act, survey) == Some(false)).cloned()
            });
            if let Some(act) = missing {
                // A failing commit of the pool's metadata takes back what was acknowledged (`process_*_mesg`, dm-thin.c).
                item.done = item.plan.first_edits().len();
                item.end(
                    format!("{act}: the kernel said it was done, and it is not"),
                    false,
                );
            } else if item.plan.last_edits().is_empty() {
                item.outcome = Some(RepairOutcome::Done);
            }
        }
        survey
    }
}

/// Ends all of these.
fn end_all(items: &mut [Item], which: impl Iterator<Item = usize>, why: &str) {
    let which: Vec<usize> = which.collect();
    pick(items, &which).for_each(|item| item.end(why.to_owned(), true));
}

/// The life of the pool that a survey is of; nothing where the pool is not set up.
#[must_use]
pub fn life_of(survey: &Survey) -> Option<PoolActivation> {
    activation(survey)
}
