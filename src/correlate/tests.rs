use super::*;
use crate::{
    model::{
        Observation, OperationState, ThinId, World,
        dm::{DmCommand, Payload},
        observation::LossKind,
    },
    testing::*,
};

/// A correlator that has seen containerd start and one world.
fn watching() -> Correlator {
    let mut correlator = Correlator::new(pool(), at(0));
    correlator.observe(&up(1));
    correlator.world(&world(2));
    assert_eq!(correlator.gap(), None);
    correlator
}

fn feed(correlator: &mut Correlator, observations: &[Observation]) {
    for observation in observations {
        correlator.observe(observation);
    }
}

fn state(correlator: &Correlator, id: u32) -> Option<&OperationState> {
    correlator.maker_of(ThinId(id)).map(|operation| &operation.state)
}

#[test]
fn a_create_whose_containerd_dies_is_abandoned_once_the_databases_say_so() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[
            message(10, "create_thin 1", 0, by_containerd()),
            call(
                11,
                DmCommand::DevCreate,
                "tp-snap-1",
                Payload::Nothing,
                0,
                by_containerd(),
            ),
            load(12, "tp-snap-1", 1, by_containerd()),
            call(
                13,
                DmCommand::DevSuspend,
                "tp-snap-1",
                Payload::Nothing,
                0,
                by_containerd(),
            ),
        ],
    );
    assert_eq!(state(&correlator, 1), Some(&OperationState::InFlight));
    let operation = correlator.maker_of(ThinId(1)).unwrap();
    assert_eq!(operation.device_name.as_deref(), Some("tp-snap-1"));
    let requests: Vec<&str> = operation.steps.iter().map(|step| step.request.as_str()).collect();
    assert_eq!(
        requests,
        [
            "create_thin 1 on tp",
            "create device tp-snap-1",
            "load table of tp-snap-1: 0 8 thin 253:0 1",
            "resume tp-snap-1"
        ]
    );

    correlator.observe(&gone(14));
    assert_eq!(
        state(&correlator, 1),
        Some(&OperationState::Orphaned { at: at(14) })
    );
    // A world that was read before the death says nothing about what came after it.
    let half = |second| {
        world(second)
            .thin(1)
            .record("tp-snap-1", 1, crate::model::DeviceState::Activating)
    };
    correlator.world(&half(13));
    assert_eq!(
        state(&correlator, 1),
        Some(&OperationState::Orphaned { at: at(14) })
    );
    correlator.world(&half(15));
    let expected = OperationState::Abandoned {
        at: at(14),
        record: Some(crate::model::DeviceState::Activating),
        mark: mark(1),
    };
    assert_eq!(state(&correlator, 1), Some(&expected));
}

#[test]
fn an_operation_that_was_finished_before_the_death_is_completed() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[message(10, "create_thin 1", 0, by_containerd()), gone(11)],
    );
    correlator.world(
        &world(12)
            .thin(1)
            .record("tp-snap-1", 1, crate::model::DeviceState::Activated)
            .snapshot(1),
    );
    assert_eq!(
        state(&correlator, 1),
        Some(&OperationState::Completed { at: at(12) })
    );
}

#[test]
fn an_abandoned_operation_whose_device_turns_out_to_be_referenced_is_completed_after_all() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[message(10, "create_thin 1", 0, by_containerd()), gone(11)],
    );
    correlator.world(
        &world(12)
            .thin(1)
            .record("tp-snap-1", 1, crate::model::DeviceState::Activated),
    );
    assert!(matches!(
        state(&correlator, 1),
        Some(OperationState::Abandoned { .. })
    ));
    correlator.world(
        &world(13)
            .thin(1)
            .record("tp-snap-1", 1, crate::model::DeviceState::Faulty)
            .snapshot(1),
    );
    assert_eq!(
        state(&correlator, 1),
        Some(&OperationState::Completed { at: at(13) })
    );
}

