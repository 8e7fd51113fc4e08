//! Rows whose record or thin device is not as it should be.

use super::*;
use crate::model::{
    CoreDb, Severity,
    survey::{Container, CoreSnapshot, Image},
};

fn record(stage: &Stage, snapshot: u64) -> DeviceRecord {
    stage.survey.pool_db.devices[&name(snapshot)].clone()
}

#[test]
fn a_good_layer_marked_faulty_gets_its_state_back_and_is_never_deleted() {
    for (kind, to) in [(Committed, Deactivated), (Active, Activated), (View, Activated)] {
        let live = stage().good(3, kind, Faulty);
        let found = live.only("faulty-live/tp/tp-snap-3");
        assert_eq!(found.severity, Severity::Notice);
        assert!(!found.may_be_in_flight);
        let restore = Act::RestoreRecord {
            record: record(&live, 3),
            to,
        };
        assert_eq!(found.remedy.acts, [restore]);
        let healed = live.heal();
        assert_eq!(healed.survey.id_state(ThinId(13)), Some(IdState::Taken));
        healed.nothing();
    }
}

#[test]
fn a_good_layer_is_left_as_it_is_where_its_state_can_not_be_told() {
    type Change = fn(Stage) -> Stage;
    let reasons: [(&str, Change); 6] = [
        ("shared", |one| one.named("legacy", 13, Faulty)),
        ("id free", |one| one.id(13, IdState::Free)),
        ("node maps another", |one| one.node(&name(3), 99)),
        ("error table", |one| {
            one.node(&name(3), 13).but(|node| node.error_table = true)
        }),
        ("unreadable", |one| {
            one.node(&name(3), 13).but(|node| node.unreadable = true)
        }),
        ("kind", |one| one.row(3, SnapshotKind::Other(9), None)),
    ];
    for (why, change) in reasons {
        let found = change(stage().good(3, Active, Faulty)).judge().found;
        let live = found
            .iter()
            .find(|one| one.finding.id.0 == "faulty-live/tp/tp-snap-3")
            .unwrap();
        assert_eq!(live.remedy.action, Treatment::LeaveAlone, "{why}");
    }
    let fitting = stage().good(3, Active, Faulty).node(&name(3), 13);
    assert_eq!(
        fitting.only("faulty-live/tp/tp-snap-3").remedy.action,
        Treatment::RestoreRecord
    );
}

#[test]
fn a_dm_device_that_never_came_to_life_goes_before_its_record_is_given_its_state_back() {
    let bare = stage()
        .good(3, Active, Faulty)
        .node(&name(3), 13)
        .but(|node| node.live = false);
    for thin_ids in [Vec::new(), vec![ThinId(13)]] {
        let cut = bare.clone().but(|node| node.thin_ids = thin_ids);
        let found = cut.only("faulty-live/tp/tp-snap-3");
        assert_eq!(found.severity, Severity::Stuck);
        assert!(
            found.consequence.contains("no live table"),
            "{}",
            found.consequence
        );
        let [
            Act::RemoveNode { name: node, .. },
            Act::RestoreRecord { to: Activated, .. },
        ] = &found.remedy.acts[..]
        else {
            panic!("{:?}", found.remedy.acts)
        };
        assert_eq!((node, found.remedy.when), (&name(3), When::Offline));
        assert!(found.remedy.guards.contains(&Condition::NotOpen));
        cut.heal().nothing();
    }
    let layer = stage().good(3, Committed, Faulty).node(&name(3), 13);
    let layer = layer
        .but(|node| node.live = false)
        .only("faulty-live/tp/tp-snap-3");
    assert_eq!((layer.severity, layer.remedy.acts.len()), (Severity::Notice, 1));
    let open = bare.clone().but(|node| node.open_count = 1);
    let of_another = bare.clone().but(|node| node.thin_ids = vec![ThinId(14)]);
    let not_set_up = bare.with(|survey| survey.pool = None);
    for left in [open, of_another, not_set_up] {
        let found = left.only("faulty-live/tp/tp-snap-3");
        assert_eq!(found.severity, Severity::Stuck);
        assert_eq!(found.remedy.action, Treatment::LeaveAlone, "{}", found.remedy.why);
        assert!(!found.remedy.why.contains("all the same"), "{}", found.remedy.why);
    }
}

