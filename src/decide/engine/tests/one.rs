//! Findings that are decided about one by one, beside the rounds.

use super::*;

impl Bench {
    /// Asks about a finding that has stood so long.
    fn one(&mut self, finding: &FindingId, stood: Duration) -> Verdict {
        self.ask(|engine, diagnoses, facts, now| {
            let one = diagnoses.found.iter().find(|one| one.finding.id == *finding);
            engine.one(one.unwrap(), stood, facts, now)
        })
    }
}

fn leaks_by_approval() -> Bench {
    let rule = |parts: &mut PolicyParts| {
        parts.classes.get_mut(&FindingClass::LeakedThin).unwrap().mode = Mode::Approve;
    };
    bench(with(rule))
}

#[test]
fn its_grace_is_how_long_it_stood_for_whoever_watches_it() {
    let mut bench = bench(HealingPolicy::default());
    // A round of everything else.
    bench.round();
    let leak = bench.leak(7);
    let early = bench.one(&leak, seconds(14));
    assert!(matches!(early, Verdict::Wait { .. }), "{early:?}");
    let ripe = bench.one(&leak, seconds(15));
    assert!(is_act(&ripe), "{ripe:?}");
}

#[test]
fn a_round_does_not_make_a_person_s_offer_void() {
    let mut bench = leaks_by_approval();
    // A round of everything else.
    bench.round();
    let leak = bench.leak(7);
    let Verdict::AwaitApproval { id, .. } = bench.one(&leak, seconds(60)) else {
        panic!("nobody is asked")
    };
    let survey = bench.survey.clone();
    let knowledge = std::mem::take(&mut bench.knowledge);
    bench.survey.thin.get_or_insert_default().clear();
    bench.survey.pool_db.device_ids.clear();
    bench.round();
    (bench.survey, bench.knowledge) = (survey, knowledge);
    bench.approve(&id).unwrap();
    assert!(is_act(&bench.one(&leak, seconds(61))));
}

#[test]
fn what_is_gone_can_not_be_approved() {
    let mut bench = leaks_by_approval();
    // A round of everything else.
    bench.round();
    let leak = bench.leak(7);
    let Verdict::AwaitApproval { id, .. } = bench.one(&leak, seconds(60)) else {
        panic!("nobody is asked")
    };
    bench.engine.forget_apart(|_| false);
    assert_eq!(bench.approve(&id), Err(Refusal::NoSuchPlan { id }));
}

#[test]
fn what_keeps_a_round_back_keeps_it_back_too() {
    let mut bench = bench(HealingPolicy::default());
    // A round of everything else.
    bench.round();
    let leak = bench.leak(7);
    bench.kill_switch = Some("the kill switch is there".to_owned());
    assert!(matches!(bench.one(&leak, seconds(60)), Verdict::Blocked { .. }));
    bench.kill_switch = None;
    bench.gap = Some("events were lost".to_owned());
    assert!(matches!(bench.one(&leak, seconds(60)), Verdict::Blocked { .. }));
    bench.gap = None;
    assert!(is_act(&bench.one(&leak, seconds(60))));
}