#[test]
fn only_what_containerd_itself_asked_for_is_its_operation() {
    let shell_in_between = caller(&[(700, "sh"), (CONTAINERD, "containerd")]);
    let from_a_container = caller(&[(701, "containerd-shim"), (1, "systemd")]);
    let another_containerd = caller(&[(CONTAINERD + 1, "containerd")]);
    let mut not_dmsetup = by_containerd();
    not_dmsetup.process.comm = crate::model::Untrusted::from_bytes(b"lvcreate");
    for stranger in [
        by_hand(),
        shell_in_between,
        from_a_container,
        another_containerd,
        not_dmsetup,
    ] {
        let mut correlator = watching();
        correlator.observe(&message(10, "create_thin 1", 0, stranger.clone()));
        assert_eq!(correlator.maker_of(ThinId(1)), None, "{stranger:?}");
    }
    // A wrapper script of that name does not break the chain.
    let wrapped = caller(&[(701, "dmsetup"), (CONTAINERD, "containerd")]);
    let mut correlator = watching();
    correlator.observe(&message(10, "create_thin 1", 0, wrapped));
    assert!(correlator.maker_of(ThinId(1)).is_some());
}

#[test]
fn a_dmsetup_that_outlives_its_containerd_a_little_is_believed_and_a_later_one_is_not() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[gone(10), message(11, "create_thin 1", 0, by_containerd())],
    );
    assert_eq!(
        state(&correlator, 1),
        Some(&OperationState::Orphaned { at: at(10) })
    );
    correlator.observe(&message(30, "create_thin 2", 0, by_containerd()));
    assert_eq!(correlator.maker_of(ThinId(2)), None);
}

#[test]
fn a_refused_create_is_failed_and_speaks_for_nothing() {
    let mut correlator = watching();
    correlator.observe(&message(10, "create_snap 59 6", -17, by_containerd()));
    assert_eq!(correlator.maker_of(ThinId(59)), None);
    let operation = correlator.operations().next().unwrap();
    assert_eq!(
        operation.state,
        OperationState::Failed {
            error: "EEXIST".to_owned()
        }
    );
}

#[test]
fn a_device_of_the_same_id_made_by_somebody_else_ends_containerds_claim() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[
            message(10, "create_thin 1", 0, by_containerd()),
            gone(11),
            message(12, "delete 1", 0, by_hand()),
            message(13, "create_thin 1", 0, by_hand()),
        ],
    );
    assert_eq!(correlator.maker_of(ThinId(1)), None);
    let mut without_delete = watching();
    feed(
        &mut without_delete,
        &[
            message(10, "create_thin 1", 0, by_containerd()),
            message(13, "create_thin 1", 0, by_hand()),
        ],
    );
    assert_eq!(without_delete.maker_of(ThinId(1)), None);
    assert!(matches!(
        without_delete.operations().next().unwrap().state,
        OperationState::Superseded { .. }
    ));
}

#[test]
fn a_pool_that_was_taken_down_takes_every_claim_with_it() {
    let remove = |name, result| {
        call(
            12,
            DmCommand::DevRemove,
            name,
            Payload::Nothing,
            result,
            by_hand(),
        )
    };
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[message(10, "create_thin 1", 0, by_containerd()), gone(11)],
    );
    feed(&mut correlator, &[remove("other", 0), remove("tp", -16)]);
    assert!(correlator.maker_of(ThinId(1)).is_some());
    correlator.observe(&remove("tp", 0));
    assert_eq!(correlator.maker_of(ThinId(1)), None);
    assert!(matches!(
        correlator.operations().next().unwrap().state,
        OperationState::Superseded { .. }
    ));
}

#[test]
fn another_pools_messages_are_not_ours() {
    let mut correlator = watching();
    let mut other = message(10, "create_thin 1", 0, by_containerd());
    if let Observation::DmIoctl(call) = &mut other {
        call.name = crate::model::Untrusted::from_bytes(b"other");
    }
    correlator.observe(&other);
    assert_eq!(correlator.maker_of(ThinId(1)), None);
    // Named by its device number only, as by uuid: the number decides.
    if let Observation::DmIoctl(call) = &mut other {
        call.name = crate::model::Untrusted::default();
        call.device = Some(POOL_DEVICE);
    }
    correlator.observe(&other);
    assert!(correlator.maker_of(ThinId(1)).is_some());
}

