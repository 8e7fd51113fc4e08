//! When a plan that may be carried out is carried out: grace, budget, back-off, breaker, quiet hours, conflicts, order.

use super::*;

#[test]
fn what_suture_saw_being_made_is_deleted_after_its_grace_and_not_before() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    assert!(waits_for(&bench.verdict(&leak), "stand unchanged"));
    bench.pass(Duration::from_millis(14_999));
    let Verdict::Wait { until, .. } = bench.verdict(&leak) else {
        panic!("no grace")
    };
    assert!(until > bench.wall);
    bench.pass(Duration::from_millis(1));
    let verdict = bench.verdict(&leak);
    assert!(is_act(&verdict), "{verdict:?}");
    // Once.
    assert!(waits_for(&bench.verdict(&leak), "being carried out"));
}

#[test]
fn no_change_of_the_wall_clock_makes_a_grace_shorter_and_none_makes_it_longer() {
    for jump in [Duration::ZERO, Duration::from_hours(9_000)] {
        let mut bench = bench(HealingPolicy::default());
        let leak = bench.leak(7);
        bench.round();
        bench.wall = testing::at(2_000_000).plus(jump);
        assert!(waits_for(&bench.verdict(&leak), "stand unchanged"));
        bench.monotonic += seconds(15);
        assert!(is_act(&bench.verdict(&leak)));
    }
}

#[test]
fn a_finding_that_changes_stands_anew() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    bench.round();
    bench.pass(seconds(14));
    let claim = bench.knowledge.claims.get_mut(&ThinId(7)).unwrap();
    claim.operation = OperationId::new(testing::at(2), ThinId(7));
    assert!(waits_for(&bench.verdict(&leak), "stand unchanged"));
    bench.pass(seconds(14));
    assert!(waits_for(&bench.verdict(&leak), "stand unchanged"));
    bench.pass(seconds(1));
    assert!(is_act(&bench.verdict(&leak)));
}

#[test]
fn each_budget_is_kept_and_comes_back_after_an_hour() {
    let limits = |actions, bytes| Limits {
        actions,
        bytes: Bytes(bytes),
    };
    let plenty = limits(100, u64::MAX);
    for (node, pool, whose) in [
        (limits(2, u64::MAX), plenty, "the node"),
        (plenty, limits(2, u64::MAX), "the pool"),
        (limits(100, 2 * DATA), plenty, "the node"),
        (plenty, limits(100, 3 * DATA - 1), "the pool"),
    ] {
        let mut bench = bench(with(|parts| {
            parts.node = node;
            parts.pool = pool;
        }));
        for id in 1..=3 {
            bench.leak(id);
        }
        bench.round();
        bench.pass(seconds(15));
        let verdicts = bench.round();
        let acts: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict.acts()).collect();
        assert_eq!(acts.len(), 2, "{whose}");
        assert!(
            waits_for(&verdicts[2].1, &format!("budget of {whose}")),
            "{verdicts:?}"
        );
        for (_, verdict) in &acts {
            bench.came(verdict, &RepairOutcome::Done);
        }
        for id in 1..=2 {
            bench.survey.thin.as_mut().unwrap().remove(&ThinId(id));
            bench.knowledge.claims.remove(&ThinId(id));
        }
        bench.pass(seconds(3_599));
        let last = FindingId("leaked-thin/tp/3".to_owned());
        assert!(waits_for(&bench.verdict(&last), "budget"));
        bench.pass(seconds(1));
        assert!(is_act(&bench.verdict(&last)));
    }
}

#[test]
fn what_no_budget_ever_allows_is_told_and_does_not_wait() {
    for limits in [
        Limits {
            actions: 0,
            bytes: Bytes(u64::MAX),
        },
        Limits {
            actions: 9,
            bytes: Bytes(DATA - 1),
        },
    ] {
        let mut bench = bench(with(|parts| parts.pool = limits));
        let leak = bench.leak(7);
        assert!(blocked_by(&bench.ripe(&leak), "budget of the pool"));
    }
    let enough = Limits {
        actions: 1,
        bytes: Bytes(DATA),
    };
    let mut bench = bench(with(|parts| parts.pool = enough));
    let leak = bench.leak(7);
    assert!(is_act(&bench.ripe(&leak)));
}

