use super::*;
use crate::{
    model::{
        DeviceNumber, DeviceState, Observation, Operation, OperationState, PoolMode, Side, ThinId,
        dm::{CallResult, DmCommand, Payload, Process},
        kernel::{DeviceEnded, Ending, PoolCall, PoolFunction, ProcessChange},
        text::Untrusted,
    },
    testing::*,
};

const OF_SNAPSHOT: DeviceNumber = DeviceNumber { major: 253, minor: 7 };

fn watching() -> Correlator {
    let mut correlator = Correlator::new(pool(), at(0));
    correlator.observe(&up(1));
    correlator.world(&world(2));
    correlator
}

fn kernel_thread() -> Process {
    Process {
        pid: 9,
        comm: Untrusted::from_bytes(b"kworker/u2:0"),
    }
}

fn inside(
    second: u64,
    metadata_device: Option<DeviceNumber>,
    what: PoolFunction,
    result: i32,
) -> Observation {
    Observation::PoolCall(PoolCall {
        entered: at(second),
        duration: std::time::Duration::ZERO,
        metadata_device,
        what,
        result: CallResult::from_return(result),
        process: kernel_thread(),
    })
}

fn steps(operation: &Operation) -> Vec<(Side, String)> {
    let both = operation
        .steps
        .iter()
        .map(|step| (step.side, step.request.clone()));
    both.collect()
}

#[test]
fn both_sides_of_a_create_stand_in_one_ordered_story() {
    use DeviceState::{Activated, Activating, Created, Creating, Unknown};
    let mut correlator = watching();
    for observation in [
        transition(10, 1, None, Some(Unknown)),
        transition(11, 1, Some(Unknown), Some(Creating)),
        message(12, "create_thin 1", 0, by_containerd()),
        transition(14, 1, Some(Creating), Some(Created)),
        transition(15, 1, Some(Created), Some(Activating)),
        load(16, "tp-snap-1", 1, by_containerd()),
        transition(18, 1, Some(Activating), Some(Activated)),
        // Noticed late: it belongs before the load.
        inside(13, Some(world(2).pool.metadata_device), PoolFunction::Commit, 0),
    ] {
        correlator.observe(&observation);
    }
    let told = steps(correlator.maker_of(ThinId(1)).unwrap());
    let expected = [
        (Side::Database, "record tp-snap-1: none -> Unknown (thin id 1)"),
        (Side::Database, "record tp-snap-1: Unknown -> Creating"),
        (Side::Call, "create_thin 1 on tp"),
        (Side::Kernel, "pool: commit metadata"),
        (Side::Database, "record tp-snap-1: Creating -> Created"),
        (Side::Database, "record tp-snap-1: Created -> Activating"),
        (Side::Call, "load table of tp-snap-1: 0 8 thin 253:0 1"),
        (Side::Database, "record tp-snap-1: Activating -> Activated"),
    ];
    let expected = expected.map(|(side, text)| (side, text.to_owned()));
    assert_eq!(told, expected);
}

#[test]
fn what_was_committed_about_an_earlier_device_of_the_id_is_another_story() {
    use DeviceState::{Creating, Removed, Unknown};
    let mut correlator = watching();
    for observation in [
        transition(5, 1, Some(Creating), Some(Removed)),
        transition(6, 1, Some(Removed), None),
        transition(10, 1, None, Some(Unknown)),
        message(12, "create_thin 1", 0, by_containerd()),
    ] {
        correlator.observe(&observation);
    }
    assert_eq!(steps(correlator.maker_of(ThinId(1)).unwrap()).len(), 2);
}

#[test]
fn a_failed_commit_is_part_of_the_story_of_what_is_not_finished_in_this_pool_only() {
    let mut correlator = watching();
    correlator.observe(&message(10, "create_thin 1", 0, by_containerd()));
    let ours = world(2).pool.metadata_device;
    let another = DeviceNumber { major: 8, minor: 3 };
    for (device, what, result) in [
        (Some(ours), PoolFunction::Commit, -5),
        (Some(ours), PoolFunction::Abort, -5),
        (
            Some(ours),
            PoolFunction::SetMode {
                mode: PoolMode::Failed,
            },
            0,
        ),
        (Some(another), PoolFunction::Abort, 0),
        (None, PoolFunction::Abort, 0),
    ] {
        correlator.observe(&inside(11, device, what, result));
    }
    let operation = correlator.maker_of(ThinId(1)).unwrap();
    assert_eq!(operation.steps.len(), 4, "{:?}", operation.steps);
    assert_eq!(operation.steps[1].error.as_deref(), Some("EIO"));
    // It decides nothing: whether the device is there is for the world to say.
    assert_eq!(operation.state, OperationState::InFlight);
}

#[test]
fn a_device_that_ends_later_is_named_by_the_number_it_had() {
    let mut correlator = watching();
    let mut create = call(
        11,
        DmCommand::DevCreate,
        "tp-snap-1",
        Payload::Nothing,
        0,
        by_containerd(),
    );
    if let Observation::DmIoctl(call) = &mut create {
        call.device = Some(OF_SNAPSHOT);
    }
    let ended = |second, device| {
        Observation::DeviceEnded(DeviceEnded {
            at: at(second),
            device,
            deferred: true,
            process: kernel_thread(),
        })
    };
    for observation in [
        message(10, "create_thin 1", 0, by_containerd()),
        create,
        load(12, "tp-snap-1", 1, by_containerd()),
        ended(20, None),
        ended(21, Some(POOL_DEVICE)),
        ended(22, Some(OF_SNAPSHOT)),
        ended(23, Some(OF_SNAPSHOT)),
    ] {
        correlator.observe(&observation);
    }
    let ends: Vec<String> = steps(correlator.maker_of(ThinId(1)).unwrap())
        .into_iter()
        .filter(|(side, _)| *side == Side::Kernel)
        .map(|(_, text)| text)
        .collect();
    assert_eq!(ends, ["tp-snap-1 is gone: its deferred removal is complete"]);
}

#[test]
fn how_containerd_ended_is_known_whichever_is_noticed_first() {
    let ended = |second, pid| {
        let mut who = by_containerd();
        who.process.pid = pid;
        Observation::Process(ProcessChange {
            at: at(second),
            who,
            ended: Some(Ending::OutOfMemory),
        })
    };
    for order in [
        [ended(10, CONTAINERD), gone(11)],
        [gone(11), ended(10, CONTAINERD)],
    ] {
        let mut correlator = watching();
        for observation in order {
            correlator.observe(&observation);
        }
        assert_eq!(correlator.ending_of(&containerd()), Some(Ending::OutOfMemory));
    }
    // Neither another process, nor one that took the pid over long after.
    for (first, second) in [(ended(10, 4711), gone(11)), (gone(11), ended(500, CONTAINERD))] {
        let mut correlator = watching();
        correlator.observe(&first);
        correlator.observe(&second);
        assert_eq!(correlator.ending_of(&containerd()), None);
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut correlator = watching();
    for number in 0..20_000_u32 {
        let mut create = call(11, DmCommand::DevCreate, "x", Payload::Nothing, 0, by_hand());
        if let Observation::DmIoctl(call) = &mut create {
            call.device = Some(DeviceNumber {
                major: 253,
                minor: number,
            });
        }
        correlator.observe(&create);
        correlator.observe(&transition(11, number, None, Some(DeviceState::Unknown)));
    }
    assert!(correlator.inside.sizes() <= (4096, 64));
}
