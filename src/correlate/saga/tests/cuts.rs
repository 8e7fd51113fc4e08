//! A death after every step.

use std::collections::BTreeSet;

use super::*;
use crate::model::SagaState;

/// Windows that nothing can tell apart: `mkfs` and mounts are seen by nobody, nor is a name in containerd's own database
/// where no commit told of it.
pub(super) fn alike(window: W, lines: &[Line]) -> BTreeSet<W> {
    let classes: [&[W]; 4] = [
        &[W::B7, W::B8, W::B9],
        &[W::S13, W::S14],
        &[W::B10, W::B11],
        &[W::S15, W::B11],
    ];
    let there = |one: &&W| lines.iter().any(|line| line.window == **one);
    classes
        .iter()
        .find(|class| class.contains(&window) && there(&&class[0]))
        .map_or([window].into(), |class| {
            class.iter().filter(there).copied().collect()
        })
}

/// Sees the first lines of a script and the death after them, but for those of `unseen`.
fn cut(script: Script, count: usize, unseen: &[usize]) -> (Correlator, On, Vec<Line>) {
    let on = script.on(7);
    let lines = (script.lines)(on);
    let mut correlator = watching_over(&[(script, on)]);
    for (place, line) in lines.iter().enumerate().take(count) {
        let second = 10 + u64::try_from(place).unwrap();
        if let Some(observation) = on
            .observe(&line.event, second)
            .filter(|_| !unseen.contains(&place))
        {
            correlator.observe(&observation);
        }
    }
    correlator.observe(&gone(60));
    (correlator, on, lines)
}

fn windows(saga: &Saga) -> (BTreeSet<W>, bool) {
    match &saga.state {
        SagaState::Died { windows, settled, .. } => (windows.0.clone(), *settled),
        other => panic!("it should have died, and is {other:?}: {saga:#?}"),
    }
}

#[test]
fn each_operation_that_is_seen_whole_is_completed() {
    for script in scripts() {
        let on = script.on(7);
        let mut correlator = watching_over(&[(script, on)]);
        let lines = (script.lines)(on);
        for (second, line) in (10..).zip(&lines) {
            on.observe(&line.event, second)
                .map(|one| correlator.observe(&one));
        }
        let mut saga = saga_of(&correlator, on).clone();
        if !script.ends {
            correlator.observe(&on.observe(&Event::Named, 50).unwrap());
            saga = saga_of(&correlator, on).clone();
        }
        assert!(matches!(saga.state, SagaState::Completed { .. }), "{saga:#?}");
        assert_eq!(saga.device, Some(on.name()));
        assert_eq!(
            saga.thin_id,
            (saga.steps.len() > 2).then_some(ThinId(on.id())).or(saga.thin_id)
        );
        assert_eq!(saga.actor, Some(containerd()));
        assert!(!saga.gaps);
    }
}

#[test]
fn cut_after_any_step_it_died_in_the_window_of_that_step() {
    for script in scripts() {
        let all = (script.lines)(script.on(7)).len();
        for count in 1..=all {
            let (mut correlator, on, lines) = cut(script, count, &[]);
            let last = &lines[count - 1];
            if script.ends && count == all {
                let saga = saga_of(&correlator, on);
                assert!(matches!(saga.state, SagaState::Completed { .. }), "{saga:#?}");
                continue;
            }
            let (before, settled) = windows(saga_of(&correlator, on));
            assert!(before.contains(&last.window) && !settled, "{last:?}: {before:?}");
            correlator.world(&on.fill(world(70), last));
            let (after, settled) = windows(saga_of(&correlator, on));
            assert!(settled);
            assert_eq!(
                after,
                alike(last.window, &lines),
                "{last:?}: {:#?}",
                saga_of(&correlator, on)
            );
        }
    }
}

#[test]
fn the_last_commit_before_a_death_need_not_have_been_noticed() {
    for script in scripts() {
        let all = (script.lines)(script.on(7)).len();
        for count in 2..=all {
            let (mut correlator, on, lines) = cut(script, count, &[count - 1]);
            let last = &lines[count - 1];
            let is_commit = matches!(last.event, Event::Record(..) | Event::Parent(..) | Event::Row(..));
            if !is_commit {
                continue;
            }
            let (before, _) = windows(saga_of(&correlator, on));
            assert!(before.contains(&last.window), "{last:?}: {before:?}");
            correlator.world(&on.fill(world(70), last));
            let saga = saga_of(&correlator, on);
            if script.ends && count == all {
                assert!(matches!(saga.state, SagaState::Completed { .. }), "{saga:#?}");
                continue;
            }
            assert_eq!(windows(saga).0, alike(last.window, &lines), "{last:?}");
        }
    }
}

