//! Operations at the same time, each about its own devices: what one does says nothing of the others.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{cuts::alike, *};
use crate::model::SagaState;

/// Which script, and after how many of its lines it is cut.
fn operation() -> impl Strategy<Value = (usize, usize)> {
    (0..scripts().len(), 1..64_usize)
}

fn told(saga: &Saga) -> Option<BTreeSet<W>> {
    match &saga.state {
        SagaState::Died { windows, .. } => Some(windows.0.clone()),
        SagaState::Completed { .. } => None,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn interleaved_operations_die_in_the_windows_that_they_die_in_alone(
        operations in proptest::collection::vec(operation(), 2..=3),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let mut queues: Vec<(On, Vec<Line>, usize, usize)> = Vec::new();
        for (number, (script, count)) in (1..).zip(&operations) {
            let script = scripts()[*script];
            let mut on = script.on(number * 10);
            let length = (script.lines)(on).len();
            let count = (count - 1) % length + 1;
            // Numbers are handed out in the order in which rows are stored.
            if !script.past && (script.lines)(on)[count - 1].left.row.is_some() {
                on.snapshot -= 1000;
            }
            let lines = (script.lines)(on);
            queues.push((on, lines, count, 0));
        }
        let over: Vec<(Script, On)> = operations.iter().zip(&queues).map(|((script, _), queue)| (scripts()[*script], queue.0)).collect();
        let mut correlator = watching_over(&over);
        let mut second = 10;
        for index in &order {
            let open: Vec<usize> = (0..queues.len()).filter(|one| queues[*one].3 < queues[*one].2).collect();
            if open.is_empty() {
                break;
            }
            let (on, lines, _, done) = &mut queues[*index.get(&open)];
            if let Some(observation) = on.observe(&lines[*done].event, second) {
                correlator.observe(&observation);
            }
            (*done, second) = (*done + 1, second + 1);
        }
        correlator.observe(&gone(200));
        let mut after = world(300);
        for (on, lines, count, done) in &queues {
            prop_assert_eq!(count, done);
            after = on.fill(after, &lines[count - 1]);
        }
        correlator.world(&after);
        for ((script, _), (on, lines, count, _)) in operations.iter().zip(&queues) {
            let ended = scripts()[*script].ends && *count == lines.len();
            let expected = (!ended).then(|| alike(lines[count - 1].window, lines));
            prop_assert_eq!(told(saga_of(&correlator, *on)), expected, "{:?}", lines[count - 1]);
        }
    }

    /// The kernel's side and the databases' are told by two senses: a commit may be noticed after calls that came later,
    /// and a call after commits.
    #[test]
    fn in_whatever_order_the_two_sides_are_noticed_the_window_is_the_same(
        (script, count) in operation(),
        late in proptest::collection::vec(0..4_usize, 64),
    ) {
        let script = scripts()[script];
        let on = script.on(7);
        let lines = (script.lines)(on);
        let count = (count - 1) % lines.len() + 1;
        let ended = script.ends && count == lines.len();
        let mut noticed: Vec<(usize, usize, Observation)> = Vec::new();
        for (place, line) in lines.iter().enumerate().take(count) {
            let is_call = matches!(line.event, Event::Call(..) | Event::Load | Event::LoadError | Event::Message(..));
            let delay = if is_call { 0 } else { late[0] };
            if let Some(observation) = on.observe(&line.event, 10 + u64::try_from(place + delay).unwrap()) {
                noticed.push((place + delay, place, observation));
            }
        }
        noticed.sort_by_key(|(when, place, _)| (*when, *place));
        let mut correlator = watching_over(&[(script, on)]);
        for (_, _, observation) in &noticed {
            correlator.observe(observation);
        }
        correlator.observe(&gone(60));
        correlator.world(&on.fill(world(70), &lines[count - 1]));
        let expected = (!ended).then(|| alike(lines[count - 1].window, &lines));
        prop_assert_eq!(told(saga_of(&correlator, on)), expected, "{:#?}", saga_of(&correlator, on));
    }
}
