//! Each guard has an adversary: something that happens at the worst moment, and against which it protects. With the guard
//! nothing is harmed; without it something is. Where another guard would notice the same, that one is left out in both: so it
//! is this very guard that is shown to hold, and to be missed.

use std::{cell::Cell, collections::BTreeSet, fs};

use suture::model::{
    Condition, IdState, PoolMode, RepairMode, SnapshotId, ThinId,
    databases::{SnapshotKind, SnapshotRow},
    survey::CoreSnapshot,
};

use crate::{
    kernel::{Call, Table},
    machine::{Crash, Machine, State, device_name, run},
    one::crashed,
    scenes::{SCENES, Scene, node, prepare},
    suture::{Pass, Suture, When},
};

/// Before the look that the conditions are read in.
const BEFORE_THE_LOOK: When = When::Told("reading containerd's databases");
/// After that look, before the act.
const AFTER_THE_LOOK: When = When::Told("storing what is to be done");
/// After the record was marked faulty, before what the kernel does.
const AFTER_THE_EDIT: When = When::Told("dropping old backups");

struct Adversary {
    guard: Condition,
    /// Guards that would notice the same.
    doubles: &'static [Condition],
    mode: RepairMode,
    node: fn() -> Machine,
    when: When,
    happens: fn(&Machine),
    /// What a person named to be deleted; or nobody did.
    named: &'static [u32],
    /// What is harmed, if anything is.
    harm: fn(&Machine, &Suture<'_>) -> Option<String>,
}

/// Runs it without those guards; gives what was harmed, and whether the adversary got his chance.
fn meet(adversary: &Adversary, without: &[Condition]) -> (Option<String>, Pass, bool) {
    let machine = (adversary.node)();
    let suture = Suture::on(&machine);
    suture.without.replace(without.iter().copied().collect());
    let named: BTreeSet<_> = adversary.named.iter().map(|id| ThinId(*id)).collect();
    suture.selection.borrow_mut().delete_thin = named;
    let happened = std::rc::Rc::new(Cell::new(false));
    let happens = adversary.happens;
    let tells = std::rc::Rc::clone(&happened);
    suture.happens(adversary.when.clone(), move |machine| {
        tells.set(true);
        happens(machine);
    });
    let pass = match suture.pass(adversary.mode, None) {
        Some(Ok(pass)) => pass,
        other => panic!("{}: {other:?}", adversary.guard),
    };
    ((adversary.harm)(&machine, &suture), pass, happened.get())
}

fn protects(adversary: &Adversary) {
    let guard = adversary.guard;
    let (harm, pass, _) = meet(adversary, &[]);
    assert_eq!(harm, None, "{guard}: with all guards: {pass:?}");
    let (harm, pass, happened) = meet(adversary, adversary.doubles);
    assert_eq!(harm, None, "{guard} alone: {pass:?}");
    assert!(happened, "{guard}: {pass:?}");
    // After somebody wrote everything is read anew.
    let refused = pass
        .plans
        .iter()
        .any(|(_, outcome)| outcome.to_string().contains(guard.name()));
    assert!(
        refused || guard == Condition::SameTransaction,
        "{guard} is what refuses: {pass:?}"
    );
    let without: Vec<_> = adversary.doubles.iter().copied().chain([guard]).collect();
    let (harm, pass, happened) = meet(adversary, &without);
    assert!(happened, "{guard}: {pass:?}");
    assert!(harm.is_some(), "{guard} is not missed: {pass:?}");
}

fn scene(name: &str) -> &'static Scene {
    SCENES.iter().find(|scene| scene.name == name).unwrap()
}

fn after(name: &str, watched: bool, step: &str, crash: Crash) -> Machine {
    let found = (0..).map_while(|steps| crashed(scene(name), watched, steps, crash));
    let mut found = found.filter(|(_, last)| last.starts_with(step));
    found.next().unwrap().0
}

const BASE: &str = "prepare without a parent";
const ASYNC: &str = "remove with async_remove, and its clean-up";

/// containerd#5646, containerd stopped: the record of snapshot 4 says Activated, and thin device 4 is there.
fn wedge() -> Machine {
    after(BASE, false, "tx Activated", Crash::Kill)
}

/// A snapshot whose record went with an interrupted removal.
fn row_without_record() -> Machine {
    after("remove", false, "tx RemoveDevice", Crash::Kill)
}

/// A clean-up that was cut off: record and thin device 4 without a row; containerd runs again.
pub(crate) fn orphan() -> Machine {
    let machine = after(ASYNC, false, "tx Deactivated", Crash::Kill);
    run(machine.start()).unwrap();
    machine
}

/// The same, with containerd stopped.
fn orphan_stopped() -> Machine {
    let machine = orphan();
    machine.stop();
    machine
}

/// Thin device 4, that suture saw containerd make and that has lost its name; containerd runs.
fn leaked() -> Machine {
    let machine = after(BASE, true, "CreateThin", Crash::Kill);
    run(machine.start()).unwrap();
    prepare(&machine, "again", None);
    machine
}

