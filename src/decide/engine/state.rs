//! What must outlive suture: it is stored in the ledger after every round and every command.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    back_off::BackOffs,
    breaker::Breakers,
    budget::Spending,
    people::{Approval, People},
    time::{Elapsed, SureClock},
};
use crate::model::{FindingId, PlanId, RepairOutcome, Timestamp, Treatment};

/// A plan that is being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// About what.
    pub finding: FindingId,
    /// Its remedy.
    pub remedy: Treatment,
    /// Since when, by the wall clock: for people.
    pub at: Timestamp,
    /// The approval that was used up for it, where containerd is restarted for it: one approval is good for one restart,
    /// whatever comes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_up: Option<Approval>,
}

/// A plan that came to an end, and was not taken in yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) id: PlanId,
    pub(super) running: Running,
    pub(super) outcome: RepairOutcome,
    pub(super) at: Timestamp,
}

/// A finding that was healed not long ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Healed {
    pub(super) remedy: Treatment,
    pub(super) since: Elapsed,
    /// By the wall clock, to tell looks that were begun before from later ones.
    pub(super) at: Timestamp,
}

/// A look that the wall clock says was begun before a remedy is believed to be a new one after this time: the clock was set.
const OLD_LOOK: Duration = Duration::from_mins(1);

impl Healed {
    /// Whether what is seen was seen before it was healed.
    pub(super) fn is_after(&self, look: Timestamp, now: Elapsed) -> bool {
        look <= self.at && now.since(self.since) < OLD_LOOK
    }
}

/// What must outlive suture.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineState {
    pub(super) clock: SureClock,
    /// What people said.
    pub people: People,
    /// Remedies that are given up.
    pub breakers: Breakers,
    /// Findings that are left alone for a while.
    pub back_offs: BackOffs,
    /// What was begun in the last hour.
    pub spending: Spending,
    /// Plans that are being carried out.
    pub running: BTreeMap<PlanId, Running>,
    pub(super) ended: Vec<Ended>,
    pub(super) healed: BTreeMap<FindingId, Healed>,
}
