use super::*;
use crate::{
    model::{
        DataOwners, DeviceState, IdState, PoolMode, Sectors, ThinId, Untrusted,
        observation::{BlockError, BlockSource, Direction},
        ranges::{Range, Ranges},
        topology::{BlockDevice, Layer},
    },
    testing::{self, Fill as _, at},
};

const DATA: DeviceNumber = DeviceNumber { major: 7, minor: 1 };
const METADATA: DeviceNumber = DeviceNumber { major: 7, minor: 0 };
const DISK: DeviceNumber = DeviceNumber { major: 8, minor: 0 };
const NODE: DeviceNumber = DeviceNumber { major: 253, minor: 7 };
const STRANGER: DeviceNumber = DeviceNumber { major: 8, minor: 99 };

/// A pool of which data and metadata lie on one disk, at 1000 and at 9000, and one snapshot on it.
fn world() -> World {
    let mut world = testing::world(100)
        .thin(1)
        .id(1, IdState::Taken)
        .record("tp-snap-3", 1, DeviceState::Activated)
        .snapshot(3)
        .node("tp-snap-3", 1);
    world.topology = Topology::of_pool(&world.pool);
    for (device, lower_start) in [(DATA, 1000), (METADATA, 9000)] {
        let on = vec![Layer::Linear {
            start: 0,
            length: 5000,
            lower: DISK,
            lower_start,
        }];
        let name = Untrusted::from_bytes(if device == DATA { b"tdata" } else { b"tmeta" });
        world.topology.devices.insert(
            device,
            BlockDevice {
                name,
                on,
                ..BlockDevice::default()
            },
        );
    }
    world.topology.devices.insert(DISK, BlockDevice::default());
    world
}

fn owned(mut world: World, owners: &[(u32, u64)]) -> World {
    let mut blocks = Ranges::default();
    blocks.insert(Range { start: 2, end: 3 });
    world.data_owners = Some(DataOwners {
        blocks,
        owners: owners.iter().map(|(id, count)| (ThinId(*id), *count)).collect(),
        incomplete: None,
    });
    world
}

fn fail(errors: &mut BlockErrors, second: u64, device: DeviceNumber, sector: u64, length: u64) {
    errors.take_in(&BlockError {
        at: at(second),
        device,
        sector: Sectors(sector),
        length: Sectors(length),
        errno: 5,
        direction: Direction::Write,
        operation: Untrusted::default(),
        source: BlockSource::Bio,
    });
}

fn judge(world: &World, errors: &mut BlockErrors) -> Vec<Finding> {
    errors.world(world);
    findings(&scene(world), errors, world.begun)
}

fn scene(world: &World) -> Scene<'_> {
    Scene {
        pool: &world.pool,
        nodes: &world.nodes,
        topology: &world.topology,
        world: Some(world),
    }
}

fn text(finding: &Finding) -> String {
    finding.evidence.join("\n")
}

#[test]
fn one_failure_seen_on_all_levels_is_one_finding_on_the_lowest() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, DISK, 1256, 8);
    fail(&mut errors, 90, DATA, 256, 8);
    fail(&mut errors, 91, testing::POOL_DEVICE, 256, 8);
    fail(&mut errors, 91, NODE, 0, 8);
    let found = judge(&owned(world(), &[(1, 1), (9, 1)]), &mut errors);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].id.0, "block-errors/tp/8:0");
    assert_eq!(found[0].subject, Subject::BlockDevice { device: DISK });
    let text = text(&found[0]);
    for part in [
        "1 write on 8:0 failed with EIO",
        "at sectors 1256-1263",
        "the data device of pool tp, 7:1 (tdata), lies on it: its sectors 256-263 are hit",
        "thin device 1, containerd's tp-snap-3, active snapshot default/3/key, has data in 1 of these blocks",
        "the failed sectors lie in data blocks 2 of the pool",
        "thin device 9, which no record of containerd's names, has data in 1",
        "the same shows above it, on 7:1 (tdata): 1 failed",
        "the same shows above it, on tp-snap-3 (253:7): 1 failed",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!text.contains("metadata"), "{text}");
}

