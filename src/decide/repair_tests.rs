//! What is planned, and each condition where it alone refuses. `backed-up` and `same-transaction` are of the moment: they are
//! tested where they are read, in `remedy::repair`.

use std::collections::BTreeSet;

use super::{Evidence, Handling, RepairPolicy, Selection, conditions::first_refusal, plan};
use crate::{
    diagnose,
    model::{
        Act, Condition, ContainerdState, DeviceState, Diagnoses, FindingClass, IdState, Knowledge, PoolMode,
        RepairMode, RepairPlan, Survey, ThinId, survey::Mounts,
    },
    testing::{Fill, containerd, world},
};

fn survey(world: crate::model::World) -> Survey {
    Survey {
        begun: world.begun,
        pool_name: world.pool.name.clone(),
        pool: Some(world.pool),
        usage: None,
        pool_db: world.pool_db.into(),
        snapshots: world.snapshots.into(),
        thin: Some(world.thin),
        mapping_roots: world.mapping_roots,
        nodes: world.nodes,
        core: Some(crate::model::CoreDb::default().into()),
        mounts: Mounts::default(),
        containerd: ContainerdState::Stopped { at_work: Vec::new() },
        async_remove: Some(false),
        unread: Vec::new(),
    }
}

/// Snapshot 1 is whole; the record of the next one is left over, with thin device and dm device.
fn wedge() -> Survey {
    let mut world = world(30)
        .thin(1)
        .id(1, IdState::Taken)
        .record("tp-snap-1", 1, DeviceState::Activated)
        .snapshot(1)
        .thin(2)
        .id(2, IdState::Taken)
        .record("tp-snap-2", 2, DeviceState::Activated)
        .node("tp-snap-2", 2);
    world.snapshots.sequence = 1;
    world.pool_db.id_sequence = 2;
    for node in &mut world.nodes {
        node.open_count = 0;
    }
    survey(world)
}

/// An id is marked faulty, and nothing has it.
fn burned() -> Survey {
    let mut survey = wedge();
    survey.pool_db.devices.remove("tp-snap-2");
    survey.pool_db.device_ids.insert(ThinId(2), IdState::Faulty);
    survey.thin.as_mut().unwrap().remove(&ThinId(2));
    survey.nodes.clear();
    survey
}

fn all(mode: RepairMode) -> Selection {
    Selection::all(mode, RepairPolicy::default())
}

fn plans(survey: &Survey, selection: &Selection) -> Vec<RepairPlan> {
    plan(&diagnose::survey(survey, &Knowledge::default()), selection)
}

fn only_plan(survey: &Survey) -> RepairPlan {
    let mut plans = plans(survey, &all(RepairMode::Offline));
    assert_eq!(plans.len(), 1);
    let plan = plans.remove(0);
    assert!(!plan.acts.is_empty(), "{plan:?}");
    plan
}

/// Conditions that refuse in `now` a plan that was made in `then`, while a new diagnosis is the same.
fn refusing(then: &Survey, now: &Survey) -> Vec<Condition> {
    let plan = only_plan(then);
    let knowledge = Knowledge::default();
    let diagnoses = diagnose::survey(then, &knowledge);
    let activation = then.pool.as_ref().map(|pool| &pool.activation);
    let readings = Evidence::new(now, &diagnoses, &knowledge, activation).read(&plan);
    assert!(readings.iter().all(|reading| !reading.detail.is_empty()));
    let refusing = readings.into_iter().filter(|reading| !reading.holds);
    refusing.map(|reading| reading.condition).collect()
}

#[test]
fn what_is_as_it_was_refuses_nothing() {
    for survey in [wedge(), burned()] {
        assert_eq!(refusing(&survey, &survey), []);
    }
}

