use std::time::Duration;

use super::*;
use crate::{
    correlate::Correlator,
    diagnose::thin_findings,
    model::{
        Decision, DeviceState, FindingClass, Guard, IdState, Node, PoolMode, Provenance, ThinId, World,
        observation::LossKind,
    },
    testing::*,
};

const ACT: Policy = Policy {
    act: true,
    grace: Duration::from_secs(15),
};

/// The world after containerd died in the middle of making thin device 1, came back, marked the id faulty and gave the
/// name to thin device 2, which is in use.
fn leaked(second: u64) -> World {
    world(second)
        .thin(1)
        .thin(2)
        .id(1, IdState::Faulty)
        .id(2, IdState::Taken)
        .record("tp-snap-1", 2, DeviceState::Activated)
        .snapshot(1)
        .node("tp-snap-1", 2)
}

/// A correlator that saw it all.
fn witness() -> Correlator {
    let mut correlator = Correlator::new(pool(), at(0));
    correlator.observe(&up(1));
    correlator.world(&world(2));
    correlator.observe(&message(10, "create_thin 1", 0, by_containerd()));
    correlator.observe(&gone(11));
    correlator.world(
        &world(12)
            .thin(1)
            .record("tp-snap-1", 1, DeviceState::Activating)
            .id(1, IdState::Taken),
    );
    correlator
}

#[test]
fn the_leaked_device_and_nothing_else_is_found_and_its_plan_names_every_guard() {
    let witness = witness();
    let findings = thin_findings(&leaked(20), &witness);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = &findings[0];
    assert_eq!(
        (finding.class, finding.subject.thin_id()),
        (FindingClass::LeakedThin, Some(ThinId(1)))
    );
    assert!(matches!(finding.provenance, Provenance::SeenByProbe { .. }));

    let early = decide(finding, at(20), &leaked(20), &witness, ACT, at(30));
    assert!(
        matches!(early, Decision::Wait { until, .. } if until == at(35)),
        "{early:?}"
    );
    let Decision::Act(plan) = decide(finding, at(20), &leaked(20), &witness, ACT, at(35)) else {
        panic!("should act")
    };
    assert_eq!(plan.guards, Guard::DELETE_THIN);
    let readings = guards::read(&plan, &leaked(36), &witness);
    assert_eq!(guards::first_refusal(&readings), None, "{readings:?}");
    assert_eq!(readings.len(), Guard::DELETE_THIN.len() - 1);

    let told = decide(
        finding,
        at(20),
        &leaked(20),
        &witness,
        Policy { act: false, ..ACT },
        at(35),
    );
    assert!(
        matches!(told, Decision::Propose(_)),
        "without leave to act the plan is only proposed"
    );
}

#[test]
fn a_device_that_nobody_saw_containerd_make_is_only_told() {
    let blind = Correlator::new(pool(), at(0));
    let mut by_somebody = Correlator::new(pool(), at(0));
    by_somebody.observe(&up(1));
    by_somebody.observe(&message(5, "create_thin 1", 0, by_hand()));
    by_somebody.observe(&message(10, "create_thin 1", -17, by_containerd()));
    by_somebody.observe(&gone(11));
    by_somebody.world(&leaked(12));
    for correlator in [blind, by_somebody] {
        let findings = thin_findings(&leaked(20), &correlator);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].class, &findings[0].provenance),
            (FindingClass::ForeignThin, &Provenance::Unknown)
        );
        let decision = decide(&findings[0], at(20), &leaked(20), &correlator, ACT, at(100));
        assert!(matches!(decision, Decision::Tell { .. }), "{decision:?}");
    }
}

#[test]
fn what_is_in_flight_or_has_a_record_is_no_finding() {
    let mut in_flight = Correlator::new(pool(), at(0));
    in_flight.observe(&up(1));
    in_flight.observe(&message(10, "create_thin 1", 0, by_containerd()));
    // Its record is there before the device is; but even without one nobody judges while its process lives.
    assert_eq!(thin_findings(&world(20).thin(1), &in_flight), []);
    for state in [
        DeviceState::Faulty,
        DeviceState::Activated,
        DeviceState::Creating,
        DeviceState::Other(77),
    ] {
        let referenced = world(20)
            .thin(1)
            .id(1, IdState::Faulty)
            .record("tp-snap-1", 1, state);
        assert_eq!(thin_findings(&referenced, &witness()), [], "{state}");
    }
}

#[test]
fn an_abandoned_device_whose_id_is_not_faulty_is_left_to_a_person() {
    for state in [IdState::Free, IdState::Taken, IdState::Other(9)] {
        let findings = thin_findings(&leaked(20).id(1, state), &witness());
        assert_eq!(findings[0].class, FindingClass::ForeignThin, "{state}");
    }
    let mut unknown = leaked(20);
    unknown.pool_db.device_ids.remove(&ThinId(1));
    assert_eq!(
        thin_findings(&unknown, &witness())[0].class,
        FindingClass::ForeignThin
    );
}