/// A good active snapshot whose record is marked faulty, and containerd stopped.
fn faulty_live() -> Machine {
    let machine = after("commit", false, "tx Suspending", Crash::Kill);
    run(machine.start()).unwrap();
    machine.stop();
    machine
}

/// Somebody's own device, and containerd runs.
fn somebodys() -> Machine {
    let machine = node(false, false);
    make(&machine, 4, "somebody's");
    machine
}

fn make(machine: &Machine, id: u32, what: &str) {
    machine.set(|state| {
        state.kernel.call(&Call::CreateThin(id)).unwrap();
        state.kernel.write(id, what);
    });
}

fn nothing(_: &Machine) {}

fn thin_is_gone(machine: &Machine, id: u32) -> bool {
    machine.get(|state| !state.kernel.thin.contains_key(&id))
}

/// Snapshot 4 gets its row back, and the client knows it.
pub(crate) fn row_is_put_back(machine: &Machine) {
    machine.set(|state| {
        let row = SnapshotRow {
            id: SnapshotId(4),
            kind: SnapshotKind::Committed,
            parent: None,
        };
        state.rows.snapshots.insert("default/99/old".to_owned(), row);
        state.rows.sequence = state.rows.sequence.max(4);
        state.rows.txid = state.rows.txid.map(|txid| suture::model::TxId(txid.0 + 1));
        client_knows(state);
    });
}

fn client_knows(state: &mut State) {
    let snapshot = CoreSnapshot {
        namespace: "default".to_owned(),
        key: "old".to_owned(),
        parent: None,
        leases: Vec::new(),
    };
    state.core.snapshots.insert("default/99/old".to_owned(), snapshot);
}

fn kernel_refused(_: &Machine, suture: &Suture<'_>) -> Option<String> {
    let calls = suture.calls.borrow();
    let refused = calls.iter().find(|(_, went)| went.is_err());
    refused.map(|(call, went)| format!("{call}: {went:?}"))
}

fn data_of_4_lost(machine: &Machine, _: &Suture<'_>) -> Option<String> {
    thin_is_gone(machine, 4).then(|| "thin device 4 is deleted".to_owned())
}

#[test]
fn still_found_keeps_from_healing_what_is_well_by_now() {
    protects(&Adversary {
        guard: Condition::StillFound,
        doubles: &[],
        mode: RepairMode::Offline,
        node: row_without_record,
        when: BEFORE_THE_LOOK,
        // A person takes the row away himself.
        happens: |machine| {
            machine.set(|state| {
                state.rows.snapshots.retain(|_, row| row.id != SnapshotId(4));
                state.rows.txid = state.rows.txid.map(|txid| suture::model::TxId(txid.0 + 1));
            });
        },
        named: &[],
        harm: |machine, _| {
            let left = machine.get(|state| state.pool.devices.get(&device_name(4)).cloned());
            left.map(|record| format!("a record of no snapshot: {record:?}"))
        },
    });
}

#[test]
fn pool_writable_keeps_from_troubling_a_pool_that_is_sick() {
    protects(&Adversary {
        guard: Condition::PoolWritable,
        doubles: &[],
        mode: RepairMode::Offline,
        node: wedge,
        when: AFTER_THE_EDIT,
        happens: |machine| machine.set(|state| state.kernel.mode = PoolMode::ReadOnly),
        named: &[],
        harm: kernel_refused,
    });
}

#[test]
fn not_open_keeps_from_deleting_what_somebody_looks_at() {
    protects(&Adversary {
        guard: Condition::NotOpen,
        doubles: &[],
        mode: RepairMode::Offline,
        node: wedge,
        when: AFTER_THE_EDIT,
        happens: |machine| {
            machine.set(|state| {
                let name = "look".to_owned();
                state.kernel.call(&Call::Create(name.clone())).unwrap();
                let load = Call::Load(name.clone(), Table::Thin(4));
                state.kernel.call(&load).unwrap();
                state.kernel.call(&Call::Resume(name)).unwrap();
            });
        },
        named: &[],
        harm: kernel_refused,
    });
}

#[test]
fn provenance_keeps_from_deleting_another_device_of_that_id() {
    protects(&Adversary {
        guard: Condition::Provenance,
        doubles: &[Condition::StillFound],
        mode: RepairMode::Online,
        node: leaked,
        when: BEFORE_THE_LOOK,
        happens: |machine| {
            machine.set(|state| state.kernel.call(&Call::Delete(4)).unwrap());
            make(machine, 4, "somebody's");
        },
        named: &[],
        harm: data_of_4_lost,
    });
}

#[test]
fn no_row_keeps_from_deleting_what_a_snapshot_uses() {
    protects(&Adversary {
        guard: Condition::NoRow,
        doubles: &[],
        mode: RepairMode::Offline,
        node: wedge,
        when: AFTER_THE_EDIT,
        happens: row_is_put_back,
        named: &[],
        harm: data_of_4_lost,
    });
}

