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

/// Ten good snapshots, and one record that is left over.
fn with_an_orphan() -> Stage {
    ten().sequence(12).thin(40).record(12, 40, Deactivated)
}

/// The plans of it that take something away on a record's word, or make something of a row.
fn relies_on_rows(stage: &Stage) -> Vec<String> {
    let found = stage.judge().found.into_iter();
    let relies = found.filter(|one| {
        one.remedy.acts.iter().any(|act| {
            matches!(
                act,
                Act::DeleteThin { .. }
                    | Act::ForgetRecord { .. }
                    | Act::MarkFaulty { .. }
                    | Act::RestoreRecord { .. }
                    | Act::InsertRemovedRecord { .. }
            )
        })
    });
    relies.map(|one| one.finding.id.0).collect()
}

const CONTRADICTION: &str = "snapshot `k8s.io/3/key-3` has the number 3, and the index has it as 4";

fn contradicts(stage: Stage) -> Stage {
    stage.with(|survey| survey.snapshots.contradiction = Some(CONTRADICTION.to_owned()))
}

#[test]
fn rows_that_contradict_their_index_let_nothing_be_done_on_the_word_of_records() {
    let nodes = [
        ("orphan-record/tp/tp-snap-12", with_an_orphan()),
        (
            "burned-id/tp/tp-snap-12",
            ten().sequence(12).record(12, 40, Deactivated),
        ),
        ("faulty-live/tp/tp-snap-3", ten().record(3, 13, Faulty)),
        (
            "row-without-record/tp/11",
            ten().row(11, Active, None).id(40, IdState::Free),
        ),
        ("wedge/tp/tp-snap-11", ten().thin(40).record(11, 40, Activated)),
        ("wedge/tp/tp-snap-11", ten().thin(40).record(11, 40, Removed)),
        (
            "faulty-next/tp/tp-snap-11",
            ten().thin(40).record(11, 40, Activating),
        ),
        ("faulty-next/tp/tp-snap-11", ten().record(11, 40, Faulty)),
    ];
    for (id, node) in nodes {
        assert_eq!(relies_on_rows(&node), [id]);
        assert_eq!(node.judge().not_understood, [""; 0]);
        let doubtful = contradicts(node);
        assert_eq!(relies_on_rows(&doubtful), [""; 0], "{id}");
        let diagnoses = doubtful.judge();
        assert_eq!(diagnoses.not_understood.len(), 1);
        assert!(diagnoses.not_understood[0].contains(CONTRADICTION));
        let found = diagnoses.found.iter().find(|one| one.finding.id.0 == id).unwrap();
        assert!(found.remedy.why.contains(CONTRADICTION), "{found:?}");
    }
}

#[test]
fn two_rows_of_one_number_let_nothing_be_deleted_on_the_word_of_records() {
    let orphan = with_an_orphan();
    assert_eq!(deletes(&orphan), 2);
    let twice = orphan.with(|survey| {
        survey.snapshots.snapshots.get_mut(&key(10)).unwrap().id = SnapshotId(9);
    });
    assert_eq!(deletes(&twice), 0);
    let diagnoses = twice.judge();
    assert!(
        diagnoses.not_understood[0].contains("more than one snapshot"),
        "{diagnoses:?}"
    );
    let ten = diagnoses
        .found
        .iter()
        .find(|one| one.finding.id.0 == "orphan-record/tp/tp-snap-10");
    assert!(
        ten.unwrap()
            .remedy
            .why
            .contains("more than one snapshot has the number 9")
    );
}

#[test]
fn a_number_that_became_another_deletes_no_layer_that_the_index_knows() {
    // The record of 12 waits for containerd's clean-up, and row 10 now bears its number.
    let waits = ten().sequence(12).record(12, 40, Removed).thin(40);
    waits
        .clone()
        .with(|survey| survey.async_remove = Some(true))
        .nothing();
    let damaged = waits.with(|survey| {
        survey.async_remove = Some(true);
        survey.snapshots.snapshots.get_mut(&key(10)).unwrap().id = SnapshotId(12);
    });
    // The rows alone can not tell.
    assert_eq!(deletes(&damaged), 2);
    assert_eq!(deletes(&contradicts(damaged.clone())), 0);
    // Nor is it deleted where no index speaks, and something was made from it.
    let built_on = damaged.with(|survey| {
        survey.pool_db.devices.get_mut(&name(7)).unwrap().parent_name = name(10);
    });
    assert_eq!(deletes(&built_on), 0);
}

#[test]
fn what_a_listed_snapshot_was_made_from_is_not_left_over() {
    let made_from = |stage: Stage, child: u64| {
        stage.with(|survey| {
            survey.pool_db.devices.get_mut(&name(child)).unwrap().parent_name = name(12);
        })
    };
    let nodes = [
        ("orphan-record/tp/tp-snap-12", with_an_orphan()),
        (
            "burned-id/tp/tp-snap-12",
            ten().sequence(12).record(12, 40, Deactivated),
        ),
        (
            "wedge/tp/tp-snap-12",
            ten().sequence(11).thin(40).record(12, 40, Activated),
        ),
        (
            "wedge/tp/tp-snap-12",
            ten().sequence(11).thin(40).record(12, 40, Removed),
        ),
        (
            "faulty-next/tp/tp-snap-12",
            ten().sequence(11).thin(40).record(12, 40, Activating),
        ),
        (
            "faulty-next/tp/tp-snap-12",
            ten().sequence(11).record(12, 40, Faulty),
        ),
    ];
    for (id, node) in nodes {
        assert_eq!(relies_on_rows(&node), [id]);
        let built_on = made_from(node.clone(), 7);
        assert_eq!(relies_on_rows(&built_on), [""; 0], "{id}");
        let found = built_on.only(id);
        assert!(found.remedy.why.contains("tp-snap-7"), "{found:?}");
        // Only of that record: of another, all is known.
        let two = built_on.thin(50).record(11, 50, Deactivated).sequence(12);
        assert!(
            relies_on_rows(&two).contains(&"orphan-record/tp/tp-snap-11".to_owned()),
            "{id}"
        );
        // The snapshot that was made from it is gone as well, and its record waits to be cleaned up.
        let gone = made_from(node.thin(60).record(11, 60, Deactivated), 11);
        assert!(relies_on_rows(&gone).contains(&id.to_owned()), "{id}");
    }
}
