//! What only the restart path can heal, and what is left to containerd.

use super::*;
use crate::model::{Act, DeviceNumber, Severity};

fn stopped(bench: &mut Bench) {
    bench.survey.containerd = ContainerdState::Stopped { at_work: Vec::new() };
}

fn restart(mode: Mode) -> HealingPolicy {
    with(|parts| parts.restart_and_repair = mode)
}

#[test]
fn a_restart_for_an_outage_needs_approval_as_shipped() {
    let mut bench = bench(HealingPolicy::default());
    let wedge = bench.wedge();
    let verdict = bench.ripe(&wedge);
    let Verdict::RestartAndRepair {
        id, approved: false, ..
    } = verdict
    else {
        panic!("{verdict:?}")
    };
    bench.approve(&id).unwrap();
    let verdict = bench.verdict(&wedge);
    assert!(
        matches!(verdict, Verdict::RestartAndRepair { approved: true, .. }),
        "{verdict:?}"
    );
    // It is begun once.
    assert!(waits_for(&bench.verdict(&wedge), "being carried out"));
}

#[test]
fn an_approval_is_good_for_one_restart_whatever_comes_of_it() {
    let asks = |verdict: &Verdict| matches!(verdict, Verdict::RestartAndRepair { approved: false, .. });
    let partly = RepairOutcome::Partly {
        done: 1,
        why: "the pool hangs".to_owned(),
    };
    for (outcome, cut_off) in [
        (failed(), false),
        (refused(), false),
        (partly, false),
        (RepairOutcome::SettledNotDone, false),
        // suture itself dies meanwhile, and nobody tells what came of it.
        (failed(), true),
    ] {
        let mut bench = bench(HealingPolicy::default());
        let wedge = bench.wedge();
        let Verdict::RestartAndRepair { id, .. } = bench.ripe(&wedge) else {
            panic!("it is asked for")
        };
        bench.approve(&id).unwrap();
        let verdict = bench.verdict(&wedge);
        assert!(verdict.acts(), "{verdict:?}");
        if cut_off {
            let kept = serde_json::to_string(&bench.engine.snapshot()).unwrap();
            bench.engine = Engine::new(HealingPolicy::default());
            bench.engine.restore(serde_json::from_str(&kept).unwrap());
        } else {
            bench.came(&verdict, &outcome);
        }
        for _ in 0..3 {
            let verdict = bench.verdict(&wedge);
            assert!(asks(&verdict), "{outcome}: {verdict:?}");
            bench.pass(seconds(3_600));
        }
        bench.approve(&id).unwrap();
        assert!(
            bench.verdict(&wedge).acts(),
            "{outcome}: it can be approved again"
        );
    }
}

#[test]
fn an_approval_is_not_used_up_by_a_restart_that_was_not_begun() {
    let mut bench = bench(HealingPolicy::default());
    let wedge = bench.wedge();
    let Verdict::RestartAndRepair { id, .. } = bench.ripe(&wedge) else {
        panic!("it is asked for")
    };
    bench.approve(&id).unwrap();
    let verdict = bench.verdict(&wedge);
    bench.came(&verdict, &RepairOutcome::NotReached);
    assert!(waits_for(&bench.verdict(&wedge), "left alone"));
    bench.pass(seconds(3_600));
    assert!(bench.verdict(&wedge).acts());
}

#[test]
fn both_the_class_and_the_restart_have_to_be_automatic() {
    let both = |class: Mode, restart: Mode| {
        let mut bench = bench(with(|parts| {
            parts.restart_and_repair = restart;
            let rule = parts.classes.get_mut(&FindingClass::Wedge).unwrap();
            rule.mode = class;
            rule.unseen = class;
        }));
        let wedge = bench.wedge();
        bench.ripe(&wedge)
    };
    let is = |verdict: Verdict, wanted: bool| matches!(verdict, Verdict::RestartAndRepair { approved, .. } if approved == wanted);
    assert!(is(both(Mode::Auto, Mode::Auto), true));
    assert!(is(both(Mode::Approve, Mode::Auto), false));
    assert!(is(both(Mode::Auto, Mode::Approve), false));
    assert!(matches!(both(Mode::Observe, Mode::Auto), Verdict::Observe { .. }));
    assert!(matches!(both(Mode::Plan, Mode::Auto), Verdict::Propose { .. }));
}