/// containerd is killed, and its dmsetup goes on: what it did counts.
#[test]
fn a_dmsetup_that_outlives_its_containerd_moves_the_window() {
    let script = scripts()[0];
    let (mut correlator, on, lines) = cut(script, 5, &[]);
    correlator.world(&on.fill(world(61), &lines[4]));
    assert_eq!(windows(saga_of(&correlator, on)), ([W::B5].into(), true));
    for (second, line) in (62..).zip(&lines[5..8]) {
        correlator.observe(&on.observe(&line.event, second).unwrap());
    }
    correlator.world(&on.fill(world(70), &lines[7]));
    assert_eq!(windows(saga_of(&correlator, on)), ([W::B6].into(), true));
}

#[test]
fn what_the_next_containerd_does_is_no_step_of_the_one_that_died() {
    let script = scripts()[0];
    let (mut correlator, on, lines) = cut(script, 8, &[]);
    correlator.world(&on.fill(world(61), &lines[7]));
    correlator.observe(&on.observe(&step(D::Activating, D::Faulty), 63).unwrap());
    let mut later = containerd();
    later.pid += 1;
    correlator.observe(&Observation::ContainerdUp {
        at: at(64),
        who: later,
    });
    assert_eq!(windows(saga_of(&correlator, on)), ([W::B6].into(), true));
    // It draws the same number again, with another thin id.
    let again = Observation::Commit(Box::new(Commit {
        at: at(65),
        since: at(64),
        database: DatabaseKind::Pool,
        from: Some(TxId(65)),
        to: TxId(66),
        changes: vec![EntryChange::Device {
            name: Untrusted::from_bytes(on.name().as_bytes()),
            from: world(1)
                .record(&on.name(), on.id(), D::Faulty)
                .pool_db
                .devices
                .remove(&on.name()),
            to: world(1)
                .record(&on.name(), 900, D::Unknown)
                .pool_db
                .devices
                .remove(&on.name()),
        }],
        more: 0,
    }));
    correlator.observe(&again);
    let all: Vec<&Saga> = correlator.sagas().all().collect();
    assert_eq!(all.len(), 2, "{all:#?}");
    assert_eq!(windows(all[0]), ([W::B6].into(), true));
    assert_eq!(
        (&all[1].state, all[1].thin_id),
        (&SagaState::Running, Some(ThinId(900)))
    );
}

#[test]
fn a_world_of_the_next_operation_on_the_name_narrows_nothing() {
    let (mut correlator, on, lines) = cut(scripts()[0], 5, &[]);
    let (before, _) = windows(saga_of(&correlator, on));
    let other = world(70)
        .record(&on.name(), 900, D::Created)
        .thin(900)
        .thin(on.id());
    correlator.world(&other);
    assert_eq!(windows(saga_of(&correlator, on)), (before, true));
    assert_eq!(lines[4].window, W::B5);
}

/// The real sequence of containerd 1.6, where the name is taken: the thin device is deleted under the states of a removal,
/// and the record goes through them once more.
fn undo_of_a_failed_activation(on: On) -> Vec<Line> {
    let delete = |result| Event::Message(format!("delete {}", on.id()), result);
    let at = |window, event, record, thin, node| line(window, event, record, thin, node, None);
    vec![
        at(
            W::X1,
            step(D::Activating, D::Removing),
            Some(D::Removing),
            true,
            F::Live,
        ),
        at(W::X2, delete(0), Some(D::Removing), false, F::Live),
        at(
            W::X3,
            step(D::Removing, D::Removed),
            Some(D::Removed),
            false,
            F::Live,
        ),
        at(
            W::X4,
            step(D::Removed, D::Deactivating),
            Some(D::Deactivating),
            false,
            F::Live,
        ),
        at(
            W::X5,
            own(DmCommand::DevRemove),
            Some(D::Deactivating),
            false,
            F::Absent,
        ),
        at(
            W::X6,
            step(D::Deactivating, D::Deactivated),
            Some(D::Deactivated),
            false,
            F::Absent,
        ),
        at(
            W::X7,
            step(D::Deactivated, D::Removing),
            Some(D::Removing),
            false,
            F::Absent,
        ),
        at(W::X8, delete(-61), Some(D::Removing), false, F::Absent),
        at(
            W::X9,
            step(D::Removing, D::Removed),
            Some(D::Removed),
            false,
            F::Absent,
        ),
        at(
            W::X10,
            Event::Record(Some(D::Removed), None, ""),
            None,
            false,
            F::Absent,
        ),
    ]
}

