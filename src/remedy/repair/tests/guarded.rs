//! What a repair must not do.

use super::*;

fn refused_for(stage: &Stage, word: &str) {
    let before = (
        stage.database(),
        stage.thin.borrow().clone(),
        stage.nodes.borrow().clone(),
    );
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Refused { why } if why.contains(word)),
        "{word}: {outcome}"
    );
    assert_eq!(stage.database(), before.0);
    assert_eq!(*stage.thin.borrow(), before.1);
    assert_eq!(*stage.nodes.borrow(), before.2);
}

fn happens(stage: &Stage, when: &'static str, what: impl Fn(&Stage) + 'static) {
    *stage.on.borrow_mut() = Some((when, Box::new(what)));
}

#[test]
fn a_lock_that_is_held_is_refused_at_once() {
    let stage = Stage::new();
    burned_id(&stage);
    let database = stage.places.pool_db();
    let before = stage.database();
    // Somebody takes the lock after the look: the editor must not wait for it.
    let holder = fs::File::options()
        .read(true)
        .write(true)
        .open(&database)
        .unwrap();
    let holder = std::rc::Rc::new(holder);
    let kept = std::rc::Rc::clone(&holder);
    happens(&stage, "taking the lock", move |_| kept.lock().unwrap());
    let begun = Instant::now();
    let (results, _) = stage.repair().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let outcome = results.plans[0].outcome.clone().unwrap();
    assert!(
        matches!(&outcome, RepairOutcome::Refused { why } if why.contains("containerd-stopped")),
        "{outcome}"
    );
    assert_eq!(stage.database(), before);
    drop(holder);
}

#[test]
fn a_running_containerd_is_refused_before_anything() {
    let stage = Stage::new();
    wedge(&stage);
    *stage.holder.borrow_mut() = Some(containerd());
    let result = stage.repair();
    assert!(
        matches!(result, Err(RepairError::ContainerdRuns { .. })),
        "{result:?}"
    );
    assert_eq!(*stage.calls.borrow(), Vec::<String>::new());
}

#[test]
fn a_containerd_that_starts_meanwhile_ends_what_the_kernel_does() {
    let stage = Stage::new();
    wedge(&stage);
    happens(&stage, "remove dm device", |stage| {
        *stage.holder.borrow_mut() = Some(containerd());
    });
    let outcome = stage.outcome();
    // The first act was on its way already; the second looks again.
    assert!(
        matches!(&outcome, RepairOutcome::Partly { done: 2, why } if why.contains("containerd-stopped")),
        "{outcome}"
    );
    assert!(stage.thin.borrow().contains_key(&ThinId(3)));
    assert_eq!(stage.database().devices["pool-snap-3"].state, DeviceState::Faulty);
}

#[test]
fn two_repairs_at_once_are_one() {
    let stage = Stage::new();
    burned_id(&stage);
    // Whatever ledger it keeps.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = OnlyOne::take(&stage.places, &elsewhere.path().join("ledger.db")).unwrap();
    let result = stage.repair();
    assert!(
        matches!(result, Err(RepairError::AnotherRepair { .. })),
        "{result:?}"
    );
    // containerd, which locks the database's file, has nothing to wait for.
    let database = fs::File::open(stage.places.pool_db()).unwrap();
    database.try_lock().unwrap();
    drop((database, other));
    stage.repair().unwrap();
}

#[test]
fn where_there_is_no_folder_no_repair_is_in_the_way_of_another() {
    let nowhere = Places {
        root: "/nonexistent/devmapper".into(),
        ..Stage::new().places
    };
    let folder = tempfile::tempdir().unwrap();
    let ledger = |name: &str| folder.path().join(name);
    let _first = OnlyOne::take(&nowhere, &ledger("one")).unwrap();
    OnlyOne::take(&nowhere, &ledger("other")).unwrap();
    // But not with the same ledger.
    let second = OnlyOne::take(&nowhere, &ledger("one"));
    assert!(
        matches!(second, Err(RepairError::AnotherRepair { .. })),
        "{second:?}"
    );
}

