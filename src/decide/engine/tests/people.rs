//! What a person approves, rejects, pauses: exactly that, and not for ever.

use super::*;

/// A bench with an orphan record that suture did not see being made, its finding, and the plan to approve.
fn asked() -> (Bench, FindingId, PlanId) {
    let mut bench = bench(HealingPolicy::default());
    let record = bench.orphan_record(5);
    let verdict = bench.ripe(&record);
    let Verdict::AwaitApproval { id, why, .. } = verdict else {
        panic!("{verdict:?}")
    };
    assert!(why.contains("did not itself see"), "{why}");
    (bench, record, id)
}

#[test]
fn a_plan_is_carried_out_once_it_is_approved_and_only_once() {
    let (mut bench, record, id) = asked();
    let effect = bench.approve(&id).unwrap();
    assert_eq!(
        effect,
        Effect::Approved {
            id: id.clone(),
            finding: record.clone()
        }
    );
    let verdict = bench.verdict(&record);
    assert!(is_act(&verdict), "{verdict:?}");
    assert_eq!(
        bench.approve(&id),
        Err(Refusal::BeingCarriedOut { id: id.clone() })
    );
    assert_eq!(
        bench.reject(&id),
        Err(Refusal::BeingCarriedOut { id: id.clone() })
    );
    bench.came(&verdict, &RepairOutcome::Done);
    bench.pass(seconds(4_000));
    bench.round();
    bench.pass(seconds(4_000));
    assert!(matches!(bench.verdict(&record), Verdict::AwaitApproval { .. }));
}

#[test]
fn what_suture_saw_being_made_needs_nobody() {
    let (mut bench, record, _) = asked();
    bench.claim(5);
    assert!(is_act(&bench.ripe(&record)));
}

#[test]
fn an_approval_is_for_exactly_that_plan() {
    let (mut bench, record, id) = asked();
    bench.approve(&id).unwrap();
    // The removal gets a dm device to remove too: that is another plan.
    bench.put(|world| {
        let mut world = world.node("tp-snap-5", 5);
        world.nodes[0].open_count = 0;
        world
    });
    let verdict = bench.ripe(&record);
    let Verdict::AwaitApproval { id: other, .. } = verdict else {
        panic!("{verdict:?}")
    };
    assert_ne!(other, id);
    assert_eq!(bench.approve(&id), Err(Refusal::NoSuchPlan { id }));
    bench.approve(&other).unwrap();
    assert!(is_act(&bench.verdict(&record)));
}

#[test]
fn an_approval_expires_by_whichever_clock_says_so_first() {
    type Pass = fn(&mut Bench, Duration);
    let ways: [Pass; 3] = [
        |bench, time| bench.pass(time),
        |bench, time| bench.monotonic += time,
        |bench, time| bench.wall = bench.wall.plus(time),
    ];
    for way in ways {
        for (time, good) in [(seconds(86_399), true), (Duration::from_hours(24), false)] {
            let (mut bench, record, id) = asked();
            bench.approve(&id).unwrap();
            way(&mut bench, time);
            assert_eq!(is_act(&bench.verdict(&record)), good);
        }
    }
}

#[test]
fn what_is_rejected_stays_rejected_until_it_changes_or_is_approved() {
    let (mut bench, record, id) = asked();
    bench.approve(&id).unwrap();
    bench.reject(&id).unwrap();
    for _ in 0..40 {
        bench.pass(Duration::from_hours(24));
        let verdict = bench.verdict(&record);
        assert!(
            matches!(&verdict, Verdict::Observe { why } if why.contains("root rejected this plan")),
            "{verdict:?}"
        );
    }
    let kept = bench.engine.snapshot();
    bench.engine = Engine::new(HealingPolicy::default());
    bench.engine.restore(kept);
    assert!(matches!(bench.ripe(&record), Verdict::Observe { .. }));
    bench.approve(&id).unwrap();
    assert!(is_act(&bench.verdict(&record)));
}

#[test]
fn what_is_automatic_can_be_rejected_and_needs_no_approval() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    bench.round();
    let id = bench.engine.offers.keys().next().unwrap().clone();
    assert!(matches!(bench.approve(&id), Err(Refusal::NotToBeApproved { .. })));
    bench.reject(&id).unwrap();
    assert!(matches!(bench.ripe(&leak), Verdict::Observe { .. }));
}

#[test]
fn what_is_not_there_can_not_be_approved() {
    let (mut bench, _, _) = asked();
    let id = PlanId::typed("leaked-thin-000000000000");
    assert_eq!(bench.approve(&id), Err(Refusal::NoSuchPlan { id: id.clone() }));
    assert_eq!(bench.reject(&id), Err(Refusal::NoSuchPlan { id }));
}

#[test]
fn a_pause_ends_at_its_time_and_no_clock_that_is_set_ends_it() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    bench.round();
    let until = bench.wall.plus(seconds(100));
    bench.pause(Some(until));
    bench.wall = until.plus(seconds(5_000));
    assert!(blocked_by(&bench.verdict(&leak), "root paused suture until"));
    bench.monotonic += seconds(99);
    assert!(blocked_by(&bench.verdict(&leak), "paused"));
    bench.monotonic += seconds(1);
    assert!(is_act(&bench.verdict(&leak)));
    let over = Command::Pause {
        who: "root".to_owned(),
        why: String::new(),
        until: Some(bench.wall),
    };
    assert!(matches!(
        bench.engine.command(over, bench.wall),
        Err(Refusal::Over { .. })
    ));
}

#[test]
fn a_pause_outlives_suture_and_resume_ends_it() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    bench.pause(None);
    let kept = serde_json::to_string(&bench.engine.snapshot()).unwrap();
    bench.engine = Engine::new(HealingPolicy::default());
    bench.engine.restore(serde_json::from_str(&kept).unwrap());
    assert!(blocked_by(
        &bench.ripe(&leak),
        "paused suture until `suture resume`"
    ));
    assert_eq!(
        bench.resume(),
        Effect::Resumed {
            was_paused: true,
            breakers: 0
        }
    );
    assert!(is_act(&bench.verdict(&leak)));
}
