//! Records without a row.

use super::*;
use crate::model::FindingClass;
use crate::model::survey::CoreSnapshot;
use crate::model::{Provenance, Severity};

fn delete(id: u32) -> Act {
    Act::DeleteThin { thin_id: ThinId(id) }
}

fn remove(stage: &Stage, snapshot: u64) -> Act {
    let name = name(snapshot);
    let node = stage.survey.nodes.iter().find(|node| node.name.as_str() == name);
    Act::RemoveNode {
        device: node.unwrap().device,
        name,
    }
}

fn record(stage: &Stage, snapshot: u64) -> DeviceRecord {
    stage.survey.pool_db.devices[&name(snapshot)].clone()
}

fn forget(stage: &Stage, snapshot: u64) -> Act {
    Act::ForgetRecord {
        record: record(stage, snapshot),
    }
}

fn mark(stage: &Stage, snapshot: u64) -> Act {
    Act::MarkFaulty {
        record: record(stage, snapshot),
    }
}

/// The record of snapshot 3, which is gone.
fn orphan(state: DeviceState) -> Stage {
    stage().sequence(5).thin(7).record(3, 7, state)
}

#[test]
fn an_orphan_record_is_undone_and_forgotten_while_containerd_is_stopped() {
    for state in [Deactivating, Deactivated, Removing, Removed, Faulty] {
        let orphan = orphan(state);
        let found = orphan.only("orphan-record/tp/tp-snap-3");
        assert_eq!(found.remedy.action, Treatment::UndoHalfDone);
        assert_eq!(found.remedy.when, When::Offline);
        assert_eq!(found.remedy.acts, [delete(7), forget(&orphan, 3)], "{state}");
        assert_eq!(found.severity, Severity::Space);
        assert!(found.may_be_in_flight);
        assert_eq!(
            found.finding.provenance,
            Provenance::ToldByRecord { name: name(3) }
        );
        orphan.heal().nothing();
    }
}

#[test]
fn a_record_that_waits_for_a_clean_up_that_is_switched_off_is_told_so() {
    let says = |state, why: &str| {
        orphan(state)
            .only("orphan-record/tp/tp-snap-3")
            .remedy
            .why
            .contains(why)
    };
    let switched_off = "only while `async_remove` is on, which it is not";
    assert!(says(Removed, switched_off) && !says(Removed, "in the state Removed only"));
    assert!(says(Removing, "in the state Removed only") && !says(Removing, switched_off));
}

#[test]
fn while_containerd_runs_only_its_kernel_side_is_undone_and_the_record_is_a_notice_then() {
    let orphan = orphan(Faulty).node(&name(3), 7).running();
    let found = orphan.only("orphan-record/tp/tp-snap-3");
    assert_eq!(found.remedy.when, When::Online);
    assert_eq!(found.remedy.acts, [remove(&orphan, 3), delete(7)]);
    let left = orphan.heal();
    let found = left.only("burned-id/tp/tp-snap-3");
    assert_eq!(found.severity, Severity::Notice);
    assert_eq!(found.remedy.acts, [forget(&left, 3)]);
    left.heal().nothing();
}

#[test]
fn an_orphan_whose_thin_device_is_gone_keeps_only_its_dm_device() {
    let orphan = stage().sequence(5).record(3, 7, Faulty).node(&name(3), 7);
    let found = orphan.only("orphan-record/tp/tp-snap-3");
    assert_eq!(found.remedy.acts, [remove(&orphan, 3), forget(&orphan, 3)]);
}

#[test]
fn each_condition_of_an_orphan_record_counts() {
    // Its snapshot is there.
    orphan(Deactivated).row(3, Committed, None).nothing();
    // It waits for containerd's clean-up, or may do so.
    for known in [Some(true), None] {
        orphan(Removed)
            .with(|survey| survey.async_remove = known)
            .nothing();
    }
    // The number was not given out: a prepare, not a removal.
    assert_eq!(orphan(Deactivated).sequence(2).ids(), ["wedge/tp/tp-snap-3"]);
    // Nothing is left of it.
    let gone = stage().sequence(5).record(3, 7, Deactivated);
    assert_eq!(gone.ids(), ["burned-id/tp/tp-snap-3"]);
    // The pool was not read.
    orphan(Deactivated).with(|survey| survey.thin = None).nothing();
}