#[test]
fn each_condition_refuses_alone() {
    type Change = fn(&mut Survey);
    let changes: [(Condition, Change); 14] = [
        (Condition::PoolWritable, |now| {
            now.pool.as_mut().unwrap().mode = PoolMode::ReadOnly;
        }),
        (Condition::PoolWritable, |now| {
            now.pool.as_mut().unwrap().needs_check = true;
        }),
        (Condition::PoolWritable, |now| {
            now.pool.as_mut().unwrap().activation.disk_sequence = Some(99);
        }),
        (Condition::PoolWritable, |now| {
            now.pool = None;
        }),
        (Condition::NotOpen, |now| {
            now.nodes[0].open_count = 1;
        }),
        (Condition::NotOpen, |now| {
            let other = crate::model::Node {
                name: crate::model::Untrusted::from_bytes(b"x"),
                ..now.nodes[0].clone()
            };
            now.nodes.push(other);
        }),
        (Condition::Provenance, |now| {
            now.pool_db.devices.get_mut("tp-snap-2").unwrap().device_id = ThinId(7);
        }),
        (Condition::NoRow, |now| {
            let world = world(30).snapshot(2);
            now.snapshots.snapshots.extend(world.snapshots.snapshots);
        }),
        (Condition::ThinThere, |now| {
            now.thin.as_mut().unwrap().remove(&ThinId(2));
        }),
        (Condition::DatabasesWhole, |now| {
            let other = world(30).record("tp-snap-9", 9, DeviceState::Activated);
            now.pool_db.devices.extend(other.pool_db.devices);
        }),
        (Condition::DatabasesWhole, |now| {
            now.snapshots.contradiction = Some("its index has it otherwise".to_owned());
        }),
        (Condition::DatabasesWhole, |now| {
            let world = world(30).snapshot(7);
            let (key, row) = world.snapshots.snapshots.first_key_value().unwrap();
            for key in [key.clone(), "twin".to_owned()] {
                now.snapshots.snapshots.insert(key, row.clone());
            }
        }),
        (Condition::ContainerdStopped, |now| {
            now.containerd = ContainerdState::Running {
                who: containerd(),
                at_work: Vec::new(),
            };
        }),
        (Condition::NobodyAtWork, |now| {
            now.containerd = ContainerdState::Stopped {
                at_work: vec!["mkfs.ext4".to_owned()],
            };
        }),
    ];
    for (place, (condition, change)) in changes.into_iter().enumerate() {
        let mut now = wedge();
        change(&mut now);
        assert_eq!(refusing(&wedge(), &now), [condition], "change {place}");
    }
    let mut now = burned();
    now.thin
        .as_mut()
        .unwrap()
        .insert(ThinId(2), crate::testing::details(0));
    assert_eq!(refusing(&burned(), &now), [Condition::ThinGone]);
    let mut now = burned();
    let other = world(30).record("tp-snap-1", 2, DeviceState::Activated);
    now.pool_db.devices.extend(other.pool_db.devices);
    assert_eq!(refusing(&burned(), &now), [Condition::NoRecord]);
}

#[test]
fn what_a_new_diagnosis_does_not_find_just_so_is_refused() {
    let then = wedge();
    let plan = only_plan(&then);
    let knowledge = Knowledge::default();
    let activation = then.pool.as_ref().map(|pool| &pool.activation);
    let found = diagnose::survey(&then, &knowledge);
    let mut another_remedy = found.clone();
    another_remedy.found[0].remedy.acts.pop();
    let mut another_class = found;
    another_class.found[0].finding.class = FindingClass::OrphanRecord;
    for diagnoses in [Diagnoses::default(), another_remedy, another_class] {
        let readings = Evidence::new(&then, &diagnoses, &knowledge, activation).read(&plan);
        let refusal = first_refusal(&readings).map(|reading| reading.condition);
        assert_eq!(refusal, Some(Condition::StillFound));
    }
}

#[test]
fn a_mount_and_an_operation_of_the_sidecars_refuse_too() {
    let mut now = wedge();
    let mount = crate::model::survey::Mount {
        namespace: 1,
        pid: 2,
        process: "mkfs".to_owned(),
        path: "/mnt".to_owned(),
    };
    now.mounts.by_device.insert(now.nodes[0].device, vec![mount]);
    assert_eq!(refusing(&wedge(), &now), [Condition::NotOpen]);

    let then = wedge();
    let plan = only_plan(&then);
    let quiet = Knowledge::default();
    let diagnoses = diagnose::survey(&then, &quiet);
    let mut busy = Knowledge::default();
    let operation = crate::model::OperationId::new(crate::testing::at(1), ThinId(2));
    busy.at_work.insert(ThinId(2), operation);
    let activation = then.pool.as_ref().map(|pool| &pool.activation);
    let readings = Evidence::new(&then, &diagnoses, &busy, activation).read(&plan);
    let refusal = first_refusal(&readings).map(|reading| reading.condition);
    assert_eq!(refusal, Some(Condition::NobodyAtWork));
}

