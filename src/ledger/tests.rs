use super::*;
use crate::{
    brain::Standing,
    correlate::Correlator,
    model::{Finding, FindingClass, FindingId, Operation, OperationState, Provenance, ThinId},
    testing::*,
};

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
    open(&folder).prune().unwrap();
}

#[test]
fn findings_keep_their_first_sight_and_end_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let finding = Finding {
        id: FindingId("foreign-thin/tp/7".to_owned()),
        class: FindingClass::ForeignThin,
        pool: pool(),
        subject: crate::model::Subject::ThinDevice { thin_id: ThinId(7) },
        provenance: Provenance::Unknown,
        evidence: vec!["seen".to_owned()],
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
        .is_watching(crate::model::Timestamp::from_nanoseconds(1_000_000_007))
        .unwrap();
    ledger
        .is_watching(crate::model::Timestamp::from_nanoseconds(2_000_000_007))
        .unwrap();
    drop(ledger);
    let later = Ledger::open(&file).unwrap();
    assert_eq!(
        later.watched_until().unwrap(),
        Some(crate::model::Timestamp::from_nanoseconds(2_000_000_007))
    );
}