/// Without probes every world may be old before it is used.
#[test]
fn a_blind_correlator_keeps_its_gap_for_ever() {
    let mut correlator = Correlator::new(pool(), at(0));
    let opened = correlator.observe(&lost(1, LossKind::Polling));
    assert!(matches!(opened.as_slice(), [Change::GapOpened(_)]), "{opened:?}");
    for second in [2, 100, 10_000] {
        let changes = correlator.world(&world(second));
        assert!(
            !changes.iter().any(|one| matches!(one, Change::GapClosed(_))),
            "{changes:?}"
        );
        assert!(correlator.is_blind() && correlator.gap().is_some());
    }
    // A gap of another kind that comes and would go does not end it either.
    correlator.observe(&lost(20_000, LossKind::DmRingFull));
    correlator.world(&world(30_000));
    assert!(correlator.gap().is_some());
}

/// An operation of an earlier suture, half done, whose end nobody saw: without a record nothing says that the device is
/// still the one it made.
#[test]
fn a_blind_correlator_abandons_nothing_that_containerd_has_no_record_of() {
    let mut correlator = Correlator::new(pool(), at(0));
    let mut seen = Correlator::new(pool(), at(0));
    seen.observe(&up(1));
    seen.world(&world(2));
    seen.observe(&message(3, "create_thin 1", 0, by_containerd()));
    let operation = seen.operations().next().unwrap().clone();
    correlator.observe(&lost(4, LossKind::Polling));
    correlator.remember(operation.clone());
    correlator.world(&world(5));
    correlator.observe(&gone(6));
    correlator.world(&world(7).thin(1));
    let state = &correlator.operation(&operation.id).unwrap().state;
    assert!(state.is_closed(), "{state:?}");
}

#[test]
fn lost_events_open_a_gap_that_only_a_later_world_closes() {
    let mut correlator = watching();
    correlator.observe(&lost(10, LossKind::BlockRingFull));
    assert_eq!(correlator.gap(), None, "lost block errors hide no operation");
    correlator.observe(&lost(10, LossKind::DmRingFull));
    assert!(correlator.gap().is_some());
    correlator.world(&world(9));
    correlator.world(&world(10));
    assert!(
        correlator.gap().is_some(),
        "a world begun before the loss was noticed closes nothing"
    );
    let changes = correlator.world(&world(11));
    assert!(matches!(changes.as_slice(), [Change::GapClosed(_)]));
    assert_eq!(correlator.gap(), None);
}

#[test]
fn a_message_that_can_not_be_read_is_a_gap_when_it_took_effect() {
    for (payload, truncated) in [
        (Payload::Malformed, false),
        (
            Payload::Message(crate::model::dm::Message::parse(b"delete 12x")),
            true,
        ),
    ] {
        let mut correlator = watching();
        let observation = |result| {
            let mut observation = call(10, DmCommand::TargetMsg, "tp", payload.clone(), result, by_hand());
            if let Observation::DmIoctl(call) = &mut observation {
                call.truncated = truncated;
            }
            observation
        };
        correlator.observe(&observation(-22));
        assert_eq!(correlator.gap(), None);
        correlator.observe(&observation(0));
        assert!(correlator.gap().is_some());
    }
}

#[test]
fn a_call_of_which_nothing_could_be_read_may_have_been_about_our_pool() {
    let mut correlator = watching();
    correlator.observe(&call(
        10,
        DmCommand::TargetMsg,
        "other",
        Payload::Malformed,
        0,
        by_hand(),
    ));
    assert_eq!(correlator.gap(), None);
    correlator.observe(&call(
        11,
        DmCommand::TargetMsg,
        "",
        Payload::Malformed,
        0,
        by_hand(),
    ));
    assert!(correlator.gap().is_some());
}

