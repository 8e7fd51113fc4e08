use std::time::Duration;

use super::*;
use crate::{
    model::{DeviceState, IdState, Outcome, observation::LossKind},
    testing::*,
};

fn rules(act: bool) -> Rules {
    Rules {
        policy: Policy {
            act,
            grace: Duration::from_secs(15),
        },
        ledger: true,
        verbose: false,
    }
}

/// A brain that must not notice being stored and taken up again between any two inputs.
struct Stored(Brain);

impl Stored {
    fn new(act: bool) -> Self {
        Self(Brain::new(pool(), rules(act), at(0)))
    }

    fn again(&mut self) -> &mut Brain {
        let json = serde_json::to_vec(&self.0).unwrap();
        let again: Brain = serde_json::from_slice(&json).unwrap();
        assert_eq!(again, self.0);
        self.0 = again;
        &mut self.0
    }

    fn see(&mut self, observation: Observation) -> Vec<Output> {
        self.again().take(&Input::Observed { observation })
    }

    fn look(&mut self, world: &World, second: u64) -> Vec<Output> {
        let mut outputs = self.again().world(world);
        outputs.extend(self.again().judge(world, at(second)));
        outputs
    }
}

fn told(outputs: &[Output]) -> Vec<String> {
    let told = outputs.iter().cloned().filter_map(Output::untraced);
    told.map(|(_, report)| report.to_string()).collect()
}

fn leaked(second: u64) -> World {
    world(second).thin(7).id(7, IdState::Faulty)
}

/// containerd made a device and died; it came back, marked the id faulty and forgot the name.
fn broken(act: bool) -> Stored {
    let mut brain = Stored::new(act);
    brain.see(up(1));
    brain.look(&world(2), 2);
    brain.see(message(10, "create_thin 7", 0, by_containerd()));
    let dead = brain.see(gone(11));
    assert!(dead.contains(&Output::Look(Look::Now)), "{dead:?}");
    let record = world(12).thin(7).record("tp-snap-7", 7, DeviceState::Activating);
    let read = brain.look(&record, 12);
    assert!(
        matches!(
            read.as_slice(),
            [Output::Story(_), Output::Keep(_), Output::Tell { .. }]
        ),
        "{read:?}"
    );
    brain
}

fn plan_of(outputs: &[Output]) -> Plan {
    match outputs.last() {
        Some(Output::Act(plan)) => (**plan).clone(),
        other => panic!("no plan in the end, but {other:?}"),
    }
}

#[test]
fn a_leaked_device_is_found_told_once_and_acted_on_after_its_grace() {
    let mut brain = broken(true);
    let first = brain.look(&leaked(20), 20);
    assert!(first.iter().any(|output| matches!(output, Output::Found { .. })));
    assert_eq!(first.last(), Some(&Output::Look(Look::By(at(35)))));
    assert_eq!(
        told(&brain.look(&leaked(25), 25)),
        Vec::<String>::new(),
        "told already"
    );
    let plan = plan_of(&brain.look(&leaked(35), 35));
    assert!(
        brain
            .again()
            .guards(&plan, &leaked(36))
            .iter()
            .all(|guard| guard.holds)
    );
    let done = Input::Remedied {
        at: at(36),
        plan,
        guards: Vec::new(),
        outcome: Outcome::Done,
    };
    assert_eq!(
        told(&brain.again().take(&done)),
        ["REMEDY delete thin device 7 from pool tp: done"]
    );
    let over = told(&brain.look(&world(40), 40));
    assert!(
        over.iter().any(|line| line.starts_with("resolved leaked-thin")),
        "{over:?}"
    );
}