#[test]
fn a_restart_is_kept_back_by_all_that_keeps_other_remedies_back() {
    let policy = || {
        with(|parts| {
            parts.restart_and_repair = Mode::Auto;
            let rule = parts.classes.get_mut(&FindingClass::Wedge).unwrap();
            rule.mode = Mode::Auto;
            rule.unseen = Mode::Auto;
        })
    };
    let mut young = bench(policy());
    let wedge = young.wedge();
    assert!(waits_for(&young.verdict(&wedge), "stand unchanged"));
    let mut held = bench(policy());
    let wedge = held.wedge();
    held.kill_switch = Some("/etc/suture/stop exists".to_owned());
    assert!(blocked_by(&held.ripe(&wedge), "stop"));
    held.kill_switch = None;
    let verdict = held.verdict(&wedge);
    assert!(verdict.acts());
    held.came(&verdict, &failed());
    assert!(waits_for(&held.verdict(&wedge), "left alone"));
}

#[test]
fn without_a_restart_it_waits_for_the_next_start() {
    for policy in [restart(Mode::Observe), restart(Mode::Plan)] {
        let mut bench = bench(policy);
        let wedge = bench.wedge();
        let verdict = bench.ripe(&wedge);
        assert!(
            matches!(&verdict, Verdict::Offline { arm: true, why, .. } if why.contains("next start")),
            "{verdict:?}"
        );
    }
    // While containerd is stopped there is nothing to restart.
    let mut bench = bench(restart(Mode::Auto));
    let wedge = bench.wedge();
    stopped(&mut bench);
    assert!(matches!(bench.ripe(&wedge), Verdict::Offline { arm: true, .. }));
}

#[test]
fn what_is_not_bad_enough_is_no_reason_to_stop_containerd() {
    let burned = |restart_for| {
        let mut bench = bench(with(|parts| {
            parts.restart_and_repair = Mode::Auto;
            parts.restart_for = restart_for;
            parts.classes.get_mut(&FindingClass::BurnedId).unwrap().mode = Mode::Auto;
        }));
        bench.put(|world| world.id(9, IdState::Faulty));
        bench.ripe(&FindingId("burned-id/tp/9".to_owned()))
    };
    assert!(matches!(burned(Severity::Outage), Verdict::Offline { .. }));
    assert!(matches!(burned(Severity::Space), Verdict::Offline { .. }));
    assert!(matches!(
        burned(Severity::Notice),
        Verdict::RestartAndRepair { approved: true, .. }
    ));
}

#[test]
fn the_next_start_repairs_what_its_policy_says_or_a_person_approved() {
    let mut bench = bench(with(|parts| {
        parts.restart_and_repair = Mode::Plan;
        parts.repair = RepairPolicy::default().with(FindingClass::Wedge, Handling::Observe);
    }));
    let wedge = bench.wedge();
    let verdict = bench.ripe(&wedge);
    let Verdict::Offline { id, arm: false, .. } = verdict else {
        panic!("{verdict:?}")
    };
    bench.approve(&id).unwrap();
    assert!(matches!(
        bench.verdict(&wedge),
        Verdict::Offline { arm: true, .. }
    ));
    bench.pause(None);
    assert!(blocked_by(&bench.verdict(&wedge), "paused"));
}

