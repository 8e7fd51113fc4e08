use super::*;

#[test]
fn a_plan_is_proposed_approved_and_done_and_each_approval_is_good_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let plan = repair_plan(1);
    assert_eq!(
        ledger.propose_plan("p", &plan, at(1)).unwrap(),
        PlanState::Proposed
    );
    assert_eq!(ledger.approve("p", "uid 0", at(2)).unwrap(), Said::Stored);
    // The next round proposes it again, which takes nothing back.
    assert_eq!(
        ledger.propose_plan("p", &plan, at(3)).unwrap(),
        PlanState::Approved
    );
    let row = ledger.plan("p").unwrap().unwrap();
    assert_eq!(
        (row.plan, row.proposed, row.decided),
        (plan.clone(), at(1), Some(at(2)))
    );
    assert_eq!(row.who.as_deref(), Some("uid 0"));
    assert_eq!(ledger.plans(&PlanFilter::Live).unwrap().len(), 1);

    ledger.end_plan("p", PlanState::Done, None, at(4)).unwrap();
    assert_eq!(ledger.plans(&PlanFilter::Live).unwrap(), []);
    assert_eq!(ledger.plan("p").unwrap().unwrap().who.as_deref(), Some("uid 0"));
    assert_eq!(
        ledger.approve("p", "uid 0", at(5)).unwrap(),
        Said::TooLate(PlanState::Done)
    );
    assert_eq!(
        ledger.propose_plan("p", &plan, at(6)).unwrap(),
        PlanState::Proposed
    );
    assert_eq!(ledger.plan("p").unwrap().unwrap().who, None);
}

#[test]
fn a_rejected_plan_stays_rejected_until_somebody_approves_it() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let plan = repair_plan(1);
    ledger.propose_plan("p", &plan, at(1)).unwrap();
    assert_eq!(
        ledger.reject("p", "uid 0", Some("mine"), at(2)).unwrap(),
        Said::Stored
    );
    assert_eq!(
        ledger.propose_plan("p", &plan, at(3)).unwrap(),
        PlanState::Rejected
    );
    let row = ledger.plan("p").unwrap().unwrap();
    assert_eq!(
        (row.state, row.why.as_deref()),
        (PlanState::Rejected, Some("mine"))
    );
    assert_eq!(ledger.approve("p", "uid 7", at(4)).unwrap(), Said::Stored);
    assert_eq!(ledger.plan("p").unwrap().unwrap().state, PlanState::Approved);
}

#[test]
fn what_nobody_proposed_can_not_be_approved() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    assert_eq!(ledger.approve("p", "uid 0", at(2)).unwrap(), Said::Unknown);
    assert_eq!(ledger.reject("p", "uid 0", None, at(2)).unwrap(), Said::Unknown);
    assert_eq!(ledger.plan("p").unwrap(), None);
}

#[test]
fn the_engines_state_outlives_suture() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(open(&folder).load_engine_state::<Vec<u32>>().unwrap(), None);
    open(&folder).save_engine_state(&[1, 2], at(1)).unwrap();
    open(&folder).save_engine_state(&[3, 4], at(2)).unwrap();
    assert_eq!(
        open(&folder).load_engine_state::<Vec<u32>>().unwrap(),
        Some(vec![3, 4])
    );
    assert!(matches!(
        open(&folder).load_engine_state::<String>(),
        Err(LedgerError::Value { .. })
    ));
}