/// What must stop the deletion of an orphan's device, each alone.
#[test]
fn an_orphan_is_left_alone_when_anything_speaks_for_it() {
    type Change = fn(Stage) -> Stage;
    let reasons: [(&str, Change); 14] = [
        ("a state of rest", |one| {
            one.with(|survey| survey.pool_db.devices.get_mut(&name(3)).unwrap().state = Activated)
        }),
        ("another record", |one| one.named("legacy", 7, Deactivated)),
        ("its id is free", |one| one.id(7, IdState::Free)),
        ("its id is odd", |one| one.id(7, IdState::Other(9))),
        ("no pool", |one| one.with(|survey| survey.pool = None)),
        ("read-only", |one| {
            one.with(|survey| survey.pool.as_mut().unwrap().mode = PoolMode::ReadOnly)
        }),
        ("needs check", |one| {
            one.with(|survey| survey.pool.as_mut().unwrap().needs_check = true)
        }),
        ("open", |one| {
            one.node(&name(3), 7).but(|node| node.open_count = 1)
        }),
        ("mounted", |one| {
            one.node(&name(3), 7).with(|survey| {
                let device = survey.nodes[0].device;
                survey.mounts.by_device.insert(device, Vec::new());
            })
        }),
        ("maps another", |one| one.node(&name(3), 8)),
        ("mapped by another", |one| one.node("somebodys", 7)),
        ("mapped perhaps", |one| {
            one.node("a\x01b", 99).but(|node| {
                node.unreadable = true;
                node.thin_ids.clear();
            })
        }),
        ("beyond", |one| one.record(9, 8, Faulty)),
        ("a row without a record", |one| one.row(2, Committed, None)),
    ];
    for (why, change) in reasons {
        let diagnoses = change(orphan(Deactivated)).judge();
        let found = diagnoses
            .found
            .iter()
            .find(|one| one.finding.id.0 == "orphan-record/tp/tp-snap-3")
            .unwrap_or_else(|| panic!("{why}: {diagnoses:?}"));
        assert_eq!(found.remedy.action, Treatment::LeaveAlone, "{why}");
        assert_eq!(found.finding.provenance, Provenance::Unknown, "{why}");
        let acts = || diagnoses.found.iter().flat_map(|one| &one.remedy.acts);
        assert!(!acts().any(|act| *act == delete(7)), "{why}");
    }
}

#[test]
fn a_removal_that_failed_is_a_stuck_clean_up() {
    for state in [Deactivating, Removing] {
        let stuck = orphan(state).error(3, "device busy");
        let found = stuck.only("stuck-cleanup/tp/tp-snap-3");
        assert_eq!(found.remedy.acts, [delete(7), forget(&stuck, 3)]);
        assert!(found.finding.evidence[0].contains("device busy"));
        // Without the error it may be in flight; with it in another state it is not the clean-up's.
        assert_eq!(orphan(state).ids(), ["orphan-record/tp/tp-snap-3"]);
        stuck.heal().nothing();
    }
    assert_eq!(
        orphan(Faulty).error(3, "device busy").ids(),
        ["orphan-record/tp/tp-snap-3"]
    );
}

#[test]
fn a_wedge_is_undone_with_the_edit_that_ends_the_outage_first() {
    let wedge = stage()
        .sequence(4)
        .thin(7)
        .record(5, 7, Activated)
        .node(&name(5), 7);
    let found = wedge.only("wedge/tp/tp-snap-5");
    assert_eq!(found.severity, Severity::Outage);
    assert_eq!(found.remedy.when, When::Offline);
    assert_eq!(
        found.remedy.acts,
        [mark(&wedge, 5), remove(&wedge, 5), delete(7), forget(&wedge, 5)]
    );
    assert!(found.may_be_in_flight);
    assert!(
        found.consequence.contains(
            "device \"tp-snap-5\" is already there {DeviceID:7 Size:67108864 Name:tp-snap-5 ParentName: State:Activated Error:}: already exists"
        ),
        "{}",
        found.consequence
    );
    wedge.heal().nothing();
}

#[test]
fn the_first_snapshot_ever_can_be_a_wedge() {
    let first = |presence| {
        let wedge = stage().thin(1).record(1, 1, Activated);
        wedge.with(|survey| survey.snapshots.presence = presence)
    };
    let found = first(Presence::NoBuckets).only("wedge/tp/tp-snap-1");
    assert_eq!(found.remedy.action, Treatment::UndoHalfDone);
    // containerd makes the file before the record: without it, or with nothing in it, it was lost.
    for presence in [Presence::NoFile, Presence::NoBuckets] {
        let lost = first(presence).with(|survey| survey.snapshots.txid = None);
        let found = lost.only("wedge/tp/tp-snap-1");
        assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    }
}

