//! A glance at the numbers: where it sees nothing, a look at everything sees nothing either.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{property::surveys, *};
use crate::{
    diagnose::glance,
    model::{
        PoolDb, SnapshotDb,
        outline::{Outline, PoolOutline, RowsOutline},
    },
};

/// What the readers give of these databases; nothing where these have anything strange in them.
fn outline_of(survey: &Survey) -> Option<Outline> {
    Some(Outline {
        pool_db: PoolOutline::of(&survey.pool_db, &survey.pool_name)?,
        rows: RowsOutline::of(&survey.snapshots)?,
        rest: Survey {
            pool_db: PoolDb::default().into(),
            snapshots: SnapshotDb {
                snapshots: BTreeMap::new(),
                sequence: 0,
                txid: None,
                presence: Presence::NoFile,
                contradiction: None,
            }
            .into(),
            ..survey.clone()
        },
    })
}

fn shows_nothing(diagnoses: &Diagnoses) -> bool {
    diagnoses.found.is_empty() && diagnoses.not_understood.is_empty() && diagnoses.explanations.is_empty()
}

/// Whether a glance ends there; what a look sees must then be nothing. A glance at what was read whole ends there too.
fn is_seen_at_a_glance(stage: &Stage) -> bool {
    let of_whole = crate::diagnose::outline::is_seen_at_a_glance(&stage.survey, &stage.knowledge);
    let told = is_seen_in_outline(stage);
    assert!(!of_whole || shows_nothing(&stage.judge()));
    assert_eq!(of_whole, told);
    told
}

fn is_seen_in_outline(stage: &Stage) -> bool {
    let outline = outline_of(&stage.survey);
    let seen = outline.is_some_and(|outline| glance(&outline, &stage.knowledge).is_some());
    if seen {
        let look = stage.judge();
        assert!(shows_nothing(&look), "{look:?}");
    }
    seen
}

/// Snapshots that are whole, some with a dm device.
fn whole(snapshots: &[(u8, bool)]) -> Stage {
    let mut stage = stage();
    for (number, (drawn, has_node)) in (1..).zip(snapshots) {
        let id = u32::try_from(number).unwrap() + 10;
        let rest = [Activated, Resumed, Deactivated, Removed][usize::from(*drawn % 4)];
        stage = stage.record(number, id, rest).thin(id);
        if rest == Removed {
            stage = stage.sequence(number);
        } else {
            stage = stage.row(number, Active, None);
        }
        if *has_node {
            stage = stage.node(&name(number), id);
        }
    }
    stage
}

#[test]
fn whole_snapshots_are_seen_at_a_glance_with_their_devices_and_what_waits_for_clean_up() {
    let snapshots: Vec<_> = (0..40).map(|number| (number, number % 3 == 0)).collect();
    let stage = whole(&snapshots).with(|survey| survey.async_remove = Some(true));
    assert!(is_seen_at_a_glance(&stage));
    // Without async_remove nobody comes back to those.
    assert!(!is_seen_at_a_glance(
        &stage.with(|survey| survey.async_remove = Some(false))
    ));
}

/// As many dm devices as a large node has: what is left to be judged is then as large as what is worth a glance.
#[test]
fn thousands_of_devices_in_use_are_judged_once() {
    let snapshots: Vec<_> = (0..5_000).map(|_| (0, true)).collect();
    let stage = whole(&snapshots);
    assert!(is_seen_at_a_glance(&stage));
    let suspended = stage.but(|node| node.suspended = true);
    assert_eq!(suspended.ids(), ["suspended-device/tp/tp-snap-5000"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn where_a_glance_sees_nothing_a_look_sees_nothing(stage in surveys()) {
        is_seen_at_a_glance(&stage);
    }

    #[test]
    fn one_thing_amiss_among_many_whole_ones_is_not_overlooked(
        snapshots in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.3)), 1..6),
        amiss in 0..12_u8, at in any::<prop::sample::Index>(), async_remove in any::<Option<bool>>(),
    ) {
        let at = at.index(snapshots.len());
        let number = u64::try_from(at).unwrap() + 1;
        let id = ThinId(u32::try_from(number).unwrap() + 10);
        let stage = whole(&snapshots).with(|survey| {
            survey.async_remove = async_remove;
            let record = survey.pool_db.devices.get_mut(&name(number)).unwrap();
            match amiss {
                0 => record.state = Faulty,
                1 => record.state = DeviceState::Other(99),
                2 => drop(survey.pool_db.devices.remove(&name(number))),
                3 => drop(survey.snapshots.snapshots.remove(&key(number))),
                4 => drop(survey.thin.as_mut().unwrap().remove(&id)),
                5 => drop(survey.pool_db.device_ids.insert(id, IdState::Free)),
                6 => drop(survey.pool_db.device_ids.insert(id, IdState::Faulty)),
                7 => drop(survey.pool_db.device_ids.insert(ThinId(9), IdState::Faulty)),
                8 => record.device_id = ThinId(10 + u32::try_from(at).unwrap()),
                9 => survey.snapshots.sequence = number - 1,
                10 => survey.nodes.iter_mut().for_each(|node| node.suspended = true),
                _ => survey.nodes.iter_mut().for_each(|node| node.error_table = true),
            }
        });
        is_seen_at_a_glance(&stage);
    }
}
