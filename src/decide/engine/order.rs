//! The order in which findings are looked at: resume before remove before delete, and the worst first among equals.

use crate::model::{Act, FindingId, RepairPlan, Severity};

/// When it is its turn; the earlier the smaller.
pub(super) fn turn(plan: &RepairPlan) -> (u8, Severity, &FindingId) {
    (rank(plan), plan.severity, &plan.finding)
}

/// By its most serious act.
fn rank(plan: &RepairPlan) -> u8 {
    let of = |act: &Act| match act {
        Act::ResumeNode { .. } => 0,
        Act::DeleteThin { .. } => 2,
        _ => 1,
    };
    plan.acts.iter().map(of).max().unwrap_or(3)
}