/// Thin device 2 is left over, and suture saw who made it.
fn leaked(mode: PoolMode, needs_check: bool) -> (Survey, Knowledge) {
    let mut survey = burned();
    survey
        .thin
        .as_mut()
        .unwrap()
        .insert(ThinId(2), crate::testing::details(2));
    survey.mapping_roots.insert(ThinId(2), 7);
    let pool = survey.pool.as_mut().unwrap();
    (pool.mode, pool.needs_check) = (mode, needs_check);
    let claim = crate::model::survey::Claim {
        operation: crate::model::OperationId::new(crate::testing::at(1), ThinId(2)),
        mark: survey.mark_of(ThinId(2)).unwrap(),
    };
    let mut knowledge = Knowledge::default();
    knowledge.claims.insert(ThinId(2), claim);
    (survey, knowledge)
}

#[test]
fn a_delete_is_planned_where_its_guard_lets_it_pass_and_nowhere_else() {
    let modes = [
        (PoolMode::ReadWrite, true),
        (PoolMode::OutOfDataSpace, true),
        (PoolMode::ReadOnly, false),
        (PoolMode::Failed, false),
        (PoolMode::Unknown, false),
    ];
    for (mode, takes) in modes {
        for needs_check in [false, true] {
            let (survey, knowledge) = leaked(mode, needs_check);
            let diagnoses = diagnose::survey(&survey, &knowledge);
            let plans = plan(&diagnoses, &all(RepairMode::Online));
            let planned = plans.iter().find(|plan| plan.class == FindingClass::LeakedThin);
            let planned = planned.unwrap();
            let expected = takes && !needs_check;
            assert_eq!(planned.deletes().count() == 1, expected, "{mode}, {needs_check}");

            // The guard of one that was planned while all was well.
            let (well, known) = leaked(PoolMode::ReadWrite, false);
            let well = diagnose::survey(&well, &known);
            let planned = plan(&well, &all(RepairMode::Online)).remove(0);
            let life = survey.pool.as_ref().map(|pool| &pool.activation);
            let readings = Evidence::new(&survey, &well, &knowledge, life).read(&planned);
            let refusal = first_refusal(&readings).map(|reading| reading.condition);
            let refused = (!expected).then_some(Condition::PoolWritable);
            assert_eq!(refusal, refused, "{mode}, {needs_check}: {readings:?}");
        }
    }
}

#[test]
fn work_on_the_thin_device_below_a_dm_device_is_work_on_it() {
    let mut then = wedge();
    then.nodes[0].name = crate::model::Untrusted::from_bytes(b"tp-snap-9");
    then.pool_db.devices.remove("tp-snap-2");
    let quiet = Knowledge::default();
    let diagnoses = diagnose::survey(&then, &quiet);
    let node = diagnoses
        .found
        .iter()
        .find(|one| one.finding.class == FindingClass::OrphanNode);
    let plan = super::whole(node.unwrap());
    let life = then.pool.as_ref().map(|pool| &pool.activation);
    for (id, refused) in [(2, true), (1, false)] {
        let mut busy = Knowledge::default();
        let operation = crate::model::OperationId::new(crate::testing::at(1), ThinId(id));
        busy.at_work.insert(ThinId(id), operation);
        let readings = Evidence::new(&then, &diagnoses, &busy, life).read(&plan);
        let refusal = first_refusal(&readings).map(|reading| reading.condition);
        assert_eq!(
            refusal,
            refused.then_some(Condition::NobodyAtWork),
            "{readings:?}"
        );
    }
}