#[test]
fn what_an_earlier_suture_left_in_flight_under_a_dead_containerd_is_orphaned() {
    let mut earlier = watching();
    earlier.observe(&message(10, "create_thin 1", 0, by_containerd()));
    let operation = earlier.maker_of(ThinId(1)).unwrap().clone();

    let mut correlator = Correlator::new(pool(), at(20));
    assert!(correlator.remember(operation.clone()));
    assert!(correlator.gap().is_some(), "suture was not watching");
    correlator.observe(&up(21));
    assert_eq!(
        correlator.bury_unknown_actors(at(21)),
        [],
        "the same containerd still runs"
    );
    let mut correlator = Correlator::new(pool(), at(20));
    assert!(correlator.remember(operation));
    correlator.bury_unknown_actors(at(21));
    assert_eq!(
        state(&correlator, 1),
        Some(&OperationState::Orphaned { at: at(21) })
    );
}

#[test]
fn what_an_earlier_suture_saw_on_another_pool_proves_nothing_here() {
    let mut earlier = watching();
    earlier.observe(&message(10, "create_thin 1", 0, by_containerd()));
    let operation = earlier.maker_of(ThinId(1)).unwrap().clone();
    let mut correlator = Correlator::new(crate::model::PoolName::new("other"), at(20));
    assert!(!correlator.remember(operation));
    assert_eq!(correlator.maker_of(ThinId(1)), None);
}

#[test]
fn a_device_that_is_gone_from_the_pool_ends_its_operation() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[message(10, "create_thin 1", 0, by_containerd()), gone(11)],
    );
    let changes = correlator.world(&world(12));
    assert_eq!(changes.len(), 1);
    assert!(matches!(
        correlator.operations().next().unwrap().state,
        OperationState::Deleted { .. }
    ));
}

#[test]
fn memory_is_bounded_and_open_operations_outlive_closed_ones() {
    let mut correlator = watching();
    correlator.observe(&message(3, "create_thin 1", 0, by_containerd()));
    for id in 0..10_000 {
        correlator.observe(&message(
            10 + id,
            &format!("create_thin {}", 2 + id),
            -17,
            by_containerd(),
        ));
    }
    assert!(correlator.operations().count() <= 4096);
    assert_eq!(state(&correlator, 1), Some(&OperationState::InFlight));
}

/// An operation that was abandoned before a gap, whose record is overwritten by now.
fn abandoned() -> Correlator {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[message(10, "create_thin 1", 0, by_containerd()), gone(11)],
    );
    let half = world(12)
        .thin(1)
        .record("tp-snap-1", 1, crate::model::DeviceState::Activating);
    correlator.world(&half);
    assert!(matches!(
        state(&correlator, 1),
        Some(OperationState::Abandoned { .. })
    ));
    correlator
}

#[test]
fn a_device_made_again_unseen_is_not_the_one_that_was_abandoned() {
    let mut correlator = abandoned();
    correlator.observe(&lost(20, LossKind::DmRingFull));
    correlator.world(&world(21).thin(1));
    assert!(
        matches!(state(&correlator, 1), Some(OperationState::Abandoned { .. })),
        "the very same device"
    );

    correlator.observe(&lost(30, LossKind::DmRingFull));
    let mut again = world(31).thin(1);
    again.mapping_roots.insert(ThinId(1), 999);
    correlator.world(&again);
    assert_eq!(
        correlator.maker_of(ThinId(1)).map(|one| &one.state),
        Some(&OperationState::Superseded { at: at(31) })
    );

    // Also without a gap: a caller that no probe sees is no gap.
    let mut correlator = abandoned();
    correlator.world(&again);
    assert!(matches!(
        state(&correlator, 1),
        Some(OperationState::Superseded { .. })
    ));
}