#[test]
fn two_that_need_containerd_stopped_are_done_in_one_stop() {
    let mut bench = bench(with(|parts| {
        parts.restart_and_repair = Mode::Auto;
        parts.restart_for = Severity::Notice;
        for rule in parts
            .classes
            .values_mut()
            .filter(|rule| rule.mode == Mode::Approve)
        {
            rule.mode = Mode::Auto;
            rule.unseen = Mode::Auto;
        }
    }));
    bench.wedge();
    bench.put(|world| {
        world
            .thin(4)
            .id(4, IdState::Faulty)
            .record("tp-snap-4", 4, DeviceState::Faulty)
            .snapshot(4)
    });
    // Its record says that it was made from the layer that is marked faulty.
    let record = bench.survey.pool_db.devices.get_mut("tp-snap-1001").unwrap();
    record.parent_name = "tp-snap-4".to_owned();
    bench.round();
    bench.pass(seconds(15));
    let acts = bench.round().into_iter().filter(|(_, verdict)| verdict.acts());
    assert_eq!(acts.count(), 2);
}

#[test]
fn what_stays_in_containerds_way_is_not_left_to_it() {
    let next = |live: bool| {
        let mut bench = bench(HealingPolicy::default());
        bench.put(|world| {
            world
                .id(1001, IdState::Faulty)
                .record("tp-snap-1001", 1001, DeviceState::Faulty)
        });
        let mut node = testing::node("tp-snap-1001", 1001, DeviceNumber { major: 253, minor: 9 });
        node.live = live;
        node.thin_ids.retain(|_| live);
        bench.survey.nodes.push(node);
        bench.ripe(&FindingId("faulty-next/tp/tp-snap-1001".to_owned()))
    };
    assert!(matches!(next(true), Verdict::LeftToContainerd { .. }));
    let verdict = next(false);
    let Verdict::AwaitApproval { plan, .. } = &verdict else {
        panic!("{verdict:?}")
    };
    assert!(matches!(plan.acts[..], [Act::RemoveNode { .. }]), "{plan:?}");
}

#[test]
fn what_containerd_overwrites_is_left_to_it_unless_its_proof_would_be_lost() {
    let next = |state, claimed: bool| {
        let mut bench = bench(HealingPolicy::default());
        bench.put(|world| {
            world
                .thin(1001)
                .id(1001, IdState::Taken)
                .record("tp-snap-1001", 1001, state)
        });
        if claimed {
            bench.claim(1001);
        }
        bench.ripe(&FindingId("faulty-next/tp/tp-snap-1001".to_owned()))
    };
    assert!(matches!(
        next(DeviceState::Created, false),
        Verdict::Offline { arm: true, .. }
    ));
    assert!(matches!(
        next(DeviceState::Created, true),
        Verdict::LeftToContainerd { .. }
    ));
    let mut gone = bench(HealingPolicy::default());
    gone.put(|world| {
        world
            .id(1001, IdState::Faulty)
            .record("tp-snap-1001", 1001, DeviceState::Faulty)
    });
    let finding = FindingId("faulty-next/tp/tp-snap-1001".to_owned());
    assert!(matches!(gone.ripe(&finding), Verdict::LeftToContainerd { .. }));
}

#[test]
fn what_waits_for_containerds_clean_up_is_left_to_it() {
    let mut bench = bench(with(|parts| {
        parts.classes.get_mut(&FindingClass::OrphanRecord).unwrap().unseen = Mode::Auto;
    }));
    let record = bench.orphan_record(5);
    bench.survey.pool_db.devices.get_mut("tp-snap-5").unwrap().state = DeviceState::Removed;
    assert!(is_act(&bench.ripe(&record)));
    // Found before async_remove was known to be on: a diagnosis does not name it then.
    let diagnoses = bench.diagnoses();
    bench.survey.async_remove = Some(true);
    let facts = Facts {
        survey: &bench.survey,
        monotonic: bench.monotonic,
        boot: bench.boot,
        local_offset: 0,
        kill_switch: None,
        gap: None,
        no_ledger: None,
    };
    let mut engine = Engine::new(bench.engine.policy().clone());
    let verdicts = engine.round(&diagnoses, &facts, bench.wall);
    assert!(
        matches!(verdicts[0].1, Verdict::LeftToContainerd { .. }),
        "{verdicts:?}"
    );
}