#[test]
fn a_refused_remedy_is_tried_later_and_later_and_opens_no_breaker() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    let mut verdict = bench.ripe(&leak);
    for wait in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
        assert!(is_act(&verdict), "{verdict:?}");
        bench.came(&verdict, &refused());
        assert!(waits_for(&bench.verdict(&leak), "left alone for a while"));
        bench.pass(seconds(wait - 1));
        assert!(
            waits_for(&bench.verdict(&leak), "left alone for a while"),
            "{wait}"
        );
        bench.pass(seconds(1));
        verdict = bench.verdict(&leak);
    }
    assert!(is_act(&verdict));
    assert!(bench.engine.state().breakers.open().is_empty());
}

#[test]
fn a_back_off_begins_when_its_outcome_is_taken_in() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    let verdict = bench.ripe(&leak);
    // It took a minute.
    bench.pass(seconds(60));
    bench.came(&verdict, &refused());
    assert!(waits_for(&bench.verdict(&leak), "left alone"));
    bench.pass(seconds(29));
    assert!(waits_for(&bench.verdict(&leak), "left alone"));
}

#[test]
fn a_remedy_that_fails_three_times_is_given_up_until_a_person_resumes_it() {
    let mut bench = bench(HealingPolicy::default());
    let leak = bench.leak(7);
    let resumed = bench.suspended(3);
    bench.round();
    bench.pass(seconds(15));
    // Another kind of remedy is not given up with it.
    let verdicts = bench.round();
    let resume = verdicts.iter().find(|(id, _)| *id == resumed).unwrap();
    bench.came(&resume.1, &RepairOutcome::Done);
    bench.survey.nodes.clear();
    let first = verdicts.iter().find(|(id, _)| *id == leak).unwrap();
    bench.came(&first.1, &failed());
    for _ in 0..2 {
        bench.pass(seconds(130));
        let verdict = bench.verdict(&leak);
        bench.pass(seconds(130));
        let verdict = if is_act(&verdict) {
            verdict
        } else {
            bench.verdict(&leak)
        };
        assert!(is_act(&verdict), "{verdict:?}");
        bench.came(&verdict, &failed());
    }
    bench.pass(seconds(200));
    assert!(blocked_by(&bench.verdict(&leak), "delete-thin is given up"));
    let again = bench.suspended(4);
    assert!(is_act(&bench.ripe(&again)));
    bench.pass(Duration::from_hours(24 * 20));
    assert!(blocked_by(&bench.verdict(&leak), "delete-thin is given up"));
    // A suture that starts anew knows it still.
    let kept = serde_json::to_string(&bench.engine.snapshot()).unwrap();
    bench.engine = Engine::new(HealingPolicy::default());
    bench.engine.restore(serde_json::from_str(&kept).unwrap());
    assert!(blocked_by(&bench.ripe(&leak), "delete-thin is given up"));
    assert_eq!(
        bench.resume(),
        Effect::Resumed {
            was_paused: false,
            breakers: 1
        }
    );
    assert!(is_act(&bench.verdict(&leak)));
}

#[test]
fn failures_that_are_far_apart_open_no_breaker_and_one_may_close_by_itself() {
    let policy = || {
        with(|parts| {
            parts.back_off.longest = seconds(30);
            parts.breaker.within = seconds(100);
            parts.breaker.closes_after = Some(seconds(500));
        })
    };
    let mut far = bench(policy());
    let leak = far.leak(7);
    far.ripe(&leak);
    for _ in 0..8 {
        let (id, _) = far.engine.state().running.iter().next().unwrap();
        let id = id.clone();
        far.engine.outcome(&id, &failed(), far.wall);
        far.round();
        far.pass(seconds(51));
        assert!(is_act(&far.verdict(&leak)));
    }
    let mut near = bench(policy());
    let leak = near.leak(7);
    near.ripe(&leak);
    let id = near.engine.state().running.keys().next().unwrap().clone();
    for _ in 0..3 {
        near.engine.outcome(&id, &failed(), near.wall);
        near.round();
        near.pass(seconds(30));
        near.round();
    }
    assert!(blocked_by(&near.verdict(&leak), "given up for a while"));
    near.pass(seconds(469));
    assert!(blocked_by(&near.verdict(&leak), "given up for a while"));
    near.pass(seconds(2));
    assert!(is_act(&near.verdict(&leak)));
}

