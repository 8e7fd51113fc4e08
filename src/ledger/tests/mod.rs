mod damage;
mod devices;
mod full;
mod killed;
mod observations;
mod plans;
mod readers;
mod retention;
mod upgrade;

use super::*;
use crate::{
    brain::Standing,
    correlate::Correlator,
    model::{
        Act, Action, Finding, FindingClass, FindingId, Guard, GuardReading, Operation, OperationId,
        OperationState, Outcome, Plan, PoolName, Provenance, RepairIntent, RepairMode, RepairOutcome,
        RepairPlan, Severity, Subject, ThinId, Timestamp, Treat, Treatment, TxId, When,
    },
    testing::*,
};

fn operation_of(id: u32, state: OperationState) -> OperationRow {
    OperationRow {
        operation: Operation {
            id: OperationId::new(at(u64::from(id)), ThinId(id)),
            thin_id: ThinId(id),
            state,
            ..operation()
        },
        traceparent: None,
    }
}

fn abandoned(id: u32) -> OperationRow {
    let state = OperationState::Abandoned {
        at: at(11),
        record: None,
        mark: mark(id),
    };
    operation_of(id, state)
}

fn finding_of(id: u32, resolved: Option<Timestamp>) -> FindingRow {
    let finding = Finding {
        id: FindingId(format!("leaked-thin/tp/{id}")),
        class: FindingClass::LeakedThin,
        pool: pool(),
        subject: Subject::ThinDevice { thin_id: ThinId(id) },
        provenance: Provenance::Unknown,
        evidence: vec!["seen".to_owned()],
        died_in: None,
    };
    FindingRow {
        standing: Standing {
            finding,
            first_seen: at(20),
            last_seen: at(21),
            resolved,
            decision: "deleted".to_owned(),
        },
        traceparent: None,
    }
}

fn plan_of(id: u32) -> Plan {
    Plan {
        finding: FindingId(format!("leaked-thin/tp/{id}")),
        operation: OperationId::new(at(u64::from(id)), ThinId(id)),
        action: Action::DeleteThin {
            pool: pool(),
            pool_device: POOL_DEVICE,
            thin_id: ThinId(id),
            mark: mark(id),
        },
        guards: Guard::DELETE_THIN.to_vec(),
    }
}

fn reading() -> Vec<GuardReading> {
    vec![GuardReading {
        guard: Guard::NotOpen,
        holds: true,
        detail: "nobody has it open".to_owned(),
    }]
}

fn repair_plan(id: u32) -> RepairPlan {
    let acts = vec![Act::DeleteThin { thin_id: ThinId(id) }];
    RepairPlan {
        finding: FindingId(format!("leaked-thin/tp/{id}")),
        class: FindingClass::LeakedThin,
        severity: Severity::Outage,
        subject: Subject::ThinDevice { thin_id: ThinId(id) },
        provenance: Provenance::Unknown,
        remedy: Treat {
            action: Treatment::UndoHalfDone,
            when: When::Offline,
            guards: Vec::new(),
            acts: acts.clone(),
            why: String::new(),
        },
        acts,
        conditions: Vec::new(),
        left_out: None,
    }
}

fn repair_intent(id: u32) -> RepairIntent {
    let plan = repair_plan(id);
    RepairIntent {
        pool: pool(),
        mode: RepairMode::Online,
        finding: plan.finding,
        class: Some(plan.class),
        subject: plan.subject,
        action: Some(Treatment::UndoHalfDone),
        acts: plan.acts,
        undoes: None,
        pool_txid: TxId(5),
        snapshot_txid: None,
        backup: None,
        marks: [(ThinId(id), mark(id))].into(),
    }
}

