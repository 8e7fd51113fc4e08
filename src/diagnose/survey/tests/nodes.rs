//! dm devices.

use super::*;
use crate::model::Severity;

/// Snapshot 3, active, its dm device in use.
fn active() -> Stage {
    stage()
        .good(3, Active, Activated)
        .node(&name(3), 13)
        .but(|node| node.open_count = 1)
}

fn device(stage: &Stage) -> DeviceNumber {
    stage.survey.nodes.last().unwrap().device
}

#[test]
fn a_suspended_device_is_resumed() {
    active().nothing();
    let stage = active().but(|node| node.suspended = true).running();
    let found = stage.only("suspended-device/tp/tp-snap-3");
    assert_eq!(found.severity, Severity::Stuck);
    assert!(found.may_be_in_flight);
    assert_eq!(found.remedy.when, When::Online);
    let resume = Act::ResumeNode {
        name: name(3),
        device: device(&stage),
    };
    assert_eq!(found.remedy.acts, [resume]);
    stage.heal().nothing();
}

#[test]
fn a_suspended_device_is_left_alone_where_resuming_is_not_suture_s_to_do() {
    let suspended = || active().but(|node| node.suspended = true);
    let alone = |stage: Stage, id: &str| {
        assert_eq!(stage.only(id).remedy.action, Treatment::LeaveAlone);
    };
    alone(
        suspended().with(|survey| survey.pool = None),
        "suspended-device/tp/tp-snap-3",
    );
    // Another's device on a thin device of ours.
    let others = stage()
        .good(3, Active, Activated)
        .node("somebodys", 13)
        .but(|node| node.suspended = true);
    alone(others, "suspended-device/tp/somebodys");
    // Another's device on another's thin device is nobody's business.
    active()
        .node("somebodys", 99)
        .but(|node| node.suspended = true)
        .nothing();
    // A table that was loaded and never came to life.
    let loaded = |id| {
        suspended().but(|node| {
            node.live = false;
            node.thin_ids = vec![ThinId(id)];
        })
    };
    alone(loaded(99), "suspended-device/tp/tp-snap-3");
    let found = loaded(13).only("suspended-device/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::ResumeNode);
}

#[test]
fn an_error_table_is_damage_and_names_who_uses_it() {
    let stage = active().but(|node| {
        node.error_table = true;
        node.thin_ids.clear();
    });
    let found = stage.only("error-table/tp/tp-snap-3");
    assert_eq!(found.severity, Severity::Damage);
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    assert!(found.remedy.why.contains("open count is 1"));
    // Suspended as well it is one finding, and its users are let go.
    let both = stage.but(|node| node.suspended = true);
    let found = both.only("error-table/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::ResumeNode);
    let found = both.heal().only("error-table/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
}

#[test]
fn an_error_table_without_a_record_is_an_orphan() {
    let stage = stage()
        .sequence(5)
        .node(&name(3), 13)
        .but(|node| node.error_table = true);
    let found = stage.only("orphan-node/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::RemoveNode);
}

#[test]
fn a_dm_device_without_a_record_is_removed_when_nobody_uses_it() {
    for sequence in [0, 5] {
        let orphan = stage().sequence(sequence).node(&name(3), 13);
        let found = orphan.only("orphan-node/tp/tp-snap-3");
        assert_eq!(found.severity, Severity::Stuck);
        assert!(found.may_be_in_flight);
        let remove = Act::RemoveNode {
            name: name(3),
            device: device(&orphan),
        };
        assert_eq!(found.remedy.acts, [remove]);
        assert_eq!(found.remedy.when, When::Online);
        orphan.heal().nothing();
    }
}

#[test]
fn each_condition_of_an_orphan_node_counts() {
    let orphan = || stage().sequence(5).node(&name(3), 13);
    let open = orphan().but(|node| node.open_count = 1);
    let found = open.only("orphan-node/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    let mounted = orphan().with(|survey| {
        let device = survey.nodes[0].device;
        survey.mounts.by_device.insert(device, Vec::new());
    });
    let found = mounted.only("orphan-node/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    let no_pool = orphan().with(|survey| survey.pool = None);
    let found = no_pool.only("orphan-node/tp/tp-snap-3");
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    // On its way as soon as its user is gone.
    open.clone().but(|node| node.deferred_remove = true).nothing();
    // Whoever has it open hangs: that is worse.
    let suspended = open.but(|node| node.suspended = true);
    assert_eq!(suspended.ids(), ["suspended-device/tp/tp-snap-3"]);
    assert_eq!(
        orphan().but(|node| node.suspended = true).ids(),
        ["orphan-node/tp/tp-snap-3"]
    );
    // Not a name of the snapshotter's.
    for other in ["tp-snap-03", "other-snap-3", "tp"] {
        stage().node(other, 13).nothing();
    }
    // Part of a greater whole.
    assert_eq!(
        orphan().record(3, 13, Deactivated).thin(13).ids(),
        ["orphan-record/tp/tp-snap-3"]
    );
    assert_eq!(
        stage()
            .sequence(2)
            .thin(13)
            .record(3, 13, Activated)
            .node(&name(3), 13)
            .but(|node| node.suspended = true)
            .ids(),
        ["wedge/tp/tp-snap-3"]
    );
    orphan().good(3, Active, Activated).nothing();
}

#[test]
fn names_from_outside_drive_no_terminal() {
    let key = "k8s.io/3/\x1b[31m".to_owned();
    let mut stage = stage()
        .thin(13)
        .named("tp-snap-3", 13, Faulty)
        .row(3, Committed, None)
        .with(|survey| {
            let row = survey.snapshots.snapshots.remove(&super::key(3)).unwrap();
            survey.snapshots.snapshots.insert(key, row);
        });
    stage = stage.named("odd\n\x1b[31m", 20, DeviceState::Other(5)).thin(20);
    let diagnoses = stage.judge();
    let evidence = &diagnoses.found[0].finding.evidence[0];
    assert!(evidence.contains("\\u{1b}[31m"), "{evidence}");
    for text in diagnoses.explanations.iter().chain(&diagnoses.not_understood) {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