#[test]
fn what_comes_back_after_it_was_healed_was_not_helped() {
    let mut bench = bench(with(|parts| parts.back_off.longest = seconds(30)));
    let node = bench.suspended(3);
    bench.ripe(&node);
    for round in 0..3 {
        let id = bench.engine.state().running.keys().next().unwrap().clone();
        bench.engine.outcome(&id, &RepairOutcome::Done, bench.wall);
        // What was read before the remedy says nothing.
        assert!(waits_for(&bench.verdict(&node), "a moment ago"), "{round}");
        bench.pass(seconds(5));
        let verdict = bench.verdict(&node);
        if round < 2 {
            assert!(waits_for(&verdict, "left alone"), "{verdict:?}");
            bench.pass(seconds(30));
            assert!(is_act(&bench.verdict(&node)));
        } else {
            assert!(blocked_by(&verdict, "resume-node is given up"), "{verdict:?}");
        }
    }
}

#[test]
fn what_comes_back_long_after_is_another_matter() {
    let mut bench = bench(HealingPolicy::default());
    let node = bench.suspended(3);
    for _ in 0..5 {
        let verdict = bench.ripe(&node);
        assert!(is_act(&verdict), "{verdict:?}");
        bench.came(&verdict, &RepairOutcome::Done);
        let nodes = std::mem::take(&mut bench.survey.nodes);
        bench.pass(seconds(1));
        bench.round();
        bench.pass(seconds(3_600));
        bench.round();
        bench.survey.nodes = nodes;
    }
}

#[test]
fn a_suture_that_died_at_a_remedy_counts_it_as_failed_unless_it_is_told_better() {
    for (told, failures) in [(None, 3), (Some(RepairOutcome::SettledDone), 0)] {
        let mut bench = bench(with(|parts| parts.breaker.came_back_within = seconds(1)));
        let leak = bench.leak(7);
        bench.round();
        for _ in 0..3 {
            bench.pass(seconds(200));
            let verdict = bench.verdict(&leak);
            assert!(is_act(&verdict), "{verdict:?}");
            let state = bench.engine.snapshot();
            bench.engine = Engine::new(bench.engine.policy().clone());
            bench.engine.restore(state);
            if let Some(told) = &told {
                bench.came(&verdict, told);
            }
            bench.round();
            bench.pass(seconds(2));
        }
        let open = bench.engine.state().breakers.open().len();
        assert_eq!(open, usize::from(failures > 0));
    }
}

#[test]
fn nothing_is_begun_in_quiet_hours() {
    let quiet = |from: &str, to: &str| {
        let time = |text| TimeOfDay::parse(text).unwrap();
        let window = Window::new(time(from), time(to), Day::ALL.to_vec()).unwrap();
        with(|parts| {
            parts.quiet = QuietHours {
                zone: Zone::Offset(0),
                windows: vec![window],
            };
        })
    };
    // It is 14:13:20 UTC.
    let mut within = bench(quiet("14:00", "15:00"));
    let leak = within.leak(7);
    assert!(waits_for(&within.ripe(&leak), "quiet hours"));
    within.pass(seconds(3_600));
    assert!(is_act(&within.verdict(&leak)));
    let mut outside = bench(quiet("15:00", "14:00"));
    let leak = outside.leak(7);
    assert!(is_act(&outside.ripe(&leak)));
}

#[test]
fn kill_switch_pause_ledger_and_gap_each_stop_everything() {
    type Obstacle = fn(&mut Bench);
    let obstacles: [(&str, Obstacle, Obstacle); 4] = [
        (
            "stop",
            |bench| bench.kill_switch = Some("/etc/suture/stop exists".to_owned()),
            |bench| bench.kill_switch = None,
        ),
        ("paused", |bench| bench.pause(None), |bench| drop(bench.resume())),
        (
            "ledger",
            |bench| bench.no_ledger = Some("the disk is full".to_owned()),
            |bench| bench.no_ledger = None,
        ),
        (
            "lost",
            |bench| bench.gap = Some("events were lost".to_owned()),
            |bench| bench.gap = None,
        ),
    ];
    for (word, set, clear) in obstacles {
        let mut bench = bench(HealingPolicy::default());
        let leak = bench.leak(7);
        bench.round();
        set(&mut bench);
        bench.pass(seconds(1_000));
        assert!(blocked_by(&bench.verdict(&leak), word), "{word}");
        clear(&mut bench);
        assert!(is_act(&bench.verdict(&leak)), "{word}");
    }
}

