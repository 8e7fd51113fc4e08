//! The record that stops all further snapshots (containerd#5646). containerd draws the next snapshot's id from a sequence
//! that is stored together with the snapshot. A containerd that dies between "the device is activated" and "the snapshot
//! is stored" draws the same id again, finds the record of that name, and refuses, for ever.

use std::time::Duration;

use crate::{
    correlate::{Correlator, Running, Standing},
    model::{
        DeviceState, Finding, FindingClass, FindingId, Operation, OperationState, Provenance, Subject,
        Timestamp, World,
    },
};

/// Nobody who lives leaves a record and the whole database untouched for so long, except while a file system is made.
const STILL: Duration = Duration::from_mins(1);
/// And a file system that suture saw begin may take its time on a large device.
const STILL_AT_WORK: Duration = Duration::from_mins(10);
/// A containerd that has just started may not have been noticed yet.
const NOTICED: Duration = Duration::from_secs(5);

/// The record of the next snapshot, if nobody is at work on it.
pub(super) fn finding(world: &World, known: &Correlator, now: Timestamp) -> Option<Finding> {
    let record = world.next_record().filter(|record| blocks(record.state))?;
    let standing = known
        .next_record()
        .filter(|standing| standing.record == *record)?;
    let maker = known.maker_of(record.device_id);
    let why = abandoned(maker, standing, known, now)?;
    let provenance = match maker.filter(|maker| matches!(maker.state, OperationState::Abandoned { .. })) {
        Some(maker) => Provenance::SeenByProbe {
            operation: maker.id.clone(),
        },
        None => Provenance::Unknown,
    };
    let mut evidence = vec![
        format!(
            "containerd's record {} of thin device {} says {}, and no snapshot has its number",
            record.name.escape_debug(),
            record.device_id,
            record.state
        ),
        format!(
            "the next snapshot gets the number {}, so each prepare finds that record and fails with \"already exists\"",
            world.snapshots.sequence.saturating_add(1)
        ),
        why,
    ];
    if !record.error.is_empty() {
        evidence.push(format!("containerd noted in it: {}", record.error.escape_debug()));
    }
    Some(Finding {
        id: FindingId::of_record(FindingClass::Wedge, &world.pool.name, &record.name),
        class: FindingClass::Wedge,
        pool: world.pool.name.clone(),
        subject: Subject::Record {
            name: record.name.clone(),
            thin_id: record.device_id,
        },
        provenance,
        evidence,
        died_in: None,
    })
}

/// Whether the record of a finding is in the way still.
pub(super) fn is_there(finding: &Finding, world: &World) -> bool {
    let record = world.next_record().filter(|record| blocks(record.state));
    record.is_some_and(|record| {
        let of_record = Subject::Record {
            name: record.name.clone(),
            thin_id: record.device_id,
        };
        finding.subject == of_record
    })
}

/// At or past Activated: until then a containerd is on its way through states that its next start marks faulty. A faulty
/// record is overwritten and stops nobody (`AddDevice`, plugins/snapshots/devmapper/metadata.go).
fn blocks(state: DeviceState) -> bool {
    (DeviceState::Activated..=DeviceState::Removed).contains(&state)
}