#[test]
fn each_condition_of_a_faulty_live_layer_counts() {
    stage().good(3, Committed, Deactivated).nothing();
    let without_row = stage().sequence(5).thin(13).record(3, 13, Faulty);
    assert_eq!(without_row.ids(), ["orphan-record/tp/tp-snap-3"]);
    let without_thin = stage().record(3, 13, Faulty).row(3, Committed, None);
    assert_eq!(without_thin.ids(), ["row-without-thin/tp/3"]);
    stage()
        .good(3, Committed, Faulty)
        .with(|survey| survey.thin = None)
        .nothing();
}

#[test]
fn a_row_without_a_record_gets_one_with_an_id_that_nothing_has() {
    // The interrupted removal freed its id; 1 is free too, and in the pool.
    let stage = stage()
        .good(2, Committed, Deactivated)
        .row(3, Committed, Some(2))
        .id(1, IdState::Free)
        .thin(1)
        .id(9, IdState::Free);
    let found = stage.judge().found;
    let stuck = found
        .iter()
        .find(|one| one.finding.id.0 == "row-without-record/tp/3")
        .unwrap();
    assert_eq!(stuck.severity, Severity::Stuck);
    assert!(stuck.may_be_in_flight);
    let insert = Act::InsertRemovedRecord {
        name: name(3),
        snapshot: SnapshotId(3),
        thin_id: ThinId(9),
    };
    assert_eq!(stuck.remedy.acts, [insert]);
    let healed = stage.heal();
    assert_eq!(healed.survey.pool_db.devices[&name(3)].state, Removed);
    // containerd's own removal finishes it.
    let left = healed.judge().found;
    assert!(
        left.iter()
            .any(|one| one.finding.id.0 == "row-without-thin/tp/3" && one.severity == Severity::Notice)
    );
}

#[test]
fn without_a_free_id_a_new_one_is_drawn_and_containerd_does_not_draw_it_again() {
    let stage = stage()
        .good(2, Committed, Deactivated)
        .good(4, Committed, Deactivated)
        .row(3, Committed, None)
        .row(5, Committed, None)
        .thin(15);
    let acts: Vec<_> = stage
        .judge()
        .found
        .into_iter()
        .flat_map(|one| one.remedy.acts)
        .collect();
    let insert = |snapshot, id| Act::InsertRemovedRecord {
        name: name(snapshot),
        snapshot: SnapshotId(snapshot),
        thin_id: ThinId(id),
    };
    // 15 is in the pool and passed over.
    assert_eq!(
        acts,
        [
            // The device in the pool is in containerd's way too.
            Act::SetId {
                thin_id: ThinId(15),
                from: None,
                to: IdState::Faulty
            },
            Act::RaiseIdSequence { from: 14, to: 15 },
            Act::RaiseIdSequence { from: 14, to: 16 },
            insert(3, 16),
            Act::RaiseIdSequence { from: 14, to: 17 },
            insert(5, 17),
        ]
    );
    assert_eq!(stage.heal().survey.pool_db.id_sequence, 17);
}

#[test]
fn each_condition_of_the_new_record_counts() {
    type Change = fn(Stage) -> Stage;
    let base = || {
        stage()
            .good(2, Committed, Deactivated)
            .row(3, Committed, None)
            .id(9, IdState::Free)
    };
    assert_eq!(
        base().only("row-without-record/tp/3").remedy.action,
        Treatment::InsertRemovedRecord
    );
    let reasons: [(&str, Change); 7] = [
        ("kind", |one| one.row(3, SnapshotKind::Other(7), None)),
        ("children", |one| {
            one.good(4, Active, Activated).row(4, Active, Some(3))
        }),
        ("its dm device", |one| one.node(&name(3), 9)),
        ("the pool was not read", |one| {
            one.with(|survey| survey.thin = None)
        }),
        ("the storage is older", |one| one.record(9, 8, Faulty)),
        ("rows above the sequence", |one| one.sequence(2)),
        ("more rows than removals can leave", |one| {
            one.row(4, Committed, None).row(5, Committed, None)
        }),
    ];
    for (why, change) in reasons {
        let found = change(base()).judge().found;
        let stuck = found
            .iter()
            .find(|one| one.finding.id.0 == "row-without-record/tp/3")
            .unwrap();
        assert_eq!(stuck.remedy.action, Treatment::LeaveAlone, "{why}");
        assert!(
            !found
                .iter()
                .any(|one| one.finding.id.0.starts_with("orphan-node")),
            "{why}"
        );
    }
    // Each of these has a free id that its own removal may have freed.
    let many = base()
        .row(4, Committed, None)
        .row(5, Committed, None)
        .id(7, IdState::Free)
        .id(8, IdState::Free);
    assert_eq!(
        many.judge()
            .found
            .iter()
            .filter(|one| !one.remedy.acts.is_empty())
            .count(),
        3
    );
    base().named("tp-snap-3", 20, Deactivated).thin(20).nothing();
}

