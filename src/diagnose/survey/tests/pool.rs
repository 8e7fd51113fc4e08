//! The pool as a whole.

use super::*;
use crate::model::Severity;

fn mode(mode: PoolMode) -> Stage {
    stage().with(|survey| survey.pool.as_mut().unwrap().mode = mode)
}

fn usage(change: impl FnOnce(&mut PoolUsage)) -> Stage {
    stage().with(|survey| change(survey.usage.as_mut().unwrap()))
}

#[test]
fn each_mode_but_write_mode_is_an_outage() {
    for (of, id) in [
        (PoolMode::OutOfDataSpace, "pool-out-of-space/tp/pool"),
        (PoolMode::ReadOnly, "pool-read-only/tp/pool"),
        (PoolMode::Failed, "pool-failed/tp/pool"),
    ] {
        let found = mode(of).only(id);
        assert_eq!(found.severity, Severity::Outage);
        assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    }
    let unknown = mode(PoolMode::Unknown);
    assert_eq!(unknown.ids(), [""; 0]);
    assert_eq!(unknown.judge().not_understood.len(), 1);
    let check = stage().with(|survey| survey.pool.as_mut().unwrap().needs_check = true);
    assert_eq!(check.only("pool-needs-check/tp/pool").severity, Severity::Outage);
    stage().with(|survey| survey.pool = None).nothing();
}

#[test]
fn metadata_that_are_nearly_full_are_told_in_time() {
    let of = |used, total| {
        usage(|usage| {
            (usage.metadata_used, usage.metadata_total) = (used, total);
        })
        .ids()
    };
    let nearly = ["pool-metadata-nearly-full/tp/pool"];
    assert_eq!(of(9_000, 10_000), nearly);
    assert_eq!(of(8_999, 10_000), [""; 0]);
    assert_eq!(of(745, 1_000), nearly);
    assert_eq!(of(744, 1_000), [""; 0]);
    assert_eq!(of(u64::MAX, u64::MAX), nearly);
    assert_eq!(of(5, 0), [""; 0]);
    stage().with(|survey| survey.usage = None).nothing();
}

#[test]
fn a_held_metadata_snapshot_is_told_and_not_released() {
    let held = usage(|usage| usage.held_root = Some(77));
    let found = held.only("metadata-snapshot-held/tp/pool");
    assert_eq!(found.severity, Severity::Notice);
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    assert!(found.may_be_in_flight);
}
