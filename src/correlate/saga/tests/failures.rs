//! Calls that fail over and over.

use super::*;

fn standing(correlator: &Correlator, second: u64) -> Vec<LiveFailure> {
    correlator
        .sagas()
        .failures()
        .standing(at(second))
        .cloned()
        .collect()
}

#[test]
fn numbers_that_the_pool_has_already_are_one_failure_that_a_good_create_ends() {
    let mut correlator = watching();
    for second in 10..13 {
        correlator.observe(&message(
            second,
            &format!("create_thin {second}"),
            -17,
            by_containerd(),
        ));
        correlator.observe(&message(second, "create_thin 99", -17, by_hand()));
    }
    let [failure] = standing(&correlator, 20).try_into().unwrap();
    assert_eq!((failure.kind, failure.count), (FailureKind::IdInPool, 3));
    assert_eq!(
        (failure.thin_id, failure.error.as_str()),
        (Some(ThinId(12)), "EEXIST")
    );
    assert_eq!(failure.to_string(), "create_thin fails with EEXIST (3 times)");
    assert!(failure.since < failure.last);
    assert!(failure.consequence().contains("uses up one number"));
    correlator.observe(&message(14, "delete 3", 0, by_containerd()));
    assert_eq!(standing(&correlator, 20).len(), 1);
    correlator.observe(&message(15, "create_thin 13", 0, by_containerd()));
    assert_eq!(standing(&correlator, 20), []);
}

#[test]
fn a_pool_that_refuses_and_a_parent_that_is_missing_are_told_by_what_they_are() {
    let mut correlator = watching();
    for second in 10..60 {
        correlator.observe(&message(
            second,
            &format!("create_snap {second} 3"),
            -95,
            by_containerd(),
        ));
    }
    correlator.observe(&message(60, "create_snap 60 3", -61, by_containerd()));
    correlator.observe(&message(61, "create_snap 61 4", -61, by_containerd()));
    // What is not there is deleted already.
    correlator.observe(&message(62, "delete 70", -61, by_containerd()));
    let all = standing(&correlator, 70);
    let told: Vec<_> = all.iter().map(|one| (one.kind, one.count, one.thin_id)).collect();
    assert_eq!(
        told,
        [
            (FailureKind::PoolRefuses, 50, Some(ThinId(59))),
            (FailureKind::ParentMissing, 1, Some(ThinId(3))),
            (FailureKind::ParentMissing, 1, Some(ThinId(4))),
        ]
    );
    correlator.observe(&message(63, "create_snap 62 3", 0, by_containerd()));
    let left = standing(&correlator, 70);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].thin_id, Some(ThinId(4)));
    assert_eq!(standing(&correlator, 662), [], "ten quiet minutes end it");
}

#[test]
fn a_device_in_use_is_a_failure_only_when_it_lasts_or_has_the_error_table() {
    let on = scripts()[4].on(7);
    let busy = |second| {
        let name = on.name();
        call(
            second,
            DmCommand::DevRemove,
            &name,
            Payload::Nothing,
            -16,
            by_containerd(),
        )
    };
    let mut correlator = watching();
    correlator.observe(&busy(10));
    correlator.observe(&busy(11));
    assert_eq!(standing(&correlator, 12), [], "dmsetup tries again by itself");
    correlator.observe(&busy(15));
    let [failure] = standing(&correlator, 16).try_into().unwrap();
    assert_eq!(
        (failure.kind, failure.device),
        (FailureKind::InUse, Some(on.name()))
    );
    assert!(!failure.error_table);

    let mut forced = watching();
    forced.observe(&busy(10));
    forced.observe(&on.observe(&Event::LoadError, 11).unwrap());
    let [failure] = standing(&forced, 12).try_into().unwrap();
    assert!(failure.error_table && failure.consequence().contains("error table"));
    let removed = call(
        13,
        DmCommand::DevRemove,
        &on.name(),
        Payload::Nothing,
        0,
        by_containerd(),
    );
    forced.observe(&removed);
    assert_eq!(standing(&forced, 14), []);
}

#[test]
fn failures_are_bounded_and_none_is_lost_from_the_count() {
    let mut correlator = watching();
    for (second, stand) in [(10, 0), (11, 64)] {
        for id in 0..100 {
            let name = format!("tp-snap-{}", id + 1);
            correlator.observe(&call(
                second,
                DmCommand::DevCreate,
                &name,
                Payload::Nothing,
                -16,
                by_containerd(),
            ));
        }
        // Once each: containerd takes that back.
        assert_eq!(standing(&correlator, second).len(), stand);
    }
    let all = standing(&correlator, 12);
    assert_eq!(correlator.sagas().failures().others(), 72);
    let names: std::collections::BTreeSet<_> = all.iter().map(|one| one.finding(&pool())).collect();
    assert_eq!(names.len(), 64, "each has a name of its own");
    assert!(all.iter().all(|one| one.kind == FailureKind::NameTaken));
}