/// Something of everything: of operation 1, finding 1, intents and plans those that are open; 2 is over.
fn fill(ledger: &mut Ledger) {
    let done = OperationState::Deleted { at: at(12) };
    ledger
        .save_operations(&[abandoned(1), operation_of(2, done)])
        .unwrap();
    ledger.save_finding(&finding_of(1, None)).unwrap();
    ledger.save_finding(&finding_of(2, Some(at(22)))).unwrap();
    ledger.intend(&plan_of(1), &reading(), at(30)).unwrap();
    let over = ledger.intend(&plan_of(2), &reading(), at(31)).unwrap();
    ledger.conclude(over, &Outcome::Done, at(32)).unwrap();
    let repairs = ledger
        .intend_repairs(&[repair_intent(1), repair_intent(2)], at(33))
        .unwrap();
    ledger
        .conclude_repairs(&[(repairs[1], RepairOutcome::Done, false)], at(34))
        .unwrap();
    ledger.is_watching(at(35)).unwrap();
    let rows = [message(40, "create_snap 1 0", 0, by_containerd()), up(41)];
    ledger
        .save_observations(rows.iter().filter_map(ObservationRow::of).collect())
        .unwrap();
    ledger.propose_plan("p-1", &repair_plan(1), at(42)).unwrap();
    ledger.propose_plan("p-2", &repair_plan(2), at(42)).unwrap();
    ledger.reject("p-2", "root", Some("not now"), at(43)).unwrap();
    ledger.propose_plan("p-3", &repair_plan(3), at(42)).unwrap();
    ledger.end_plan("p-3", PlanState::Done, None, at(44)).unwrap();
    ledger
        .save_engine_state(&serde_json::json!({"paused": true}), at(45))
        .unwrap();
}

/// All that a ledger answers, as text.
fn all_of(ledger: &Ledger) -> Result<String, LedgerError> {
    let finding = FindingId("leaked-thin/tp/2".to_owned());
    Ok(format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        ledger.open_operations()?,
        ledger.newest_findings(10)?,
        ledger.open_findings()?,
        ledger.open_intents()?,
        ledger.remedies_of(&finding)?,
        ledger.newest_repairs(10)?,
        ledger.unfinished_repairs()?,
        ledger.watched_until()?,
        [
            ledger.devices_of(&pool(), ThinId(1))?,
            ledger.devices_of(&pool(), ThinId(2))?
        ],
        ledger.newest_observations(10)?,
        ledger.plans(&PlanFilter::Newest(10))?,
        ledger.load_engine_state::<serde_json::Value>()?,
    ))
}

fn operation() -> Operation {
    let mut correlator = Correlator::new(pool(), at(0));
    correlator.observe(&up(1));
    correlator.observe(&message(10, "create_snap 7 3", 0, by_containerd()));
    correlator.maker_of(ThinId(7)).unwrap().clone()
}

fn open(folder: &tempfile::TempDir) -> Ledger {
    Ledger::open(&folder.path().join("folder/ledger.db")).unwrap()
}

#[test]
fn what_came_of_a_repair_is_that_of_the_newest_one_since_then() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
    let finding = repair_intent(1).finding;
    let first = ledger.intend_repairs(&[repair_intent(1)], at(10)).unwrap();
    assert_eq!(ledger.came_of(&finding, at(10)).unwrap(), None);
    ledger
        .conclude_repairs(&[(first[0], RepairOutcome::Done, false)], at(11))
        .unwrap();
    assert_eq!(
        ledger.came_of(&finding, at(10)).unwrap(),
        Some(RepairOutcome::Done)
    );
    // It was another one's.
    assert_eq!(ledger.came_of(&finding, at(11)).unwrap(), None);
    // One that is open says nothing yet, whatever came of an older one.
    ledger.intend_repairs(&[repair_intent(1)], at(12)).unwrap();
    assert_eq!(ledger.came_of(&finding, at(10)).unwrap(), None);
}

#[test]
fn operations_outlive_suture_until_they_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut row = OperationRow {
        operation: operation(),
        traceparent: None,
    };
    open(&folder).save_operation(&row).unwrap();
    assert_eq!(open(&folder).open_operations().unwrap(), [row.clone()]);

    row.operation.state = OperationState::Abandoned {
        at: at(11),
        record: None,
        mark: mark(7),
    };
    row.traceparent = Some("00-1-2-01".to_owned());
    open(&folder).save_operations(std::slice::from_ref(&row)).unwrap();
    assert_eq!(open(&folder).open_operations().unwrap(), [row.clone()]);

    // What is stored without a trace keeps the one that was there.
    let known = row.traceparent.take();
    open(&folder).save_operation(&row).unwrap();
    assert_eq!(open(&folder).open_operations().unwrap()[0].traceparent, known);

    row.operation.state = OperationState::Deleted { at: at(12) };
    open(&folder).save_operation(&row).unwrap();
    assert_eq!(open(&folder).open_operations().unwrap(), []);
    open(&folder).forget_operation(&row.operation.id).unwrap();
    open(&folder).prune(&Retention::default(), at(13)).unwrap();
}