#[test]
fn after_a_reboot_only_containerds_own_record_still_vouches_for_a_device() {
    let rebooted = |mut world: World| {
        world.pool.activation.boot = "next boot".to_owned();
        world
    };
    let mut forgotten = abandoned();
    forgotten.world(&rebooted(world(30).thin(1)));
    assert!(matches!(
        state(&forgotten, 1),
        Some(OperationState::Superseded { .. })
    ));

    let mut vouched = abandoned();
    vouched.world(&rebooted(world(30).thin(1).record(
        "tp-snap-1",
        1,
        crate::model::DeviceState::Faulty,
    )));
    let Some(OperationState::Abandoned { mark, .. }) = state(&vouched, 1) else {
        panic!("still abandoned")
    };
    assert_eq!(mark.activation.boot, "next boot");
    vouched.world(&rebooted(world(40).thin(1)));
    assert!(matches!(
        state(&vouched, 1),
        Some(OperationState::Abandoned { .. })
    ));
}

#[test]
fn an_operation_that_was_not_watched_to_its_end_needs_containerds_record() {
    let mut earlier = watching();
    earlier.observe(&message(10, "create_thin 1", 0, by_containerd()));
    let operation = earlier.maker_of(ThinId(1)).unwrap().clone();
    for (record, abandoned) in [(true, true), (false, false)] {
        let mut correlator = Correlator::new(pool(), at(20));
        correlator.remember(operation.clone());
        correlator.bury_unknown_actors(at(21));
        let now = world(22).thin(1);
        let now = if record {
            now.record("tp-snap-1", 1, crate::model::DeviceState::Created)
        } else {
            now
        };
        correlator.world(&now);
        let is = matches!(state(&correlator, 1), Some(OperationState::Abandoned { .. }));
        assert_eq!(is, abandoned, "{:?}", state(&correlator, 1));
        // Not even when its containerd's end is noticed only after the gap was closed.
        let mut late = Correlator::new(pool(), at(20));
        late.remember(operation.clone());
        late.world(&now);
        late.bury_unknown_actors(at(23));
        let later = World { begun: at(24), ..now };
        late.world(&later);
        let is = matches!(state(&late, 1), Some(OperationState::Abandoned { .. }));
        assert_eq!(is, abandoned, "{:?}", state(&late, 1));
    }
}

#[test]
fn messages_are_understood_in_any_case_and_unknown_ones_are_a_gap() {
    let mut correlator = abandoned();
    correlator.observe(&message(20, "DELETE 1", 0, by_hand()));
    assert_eq!(correlator.maker_of(ThinId(1)), None);
    let mut correlator = abandoned();
    correlator.observe(&message(20, "Create_Thin 1", 0, by_hand()));
    assert_eq!(correlator.maker_of(ThinId(1)), None);

    let mut correlator = watching();
    for harmless in [
        "reserve_metadata_snap",
        "Release_Metadata_Snap",
        "set_transaction_id 0 1",
        "@cancel_deferred_remove",
    ] {
        correlator.observe(&message(20, harmless, 0, by_hand()));
        assert_eq!(correlator.gap(), None, "{harmless}");
    }
    correlator.observe(&message(20, "del\\ete 1", -22, by_hand()));
    assert_eq!(correlator.gap(), None, "it was refused");
    correlator.observe(&message(20, "del\\ete 1", 0, by_hand()));
    assert!(correlator.gap().is_some());
}

#[test]
fn a_renamed_pool_takes_every_claim_with_it() {
    let mut correlator = abandoned();
    correlator.observe(&call(
        20,
        DmCommand::DevRename,
        "tp",
        Payload::Nothing,
        0,
        by_hand(),
    ));
    assert_eq!(correlator.maker_of(ThinId(1)), None);
}

/// The world was read, then the operation's containerd was found dead: that world can not question the operation, so it
/// does not close the gap either.
#[test]
fn a_world_that_is_too_old_for_an_open_operation_closes_no_gap() {
    let mut earlier = watching();
    earlier.observe(&message(10, "create_thin 1", 0, by_containerd()));
    let operation = earlier.maker_of(ThinId(1)).unwrap().clone();
    let mut correlator = Correlator::new(pool(), at(20));
    assert!(correlator.remember(operation));
    correlator.bury_unknown_actors(at(23));
    correlator.world(&world(22).thin(1));
    assert!(correlator.gap().is_some());
    correlator.world(&world(24).thin(1));
    assert_eq!(correlator.gap(), None);
    assert_eq!(
        correlator.maker_of(ThinId(1)).map(|one| &one.state),
        Some(&OperationState::Superseded { at: at(24) })
    );
}