#[test]
fn a_snapshot_whose_data_are_gone_is_damage() {
    let stage = stage().record(3, 13, Deactivated).row(3, Committed, None);
    let found = stage.only("row-without-thin/tp/3");
    assert_eq!(found.severity, Severity::Damage);
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    assert!(found.may_be_in_flight);
    stage.clone().thin(13).nothing();
    stage.with(|survey| survey.thin = None).nothing();
}

#[test]
fn one_that_containerd_would_activate_at_its_start_is_marked_faulty_so_that_it_starts() {
    let stage = stage().record(3, 13, Activated).row(3, Active, None);
    let found = stage.only("row-without-thin/tp/3");
    assert_eq!(
        found.remedy.acts,
        [Act::MarkFaulty {
            record: record(&stage, 3)
        }]
    );
    assert!(found.consequence.contains("failed to check devices state"));
    let found = stage.heal().only("row-without-thin/tp/3");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
}

#[test]
fn a_removal_that_containerd_finishes_by_itself_is_a_notice() {
    for state in [Removing, Removed] {
        let stage = stage().record(3, 13, state).row(3, Committed, None);
        assert_eq!(stage.only("row-without-thin/tp/3").severity, Severity::Notice);
    }
    // Marked faulty at its start; that no client has it any more tells it from a loss.
    let faulty = stage().record(3, 13, Faulty).row(3, Committed, None);
    assert_eq!(faulty.only("row-without-thin/tp/3").severity, Severity::Damage);
    let core = |keys: &[u64]| {
        let mut core = CoreDb::default();
        for snapshot in keys {
            core.snapshots.insert(key(*snapshot), client(*snapshot, None));
        }
        Some(core)
    };
    let unused = faulty
        .clone()
        .with(|survey| survey.core = core(&[4]).map(Into::into));
    assert_eq!(unused.only("row-without-thin/tp/3").severity, Severity::Notice);
    // One that knows nobody's snapshot is a new or another one, and says nothing.
    let empty = faulty
        .clone()
        .with(|survey| survey.core = core(&[]).map(Into::into));
    assert_eq!(empty.only("row-without-thin/tp/3").severity, Severity::Damage);
    let used = faulty.with(|survey| survey.core = core(&[3]).map(Into::into));
    assert_eq!(used.only("row-without-thin/tp/3").severity, Severity::Damage);
}

fn client(snapshot: u64, parent: Option<u64>) -> CoreSnapshot {
    CoreSnapshot {
        namespace: "k8s.io".to_owned(),
        key: format!("key-{snapshot}"),
        parent: parent.map(|parent| format!("key-{parent}")),
        leases: Vec::new(),
    }
}

#[test]
fn whoever_builds_on_a_layer_is_named() {
    let mut core = CoreDb::default();
    for (snapshot, parent) in [(1, None), (2, Some(1)), (3, Some(2)), (4, None)] {
        core.snapshots.insert(key(snapshot), client(snapshot, parent));
    }
    let container = |id: &str, namespace: &str, snapshot: u64| Container {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        image: None,
        snapshot_key: format!("key-{snapshot}"),
        pod: None,
    };
    core.containers = vec![
        container("web", "k8s.io", 3),
        container("other", "k8s.io", 4),
        container("elsewhere", "default", 3),
    ];
    let image = |name: &str, top: u64| Image {
        namespace: "k8s.io".to_owned(),
        name: name.to_owned(),
        top_snapshots: vec![format!("key-{top}")],
    };
    core.images = vec![image("app", 2), image("app", 2), image("base", 4)];
    let stage = stage()
        .good(1, Committed, Faulty)
        .with(|survey| survey.core = Some(core.into()));
    let users = stage.only("faulty-live/tp/tp-snap-1").users;
    assert_eq!(users.snapshot.unwrap().key, "key-1");
    let containers: Vec<_> = users.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(containers, ["web"]);
    assert_eq!(users.images, ["app"]);
}