/// C10: nothing tells it from a metadata.db that was put back, but a person knows.
#[test]
fn where_a_commit_may_have_been_cut_it_is_told_how_a_person_ends_the_doubt() {
    let cut = stage()
        .sequence(4)
        .thin(7)
        .record(5, 7, Activated)
        .with(|survey| {
            let active = CoreSnapshot {
                namespace: "k8s.io".to_owned(),
                key: "extract-1 a".to_owned(),
                parent: None,
                leases: Vec::new(),
            };
            let core = survey.core.as_mut().unwrap();
            core.snapshots.insert("k8s.io/9/extract-1 a".to_owned(), active);
        });
    let remedy = cut.only("wedge/tp/tp-snap-5").remedy;
    assert_eq!(remedy.action, Treatment::LeaveAlone);
    for words in [
        "a commit was cut between the two",
        "never where metadata.db was put back",
        "`ctr --namespace 'k8s.io' snapshots --snapshotter devmapper rm 'extract-1 a'`",
    ] {
        assert!(remedy.why.contains(words), "{}", remedy.why);
    }
}

/// A metadata.db that was put back from before the snapshot was made: its device may hold somebody's data.
#[test]
fn where_the_snapshot_database_is_no_proof_nothing_is_changed() {
    let wedge = || stage().sequence(4).thin(7).record(5, 7, Activated);
    let known = || CoreSnapshot {
        namespace: "default".to_owned(),
        key: "precious".to_owned(),
        parent: None,
        leases: Vec::new(),
    };
    let worlds = [
        wedge().with(|survey| {
            let core = survey.core.as_mut().unwrap();
            core.snapshots.insert("default/9/precious".to_owned(), known());
        }),
        wedge().with(|survey| survey.core = None),
        wedge().record(8, 9, Faulty),
    ];
    for world in worlds {
        let found = world.judge().found;
        let wedge = found
            .iter()
            .find(|one| one.finding.id.0 == "wedge/tp/tp-snap-5")
            .unwrap();
        assert_eq!(wedge.severity, Severity::Outage);
        assert_eq!(wedge.remedy.action, Treatment::LeaveAlone);
        assert!(wedge.remedy.acts.is_empty());
    }
    // The same record one state earlier, and the record of a snapshot that is gone.
    for (row, state) in [(5, Activating), (4, Faulty)] {
        let world = stage().sequence(4).thin(7).record(row, 7, state);
        assert!(!world.judge().found[0].remedy.acts.is_empty());
        let doubted = world.with(|survey| survey.core = None);
        assert!(doubted.judge().found[0].remedy.acts.is_empty(), "{state}");
    }
}

#[test]
fn a_wedge_that_may_have_been_handed_out_is_only_marked() {
    for state in [
        Suspending,
        Suspended,
        Resuming,
        Resumed,
        Deactivating,
        Deactivated,
        Removing,
        Removed,
    ] {
        let wedge = stage().sequence(4).thin(7).record(5, 7, state);
        let found = wedge.only("wedge/tp/tp-snap-5");
        assert_eq!(found.remedy.acts, [mark(&wedge, 5)], "{state}");
        let left = wedge.heal();
        let found = left.only("faulty-next/tp/tp-snap-5");
        assert_eq!(found.remedy.action, Treatment::LeaveAlone);
        // With nothing in the pool nothing can be lost.
        let gone = stage().sequence(4).record(5, 7, state);
        let found = gone.only("wedge/tp/tp-snap-5");
        assert_eq!(found.remedy.acts, [mark(&gone, 5), forget(&gone, 5)], "{state}");
        gone.heal().nothing();
    }
}

#[test]
fn the_outage_ends_also_where_nothing_may_be_deleted() {
    let wedge = || stage().sequence(4).thin(7).record(5, 7, Activated);
    let worlds = [
        wedge().with(|survey| survey.thin = None),
        wedge().with(|survey| survey.pool = None),
        wedge().with(|survey| survey.pool.as_mut().unwrap().mode = PoolMode::ReadOnly),
        wedge().node(&name(5), 7).but(|node| node.open_count = 2),
        wedge().node("somebodys", 7),
        wedge().named("legacy", 7, Deactivated),
        wedge().row(4, Committed, None),
    ];
    for world in worlds {
        let found = world.judge().found;
        let wedge = found
            .iter()
            .find(|one| one.finding.id.0 == "wedge/tp/tp-snap-5")
            .unwrap();
        assert_eq!(wedge.remedy.acts, [mark(&world, 5)]);
        assert!(!wedge.remedy.guards.contains(&Condition::PoolWritable));
        assert_eq!(wedge.finding.provenance, Provenance::Unknown);
    }
}

