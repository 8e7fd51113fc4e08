//! Databases that were lost or put back: what is told, and that nothing is deleted.

use super::*;

fn deletes(stage: &Stage) -> usize {
    let found = stage.judge().found;
    let acts = found.iter().flat_map(|one| &one.remedy.acts);
    acts.filter(|act| matches!(act, Act::DeleteThin { .. } | Act::ForgetRecord { .. }))
        .count()
}

/// A node with ten good snapshots.
fn ten() -> Stage {
    (1..=10).fold(stage(), |stage, snapshot| {
        stage.good(snapshot, Committed, Deactivated)
    })
}

#[test]
fn wiped_databases_are_explained_and_nothing_is_deleted() {
    let wiped = ten().with(|survey| {
        survey.pool_db.devices.clear();
        survey.pool_db.device_ids.clear();
        survey.pool_db.id_sequence = 0;
        survey.snapshots.snapshots.clear();
        survey.snapshots.sequence = 0;
    });
    for presence in [Presence::NoFile, Presence::NoBuckets, Presence::Complete] {
        let wiped = wiped.clone().with(|survey| survey.snapshots.presence = presence);
        let diagnoses = wiped.judge();
        assert_eq!(diagnoses.found.len(), 10);
        assert!(diagnoses.explanations[0].contains("containerd#4790"));
        assert!(diagnoses.explanations[0].contains("10 thin devices"));
        assert_eq!(deletes(&wiped), 0);
    }
    let healed = wiped.heal();
    assert_eq!(healed.survey.thin.as_ref().unwrap().len(), 10);
    assert!(healed.judge().found.iter().all(|one| one.remedy.acts.is_empty()));
    // The ids that were passed over may be drawn.
    assert_eq!(healed.survey.id_state(ThinId(1)), Some(IdState::Free));
    assert_eq!(healed.survey.id_state(ThinId(11)), Some(IdState::Faulty));
}

#[test]
fn wiped_databases_are_explained_also_after_containerd_went_on() {
    let stage = ten().with(|survey| {
        survey.pool_db.devices.clear();
        survey.pool_db.device_ids.clear();
        survey.pool_db.id_sequence = 0;
        survey.snapshots.snapshots.clear();
        survey.snapshots.sequence = 0;
    });
    let stage = stage.thin(1).record(1, 1, Activated).row(1, Active, None);
    assert!(stage.judge().explanations[0].contains("about to give out 10 thin ids"));
    assert_eq!(deletes(&stage), 0);
}

#[test]
fn a_lost_snapshot_database_makes_no_record_garbage() {
    for presence in [Presence::NoFile, Presence::NoBuckets, Presence::Complete] {
        let lost = ten().with(|survey| {
            survey.snapshots.snapshots.clear();
            survey.snapshots.sequence = 0;
            survey.snapshots.presence = presence;
        });
        assert_eq!(deletes(&lost), 0, "{presence:?}");
        let diagnoses = lost.judge();
        assert_eq!(diagnoses.found[0].finding.id.0, "wedge/tp/tp-snap-1");
        assert_eq!(diagnoses.found.len(), 10);
        assert!(diagnoses.explanations[0].contains("metadata.db"), "{diagnoses:?}");
        assert_eq!(deletes(&lost.heal()), 0, "{presence:?}");
    }
}

#[test]
fn an_older_snapshot_database_makes_no_record_garbage() {
    let older = ten().with(|survey| {
        survey.snapshots.sequence = 5;
        survey.snapshots.snapshots.retain(|_, row| row.id.0 <= 4);
    });
    assert_eq!(deletes(&older), 0);
    assert!(older.judge().explanations[0].contains("is older than"));
    let contradicts = ten().sequence(9).thin(30).record(3, 30, Faulty);
    assert!(
        contradicts
            .judge()
            .explanations
            .iter()
            .any(|text| text.contains("contradicts itself"))
    );
}

#[test]
fn a_lost_pool_database_gets_no_invented_records() {
    let lost = ten().with(|survey| {
        survey.pool_db.devices.clear();
        survey.pool_db.device_ids.clear();
        survey.pool_db.id_sequence = 0;
    });
    let diagnoses = lost.judge();
    let rows = diagnoses
        .found
        .iter()
        .filter(|one| one.finding.id.0.starts_with("row-without-record"));
    assert!(rows.clone().all(|one| one.remedy.action == Treatment::LeaveAlone));
    assert_eq!(rows.count(), 10);
    assert!(
        diagnoses
            .explanations
            .iter()
            .any(|text| text.contains("10 of 10 snapshots have no record"))
    );
    assert_eq!(deletes(&lost), 0);
}

#[test]
fn a_shared_pool_loses_nothing() {
    let shared = ten().thin(100).id(100, IdState::Taken).thin(5_000_000);
    let diagnoses = shared.judge();
    assert_eq!(shared.ids(), ["foreign-thin/tp/100", "foreign-thin/tp/5000000"]);
    assert!(diagnoses.explanations[0].contains("somebody else"));
    assert!(diagnoses.found.iter().all(|one| one.remedy.acts.is_empty()));
}

#[test]
fn records_of_other_names_are_told_and_left_alone() {
    let stage = ten()
        .named("other-snap-1", 50, Faulty)
        .thin(50)
        .named("legacy", 51, Activated)
        .thin(51);
    assert_eq!(stage.ids(), [""; 0]);
    let diagnoses = stage.judge();
    assert!(
        diagnoses.explanations[0].contains("other-snap-1"),
        "{diagnoses:?}"
    );
    assert_eq!(diagnoses.not_understood, [""; 0]);
}

#[test]
fn two_rows_of_one_number_are_told_and_neither_is_judged() {
    let twice = ten().with(|survey| {
        let row = survey.snapshots.snapshots[&key(3)].clone();
        survey.snapshots.snapshots.insert("another".to_owned(), row);
        survey.pool_db.devices.remove(&name(3));
        survey.thin.as_mut().unwrap().remove(&ThinId(13));
    });
    assert_eq!(twice.ids(), [""; 0]);
    assert!(twice.judge().not_understood[0].contains("more than one snapshot"));
    let zero = ten().row(0, Active, None).id(40, IdState::Free);
    assert_eq!(zero.ids(), [""; 0]);
    assert!(zero.judge().not_understood[0].contains("number 0"));
    let odd = ten().row(3, SnapshotKind::Other(8), None);
    assert!(odd.judge().not_understood[0].contains("snapshot 3 says 8"));
}