#[test]
fn a_refused_plan_is_left_alone_and_longer_each_time() {
    let mut brain = broken(true);
    brain.look(&leaked(20), 20);
    let plan = plan_of(&brain.look(&leaked(35), 35));
    let refused = |second| Input::Remedied {
        at: at(second),
        plan: plan.clone(),
        guards: Vec::new(),
        outcome: Outcome::Refused {
            why: "open".to_owned(),
        },
    };
    brain.again().take(&refused(35));
    assert_eq!(
        brain.look(&leaked(64), 64).last(),
        Some(&Output::Look(Look::By(at(65))))
    );
    plan_of(&brain.look(&leaked(65), 65));
    brain.again().take(&refused(65));
    assert_eq!(
        brain.look(&leaked(124), 124).last(),
        Some(&Output::Look(Look::By(at(125))))
    );
    plan_of(&brain.look(&leaked(125), 125));
}

#[test]
fn without_leave_or_without_a_ledger_a_plan_is_only_proposed() {
    let mut brain = broken(false);
    brain.look(&leaked(20), 20);
    let lines = told(&brain.look(&leaked(35), 35));
    assert!(
        lines.iter().any(|line| line.contains("start with --act")),
        "{lines:?}"
    );
    let mut brain = broken(true);
    brain.0.set_rules(Rules {
        ledger: false,
        ..rules(true)
    });
    brain.look(&leaked(20), 20);
    let lines = told(&brain.look(&leaked(35), 35));
    assert!(
        lines.iter().any(|line| line.contains("has no ledger")),
        "{lines:?}"
    );
}

#[test]
fn trouble_is_told_once_until_it_changes_or_ends_and_a_busy_containerd_is_none() {
    let mut brain = Stored::new(false);
    let unreadable = |second, why: Option<&str>| Input::Unreadable {
        at: at(second),
        why: why.map(str::to_owned),
    };
    let mut told_of = |second, why| told(&brain.again().take(&unreadable(second, why)));
    assert_eq!(told_of(1, None), Vec::<String>::new());
    assert_eq!(told_of(2, Some("no pool")), ["TROUBLE: no pool"]);
    assert_eq!(told_of(3, Some("no pool")), Vec::<String>::new());
    assert_eq!(told_of(4, None), Vec::<String>::new());
    assert_eq!(told_of(5, Some("no file")), ["TROUBLE: no file"]);
    let lines = told(&brain.look(&world(6), 6));
    assert!(
        lines.iter().any(|line| line.starts_with("the trouble is over")),
        "{lines:?}"
    );
}

#[test]
fn what_was_remembered_is_told_of_when_its_story_was() {
    let mut earlier = broken(true);
    earlier.look(&leaked(20), 20);
    let operation = earlier.0.correlator.operations().next().unwrap().clone();
    for was_story in [true, false] {
        let mut brain = Stored::new(true);
        assert!(brain.0.remember_operation(operation.clone(), was_story));
        let outputs = brain.look(&world(40), 40);
        let is_told = told(&outputs)
            .iter()
            .any(|line| line.contains("the device is deleted"));
        assert_eq!(is_told, was_story);
        assert_eq!(
            outputs.iter().any(|one| matches!(one, Output::Forget(_))),
            !was_story
        );
    }
}

#[test]
fn losses_are_told_as_gaps_where_they_hide_operations_and_plainly_where_not() {
    let mut brain = Stored::new(true);
    let plain = told(&brain.see(lost(1, LossKind::BlockRingFull)));
    assert_eq!(plain, ["LOST 3 failed requests: the ring buffer was full"]);
    let gap = brain.see(lost(2, LossKind::DmRingFull));
    assert!(
        told(&gap)
            .iter()
            .all(|line| line.starts_with("GAP: 3 device-mapper events")),
        "{gap:?}"
    );
    assert_eq!(gap.last(), Some(&Output::Look(Look::Soon)));
    assert!(
        told(&brain.again().take(&Input::Behind { at: at(3) }))[0].starts_with("GAP: the kernel's events")
    );
}