#[test]
fn of_a_family_one_is_healed_at_a_time_and_strangers_at_once() {
    let mut bench = bench(with(|parts| {
        for rule in parts
            .classes
            .values_mut()
            .filter(|rule| rule.mode > Mode::Observe)
        {
            rule.unseen = Mode::Auto;
        }
    }));
    let parent = bench.suspended(3);
    let child = bench.orphan_record(5);
    let stranger = bench.leak(7);
    let record = bench.survey.pool_db.devices.get_mut("tp-snap-5").unwrap();
    record.parent_name = "tp-snap-3".to_owned();
    bench.round();
    bench.pass(seconds(15));
    let verdicts = bench.round();
    let order: Vec<_> = verdicts.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(order[0], parent);
    let of = |id: &FindingId| verdicts.iter().find(|(other, _)| other == id).unwrap().1.clone();
    assert!(is_act(&of(&parent)));
    assert!(waits_for(&of(&child), "being carried out"), "{:?}", of(&child));
    assert!(is_act(&of(&stranger)));
    // Also in later rounds, until its outcome is there.
    bench.pass(seconds(15));
    assert!(waits_for(&bench.verdict(&child), "being carried out"));
    bench.came(&of(&parent), &RepairOutcome::Done);
    bench.survey.nodes.clear();
    bench.pass(seconds(1));
    assert!(is_act(&bench.verdict(&child)));
}

#[test]
fn what_comes_first_keeps_its_place_while_it_waits() {
    let mut bench = bench(with(|parts| {
        let rule = parts.classes.get_mut(&FindingClass::SuspendedDevice).unwrap();
        rule.grace = seconds(60);
        let rule = parts.classes.get_mut(&FindingClass::OrphanRecord).unwrap();
        rule.unseen = Mode::Auto;
    }));
    let parent = bench.suspended(3);
    let child = bench.orphan_record(5);
    let record = bench.survey.pool_db.devices.get_mut("tp-snap-5").unwrap();
    record.parent_name = "tp-snap-3".to_owned();
    assert!(waits_for(&bench.ripe(&child), &format!("{parent} comes first")));
    // One that waits for a person keeps nobody.
    bench.engine.set_policy(with(|parts| {
        parts
            .classes
            .get_mut(&FindingClass::SuspendedDevice)
            .unwrap()
            .mode = Mode::Approve;
        parts.classes.get_mut(&FindingClass::OrphanRecord).unwrap().unseen = Mode::Auto;
    }));
    assert!(is_act(&bench.verdict(&child)));
}

#[test]
fn siblings_are_no_family() {
    let mut bench = bench(with(|parts| {
        let rule = parts.classes.get_mut(&FindingClass::OrphanRecord).unwrap();
        rule.unseen = Mode::Auto;
    }));
    bench.orphan_record(5);
    bench.orphan_record(6);
    for name in ["tp-snap-5", "tp-snap-6"] {
        let record = bench.survey.pool_db.devices.get_mut(name).unwrap();
        record.parent_name = "tp-snap-3".to_owned();
    }
    bench.round();
    bench.pass(seconds(15));
    let acts = bench.round().into_iter().filter(|(_, verdict)| verdict.acts());
    assert_eq!(acts.count(), 2);
}

#[test]
fn no_more_are_begun_at_once_than_may_fail() {
    let mut bench = bench(HealingPolicy::default());
    for id in 1..20 {
        bench.leak(id);
    }
    bench.round();
    bench.pass(seconds(15));
    let acts = |found: Vec<(FindingId, Verdict)>| -> Vec<Verdict> {
        let verdicts = found.into_iter().map(|(_, verdict)| verdict);
        verdicts.filter(Verdict::acts).collect()
    };
    let first = acts(bench.round());
    assert_eq!(first.len(), 3);
    assert_eq!(acts(bench.round()).len(), 0);
    bench.came(&first[0], &failed());
    bench.came(&first[1], &refused());
    // One may fail yet, and one is still on its way.
    let second = acts(bench.round());
    assert_eq!(second.len(), 1);
    bench.came(&first[2], &failed());
    bench.came(&second[0], &failed());
    assert_eq!(acts(bench.round()).len(), 0);
    assert_eq!(bench.engine.state().breakers.open().len(), 1);
}