#[test]
fn what_a_sidecar_sees_at_work_since_the_plan_was_made_is_not_touched() {
    type Scene = (fn(&Stage), ThinId);
    let online: [Scene; 3] = [
        (leaked_thin, ThinId(3)),
        // It maps a thin device of this number, and has no record.
        (orphan_node, ThinId(77)),
        (suspended_device, ThinId(2)),
    ];
    for (scene, id) in online {
        let stage = Stage::new();
        scene(&stage);
        stage.mode(RepairMode::Online);
        let operation = OperationId::new(at(1), id);
        stage.seen_at_work.borrow_mut().insert(id, operation);
        refused_for(&stage, "nobody-at-work: operation");
        assert_eq!(*stage.calls.borrow(), Vec::<String>::new());

        // Work on something else is in nobody's way.
        let other = OperationId::new(at(1), ThinId(1));
        *stage.seen_at_work.borrow_mut() = [(ThinId(1), other)].into();
        assert_eq!(stage.outcome(), RepairOutcome::Done);
    }
}

#[test]
fn offline_too_what_a_sidecar_sees_at_work_is_not_touched() {
    let stage = Stage::new();
    wedge(&stage);
    let operation = OperationId::new(at(1), ThinId(3));
    stage.seen_at_work.borrow_mut().insert(ThinId(3), operation);
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Partly { done: 1, why } if why.contains("nobody-at-work")),
        "{outcome}"
    );
    assert_eq!(*stage.calls.borrow(), Vec::<String>::new());
}

#[test]
fn without_free_space_what_is_leaked_is_deleted_and_a_pool_that_takes_nothing_is_not_asked() {
    let stage = Stage::new();
    leaked_thin(&stage);
    stage.mode(RepairMode::Online);
    stage.pool.borrow_mut().as_mut().unwrap().mode = crate::model::PoolMode::OutOfDataSpace;
    assert_eq!(stage.outcome(), RepairOutcome::Done);
    assert_eq!(*stage.calls.borrow(), ["delete 3"]);

    let stage = Stage::new();
    leaked_thin(&stage);
    stage.mode(RepairMode::Online);
    stage.pool.borrow_mut().as_mut().unwrap().mode = crate::model::PoolMode::ReadOnly;
    let (results, _) = stage.repair().unwrap();
    assert!(results.plans.iter().all(|result| result.outcome.is_none()));
    let told = results
        .plans
        .iter()
        .find(|result| result.plan.class == FindingClass::LeakedThin)
        .unwrap();
    let why = told.plan.left_out.as_deref().unwrap();
    assert!(why.contains("read-only"), "{why}");
    assert_eq!(*stage.calls.borrow(), Vec::<String>::new());
}

#[test]
fn a_ledger_that_takes_nothing_stops_everything() {
    for scene in [burned_id, leaked_thin, wedge] {
        let stage = Stage::new();
        scene(&stage);
        let before = stage.database();
        let mut ledger = Ledger::open_beside(&stage.ledger_path()).unwrap();
        let hog = rusqlite::Connection::open(stage.ledger_path()).unwrap();
        hog.execute_batch("BEGIN IMMEDIATE").unwrap();
        let result = stage.repair_with(&mut ledger);
        assert!(matches!(result, Err(RepairError::Intent(_))), "{result:?}");
        assert_eq!(*stage.calls.borrow(), Vec::<String>::new());
        assert_eq!(stage.database(), before);
    }
}

#[test]
fn without_a_backup_nothing_is_edited() {
    let stage = Stage::new();
    burned_id(&stage);
    fs::write(stage.backups(), b"a file is in the way").unwrap();
    refused_for(&stage, "backed-up");
}

#[test]
fn a_transaction_between_the_look_and_the_lock_stops_the_edit() {
    for when in ["making a backup", "taking the lock"] {
        let stage = Stage::new();
        burned_id(&stage);
        happens(&stage, when, |stage| stage.edit(&[put_id(9, 2)]));
        let outcome = stage.outcome();
        assert!(
            matches!(&outcome, RepairOutcome::Refused { why } if why.contains("same-transaction")),
            "{outcome}"
        );
        assert_eq!(stage.database().device_ids[&ThinId(3)], IdState::Faulty);

        let stage = Stage::new();
        burned_id(&stage);
        happens(&stage, when, |stage| stage.sequence(4));
        let outcome = stage.outcome();
        assert!(
            matches!(&outcome, RepairOutcome::Refused { why } if why.contains("same-transaction")),
            "{outcome}"
        );
    }
}

