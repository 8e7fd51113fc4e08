//! Whatever happens, and however the clocks are set: no more than the budget, nothing while something stops it, and never two
//! of a family at once.

use proptest::prelude::*;

use super::*;

const BUDGET: usize = 4;
const HOUR: Duration = Duration::from_hours(1);
/// So many leaks, and so many records in one line of parents.
const LEAKS: u32 = 8;
const CHAIN: u32 = 5;

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    SetWall(u64),
    Reboot(u64),
    Come(u8),
    Restart,
    Kill(bool),
    Gap(bool),
    NoLedger(bool),
    Pause(Option<u64>),
    Resume,
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_000_u64).prop_map(Step::Pass),
        2 => any::<u64>().prop_map(Step::SetWall),
        1 => (0..100_u64).prop_map(Step::Reboot),
        6 => any::<u8>().prop_map(Step::Come),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Kill),
        1 => any::<bool>().prop_map(Step::Gap),
        1 => any::<bool>().prop_map(Step::NoLedger),
        1 => prop::option::of(0..5_000_u64).prop_map(Step::Pause),
        2 => Just(Step::Resume),
        8 => Just(Step::Look),
    ]
}

fn start() -> Bench {
    let mut bench = bench(with(|parts| {
        parts.pool.actions = u32::try_from(BUDGET).unwrap();
        parts.node.actions = 60;
        parts.back_off.longest = seconds(60);
        parts.breaker.failures = 6;
        let rule = parts.classes.get_mut(&FindingClass::OrphanRecord).unwrap();
        rule.unseen = Mode::Auto;
    }));
    for id in 1..=LEAKS {
        bench.leak(id);
    }
    for id in 0..CHAIN {
        let id = 100 + id;
        bench.orphan_record(id);
        let record = bench
            .survey
            .pool_db
            .devices
            .get_mut(&format!("tp-snap-{id}"))
            .unwrap();
        record.parent_name = format!("tp-snap-{}", id - 1);
    }
    bench
}

fn is_chain(id: &FindingId) -> bool {
    id.0.starts_with("orphan-record/")
}

/// What is true, whatever the clocks say.
struct Truth {
    time: Duration,
    begun: Vec<Duration>,
    running: Vec<(FindingId, PlanId)>,
    first_look: Option<Duration>,
}

fn take(bench: &mut Bench, truth: &mut Truth, step: &Step) {
    match step {
        Step::Pass(time) => {
            truth.time += seconds(*time);
            bench.monotonic += seconds(*time);
        }
        Step::SetWall(wall) => bench.wall = Timestamp::from_nanoseconds(*wall),
        Step::Reboot(time) => {
            // The machine is off for a while, and its clock begins anew.
            truth.time += seconds(*time) + seconds(1);
            bench.monotonic = seconds(*time);
            bench.boot = if bench.boot == "this boot" {
                "another"
            } else {
                "this boot"
            };
            restart(bench, truth);
        }
        Step::Restart => restart(bench, truth),
        Step::Come(which) if !truth.running.is_empty() => {
            let (_, id) = truth.running.remove(usize::from(*which) % truth.running.len());
            let outcome = match which % 4 {
                0 => RepairOutcome::Done,
                1 => failed(),
                2 => refused(),
                _ => RepairOutcome::NotReached,
            };
            bench.engine.outcome(&id, &outcome, bench.wall);
        }
        Step::Kill(on) => bench.kill_switch = on.then(|| "stop".to_owned()),
        Step::Gap(on) => bench.gap = on.then(|| "lost".to_owned()),
        Step::NoLedger(on) => bench.no_ledger = on.then(|| "full".to_owned()),
        Step::Pause(time) => {
            let until = time.map(|time| bench.wall.plus(seconds(time)));
            if until.is_none_or(|until| until > bench.wall) {
                bench.pause(until);
            }
        }
        Step::Resume => drop(bench.resume()),
        Step::Come(_) | Step::Look => {}
    }
}

fn restart(bench: &mut Bench, truth: &mut Truth) {
    let kept = serde_json::to_string(&bench.engine.snapshot()).unwrap();
    bench.engine = Engine::new(bench.engine.policy().clone());
    bench.engine.restore(serde_json::from_str(&kept).unwrap());
    truth.running.clear();
    truth.first_look = None;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_begun_that_must_not_be(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = start();
        let mut truth = Truth { time: Duration::ZERO, begun: Vec::new(), running: Vec::new(), first_look: None };
        for step in &steps {
            take(&mut bench, &mut truth, step);
            bench.survey.begun = bench.wall;
            let verdicts = bench.round();
            let first = *truth.first_look.get_or_insert(truth.time);
            let acts: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict.acts()).collect();
            let state = bench.engine.state();
            if bench.kill_switch.is_some() || bench.gap.is_some() || bench.no_ledger.is_some() || state.people.pause.is_some() {
                prop_assert!(acts.is_empty(), "{step:?}");
            }
            if !acts.is_empty() {
                prop_assert!(truth.time.saturating_sub(first) >= seconds(15), "no grace after {:?}", truth.time.saturating_sub(first));
            }
            for (finding, verdict) in acts {
                let (plan, id) = verdict.plan().unwrap();
                prop_assert!(!state.breakers.open().contains_key(&plan.remedy.action));
                prop_assert!(!truth.running.iter().any(|(_, other)| other == id));
                truth.begun.push(truth.time);
                truth.running.push((finding.clone(), id.clone()));
            }
            let of_chain = truth.running.iter().filter(|(finding, _)| is_chain(finding));
            prop_assert!(of_chain.count() <= 1);
            let window = truth.begun.iter().filter(|at| truth.time.saturating_sub(**at) < HOUR);
            prop_assert!(window.count() <= BUDGET);
        }
    }

}

proptest! {
    // Each is hours of rounds.
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn what_nothing_keeps_back_is_healed_in_the_end(order in any::<u64>()) {
        let mut bench = start();
        bench.wall = Timestamp::from_nanoseconds(order);
        let mut left = usize::try_from(LEAKS + CHAIN).unwrap();
        for _ in 0..2_000 {
            bench.monotonic += seconds(20);
            bench.survey.begun = bench.wall;
            for (finding, verdict) in bench.round() {
                if !verdict.acts() { continue }
                bench.came(&verdict, &RepairOutcome::Done);
                left -= 1;
                let thin: u32 = finding.0.rsplit(['/', '-']).next().unwrap().parse().unwrap();
                bench.survey.thin.as_mut().unwrap().remove(&ThinId(thin));
                bench.survey.pool_db.devices.remove(&format!("tp-snap-{thin}"));
            }
            if left == 0 { break }
        }
        prop_assert_eq!(left, 0);
    }
}