#[test]
fn what_the_policy_holds_back_is_told_once_asked_about_again_in_time_and_at_once_when_it_may_have_changed() {
    let mut brain = broken(true);
    brain.look(&leaked(20), 20);
    let plan = plan_of(&brain.look(&leaked(35), 35));
    let held = Input::Held {
        at: at(36),
        plan: plan.clone(),
        until: at(66),
        why: "it waits for a person".to_owned(),
    };
    let outputs = brain.again().take(&held);
    assert!(told(&outputs)[0].contains("it waits for a person"), "{outputs:?}");
    assert_eq!(outputs.last(), Some(&Output::Look(Look::By(at(66)))));
    let before = brain.look(&leaked(50), 50);
    assert!(
        !before.iter().any(|output| matches!(output, Output::Act(_))),
        "{before:?}"
    );
    assert_eq!(told(&before), Vec::<String>::new());
    // The time is over: it is asked about, and nothing is said before the answer.
    let again = brain.look(&leaked(66), 66);
    assert_eq!(plan_of(&again), plan);
    assert_eq!(told(&again), Vec::<String>::new());
    assert_eq!(
        told(&brain.again().take(&Input::Held {
            at: at(67),
            plan: plan.clone(),
            until: at(97),
            why: "it waits for a person".to_owned()
        })),
        Vec::<String>::new()
    );
    brain.again().take(&Input::Reconsider { at: at(70) });
    assert_eq!(plan_of(&brain.look(&leaked(71), 71)), plan);
}

#[test]
fn what_was_refused_by_a_guard_is_not_asked_about_sooner_because_the_policy_changed() {
    let mut brain = broken(true);
    brain.look(&leaked(20), 20);
    let plan = plan_of(&brain.look(&leaked(35), 35));
    brain.again().take(&Input::Remedied {
        at: at(36),
        plan,
        guards: Vec::new(),
        outcome: Outcome::Refused {
            why: "not-open: it is open".to_owned(),
        },
    });
    brain.again().take(&Input::Reconsider { at: at(37) });
    let next = brain.look(&leaked(38), 38);
    assert!(
        !next.iter().any(|output| matches!(output, Output::Act(_))),
        "{next:?}"
    );
}

#[test]
fn a_wedge_that_an_earlier_suture_told_of_stands_until_its_record_is_out_of_the_way() {
    let wedged = |second| {
        world(second)
            .thin(1)
            .id(1, IdState::Taken)
            .record("tp-snap-1", 1, DeviceState::Activated)
    };
    let mut earlier = Stored::new(false);
    earlier.see(up(1));
    earlier.look(&world(2), 2);
    earlier.see(message(3, "create_thin 1", 0, by_containerd()));
    earlier.see(gone(4));
    earlier.look(&wedged(70), 70);
    let standing = earlier.0.standings().next().unwrap().clone();
    assert!(standing.finding.died_in.is_some(), "{standing:?}");
    assert_eq!(standing.finding.class, crate::model::FindingClass::Wedge);
    let again = || {
        let mut brain = Stored::new(false);
        brain.see(up(80));
        brain.0.remember_finding(standing.clone());
        brain
    };
    let resolved = |outputs: &[Output]| told(outputs).iter().any(|line| line.starts_with("resolved"));
    let mut brain = again();
    assert!(!resolved(&brain.look(&wedged(81), 81)));
    assert_eq!(brain.0.standings().count(), 1);
    // Found by itself by now: the death that only the earlier one saw is not forgotten.
    brain.look(&wedged(150), 150);
    let kept = brain.0.standings().next().unwrap();
    assert_ne!(kept.finding.evidence, standing.finding.evidence);
    assert!(kept.finding.died_in.is_some() && kept.finding.died_in == standing.finding.died_in);
    let mut brain = again();
    brain.look(&wedged(81), 81);
    assert!(resolved(&brain.look(&wedged(82).snapshot(1), 82)));
    // Another device under the same name: somebody tried again.
    let other = world(81)
        .thin(2)
        .id(2, IdState::Taken)
        .record("tp-snap-1", 2, DeviceState::Activated);
    assert!(resolved(&again().look(&other, 81)));
}