#[test]
fn a_gap_makes_everything_wait() {
    let mut witness = witness();
    let finding = thin_findings(&leaked(20), &witness).remove(0);
    witness.observe(&lost(21, LossKind::DmRingFull));
    let waits = decide(&finding, at(20), &leaked(20), &witness, ACT, at(100));
    assert!(
        matches!(&waits, Decision::Wait { why, .. } if why.contains("ring buffer was full")),
        "{waits:?}"
    );
    witness.world(&leaked(101));
    assert!(matches!(
        decide(&finding, at(20), &leaked(101), &witness, ACT, at(102)),
        Decision::Act(_)
    ));
}

/// Each guard has a world in which it, and it alone, refuses.
#[test]
fn every_guard_refuses_alone() {
    type Spoil = Box<dyn Fn(&mut World, &mut Correlator)>;
    let cases: Vec<(Guard, Spoil)> = vec![
        (
            Guard::NoEventsLost,
            Box::new(|_, witness| {
                witness.observe(&lost(40, LossKind::DmInFlightFull));
            }),
        ),
        (
            Guard::OperationAbandoned,
            Box::new(|_, witness| {
                witness.observe(&message(40, "create_thin 1", 0, by_hand()));
            }),
        ),
        (Guard::SamePool, Box::new(|world, _| world.pool.device.minor = 99)),
        (
            Guard::PoolWritable,
            Box::new(|world, _| world.pool.mode = PoolMode::ReadOnly),
        ),
        (
            Guard::PoolWritable,
            Box::new(|world, _| world.pool.mode = PoolMode::OutOfDataSpace),
        ),
        (
            Guard::PoolWritable,
            Box::new(|world, _| world.pool.needs_check = true),
        ),
        (
            Guard::DeviceUnchanged,
            Box::new(|world, _| {
                world.mapping_roots.insert(ThinId(1), 999);
            }),
        ),
        (
            Guard::DeviceUnchanged,
            Box::new(|world, _| world.pool.activation.disk_sequence = Some(4)),
        ),
        (
            Guard::DeviceUnchanged,
            Box::new(|world, _| {
                world.thin.insert(ThinId(1), details(3));
            }),
        ),
        (
            Guard::DeviceUnchanged,
            Box::new(|world, _| {
                world.thin.remove(&ThinId(1));
            }),
        ),
        (
            Guard::IdFaulty,
            Box::new(|world, _| {
                world.pool_db.device_ids.insert(ThinId(1), IdState::Taken);
            }),
        ),
        (
            Guard::NoRecord,
            Box::new(|world, _| *world = world.clone().record("tp-snap-9", 1, DeviceState::Faulty)),
        ),
        (
            Guard::NotOpen,
            Box::new(|world, _| *world = world.clone().node("by-hand", 1)),
        ),
        (
            Guard::NotOpen,
            Box::new(|world, _| {
                world.nodes.push(Node {
                    unreadable: true,
                    live: true,
                    deferred_remove: false,
                    error_table: false,
                    thin_ids: Vec::new(),
                    ..world.nodes[0].clone()
                });
            }),
        ),
    ];
    let mut covered = vec![Guard::SameTransaction];
    for (guard, spoil) in cases {
        let mut witness = witness();
        let finding = thin_findings(&leaked(20), &witness).remove(0);
        let Decision::Act(plan) = decide(&finding, at(20), &leaked(20), &witness, ACT, at(35)) else {
            panic!("should act")
        };
        let mut now = leaked(36);
        spoil(&mut now, &mut witness);
        let refusing: Vec<Guard> = guards::read(&plan, &now, &witness)
            .iter()
            .filter(|one| !one.holds)
            .map(|one| one.guard)
            .collect();
        assert_eq!(refusing, [guard]);
        covered.push(guard);
    }
    assert!(
        Guard::DELETE_THIN.iter().all(|guard| covered.contains(guard)),
        "SameTransaction is tested in remedy"
    );
}

/// What an earlier suture saw with its probes is still known; one without probes must not act on it.
#[test]
fn without_probes_what_an_earlier_suture_saw_gives_no_leave_to_delete() {
    let abandoned = witness().operations().next().unwrap().clone();
    let mut blind = Correlator::new(pool(), at(15));
    assert!(blind.remember(abandoned));
    let Decision::Act(plan) = decide(
        &thin_findings(&leaked(20), &witness())[0],
        at(20),
        &leaked(20),
        &witness(),
        ACT,
        at(40),
    ) else {
        panic!("with probes it would be deleted")
    };
    blind.observe(&lost(16, LossKind::Polling));
    for second in [20, 40, 4_000] {
        let world = leaked(second);
        blind.world(&world);
        let findings = thin_findings(&world, &blind);
        assert_eq!(
            findings[0].class,
            FindingClass::LeakedThin,
            "it is still known for what it is"
        );
        let decision = decide(&findings[0], at(20), &world, &blind, ACT, at(second + 100));
        assert!(
            matches!(&decision, Decision::Tell { why } if why.contains("without kernel probes")),
            "{decision:?}"
        );
        // And if a plan had been made before, its guard refuses.
        let readings = guards::read(&plan, &world, &blind);
        let refused = guards::first_refusal(&readings).map(|reading| reading.guard);
        assert_eq!(refused, Some(Guard::NoEventsLost), "{readings:?}");
    }
}