#[test]
fn findings_keep_their_first_sight_and_end_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let finding = Finding {
        id: FindingId("foreign-thin/tp/7".to_owned()),
        class: FindingClass::ForeignThin,
        pool: pool(),
        subject: Subject::ThinDevice { thin_id: ThinId(7) },
        provenance: Provenance::Unknown,
        evidence: vec!["seen".to_owned()],
        died_in: None,
    };
    let mut row = FindingRow {
        standing: Standing {
            finding,
            first_seen: at(1),
            last_seen: at(2),
            resolved: None,
            decision: "left to a person".to_owned(),
        },
        traceparent: Some("00-1-2-01".to_owned()),
    };
    open(&folder).save_finding(&row).unwrap();
    let mut again = row.clone();
    again.standing.first_seen = at(9);
    again.standing.last_seen = at(9);
    open(&folder).save_finding(&again).unwrap();
    row.standing.last_seen = at(9);
    assert_eq!(open(&folder).open_findings().unwrap(), [row.clone()]);
    row.standing.resolved = Some(at(10));
    open(&folder).save_finding(&row).unwrap();
    assert_eq!(open(&folder).open_findings().unwrap(), []);
    assert_eq!(open(&folder).newest_findings(10).unwrap(), [row]);
}

#[test]
fn a_reader_beside_the_writer_sees_what_was_committed_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let path = folder.path().join("folder/ledger.db");
    let reader = Ledger::open_to_read(&path).unwrap();
    writer
        .save_operation(&OperationRow {
            operation: operation(),
            traceparent: None,
        })
        .unwrap();
    assert_eq!(reader.open_operations().unwrap().len(), 1);
    assert!(reader.forget_operation(&operation().id).is_err());
}

#[test]
fn nobody_but_its_owner_reads_the_ledger_also_where_an_older_suture_let_them() {
    use std::{
        fs::{Permissions, metadata, set_permissions},
        os::unix::fs::PermissionsExt as _,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join("folder").join(name);
    let mode = |name: &str| metadata(path(name)).unwrap().permissions().mode() & 0o777;
    let files = ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"];
    let row = OperationRow {
        operation: operation(),
        traceparent: None,
    };
    let first = open(&folder);
    first.save_operation(&row).unwrap();
    assert_eq!(mode(""), 0o700);
    for name in files {
        assert_eq!(mode(name), 0o600, "{name}");
        set_permissions(path(name), Permissions::from_mode(0o644)).unwrap();
    }
    // A repair comes while the sidecar runs: the files beside the ledger are there.
    drop(Ledger::open_beside(&path("ledger.db")).unwrap());
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    drop(first);
    let again = open(&folder);
    again.save_operation(&row).unwrap();
    for name in files {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}

#[test]
fn a_second_suture_does_not_get_the_ledger_of_a_running_one() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    let second = Ledger::open(&folder.path().join("folder/ledger.db"));
    assert!(matches!(second, Err(LedgerError::InUse { .. })), "{second:?}");
    drop(first);
    drop(open(&folder));
}

#[test]
fn until_when_somebody_was_watching_outlives_suture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let ledger = Ledger::open(&file).unwrap();
    assert_eq!(ledger.watched_until().unwrap(), None);
    ledger
        .is_watching(Timestamp::from_nanoseconds(1_000_000_007))
        .unwrap();
    ledger
        .is_watching(Timestamp::from_nanoseconds(2_000_000_007))
        .unwrap();
    drop(ledger);
    let later = Ledger::open(&file).unwrap();
    assert_eq!(
        later.watched_until().unwrap(),
        Some(Timestamp::from_nanoseconds(2_000_000_007))
    );
}