#[test]
fn a_call_that_fails_is_a_finding_while_it_does_and_no_longer() {
    let mut brain = Stored::new(true);
    brain.see(up(1));
    brain.look(&world(2), 2);
    let refused = |second: u64| message(second, &format!("create_thin {second}"), -95, by_containerd());
    let first = brain.see(refused(10));
    let lines = told(&first);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("FOUND failing-create: the whole pool of tp"))
            && lines
                .iter()
                .any(|line| line.contains("left to a person: mend the pool first")),
        "{lines:?}"
    );
    let again = brain.see(refused(11));
    let twice = told(&again).iter().any(|line| line.contains("failing-create"));
    assert!(!twice, "told once: {again:?}");
    assert!(
        !again.iter().any(|one| matches!(one, Output::Standing(_))),
        "its numbers are stored from time to time: {again:?}"
    );
    let mut read_only = world(12);
    read_only.pool.mode = crate::model::PoolMode::ReadOnly;
    brain.look(&read_only, 12);
    assert_eq!(brain.0.standings().count(), 2, "and the pool itself");
    let over = brain.see(message(13, "create_thin 13", 0, by_containerd()));
    let stored = over.iter().find_map(|one| match one {
        Output::Standing(standing) => standing.resolved.map(|_| standing.finding.evidence[0].clone()),
        _ => None,
    });
    assert!(
        stored.as_ref().is_some_and(|text| text.contains("(2 times)")),
        "it ends with all that was counted: {over:?}"
    );
    let lines = told(&over);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("resolved failing-create")),
        "{lines:?}"
    );
}

#[test]
fn a_failure_ends_also_when_what_was_in_its_way_is_gone_or_nobody_tries_any_more() {
    let resolved = |outputs: &[Output]| {
        told(outputs)
            .iter()
            .any(|line| line.starts_with("resolved failing"))
    };
    for (call, error, ends_by_world) in [("create_thin 7", -95, true), ("create_thin 7", -17, false)] {
        let mut brain = Stored::new(true);
        brain.see(up(1));
        brain.look(&world(2), 2);
        brain.see(message(10, call, error, by_containerd()));
        // Begun before the call: it can not show what became of it.
        assert!(!resolved(&brain.look(&world(10), 10)), "{error}");
        assert_eq!(resolved(&brain.look(&world(11), 11)), ends_by_world, "{error}");
        assert_eq!(resolved(&brain.look(&world(700), 700)), !ends_by_world, "{error}");
    }
}

#[test]
fn a_device_in_use_is_told_by_its_name_and_its_snapshot() {
    let busy = |second| {
        call(
            second,
            crate::model::dm::DmCommand::DevRemove,
            "tp-snap-7",
            crate::model::dm::Payload::Nothing,
            -16,
            by_containerd(),
        )
    };
    let there = |second| {
        world(second)
            .thin(7)
            .id(7, IdState::Taken)
            .record("tp-snap-7", 7, DeviceState::Deactivating)
            .snapshot(7)
            .node("tp-snap-7", 7)
    };
    let mut brain = Stored::new(true);
    brain.see(up(1));
    brain.look(&there(2), 2);
    for second in 10..15 {
        assert_eq!(
            told(&brain.see(busy(second))),
            Vec::<String>::new(),
            "dmsetup tries by itself"
        );
    }
    let lines = told(&brain.see(busy(15)));
    assert!(
        lines[0].starts_with("FOUND failing-remove: device tp-snap-7 of tp"),
        "{lines:?}"
    );
    brain.look(&there(16), 16);
    let evidence = brain.0.standings().next().unwrap().finding.evidence.join("\n");
    assert!(evidence.contains("that is the device of snapshot "), "{evidence}");
    let mut gone = there(17);
    gone.nodes.clear();
    let over = told(&brain.look(&gone, 17));
    assert!(
        over.iter()
            .any(|line| line.starts_with("resolved failing-remove")),
        "{over:?}"
    );
}
