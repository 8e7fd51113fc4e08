//! Every kind of plan is carried out whole, and killed before each of its steps: nothing that is referenced is lost, nothing
//! is worse, and the next repair finishes.

use super::*;

type Scene = (&'static str, fn(&Stage), RepairMode, FindingClass);

const SCENES: [Scene; 11] = [
    ("wedge", wedge, RepairMode::Offline, FindingClass::Wedge),
    (
        "orphan",
        orphan_record,
        RepairMode::Offline,
        FindingClass::OrphanRecord,
    ),
    ("live", faulty_live, RepairMode::Offline, FindingClass::FaultyLive),
    (
        "row",
        row_without_record,
        RepairMode::Offline,
        FindingClass::RowWithoutRecord,
    ),
    ("burned", burned_id, RepairMode::Offline, FindingClass::BurnedId),
    (
        "leaked",
        leaked_thin,
        RepairMode::Offline,
        FindingClass::LeakedThin,
    ),
    (
        "leaked online",
        leaked_thin,
        RepairMode::Online,
        FindingClass::LeakedThin,
    ),
    (
        "orphan online",
        orphan_record,
        RepairMode::Online,
        FindingClass::OrphanRecord,
    ),
    ("node", orphan_node, RepairMode::Online, FindingClass::OrphanNode),
    (
        "suspended",
        suspended_device,
        RepairMode::Online,
        FindingClass::SuspendedDevice,
    ),
    (
        "suspended offline",
        suspended_device,
        RepairMode::Offline,
        FindingClass::SuspendedDevice,
    ),
];

fn stage(scene: &Scene) -> Stage {
    let (name, set, mode, class) = scene;
    let stage = Stage::new();
    assert_eq!(
        stage.diagnoses(),
        Diagnoses::default(),
        "the node is whole at first"
    );
    set(&stage);
    stage.mode(*mode);
    let known = stage.knowledge.borrow().clone();
    let roots = known.claims.keys().copied().collect();
    let found = diagnose::survey(&stage.survey_now(roots), &known).found;
    let classes: Vec<_> = found.iter().map(|one| one.finding.class).collect();
    assert_eq!(classes, [*class], "{name}");
    stage
}

/// What must hold after every kill: snapshots 1 and 2 keep their devices, and no free id is one that is in the pool.
fn nothing_is_worse(stage: &Stage, context: &str) {
    let survey = stage.survey_now(BTreeSet::new());
    let thin = survey.thin.as_ref().unwrap();
    assert!(thin.contains_key(&ThinId(1)), "{context}");
    let second = survey.pool_db.devices.get("pool-snap-2");
    if second.is_some_and(|record| record.state != DeviceState::Removed) {
        assert!(thin.contains_key(&ThinId(2)), "{context}");
    }
    assert!(survey.pool_db.devices.contains_key("pool-snap-1"), "{context}");
    for id in thin.keys() {
        assert_ne!(survey.id_state(*id), Some(IdState::Free), "{context}: id {id}");
        assert!(survey.id_state(*id).is_some(), "{context}: id {id}");
    }
}

fn is_healed(stage: &Stage, context: &str) {
    let left = stage.diagnoses();
    let online = stage.selection.borrow().mode == RepairMode::Online;
    for one in &left.found {
        // Its record or number goes with the next offline repair; or containerd finishes the removal.
        let by_itself = [FindingClass::RowWithoutThin, FindingClass::BurnedId];
        let expected = online || by_itself.contains(&one.finding.class);
        assert!(expected && one.severity == Severity::Notice, "{context}: {one:?}");
    }
}

#[test]
fn every_kind_of_plan_is_carried_out_and_a_second_repair_has_nothing_to_do() {
    for scene in &SCENES {
        let stage = stage(scene);
        assert_eq!(stage.outcome(), RepairOutcome::Done, "{}", scene.0);
        nothing_is_worse(&stage, scene.0);
        is_healed(&stage, scene.0);
        // A number that was kept from containerd as long as its device was there is free only now.
        let rounds = if scene.0 == "leaked" { 2 } else { 1 };
        if rounds > 1 {
            assert_eq!(stage.outcome(), RepairOutcome::Done, "{}", scene.0);
        }
        let calls = stage.calls.borrow().len();
        let before = stage.database();
        let (results, settled) = stage.repair().unwrap();
        assert!(
            results.plans.iter().all(|result| result.outcome.is_none()),
            "{}",
            scene.0
        );
        assert_eq!(settled, [], "{}", scene.0);
        assert_eq!(stage.calls.borrow().len(), calls, "{}", scene.0);
        assert_eq!(stage.database(), before, "{}", scene.0);
        let ledger = Ledger::open_to_read(&stage.ledger_path()).unwrap();
        let rows = ledger.newest_repairs(10).unwrap();
        assert_eq!(rows.len(), rounds, "{}", scene.0);
        assert_eq!(rows[0].outcome, Some(RepairOutcome::Done));
        assert_eq!(ledger.unfinished_repairs().unwrap(), []);
    }
}

#[test]
fn killed_before_every_step_nothing_is_worse_and_the_next_repair_finishes() {
    for scene in &SCENES {
        let mut step = 0;
        loop {
            let stage = stage(scene);
            let reached = stage.killed_before(step);
            let context = format!(
                "{} killed before step {step} ({:?})",
                scene.0,
                stage.told.borrow().last()
            );
            if !reached {
                assert!(step > 5, "{context}: it was killed at some steps");
                break;
            }
            nothing_is_worse(&stage, &context);
            stage.repair().unwrap();
            nothing_is_worse(&stage, &context);
            is_healed(&stage, &context);
            // The one after that has nothing to do but to look.
            stage.repair().unwrap();
            let ledger = Ledger::open_to_read(&stage.ledger_path()).unwrap();
            assert_eq!(ledger.unfinished_repairs().unwrap(), [], "{context}");
            step += 1;
        }
    }
}

#[test]
fn killed_twice_and_after_a_reboot_the_claim_on_a_device_is_kept_while_nobody_wrote() {
    let scene = &SCENES[0];
    let mut tried = 0;
    for first in 0.. {
        let stage = stage(scene);
        if !stage.killed_before(first) {
            break;
        }
        // Another life of the pool, with no dm device left.
        stage
            .nodes
            .borrow_mut()
            .retain(|node| node.name.as_str() != "pool-snap-3");
        stage.pool.borrow_mut().as_mut().unwrap().activation.boot = "the next boot".to_owned();
        for second in 0..12 {
            if !stage.killed_before(second) {
                break;
            }
            tried += 1;
        }
        stage.repair().unwrap();
        let context = format!("killed before step {first}, and again and again");
        nothing_is_worse(&stage, &context);
        is_healed(&stage, &context);
    }
    assert!(tried > 20);
}

#[test]
fn what_a_kill_left_is_known_to_whoever_only_looks_and_no_strangers() {
    let scene = &SCENES[0];
    let mut claimed = 0;
    for step in 0.. {
        let stage = stage(scene);
        if !stage.killed_before(step) {
            break;
        }
        let rows = match Ledger::open_to_read(&stage.ledger_path()) {
            Ok(ledger) => ledger.unfinished_repairs().unwrap(),
            Err(_) => Vec::new(),
        };
        let before = rows.clone();
        let survey = stage.survey_now(rows.iter().flat_map(|row| row.intent.deletes()).collect());
        let left = claims_left(&rows, &survey);
        let marked = matches!(
            survey.pool_db.devices.get("pool-snap-3"),
            Some(record) if record.state == DeviceState::Faulty
        );
        let there = survey.has_thin(ThinId(3)) == Some(true);
        assert_eq!(
            left.len(),
            usize::from(marked && there),
            "killed before step {step}"
        );
        claimed += left.len();
        // Nothing of it is stored.
        if !before.is_empty() {
            let ledger = Ledger::open_to_read(&stage.ledger_path()).unwrap();
            assert_eq!(ledger.unfinished_repairs().unwrap(), before);
        }
        // Of another device of that id nothing is known.
        stage.thin.borrow_mut().insert(ThinId(3), details(4711));
        let survey = stage.survey_now([ThinId(3)].into());
        assert_eq!(claims_left(&rows, &survey), [], "killed before step {step}");
    }
    assert!(claimed > 1);
}

#[test]
fn what_a_kill_left_is_never_deleted_when_it_is_another_device_by_now() {
    let scene = &SCENES[0];
    let mut kept = 0;
    for step in 0.. {
        let stage = stage(scene);
        if !stage.killed_before(step) {
            break;
        }
        let marked = stage
            .database()
            .devices
            .get("pool-snap-3")
            .is_some_and(|record| record.state == DeviceState::Faulty);
        if !marked || !stage.thin.borrow().contains_key(&ThinId(3)) {
            continue;
        }
        // Somebody deleted it and made his own of the same id.
        stage.thin.borrow_mut().insert(ThinId(3), details(4711));
        stage.repair().unwrap();
        assert!(
            stage.thin.borrow().contains_key(&ThinId(3)),
            "killed before step {step}"
        );
        kept += 1;
    }
    assert!(kept > 1);
}
