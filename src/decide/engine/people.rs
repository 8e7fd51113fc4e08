//! What people said: approvals, rejections, a pause.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::time::Elapsed;
use crate::model::{FindingId, PlanId, Refusal, Timestamp};

/// How many approvals and rejections are kept.
const MOST: usize = 4096;
/// A rejection of a plan that nothing had for so long is forgotten: what is found then is another matter.
const REJECTION_LASTS: Duration = Duration::from_hours(30 * 24);

/// A plan that a person approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub who: String,
    /// When, by the wall clock.
    pub at: Timestamp,
    /// About what.
    pub finding: FindingId,
    since: Elapsed,
}

/// A plan that a person rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When, by the wall clock.
    pub at: Timestamp,
    /// About what.
    pub finding: FindingId,
    /// When a finding had the plan last.
    seen: Elapsed,
}

/// A person said to do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When, by the wall clock.
    pub at: Timestamp,
    /// Until then; nothing until `resume`.
    pub until: Option<Timestamp>,
    since: Elapsed,
}

impl Pause {
    pub(super) fn new(
        who: String,
        why: String,
        until: Option<Timestamp>,
        at: Timestamp,
        since: Elapsed,
    ) -> Self {
        Self {
            who,
            why,
            at,
            until,
            since,
        }
    }

    /// It is over when the clock says so and as much time has really passed: a clock that is set does not end it.
    fn is_over(&self, now: Elapsed, wall: Timestamp) -> bool {
        let over = |until: Timestamp| wall >= until && now.since(self.since) >= until.since(self.at);
        self.until.is_some_and(over)
    }
}

/// What people said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct People {
    /// Plans that are approved, and not carried out yet.
    pub approvals: BTreeMap<PlanId, Approval>,
    /// Plans that are rejected.
    pub rejections: BTreeMap<PlanId, Rejection>,
    /// While there is one, nothing is done.
    pub pause: Option<Pause>,
}

impl People {
    /// Forgets what is over. An approval is over as soon as either clock says so.
    pub(super) fn pass(&mut self, approval_lasts: Duration, now: Elapsed, wall: Timestamp) {
        self.approvals
            .retain(|_, one| now.since(one.since) < approval_lasts && wall.since(one.at) < approval_lasts);
        self.rejections
            .retain(|_, one| now.since(one.seen) < REJECTION_LASTS);
        if self.pause.as_ref().is_some_and(|pause| pause.is_over(now, wall)) {
            self.pause = None;
        }
    }

    fn room_for(&self, id: &PlanId) -> Result<(), Refusal> {
        let kept = self.approvals.len().saturating_add(self.rejections.len());
        let known = self.approvals.contains_key(id) || self.rejections.contains_key(id);
        if kept < MOST || known {
            Ok(())
        } else {
            Err(Refusal::TooMany { kept })
        }
    }

    /// Approves a plan; an earlier rejection of it is void.
    pub(super) fn approve(
        &mut self,
        id: &PlanId,
        finding: &FindingId,
        who: String,
        now: Elapsed,
        wall: Timestamp,
    ) -> Result<(), Refusal> {
        self.room_for(id)?;
        self.rejections.remove(id);
        let approval = Approval {
            who,
            at: wall,
            finding: finding.clone(),
            since: now,
        };
        self.approvals.insert(id.clone(), approval);
        Ok(())
    }

    /// Rejects a plan; an earlier approval of it is void.
    pub(super) fn reject(
        &mut self,
        id: &PlanId,
        finding: &FindingId,
        (who, why): (String, String),
        now: Elapsed,
        wall: Timestamp,
    ) -> Result<(), Refusal> {
        self.room_for(id)?;
        self.approvals.remove(id);
        let rejection = Rejection {
            who,
            why,
            at: wall,
            finding: finding.clone(),
            seen: now,
        };
        self.rejections.insert(id.clone(), rejection);
        Ok(())
    }

    /// The rejection of a plan that a finding has now.
    pub(super) fn rejection(&mut self, id: &PlanId, now: Elapsed) -> Option<&Rejection> {
        let rejection = self.rejections.get_mut(id)?;
        rejection.seen = now;
        Some(rejection)
    }
}