#[test]
fn block_errors_are_told_now_and_then_and_their_loss_opens_no_gap() {
    let mut correlator = Correlator::new(pool(), at(0));
    correlator.world(&world(1));
    let error = crate::model::observation::BlockError {
        at: at(2),
        device: crate::model::DeviceNumber { major: 7, minor: 1 },
        sector: crate::model::Sectors(256),
        length: crate::model::Sectors(8),
        errno: 5,
        direction: crate::model::observation::Direction::Read,
        operation: crate::model::Untrusted::default(),
        source: crate::model::observation::BlockSource::Request,
    };
    let failed = Observation::BlockError(error);
    assert!(matches!(
        correlator.observe(&failed)[..],
        [Change::BlockErrors { count: 1, .. }]
    ));
    assert_eq!(correlator.observe(&failed), []);
    assert_eq!(correlator.observe(&lost(3, LossKind::BlockRingFull)), []);
    assert_eq!(
        correlator.observe(&lost(
            3,
            LossKind::DatabaseUnread {
                database: crate::model::commit::DatabaseKind::Pool
            }
        )),
        []
    );
    assert!(correlator.gap().is_none());
    assert_eq!(correlator.block_errors().losses().map(|lost| lost.count), Some(3));
    assert_eq!(correlator.questions(at(4)).data_ranges.len(), 1);
}

#[test]
fn the_time_in_which_nobody_watched_is_one_gap_with_the_start_and_one_of_its_own_later() {
    let unseen = |second| Observation::Lost {
        since: at(second - 1),
        at: at(second),
        what: LossKind::NotWatching,
        count: 0,
    };
    let mut correlator = Correlator::new(pool(), at(1));
    assert_eq!(correlator.observe(&unseen(5)), []);
    // It ends with the later of both.
    correlator.world(&world(4));
    assert!(correlator.gap().is_some());
    correlator.world(&world(6));
    assert_eq!(correlator.gap(), None);
    let changes = correlator.observe(&unseen(9));
    assert!(
        matches!(changes.as_slice(), [Change::GapOpened(_)]),
        "{changes:?}"
    );
}

#[test]
fn of_several_operations_on_one_device_name_the_open_one_gets_its_calls() {
    let mut correlator = watching();
    feed(
        &mut correlator,
        &[
            message(10, "create_thin 1", 0, by_containerd()),
            load(11, "tp-snap-1", 1, by_containerd()),
            message(12, "delete 1", 0, by_containerd()),
            message(20, "create_thin 2", 0, by_containerd()),
            load(21, "tp-snap-1", 2, by_containerd()),
        ],
    );
    let suspend = DmCommand::DevSuspend;
    let changes = correlator.observe(&call(
        30,
        suspend,
        "tp-snap-1",
        Payload::Nothing,
        0,
        by_containerd(),
    ));
    let [Change::Stepped(stepped)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(correlator.operation(stepped).unwrap().thin_id, ThinId(2));
}

#[test]
fn what_is_told_late_does_not_end_an_open_gap_earlier_nor_hide_why_it_is_open() {
    let mut correlator = watching();
    correlator.observe(&lost(10, LossKind::DmRingFull));
    correlator.observe(&lost(4, LossKind::Lineage));
    correlator.world(&world(5));
    let gap = correlator
        .gap()
        .expect("what was lost at 10 is not explained by a world of 5");
    assert!(
        gap.why.contains("ring buffer was full") && gap.why.contains("forks"),
        "{}",
        gap.why
    );
    for second in 11..500 {
        correlator.observe(&lost(second, LossKind::DmRingFull));
    }
    assert!(correlator.gap().unwrap().why.len() < 1024);
    correlator.world(&world(501));
    assert_eq!(correlator.gap(), None);
}