#[test]
fn a_failing_metadata_device_hits_the_whole_pool() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, METADATA, 8, 8);
    fail(&mut errors, 91, NODE, 0, 8);
    let found = judge(&world(), &mut errors);
    assert_eq!(found.len(), 1, "{found:?}");
    let text = text(&found[0]);
    assert!(
        text.contains("7:0 (tmeta) is the metadata device of pool tp"),
        "{text}"
    );
    assert!(
        text.contains("the whole pool is hit, with 1 thin device"),
        "{text}"
    );
    assert!(!text.contains("the data device"), "{text}");
}

#[test]
fn what_has_nothing_to_do_with_the_pool_is_no_finding() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, STRANGER, 0, 8);
    // On the pool's disk, in somebody else's sectors.
    fail(&mut errors, 90, DISK, 100, 8);
    assert_eq!(judge(&world(), &mut errors), []);
    // A flush has no sectors: it may have been the pool's.
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, DISK, 0, 0);
    let found = judge(&world(), &mut errors);
    assert!(text(&found[0]).contains("where is not known"), "{found:?}");
}

#[test]
fn a_thin_device_that_fails_alone_is_a_finding_of_its_own() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, NODE, 0, 8);
    let mut world = world();
    let found = judge(&world, &mut errors);
    assert_eq!(found[0].subject, Subject::BlockDevice { device: NODE });
    assert!(
        text(&found[0]).contains("tp-snap-3 (253:7) is thin device 1"),
        "{found:?}"
    );
    assert!(text(&found[0]).contains("no device below it fails"), "{found:?}");

    // `dmsetup remove --force` took its table away: the name is left.
    for node in &mut world.nodes {
        node.thin_ids.clear();
    }
    let targets = vec![Untrusted::from_bytes(b"error")];
    let bare = BlockDevice {
        targets,
        ..BlockDevice::default()
    };
    world.topology.devices.insert(NODE, bare);
    let text = text(&judge(&world, &mut errors)[0]);
    assert!(
        text.contains("is thin device 1, containerd's tp-snap-3"),
        "{text}"
    );
    assert!(
        text.contains("the live table of tp-snap-3 (253:7) is `error`"),
        "{text}"
    );
}

#[test]
fn what_a_failed_pool_refuses_is_the_pools_finding_and_none_of_each_device() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, NODE, 0, 8);
    let mut world = world();
    world.pool.mode = PoolMode::Failed;
    assert_eq!(judge(&world, &mut errors), []);
}

#[test]
fn an_old_failure_below_explains_no_new_one_above() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 10, DISK, 1256, 8);
    fail(&mut errors, 2000, NODE, 0, 8);
    let mut world = world();
    world.begun = at(2001);
    let found = judge(&world, &mut errors);
    let subjects: Vec<&Subject> = found.iter().map(|one| &one.subject).collect();
    assert_eq!(
        subjects,
        [
            &Subject::BlockDevice { device: DISK },
            &Subject::BlockDevice { device: NODE }
        ]
    );
}

#[test]
fn a_storm_is_one_finding_with_its_numbers_and_losses() {
    let mut errors = BlockErrors::default();
    for nth in 0..50_000 {
        fail(&mut errors, 50 + nth / 1000, DATA, nth % 4000, 8);
    }
    errors.lost(at(99), 1234);
    let found = judge(&owned(world(), &[]), &mut errors);
    assert_eq!(found.len(), 1);
    let text = text(&found[0]);
    assert!(text.contains("50000 writes on 7:1 (tdata)"), "{text}");
    assert!(
        text.contains("these are least numbers: 1234 block events were lost"),
        "{text}"
    );
    assert!(text.contains("no thin device has data in these blocks"), "{text}");
    assert!(found[0].evidence.len() < 10 && text.len() < 2000);
}

#[test]
fn without_a_world_the_device_is_still_found_and_what_is_unknown_is_said() {
    let mut errors = BlockErrors::default();
    fail(&mut errors, 90, DATA, 0, 8);
    let mut world = world();
    world.topology = Topology::of_pool(&world.pool);
    world.topology.note_unread("sysfs is not there".to_owned());
    world.pool.mode = PoolMode::Failed;
    let scene = Scene {
        world: None,
        ..scene(&world)
    };
    let found = findings(&scene, &errors, at(91));
    let text = text(&found[0]);
    assert!(text.contains("7:1 is the data device of pool tp"), "{text}");
    assert!(text.contains("can not be told while"), "{text}");
    assert!(text.contains("sysfs is not there"), "{text}");
}
