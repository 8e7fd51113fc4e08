//! What came of plans: what failed, what was done, and what was done and did not help.

use super::{
    Engine,
    state::{Ended, Healed},
    time::Elapsed,
};
use crate::model::{FindingId, PlanId, RepairOutcome, Timestamp};

impl Engine {
    /// Takes in what came of a plan that was to be carried out. One that the engine knows nothing of is passed over. It counts
    /// from the next round on, so that no wait is shorter than it should be.
    pub fn outcome(&mut self, id: &PlanId, outcome: &RepairOutcome, now: Timestamp) {
        let Some(running) = self.state.running.remove(id) else {
            return;
        };
        self.cut_off.remove(id);
        self.state.ended.push(Ended {
            id: id.clone(),
            running,
            outcome: outcome.clone(),
            at: now,
        });
    }

    /// Takes in what ended since the last round.
    pub(super) fn take_in(&mut self, now: Elapsed) {
        for id in std::mem::take(&mut self.cut_off) {
            if let Some(running) = self.state.running.remove(&id) {
                let at = running.at;
                self.state.ended.push(Ended {
                    id,
                    running,
                    outcome: RepairOutcome::SettledNotDone,
                    at,
                });
            }
        }
        for ended in std::mem::take(&mut self.state.ended) {
            self.take_in_one(ended, now);
        }
    }

    fn take_in_one(&mut self, mut ended: Ended, now: Elapsed) {
        let state = &mut self.state;
        // Nothing was begun: what a person allowed is not used up.
        if let Some(approval) = ended.running.used_up.take()
            && ended.outcome == RepairOutcome::NotReached
        {
            state.people.approvals.insert(ended.id.clone(), approval);
        }
        let finding = &ended.running.finding;
        let failed = match &ended.outcome {
            RepairOutcome::Done | RepairOutcome::SettledDone => {
                state.back_offs.done(finding);
                // It was for this one time.
                state.people.approvals.remove(&ended.id);
                let healed = Healed {
                    remedy: ended.running.remedy,
                    since: now,
                    at: ended.at,
                };
                state.healed.insert(finding.clone(), healed);
                false
            }
            // A guard did its work, or there was no time for it: nothing is wrong with the remedy.
            RepairOutcome::Refused { .. } | RepairOutcome::NotReached => {
                state.back_offs.tried(finding, now);
                false
            }
            // A suture that dies at it again and again is as bad as a remedy that fails.
            RepairOutcome::Failed { .. }
            | RepairOutcome::Partly { .. }
            | RepairOutcome::SettledNotDone
            | RepairOutcome::SettledPartly { .. } => {
                state.back_offs.tried(finding, now);
                true
            }
        };
        if failed {
            let why = format!("{finding}: {}", ended.outcome);
            let limits = &self.policy.breaker;
            state
                .breakers
                .failed(ended.running.remedy, &why, limits, now, ended.at);
        }
    }

    /// Lets time pass: forgets what is over.
    pub(super) fn pass(&mut self, now: Elapsed, wall: Timestamp) {
        let state = &mut self.state;
        state.people.pass(self.policy.approval_lasts, now, wall);
        state.breakers.pass(&self.policy.breaker, now);
        state.back_offs.forget(&self.policy.back_off, now);
        state.spending.forget(now);
        let window = self.policy.breaker.came_back_within;
        state.healed.retain(|_, healed| now.since(healed.since) < window);
    }

    /// A finding that is there although it was healed: whether this was seen before that. If it was not, the remedy did not
    /// help.
    pub(super) fn was_seen_before(
        &mut self,
        finding: &FindingId,
        look: Timestamp,
        now: Elapsed,
        wall: Timestamp,
    ) -> bool {
        let state = &mut self.state;
        let Some(healed) = state.healed.get(finding) else {
            return false;
        };
        if healed.is_after(look, now) {
            return true;
        }
        let why = format!("{finding}: it was healed, and is back");
        state
            .breakers
            .failed(healed.remedy, &why, &self.policy.breaker, now, wall);
        state.back_offs.tried(finding, now);
        state.healed.remove(finding);
        false
    }
}
