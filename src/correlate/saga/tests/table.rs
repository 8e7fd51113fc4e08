//! What each window leaves behind leads back to it, without any event.

use std::collections::BTreeSet;

use super::*;
use crate::model::{ContainerdState, Survey};

fn found(left: Left, past: bool) -> Remains {
    Remains {
        record: left.record,
        thin: left.record.map(|_| left.thin),
        node: left.node,
        row: left.row,
        past: past || left.row.is_some(),
    }
}

/// `ensureDeviceStates`, facts 1.3, by hand.
fn after_a_start(mut left: Left) -> Left {
    left.record = left.record.map(|state| match state {
        D::Unknown
        | D::Creating
        | D::Created
        | D::Activating
        | D::Suspending
        | D::Resuming
        | D::Deactivating
        | D::Removing => D::Faulty,
        other => other,
    });
    if left.record == Some(D::Activated) && left.node == F::Absent {
        left.node = F::Live;
    }
    left
}

fn after_a_reboot(left: Left) -> Left {
    Left {
        node: F::Absent,
        ..left
    }
}

#[test]
fn each_windows_remains_lead_back_to_it_also_after_a_reboot_and_a_start() {
    let mut seen = BTreeSet::new();
    for script in scripts() {
        let on = script.on(7);
        for line in (script.lines)(on) {
            let own = (line.left, script.past);
            let parents = line.parent.map(|(record, node)| {
                let left = Left {
                    record: Some(record),
                    thin: true,
                    node,
                    row: Some(K::Committed),
                };
                (left, true)
            });
            let is_there = own.0.record.is_some() || matches!(line.window, W::R7 | W::R8 | W::A9);
            for (left, past) in is_there.then_some(own).into_iter().chain(parents) {
                for then in [
                    left,
                    after_a_start(left),
                    after_a_reboot(left),
                    after_a_start(after_a_reboot(left)),
                ] {
                    let windows = found(then, past).windows();
                    assert!(
                        windows.contains(&line.window),
                        "{:?} of {then:?}: {windows:?}",
                        line.window
                    );
                }
            }
            seen.insert(line.window);
        }
    }
    let others: Vec<&W> = W::ALL.iter().filter(|window| !seen.contains(window)).collect();
    assert!(
        others.iter().all(|window| window.name().starts_with('X')),
        "{others:?}"
    );
}

#[test]
fn remains_are_told_apart_as_far_as_they_differ() {
    let windows = |record, thin, node, row, past| {
        let left = Left {
            record,
            thin,
            node,
            row,
        };
        found(left, past).windows()
    };
    // A wedge: nothing but a death after Activated leaves it.
    let wedge = windows(Some(D::Activated), true, F::Live, None, false);
    assert_eq!(
        wedge,
        [W::B7, W::B8, W::B9, W::S10, W::S11, W::S12, W::S13, W::S14].into()
    );
    // A row without a record.
    assert_eq!(
        windows(None, false, F::Absent, Some(K::Committed), true),
        [W::R7].into()
    );
    // The leak that looks like a healthy layer's record, but for its row.
    let leak = windows(Some(D::Deactivated), true, F::Absent, None, true);
    assert!(leak.contains(&W::A5) && !leak.contains(&W::R3), "{leak:?}");
    // A healthy layer is nobody's death, but for one that had done no harm yet.
    let layer = windows(Some(D::Deactivated), true, F::Absent, Some(K::Committed), true);
    assert!(
        layer
            .iter()
            .all(|window| window.forecast().suture == "suture has nothing to do."),
        "{layer:?}"
    );
    // No containerd that dies leaves a record of an unknown state.
    assert!(windows(Some(D::Other(99)), true, F::Live, None, false).is_empty());
}

#[test]
fn a_world_and_a_survey_show_the_same_remains() {
    for script in scripts() {
        let on = script.on(7);
        for line in (script.lines)(on) {
            let world = on.fill(world(10), &line);
            let survey = Survey {
                containerd: ContainerdState::Stopped { at_work: Vec::new() },
                ..Survey::of_world(&world)
            };
            assert_eq!(
                Remains::in_world(&world, &on.name()),
                Remains::in_survey(&survey, &on.name())
            );
        }
    }
    assert_eq!(Remains::in_world(&world(1), "another-snap-7"), None);
}