#[test]
fn the_lock_is_held_for_nothing_but_the_write() {
    let free = |stage: &Stage| {
        let file = fs::File::open(stage.places.pool_db()).unwrap();
        file.try_lock().is_ok()
    };
    for (when, expected) in [
        ("looking at every page", true),
        ("making a backup", true),
        ("taking the lock", true),
        ("committing to the pool database", false),
        ("dropping old backups", true),
    ] {
        let stage = Stage::new();
        burned_id(&stage);
        let found = std::rc::Rc::new(Cell::new(None));
        let told = std::rc::Rc::clone(&found);
        happens(&stage, when, move |stage| told.set(Some(free(stage))));
        assert_eq!(stage.outcome(), RepairOutcome::Done, "{when}");
        assert_eq!(found.get(), Some(expected), "{when}");
    }
}

#[test]
fn a_repair_looks_before_and_after_it_and_no_more() {
    let stage = Stage::new();
    burned_id(&stage);
    let (results, _) = stage.repair().unwrap();
    let looks = stage.told.borrow();
    let looks = looks
        .iter()
        .filter(|told| told.starts_with("reading containerd's databases"));
    assert_eq!(looks.count(), 2);
    assert_eq!(results.after, Some(stage.survey_now(BTreeSet::new())));
}

#[test]
fn a_copy_of_the_snapshot_database_is_of_the_transaction_that_was_looked_at_or_there_is_none() {
    let stage = Stage::new();
    let txid = stage.survey_now(BTreeSet::new()).snapshots.txid.unwrap();
    let folder = stage.folder.path().join("backup");
    fs::create_dir(&folder).unwrap();
    backup::copy_snapshots(&stage.places, &folder, TxId(txid.0 - 1)).unwrap_err();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    backup::copy_snapshots(&stage.places, &folder, txid).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(
        fs::read(folder.join("metadata.db")).unwrap(),
        fs::read(stage.places.snapshot_db()).unwrap()
    );
}

#[test]
fn online_a_transaction_before_the_act_has_everything_read_again() {
    let stage = Stage::new();
    leaked_thin(&stage);
    stage.mode(RepairMode::Online);
    // containerd gives the id to somebody in the very moment: the new look sees it.
    happens(&stage, "storing what is to be done", |stage| {
        stage.edit(&[put_record(&record(2, 3, DeviceState::Activated)), put_id(3, 1)]);
    });
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Refused { why } if why.contains("still-found")),
        "{outcome}"
    );
    assert!(stage.thin.borrow().contains_key(&ThinId(3)));

    let stage = Stage::new();
    leaked_thin(&stage);
    stage.mode(RepairMode::Online);
    happens(&stage, "storing what is to be done", |stage| {
        stage.edit(&[put_id(9, 2)]);
    });
    assert_eq!(stage.outcome(), RepairOutcome::Done, "something else was written");
}

#[test]
fn what_is_not_just_so_any_more_is_left() {
    let stage = Stage::new();
    orphan_node(&stage);
    stage.mode(RepairMode::Online);
    happens(&stage, "looking", |stage| {
        stage.nodes.borrow_mut()[1].open_count = 1;
    });
    let outcome = stage.outcome();
    assert!(matches!(&outcome, RepairOutcome::Refused { .. }), "{outcome}");

    // Opened between the look and the call: the ioctl just before sees it.
    let stage = Stage::new();
    orphan_node(&stage);
    stage.mode(RepairMode::Online);
    happens(&stage, "remove dm device", |stage| {
        stage.nodes.borrow_mut()[1].open_count = 1;
    });
    refused_for_open(&stage, "is open once");

    // Another device of the same name.
    let stage = Stage::new();
    orphan_node(&stage);
    stage.mode(RepairMode::Online);
    happens(&stage, "remove dm device", |stage| {
        stage.nodes.borrow_mut()[1].device.minor = 99;
    });
    refused_for_open(&stage, "another one than was found");
}

fn refused_for_open(stage: &Stage, word: &str) {
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Refused { why } if why.contains(word)),
        "{outcome}"
    );
    assert_eq!(*stage.calls.borrow(), Vec::<String>::new());
}

