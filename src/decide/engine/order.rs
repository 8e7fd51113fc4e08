//! The order in which findings are looked at: resume before remove before delete, and the worst first among equals.

use crate::{
    decide::repair::rank,
    model::{FindingId, RepairPlan, Severity},
};

/// When it is its turn; the earlier the smaller.
pub(super) fn turn(plan: &RepairPlan) -> (u8, Severity, &FindingId) {
    (rank(plan), plan.severity, &plan.finding)
}
