//! Events that were lost: what is told may be less sure, and never wrong.

use proptest::prelude::*;

use super::*;
use crate::model::{SagaState, observation::LossKind};

proptest! {
    #[test]
    fn whatever_is_lost_the_window_that_is_true_is_among_those_told(
        script in 0..scripts().len(),
        count in 1..64_usize,
        kept in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let script = scripts()[script];
        let on = script.on(7);
        let lines = (script.lines)(on);
        let count = (count - 1) % lines.len() + 1;
        let last = &lines[count - 1];
        let mut correlator = watching();
        correlator.observe(&lost(9, LossKind::DmRingFull));
        for (place, line) in lines.iter().enumerate().take(count).filter(|(place, _)| kept[*place]) {
            if let Some(observation) = on.observe(&line.event, 10 + u64::try_from(place).unwrap()) {
                correlator.observe(&observation);
            }
        }
        correlator.observe(&gone(60));
        let find = |correlator: &Correlator| {
            let all = correlator.sagas().all().cloned();
            all.collect::<Vec<Saga>>()
        };
        let sees = |saga: &Saga| match &saga.state {
            SagaState::Died { windows, .. } => windows.0.contains(&last.window),
            SagaState::Completed { .. } => script.ends && count == lines.len(),
            _ => false,
        };
        let before = find(&correlator);
        prop_assert!(before.is_empty() || before.iter().any(sees), "{last:?}: {before:#?}");
        correlator.world(&on.fill(world(70), last));
        let after = find(&correlator);
        prop_assert!(after.is_empty() || after.iter().any(sees), "{last:?}: {after:#?}");
        // With no event at all the remains tell as much.
        let there = last.left.record.is_some();
        if there {
            let remains = Remains::in_world(&on.fill(world(70), last), &on.name()).unwrap();
            prop_assert!(remains.windows().contains(&last.window));
        }
    }
}

#[test]
fn a_saga_that_began_in_a_gap_has_gaps_and_one_after_a_full_read_has_none() {
    let mut correlator = watching();
    let on = scripts()[0].on(7);
    correlator.observe(&lost(
        9,
        LossKind::DatabaseUnread {
            database: DatabaseKind::Pool,
        },
    ));
    correlator.observe(&on.observe(&create(on)[0].event, 10).unwrap());
    assert!(saga_of(&correlator, on).gaps);
    correlator.world(&world(11));
    let other = scripts()[0].on(8);
    correlator.observe(&other.observe(&create(other)[0].event, 12).unwrap());
    assert!(!saga_of(&correlator, other).gaps);
    correlator.observe(&lost(13, LossKind::Polling));
    assert!(saga_of(&correlator, other).gaps);
    correlator.world(&world(14));
    let blind = scripts()[0].on(9);
    correlator.observe(&blind.observe(&create(blind)[0].event, 15).unwrap());
    assert!(
        saga_of(&correlator, blind).gaps,
        "without probes every call is missed"
    );
}

#[test]
fn an_end_that_was_not_seen_is_read_from_the_world() {
    for script in scripts() {
        let on = script.on(7);
        let lines = (script.lines)(on);
        let mut correlator = watching();
        for (second, line) in (10..).zip(&lines[..lines.len() - 1]) {
            on.observe(&line.event, second)
                .map(|one| correlator.observe(&one));
        }
        correlator.observe(&lost(50, LossKind::DmRingFull));
        assert_eq!(saga_of(&correlator, on).state, SagaState::Running);
        correlator.world(&on.fill(world(60), lines.last().unwrap()));
        let saga = saga_of(&correlator, on);
        assert_eq!(saga.state, SagaState::Completed { at: at(60) }, "{saga:#?}");
    }
}

#[test]
fn several_commits_that_are_noticed_as_one_lead_to_the_last_of_them() {
    let on = scripts()[0].on(7);
    let mut sum = on
        .observe(&Event::Record(None, Some(D::Created), ""), 12)
        .unwrap();
    if let Observation::Commit(commit) = &mut sum {
        commit.from = Some(TxId(5));
    }
    let mut correlator = watching();
    correlator.observe(&on.observe(&create(on)[2].event, 11).unwrap());
    correlator.observe(&sum);
    let saga = saga_of(&correlator, on);
    assert_eq!(saga.stands_at.only(), Some(W::B4), "{saga:#?}");
}