/// Why nobody is at work on it; nothing while somebody may be.
fn abandoned(
    maker: Option<&Operation>,
    standing: &Standing,
    known: &Correlator,
    now: Timestamp,
) -> Option<String> {
    let stands = now.since(standing.since);
    let patience = match maker.map(|maker| &maker.state) {
        Some(OperationState::Abandoned { at, .. }) => {
            return Some(format!(
                "suture saw it being made, and its maker was gone at {at}"
            ));
        }
        // The next read of the world will tell what became of it.
        Some(OperationState::Orphaned { .. }) => return None,
        // What containerd itself noted as failed it does not go on with.
        Some(OperationState::InFlight) if standing.record.error.is_empty() => STILL_AT_WORK,
        _ => STILL,
    };
    if known.running() == Running::No && stands >= NOTICED {
        return Some("no containerd runs that could be at work on it".to_owned());
    }
    // A later containerd does not go on with what an earlier one began.
    if let Some(death) = known.last_death().filter(|death| standing.since < *death) {
        return Some(format!(
            "it was there just so before a containerd ended at {death}, and no other goes on with it"
        ));
    }
    let unmoved = now.since(standing.unmoved);
    (unmoved >= patience).then(|| {
        format!(
            "neither it nor anything else in containerd's database has changed since {}",
            standing.unmoved
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{IdState, TxId},
        testing::{self, Fill as _, at, by_containerd, gone, load, message, pool, up},
    };

    /// The record of snapshot 1, made and activated, mkfs not done or not told of.
    fn half_made(second: u64) -> World {
        testing::world(second)
            .thin(1)
            .id(1, IdState::Taken)
            .record("tp-snap-1", 1, DeviceState::Activated)
            .node("tp-snap-1", 1)
    }

    fn judge(known: &mut Correlator, world: &World) -> Option<Finding> {
        known.world(world);
        finding(world, known, world.begun)
    }

    /// A containerd that is known to run, and was seen to make the device.
    fn at_work() -> Correlator {
        let mut known = Correlator::new(pool(), at(0));
        known.observe(&up(1));
        known.observe(&message(9, "create_thin 1", 0, by_containerd()));
        known.observe(&load(9, "tp-snap-1", 1, by_containerd()));
        known
    }

    /// A containerd that is known to run; what it did was not seen.
    fn unseen() -> Correlator {
        let mut known = Correlator::new(pool(), at(0));
        known.observe(&up(1));
        known
    }

    #[test]
    fn a_prepare_whose_maker_died_is_a_wedge_at_once() {
        let mut known = at_work();
        assert_eq!(judge(&mut known, &half_made(10)), None);
        known.observe(&gone(11));
        let found = judge(&mut known, &half_made(12)).unwrap();
        assert_eq!(found.class, FindingClass::Wedge);
        assert_eq!(found.id.0, "wedge/tp/tp-snap-1");
        assert!(matches!(found.provenance, Provenance::SeenByProbe { .. }));
        assert!(
            found
                .evidence
                .iter()
                .any(|text| text.contains("suture saw it being made"))
        );
    }

    #[test]
    fn a_prepare_in_its_mkfs_is_none_however_long_a_file_system_takes() {
        let mut known = at_work();
        for second in [10, 20, 70, 200, 590] {
            assert_eq!(judge(&mut known, &half_made(second)), None, "{second}");
        }
        let done = half_made(600).snapshot(1);
        assert_eq!(judge(&mut known, &done), None);
    }

    #[test]
    fn one_that_nobody_saw_begin_must_stand_still_for_a_minute() {
        let mut known = unseen();
        assert_eq!(judge(&mut known, &half_made(10)), None);
        assert_eq!(judge(&mut known, &half_made(69)), None);
        let found = judge(&mut known, &half_made(70)).unwrap();
        assert_eq!(found.provenance, Provenance::Unknown);
        assert!(
            found.evidence[2].contains("neither it nor anything else"),
            "{found:?}"
        );
    }

    #[test]
    fn a_database_that_moves_shows_a_containerd_at_work() {
        let mut known = unseen();
        for (txid, second) in [(5, 10), (6, 40), (7, 75), (8, 120)] {
            let mut world = half_made(second);
            world.pool_db.txid = TxId(txid);
            assert_eq!(judge(&mut known, &world), None, "{second}");
        }
    }

    #[test]
    fn one_that_was_there_before_containerd_was_restarted_is_a_wedge_at_once() {
        let mut known = unseen();
        assert_eq!(judge(&mut known, &half_made(10)), None);
        known.observe(&gone(11));
        let mut later = testing::containerd();
        later.pid = 501;
        known.observe(&crate::model::Observation::ContainerdUp {
            at: at(12),
            who: later,
        });
        let mut world = half_made(13);
        // Its start leaves a transaction in the database.
        world.pool_db.txid = TxId(6);
        let found = judge(&mut known, &world).unwrap();
        assert!(
            found.evidence[2].contains("before a containerd ended"),
            "{found:?}"
        );
    }

    #[test]
    fn one_that_appeared_after_the_restart_is_not_the_old_ones() {
        let mut known = unseen();
        known.observe(&gone(5));
        known.observe(&up(6));
        assert_eq!(judge(&mut known, &half_made(10)), None);
    }

    #[test]
    fn without_a_containerd_nobody_is_at_work_on_it() {
        let mut known = Correlator::new(pool(), at(0));
        // Nobody has looked yet who runs.
        assert_eq!(judge(&mut known, &half_made(10)), None);
        assert_eq!(judge(&mut known, &half_made(18)), None);
        known.bury_unknown_actors(at(19));
        let found = judge(&mut known, &half_made(19)).unwrap();
        assert!(found.evidence[2].contains("no containerd runs"), "{found:?}");
    }

    #[test]
    fn records_that_stop_nobody_are_none() {
        let mut known = unseen();
        let still = |known: &mut Correlator, world: &dyn Fn(u64) -> World| {
            let first = judge(known, &world(10));
            (first, judge(known, &world(100)))
        };
        for state in [
            DeviceState::Faulty,
            DeviceState::Unknown,
            DeviceState::Creating,
            DeviceState::Created,
            DeviceState::Activating,
            DeviceState::Other(77),
        ] {
            let world = |second| testing::world(second).thin(1).record("tp-snap-1", 1, state);
            assert_eq!(still(&mut known, &world), (None, None), "{state}");
        }
        // Its number was drawn, and is not drawn again.
        let past = |second| {
            let mut world = half_made(second);
            world.snapshots.sequence = 4;
            world
        };
        assert_eq!(still(&mut known, &past), (None, None));
        let stored = |second| half_made(second).snapshot(1);
        assert_eq!(still(&mut known, &stored), (None, None));
    }

    #[test]
    fn what_containerd_itself_noted_as_failed_needs_no_more_than_a_minute() {
        let mut known = at_work();
        let failed = |second| {
            let mut world = half_made(second);
            for record in world.pool_db.devices.values_mut() {
                record.state = DeviceState::Deactivating;
                record.error = "device busy".to_owned();
            }
            world
        };
        assert_eq!(judge(&mut known, &failed(10)), None);
        assert!(judge(&mut known, &failed(70)).is_some());
    }
}