#[test]
fn no_record_keeps_from_deleting_what_a_record_names_again() {
    protects(&Adversary {
        guard: Condition::NoRecord,
        doubles: &[Condition::StillFound],
        mode: RepairMode::Online,
        node: leaked,
        when: BEFORE_THE_LOOK,
        // A person puts a record back from an older pool database, because he wants what is on the device.
        happens: |machine| {
            machine.set(|state| {
                let mut record = state.pool.devices[&device_name(1)].clone();
                record.name = device_name(9);
                record.device_id = ThinId(4);
                state.pool.devices.insert(record.name.clone(), record);
                state.pool.txid.0 += 1;
            });
        },
        named: &[],
        harm: data_of_4_lost,
    });
}

#[test]
fn thin_there_keeps_from_calling_good_what_is_lost() {
    protects(&Adversary {
        guard: Condition::ThinThere,
        doubles: &[Condition::StillFound],
        mode: RepairMode::Offline,
        node: faulty_live,
        when: BEFORE_THE_LOOK,
        happens: |machine| {
            machine.set(|state| {
                state.kernel.call(&Call::Remove(device_name(4))).unwrap();
                state.kernel.call(&Call::Delete(4)).unwrap();
            });
        },
        named: &[],
        harm: |machine, _| {
            let started = run(machine.start());
            started
                .err()
                .map(|failure| format!("containerd does not load: {failure:?}"))
        },
    });
}

#[test]
fn thin_gone_keeps_from_freeing_a_number_that_is_taken_in_the_pool() {
    protects(&Adversary {
        guard: Condition::ThinGone,
        doubles: &[Condition::StillFound],
        mode: RepairMode::Offline,
        node: || after(BASE, false, "tx Creating", Crash::Kill),
        when: BEFORE_THE_LOOK,
        happens: |machine| make(machine, 4, "somebody's"),
        named: &[],
        harm: |machine, _| {
            let state = machine.get(|state| state.pool.device_ids.get(&ThinId(4)).copied());
            (state == Some(IdState::Free)).then(|| "containerd draws a number that is taken".to_owned())
        },
    });
}

#[test]
fn nobody_at_work_keeps_from_resuming_what_is_being_snapshotted() {
    protects(&Adversary {
        guard: Condition::NobodyAtWork,
        doubles: &[],
        mode: RepairMode::Offline,
        // The program that makes the snapshot of the suspended layer has outlived its containerd.
        node: || {
            let name = "prepare on a layer that is loaded";
            after(name, false, "tx Creating", Crash::KillChildrenLate)
        },
        when: When::Step(0),
        happens: nothing,
        named: &[],
        harm: |machine, _| {
            machine.children_end();
            let torn = machine.get(|state| state.kernel.torn.clone());
            (!torn.is_empty()).then(|| format!("{torn:?} were made of a device in use"))
        },
    });
}

#[test]
fn databases_whole_keeps_from_deleting_what_a_client_still_knows() {
    protects(&Adversary {
        guard: Condition::DatabasesWhole,
        doubles: &[Condition::StillFound],
        mode: RepairMode::Offline,
        node: orphan_stopped,
        when: BEFORE_THE_LOOK,
        // A person puts back a backup of meta.db, and is about to put back metadata.db.
        happens: |machine| machine.set(client_knows),
        named: &[],
        harm: data_of_4_lost,
    });
}

#[test]
fn containerd_stopped_keeps_from_writing_beside_containerd() {
    protects(&Adversary {
        guard: Condition::ContainerdStopped,
        doubles: &[],
        mode: RepairMode::Offline,
        node: wedge,
        when: When::Told("taking the lock"),
        happens: |machine| drop(run(machine.start())),
        named: &[],
        harm: |_, suture| {
            let wrote = suture.two_writers.get();
            wrote.then(|| "suture wrote to the database of a running containerd".to_owned())
        },
    });
}

#[test]
fn backed_up_keeps_from_editing_what_can_not_be_put_back() {
    let edited_without_a_backup = |without: &[Condition]| {
        let machine = wedge();
        let before = machine.get(|state| state.pool.clone());
        let suture = Suture::on(&machine);
        suture.without.replace(without.iter().copied().collect());
        fs::write(suture.backups(), b"a file is in the way").unwrap();
        suture.whole_pass(RepairMode::Offline);
        let changed = machine.get(|state| state.pool != before);
        changed && !suture.backups().is_dir()
    };
    assert!(!edited_without_a_backup(&[]));
    assert!(edited_without_a_backup(&[Condition::BackedUp]));
}

#[test]
fn same_transaction_keeps_from_acting_on_what_was_read_before_somebody_wrote() {
    protects(&Adversary {
        guard: Condition::SameTransaction,
        doubles: &[],
        mode: RepairMode::Online,
        node: orphan,
        when: AFTER_THE_LOOK,
        happens: row_is_put_back,
        named: &[],
        harm: data_of_4_lost,
    });
}

#[test]
fn named_keeps_from_deleting_what_nobody_named() {
    let deleted = |named: &[u32]| {
        let machine = somebodys();
        machine.stop();
        let suture = Suture::on(&machine);
        suture.selection.borrow_mut().delete_thin = named.iter().map(|id| ThinId(*id)).collect();
        suture.whole_pass(RepairMode::Offline);
        thin_is_gone(&machine, 4)
    };
    assert!(!deleted(&[]));
    assert!(deleted(&[4]));
}