#[test]
fn what_fails_and_is_taken_back_is_rolled_back_and_cut_in_between_it_died_in_that_window() {
    let script = scripts()[0];
    let on = script.on(7);
    let undo = undo_of_a_failed_activation(on);
    for count in 0..=undo.len() {
        let mut correlator = watching();
        for (second, line) in (10..).zip(&create(on)[..5]) {
            correlator.observe(&on.observe(&line.event, second).unwrap());
        }
        let noted = Event::Record(
            Some(D::Activating),
            Some(D::Activating),
            "device or resource busy",
        );
        correlator.observe(&on.observe(&noted, 20).unwrap());
        let failed = &saga_of(&correlator, on).state;
        assert!(
            matches!(failed, SagaState::Failed { error, .. } if error == "device or resource busy"),
            "{failed:?}"
        );
        for (second, line) in (30..).zip(&undo[..count]) {
            correlator.observe(&on.observe(&line.event, second).unwrap());
        }
        let Some(last) = count.checked_sub(1).map(|last| &undo[last]) else {
            continue;
        };
        if count == undo.len() {
            assert!(matches!(
                saga_of(&correlator, on).state,
                SagaState::RolledBack { .. }
            ));
            continue;
        }
        correlator.observe(&gone(60));
        correlator.world(&on.fill(world(70), last));
        assert_eq!(
            windows(saga_of(&correlator, on)).0,
            [last.window].into(),
            "{last:?}"
        );
    }
}

#[test]
fn a_refused_create_has_failed_with_what_the_kernel_said() {
    let script = scripts()[0];
    let on = script.on(7);
    let mut correlator = watching();
    for (second, line) in (10..).zip(&create(on)[..2]) {
        correlator.observe(&on.observe(&line.event, second).unwrap());
    }
    let refused = Event::Message(format!("create_thin {}", on.id()), -17);
    correlator.observe(&on.observe(&refused, 15).unwrap());
    assert_eq!(saga_of(&correlator, on).state, SagaState::Running);
    correlator.observe(&on.observe(&step(D::Creating, D::Faulty), 16).unwrap());
    let saga = saga_of(&correlator, on);
    let failed = SagaState::Failed {
        at: at(16),
        error: "EEXIST".to_owned(),
    };
    assert_eq!(saga.state, failed);
    assert_eq!(saga.stands_at.only(), Some(W::B2), "what was refused is not done");
    correlator.observe(&gone(20));
    assert_eq!(saga_of(&correlator, on).state, failed, "it had ended before");
}

#[test]
fn a_removal_that_was_left_to_the_clean_up_is_told_from_one_at_once() {
    let mut correlator = watching();
    let later = scripts()[5].on(7);
    for (second, line) in (10..).zip(&remove_later(later)) {
        correlator.observe(&later.observe(&line.event, second).unwrap());
    }
    for (second, line) in (20..).zip(&clean_up(later)) {
        correlator.observe(&later.observe(&line.event, second).unwrap());
    }
    let kinds: Vec<_> = correlator.sagas().all().map(|saga| saga.kinds.clone()).collect();
    assert_eq!(kinds.len(), 2);
    assert_eq!(kinds[1], [crate::model::SagaKind::CleanUp].into());
    let ends = correlator
        .sagas()
        .all()
        .all(|saga| matches!(saga.state, SagaState::Completed { .. }));
    assert!(ends, "{:#?}", correlator.sagas());
}

#[test]
fn a_restart_of_suture_keeps_the_sagas_and_says_that_steps_may_be_missing() {
    let script = scripts()[0];
    let on = script.on(7);
    let mut correlator = watching();
    for (second, line) in (10..).zip(&create(on)[..4]) {
        correlator.observe(&on.observe(&line.event, second).unwrap());
    }
    let json = serde_json::to_string(&correlator).unwrap();
    let mut again: Correlator = serde_json::from_str(&json).unwrap();
    assert_eq!(again, correlator);
    again.observe(&lost(20, crate::model::observation::LossKind::NotWatching));
    again.observe(&gone(21));
    let saga = saga_of(&again, on);
    assert!(saga.gaps && windows(saga).0.is_superset(&[W::B4, W::B7, W::B10, W::X3].into()));
    again.world(&on.fill(world(30), &create(on)[8]));
    assert_eq!(windows(saga_of(&again, on)).0, [W::B7, W::B8, W::B9].into());
}

#[test]
fn sagas_and_their_steps_are_bounded() {
    let mut correlator = watching();
    for number in 0..3000 {
        let on = On {
            snapshot: 10 + number,
            with_parent: false,
        };
        correlator.observe(&on.observe(&create(on)[0].event, 10 + number).unwrap());
    }
    assert!(correlator.sagas().all().count() <= MAX_SAGAS);
    assert!(correlator.sagas().given_up() > 1900);
    let on = scripts()[4].on(2_000);
    correlator.observe(&on.observe(&remove(on)[0].event, 4000).unwrap());
    for second in 0..500 {
        let result = if second % 2 == 0 { -16 } else { -5 };
        correlator.observe(&call(
            4001 + second,
            DmCommand::DevRemove,
            &on.name(),
            Payload::Nothing,
            result,
            by_containerd(),
        ));
    }
    let saga = correlator.sagas().newest(&on.name()).unwrap();
    assert!(saga.steps.len() <= Saga::MAX_STEPS && saga.gaps);
}
