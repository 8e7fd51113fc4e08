//! A wall clock that is set an hour forth or back gives nothing away, and takes nothing: budget, back-off, breaker.

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// What an administrator, or a clock that is set by the network, may do at any time.
fn jumps() -> [fn(&mut Bench); 3] {
    [
        |_| {},
        |bench| bench.wall = bench.wall.plus(HOUR),
        |bench| bench.wall = Timestamp::from_nanoseconds(bench.wall.nanoseconds() - 3_600_000_000_000),
    ]
}

/// One that has run for a day, so that its clock can go back.
fn of_today(policy: HealingPolicy) -> Bench {
    let mut bench = bench(policy);
    bench.pass(24 * HOUR);
    bench
}

#[test]
fn a_budget_comes_back_after_a_real_hour() {
    for jump in jumps() {
        let mut bench = of_today(with(|parts| parts.pool.actions = 1));
        let (first, second) = (bench.leak(1), bench.leak(2));
        bench.round();
        bench.pass(seconds(15));
        let verdict = bench.verdict(&first);
        assert!(is_act(&verdict), "{verdict:?}");
        bench.came(&verdict, &RepairOutcome::Done);
        bench.survey.thin.as_mut().unwrap().remove(&ThinId(1));
        bench.knowledge.claims.remove(&ThinId(1));
        jump(&mut bench);
        assert!(waits_for(&bench.verdict(&second), "budget of the pool"));
        bench.pass(seconds(3_599));
        assert!(waits_for(&bench.verdict(&second), "budget of the pool"));
        bench.pass(seconds(1));
        assert!(is_act(&bench.verdict(&second)));
    }
}

#[test]
fn a_back_off_lasts_as_long_as_it_really_lasts() {
    for jump in jumps() {
        let mut bench = of_today(HealingPolicy::default());
        let leak = bench.leak(7);
        let verdict = bench.ripe(&leak);
        bench.came(&verdict, &refused());
        assert!(waits_for(&bench.verdict(&leak), "left alone"));
        jump(&mut bench);
        bench.pass(seconds(29));
        assert!(waits_for(&bench.verdict(&leak), "left alone"));
        bench.pass(seconds(1));
        assert!(is_act(&bench.verdict(&leak)));
    }
}

#[test]
fn a_breaker_closes_after_its_real_time() {
    for jump in jumps() {
        let mut bench = of_today(with(|parts| {
            parts.breaker.failures = 1;
            parts.breaker.closes_after = Some(seconds(500));
        }));
        let leak = bench.leak(7);
        let verdict = bench.ripe(&leak);
        bench.came(&verdict, &failed());
        assert!(blocked_by(&bench.verdict(&leak), "given up for a while"));
        jump(&mut bench);
        bench.pass(seconds(499));
        assert!(blocked_by(&bench.verdict(&leak), "given up for a while"));
        bench.pass(seconds(1));
        assert!(is_act(&bench.verdict(&leak)));
    }
}

/// The same over a restart of suture, which takes up what it stored under another time.
#[test]
fn what_was_spent_before_a_restart_is_spent_whatever_the_clock_says_then() {
    for jump in jumps() {
        let mut bench = of_today(with(|parts| parts.pool.actions = 1));
        let (first, second) = (bench.leak(1), bench.leak(2));
        let verdict = bench.ripe(&first);
        bench.came(&verdict, &RepairOutcome::Done);
        bench.survey.thin.as_mut().unwrap().remove(&ThinId(1));
        bench.knowledge.claims.remove(&ThinId(1));
        let kept = serde_json::to_string(&bench.engine.snapshot()).unwrap();
        jump(&mut bench);
        bench.engine = Engine::new(bench.engine.policy().clone());
        bench.engine.restore(serde_json::from_str(&kept).unwrap());
        bench.round();
        bench.pass(seconds(3_599));
        assert!(waits_for(&bench.verdict(&second), "budget of the pool"));
        bench.pass(seconds(1));
        assert!(is_act(&bench.verdict(&second)));
    }
}