#[test]
fn a_busy_device_is_not_fought_and_a_delete_that_was_taken_back_is_no_success() {
    let stage = Stage::new();
    leaked_thin(&stage);
    stage.mode(RepairMode::Online);
    stage.busy.set(true);
    refused_for(&stage, "in use");
    assert_eq!(stage.calls.borrow().len(), 1);

    let stage = Stage::new();
    leaked_thin(&stage);
    stage.mode(RepairMode::Online);
    stage.takes_back.set(true);
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Failed { why } if why.contains("it is not")),
        "{outcome}"
    );
}

#[test]
fn a_program_at_work_keeps_the_kernels_part_and_not_the_mark() {
    let stage = Stage::new();
    wedge(&stage);
    stage.at_work.borrow_mut().push("mkfs.ext4".to_owned());
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Partly { done: 1, why } if why.contains("nobody-at-work")),
        "{outcome}"
    );
    assert_eq!(stage.database().devices["pool-snap-3"].state, DeviceState::Faulty);
    assert_eq!(*stage.calls.borrow(), Vec::<String>::new());
    // It ends, and the next repair goes on: the ledger still tells whose the device is.
    stage.at_work.borrow_mut().clear();
    stage.repair().unwrap();
    assert_eq!(stage.diagnoses(), Diagnoses::default());
}

#[test]
fn a_device_that_was_written_to_since_the_look_keeps_the_kernels_part_and_not_the_mark() {
    let stage = Stage::new();
    wedge(&stage);
    stage.claim(3);
    // The file system was still being made when containerd was killed.
    happens(&stage, "reading containerd's databases", |stage| {
        stage.thin.borrow_mut().insert(ThinId(3), details(50));
    });
    let outcome = stage.outcome();
    assert!(
        matches!(&outcome, RepairOutcome::Partly { done: 1, why } if why.contains("provenance")),
        "{outcome}"
    );
    assert_eq!(stage.database().devices["pool-snap-3"].state, DeviceState::Faulty);
    assert!(stage.thin.borrow().contains_key(&ThinId(3)));
    // The ledger still tells whose it is.
    stage.repair().unwrap();
    assert_eq!(stage.diagnoses(), Diagnoses::default());
}

#[test]
fn a_foreign_device_is_deleted_only_when_it_is_named() {
    for mode in [RepairMode::Online, RepairMode::Offline] {
        let stage = Stage::new();
        foreign_thin(&stage);
        stage.mode(mode);
        let (results, _) = stage.repair().unwrap();
        assert!(results.plans.iter().all(|result| result.outcome.is_none()));
        assert!(stage.thin.borrow().contains_key(&ThinId(3)));

        stage.selection.borrow_mut().delete_thin.insert(ThinId(1));
        let (results, _) = stage.repair().unwrap();
        assert_eq!(results.plans, [], "naming what is in use does nothing");

        stage.selection.borrow_mut().delete_thin = [ThinId(3)].into();
        assert_eq!(stage.outcome(), RepairOutcome::Done);
        assert_eq!(
            stage.thin.borrow().keys().copied().collect::<Vec<_>>(),
            [ThinId(1), ThinId(2)]
        );
    }
}

#[test]
fn a_foreign_device_with_an_id_that_containerd_may_draw_is_deleted_only_while_it_is_stopped() {
    let stage = Stage::new();
    stage.thin(9);
    stage.mode(RepairMode::Online);
    stage.selection.borrow_mut().delete_thin.insert(ThinId(9));
    refused_for(&stage, "no-record");
    stage.mode(RepairMode::Offline);
    assert_eq!(stage.outcome(), RepairOutcome::Done);
}

#[test]
fn fields_of_a_newer_containerd_survive() {
    let stage = Stage::new();
    let value = br#"{"device_id":1,"size":67108864,"name":"pool-snap-1","parent_name":"","state":13,"error":"x","verity":{"b":2,"a":1}}"#;
    stage.edit(&[
        Edit::Put {
            bucket: vec![b"devices".to_vec()],
            key: b"pool-snap-1".to_vec(),
            value: value.to_vec(),
        },
        put_id(1, 2),
    ]);
    assert_eq!(stage.outcome(), RepairOutcome::Done);
    let bytes = fs::read(stage.places.pool_db()).unwrap();
    let wanted = br#""state":10,"error":"","verity":{"b":2,"a":1}}"#;
    assert!(bytes.windows(wanted.len()).any(|window| window == wanted));
}