#[test]
fn each_condition_of_a_wedge_counts() {
    let wedge = || stage().sequence(4).thin(7).record(5, 7, Activated);
    wedge().row(5, Active, None).nothing();
    for state in [Faulty, Unknown, Creating, Created, Activating] {
        let other = stage().sequence(4).thin(7).record(5, 7, state);
        assert_eq!(other.ids(), ["faulty-next/tp/tp-snap-5"], "{state}");
    }
    assert_eq!(wedge().sequence(5).ids(), ["orphan-record/tp/tp-snap-5"]);
    assert_eq!(wedge().sequence(3).ids(), ["orphan-record/tp/tp-snap-5"]);
    let odd = stage().sequence(4).thin(7).record(5, 7, DeviceState::Other(77));
    assert_eq!(odd.ids(), [""; 0]);
    assert!(odd.judge().not_understood[0].contains("tp-snap-5 says 77"));
}

#[test]
fn a_faulty_next_record_is_forgotten_only_when_its_device_is_gone() {
    let gone = stage().sequence(4).record(5, 7, Faulty);
    let found = gone.only("faulty-next/tp/tp-snap-5");
    assert_eq!(found.severity, Severity::Notice);
    assert_eq!(found.remedy.acts, [forget(&gone, 5)]);
    assert!(!found.may_be_in_flight);
    gone.heal().nothing();

    let there = stage().sequence(4).thin(7).record(5, 7, Faulty);
    let found = there.only("faulty-next/tp/tp-snap-5");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);

    let claimed = there.clone().claim(7);
    let found = claimed.only("faulty-next/tp/tp-snap-5");
    assert_eq!(found.remedy.acts, [delete(7), forget(&claimed, 5)]);
    assert!(matches!(found.finding.provenance, Provenance::SeenByProbe { .. }));
    claimed.heal().nothing();

    // A claim on a device that was there before.
    let other = there.claim(7).with(|survey| {
        survey.mapping_roots.insert(ThinId(7), 1);
    });
    let found = other.only("faulty-next/tp/tp-snap-5");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
}

#[test]
fn a_dm_device_in_the_way_of_the_next_snapshot_is_removed_while_containerd_is_stopped() {
    let stage = stage().sequence(4).thin(7).record(5, 7, Faulty).node(&name(5), 7);
    let found = stage.only("faulty-next/tp/tp-snap-5");
    assert_eq!(found.remedy.acts, [remove(&stage, 5)]);
    assert_eq!(found.remedy.when, When::Offline);
    let open = stage.but(|node| node.open_count = 1);
    let found = open.only("faulty-next/tp/tp-snap-5");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
}

#[test]
fn a_dm_device_without_a_live_table_in_the_way_of_the_next_snapshot_is_an_outage_and_goes_at_once() {
    let bare = |node: &mut Node| {
        node.live = false;
        node.thin_ids.clear();
    };
    let stopped = stage()
        .sequence(4)
        .thin(7)
        .record(5, 7, Faulty)
        .node(&name(5), 7)
        .but(bare);
    let found = stopped.only("faulty-next/tp/tp-snap-5");
    assert_eq!(
        (found.severity, found.remedy.when),
        (Severity::Outage, When::Offline)
    );
    assert_eq!(found.remedy.acts, [remove(&stopped, 5)]);
    assert!(
        found.consequence.starts_with("Every new container"),
        "{}",
        found.consequence
    );

    let running = stopped.clone().running();
    let found = running.only("faulty-next/tp/tp-snap-5");
    assert_eq!(
        (found.severity, found.remedy.when),
        (Severity::Outage, When::Online)
    );
    assert_eq!(found.remedy.acts, [remove(&running, 5)]);
    assert_eq!(
        found.remedy.guards,
        [
            Condition::StillFound,
            Condition::NobodyAtWork,
            Condition::NoRow,
            Condition::NotOpen
        ]
    );
    let after = running.clone().heal().only("faulty-next/tp/tp-snap-5");
    assert_eq!(after.severity, Severity::Notice);

    // A table that was loaded and never came to life changes nothing.
    let loaded = running.clone().but(|node| node.thin_ids = vec![ThinId(7)]);
    let found = loaded.only("faulty-next/tp/tp-snap-5");
    assert_eq!(
        (found.severity, found.remedy.when),
        (Severity::Outage, When::Online)
    );
    // Somebody has it open, or it has a table or may have one: then it is not ours to remove, or not in the way for ever.
    let open = running.clone().but(|node| node.open_count = 1);
    let found = open.only("faulty-next/tp/tp-snap-5");
    assert_eq!(
        (found.severity, found.remedy.action),
        (Severity::Outage, Treatment::LeaveAlone)
    );
    for change in [
        |node: &mut Node| node.live = true,
        |node: &mut Node| node.unreadable = true,
    ] {
        let other = running.clone().but(change).only("faulty-next/tp/tp-snap-5");
        assert_eq!(other.severity, Severity::Notice);
        assert_ne!(other.remedy.when, When::Online);
    }
    // While containerd may be at it, it may be on its way.
    let begun = stage()
        .sequence(4)
        .thin(7)
        .record(5, 7, Activating)
        .node(&name(5), 7)
        .but(bare);
    let found = begun.running().only("faulty-next/tp/tp-snap-5");
    assert!(found.may_be_in_flight && found.remedy.when == When::Offline);
}