#[test]
fn a_foreign_device_that_is_kept_from_being_drawn_is_said_to_stay() {
    let mut survey = wedge();
    survey.pool_db.devices.remove("tp-snap-2");
    survey.nodes.clear();
    survey.pool_db.device_ids.remove(&ThinId(2));
    survey.pool_db.id_sequence = 1;
    let mut selection = all(RepairMode::Offline);
    selection.classes.insert(FindingClass::ForeignThin);
    let plans = plans(&survey, &selection);
    assert!(plans[0].acts.iter().any(|act| matches!(act, Act::SetId { .. })));
    assert_eq!(plans[0].deletes().count(), 0);
    let why = plans[0].left_out.as_deref().unwrap();
    assert!(
        why.contains("stays, on purpose") && why.contains("--delete-thin 2"),
        "{why}"
    );

    // It is still there when its id is reserved: else there was nothing to reserve it for.
    let knowledge = Knowledge::default();
    let diagnoses = diagnose::survey(&survey, &knowledge);
    let life = survey.pool.as_ref().map(|pool| pool.activation.clone());
    survey.thin.as_mut().unwrap().remove(&ThinId(2));
    let readings = Evidence::new(&survey, &diagnoses, &knowledge, life.as_ref()).read(&plans[0]);
    let refusal = first_refusal(&readings).map(|reading| reading.condition);
    assert_eq!(refusal, Some(Condition::ThinThere));
}

#[test]
fn online_only_what_needs_no_edit_is_planned() {
    let plans = plans(&wedge(), &all(RepairMode::Online));
    assert!(plans[0].acts.is_empty());
    assert!(plans[0].left_out.as_deref().unwrap().contains("--offline"));
}

#[test]
fn the_policy_observes_and_a_name_overrules_it() {
    let survey = burned();
    let mut selection = all(RepairMode::Offline);
    selection.policy = RepairPolicy::default().with(FindingClass::BurnedId, Handling::Observe);
    let observed = plans(&survey, &selection);
    assert!(observed[0].acts.is_empty());
    assert!(observed[0].left_out.as_deref().unwrap().contains("policy"));
    selection.findings.insert(observed[0].finding.clone());
    assert!(!plans(&survey, &selection)[0].acts.is_empty());

    selection = all(RepairMode::Offline);
    selection.classes.insert(FindingClass::Wedge);
    assert_eq!(plans(&survey, &selection), [], "another class was asked for");
    selection
        .findings
        .insert(crate::model::FindingId("nothing/of/that".to_owned()));
    selection.delete_thin.insert(ThinId(1));
    let said = selection.not_found(&diagnose::survey(&survey, &Knowledge::default()));
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn foreign_devices_are_deleted_only_by_name_whatever_the_policy_says() {
    let mut survey = burned();
    survey
        .thin
        .as_mut()
        .unwrap()
        .insert(ThinId(2), crate::testing::details(0));
    let mut selection = all(RepairMode::Offline);
    selection.policy = RepairPolicy::default().with(FindingClass::ForeignThin, Handling::Auto);
    let deletes = |selection: &Selection| -> BTreeSet<ThinId> {
        let plans = plans(&survey, selection);
        plans
            .iter()
            .flat_map(|plan| plan.deletes().collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(deletes(&selection), BTreeSet::new());
    selection.delete_thin.insert(ThinId(2));
    assert_eq!(deletes(&selection), [ThinId(2)].into());
    let named = plans(&survey, &selection);
    for needed in [
        Condition::Named,
        Condition::NoRecord,
        Condition::NotOpen,
        Condition::PoolWritable,
    ] {
        assert!(named[0].conditions.contains(&needed), "{needed}");
    }
    assert!(!named[0].conditions.contains(&Condition::Provenance));
}

#[test]
fn what_resumes_comes_first_and_what_deletes_last() {
    let mut survey = wedge();
    let mut orphan = survey.nodes[0].clone();
    orphan.name = crate::model::Untrusted::from_bytes(b"tp-snap-9");
    orphan.device.minor = 9;
    orphan.thin_ids = Vec::new();
    let mut suspended = orphan.clone();
    suspended.name = crate::model::Untrusted::from_bytes(b"tp-snap-1");
    suspended.device.minor = 1;
    suspended.thin_ids = vec![ThinId(1)];
    suspended.suspended = true;
    survey.nodes.extend([orphan, suspended]);
    let plans = plans(&survey, &all(RepairMode::Offline));
    let classes: Vec<_> = plans.iter().map(|plan| plan.class).collect();
    assert_eq!(
        classes,
        [
            FindingClass::SuspendedDevice,
            FindingClass::OrphanNode,
            FindingClass::Wedge
        ]
    );
    assert!(matches!(plans[2].acts.first(), Some(Act::MarkFaulty { .. })));
    assert!(matches!(plans[2].acts.last(), Some(Act::ForgetRecord { .. })));
}