#[test]
fn a_dm_device_of_an_earlier_try_goes_where_containerd_gave_up_what_it_maps() {
    let next = || stage().sequence(4).thin(7).record(5, 7, Faulty);
    let earlier = next().thin(6).id(6, IdState::Faulty).node(&name(5), 6);
    let found = earlier.judge().found;
    let found = found
        .iter()
        .find(|one| one.finding.class == FindingClass::FaultyNext)
        .unwrap();
    assert_eq!(found.remedy.acts, [remove(&earlier, 5)]);
    // Of an id that may be given out, that another record carries, or that nobody knows, it is not so.
    for other in [
        next().thin(6).id(6, IdState::Free).node(&name(5), 6),
        next()
            .thin(6)
            .record(3, 6, Faulty)
            .row(3, Committed, None)
            .node(&name(5), 6),
        next().thin(6).node(&name(5), 6),
    ] {
        let found = other.judge().found;
        let found = found
            .iter()
            .find(|one| one.finding.class == FindingClass::FaultyNext)
            .unwrap();
        assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    }
}

#[test]
fn an_interrupted_prepare_is_undone_while_its_record_still_proves_whose_device_it_is() {
    for state in [Created, Activating] {
        let stage = stage().sequence(4).thin(7).record(5, 7, state);
        let found = stage.only("faulty-next/tp/tp-snap-5");
        assert_eq!(found.severity, Severity::Space);
        assert_eq!(found.remedy.acts, [delete(7), forget(&stage, 5)], "{state}");
        assert!(found.may_be_in_flight);
        stage.heal().nothing();
    }
    for state in [Unknown, Creating] {
        // The pool may have had the device before.
        let stage = stage().sequence(4).thin(7).record(5, 7, state);
        let found = stage.only("faulty-next/tp/tp-snap-5");
        assert_eq!(found.remedy.action, Treatment::LeaveAlone, "{state}");
        let found = stage.claim(7).only("faulty-next/tp/tp-snap-5");
        assert_eq!(found.remedy.acts[0], delete(7), "{state}");
    }
    for state in [Unknown, Creating, Created, Activating] {
        let gone = stage().sequence(4).record(5, 7, state);
        let found = gone.only("faulty-next/tp/tp-snap-5");
        assert_eq!(found.severity, Severity::Notice);
        assert_eq!(found.remedy.acts, [forget(&gone, 5)], "{state}");
        gone.with(|survey| survey.thin = None).nothing();
    }
}

#[test]
fn a_left_over_record_is_not_forgotten_while_another_carries_its_id() {
    let burned = stage().sequence(5).record(3, 7, Deactivated);
    assert_eq!(
        burned.only("burned-id/tp/tp-snap-3").remedy.acts,
        [forget(&burned, 3)]
    );
    let shared = burned.clone().named("legacy", 7, Deactivated);
    let found = shared.only("burned-id/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    assert_eq!(shared.judge().not_understood.len(), 1);
    burned.clone().row(3, Committed, None).thin(7).nothing();
    burned
        .clone()
        .with(|survey| survey.async_remove = Some(true))
        .with(|survey| {
            survey.pool_db.devices.get_mut(&name(3)).unwrap().state = Removed;
        })
        .nothing();
    for id in [0, ThinId::MAX.0 + 1] {
        let odd = stage().sequence(5).record(3, id, Deactivated);
        assert_eq!(
            odd.only("burned-id/tp/tp-snap-3").remedy.action,
            Treatment::LeaveAlone
        );
    }
}
