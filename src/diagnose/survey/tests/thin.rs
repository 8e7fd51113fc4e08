//! Thin devices and ids that no record names.

use super::*;
use crate::model::{Provenance, Severity};

fn leaked() -> Stage {
    stage().thin(7).id(7, IdState::Faulty).claim(7)
}

fn foreign(id: u32) -> String {
    format!("foreign-thin/tp/{id}")
}

#[test]
fn a_leaked_device_is_deleted_while_containerd_runs() {
    for stage in [leaked(), leaked().running()] {
        let found = stage.only("leaked-thin/tp/7");
        assert_eq!(found.remedy.when, When::Online);
        assert_eq!(found.remedy.acts, [Act::DeleteThin { thin_id: ThinId(7) }]);
        assert!(matches!(found.finding.provenance, Provenance::SeenByProbe { .. }));
        assert_eq!(found.severity, Severity::Space);
        // Only the number is left then.
        let found = stage.heal().only("burned-id/tp/7");
        assert_eq!(found.severity, Severity::Notice);
    }
}

#[test]
fn each_condition_of_a_leaked_device_counts() {
    // Nobody saw it, or saw another device of this id.
    let unseen = stage().thin(7).id(7, IdState::Faulty);
    let found = unseen.only(&foreign(7));
    assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    assert!(
        found
            .finding
            .evidence
            .iter()
            .any(|text| text.contains("proves nothing"))
    );
    let changes: [fn(&mut Survey); 4] = [
        |survey| *survey.mapping_roots.get_mut(&ThinId(7)).unwrap() += 1,
        |survey| {
            survey
                .thin
                .as_mut()
                .unwrap()
                .get_mut(&ThinId(7))
                .unwrap()
                .creation_time += 1;
        },
        |survey| survey.pool.as_mut().unwrap().activation.boot = "another boot".to_owned(),
        |survey| survey.mapping_roots.clear(),
    ];
    for change in changes {
        let found = leaked().with(change).only(&foreign(7));
        assert_eq!(found.remedy.action, Treatment::LeaveAlone);
    }
    // containerd has not marked it.
    for state in [IdState::Taken, IdState::Other(7), IdState::Free] {
        assert_eq!(leaked().id(7, state).ids(), [foreign(7)], "{state}");
    }
    assert!(
        !leaked()
            .named("legacy", 7, Faulty)
            .ids()
            .contains(&"leaked-thin/tp/7".to_owned())
    );
    leaked()
        .good(2, Committed, Deactivated)
        .record(2, 7, Deactivated)
        .thin(12)
        .id(12, IdState::Taken)
        .with(|survey| {
            survey.thin.as_mut().unwrap().remove(&ThinId(12));
            survey.pool_db.device_ids.remove(&ThinId(12));
        })
        .nothing();
    assert_eq!(
        leaked()
            .with(|survey| {
                survey.thin.as_mut().unwrap().clear();
            })
            .ids(),
        ["burned-id/tp/7"]
    );
    leaked().with(|survey| survey.thin = None).nothing();
}

#[test]
fn a_leaked_device_that_somebody_has_open_is_left_alone() {
    let of = |stage: Stage| {
        let found = stage.judge().found;
        let leaked = found
            .iter()
            .find(|one| one.finding.id.0 == "leaked-thin/tp/7")
            .unwrap();
        leaked.remedy.action
    };
    assert_eq!(of(leaked().node("somebodys", 7)), Treatment::LeaveAlone);
    assert_eq!(
        of(leaked().node("x\x01", 1).but(|node| node.unreadable = true)),
        Treatment::LeaveAlone
    );
    let open = leaked().node(&name(3), 7).but(|node| node.open_count = 1);
    assert_eq!(of(open), Treatment::LeaveAlone);
    // A left-over dm device is removed first.
    let left_over = leaked().sequence(5).node(&name(3), 7);
    assert_eq!(left_over.ids(), ["orphan-node/tp/tp-snap-3", "leaked-thin/tp/7"]);
    assert_eq!(of(left_over), Treatment::DeleteThin);
}

#[test]
fn a_foreign_device_is_never_deleted_and_its_number_is_reserved_where_containerd_would_draw_it() {
    let free = stage().thin(7).id(7, IdState::Free);
    let found = free.only(&foreign(7));
    assert_eq!(found.severity, Severity::Outage);
    assert_eq!(found.remedy.action, Treatment::ReserveId);
    assert_eq!(
        found.remedy.acts,
        [Act::SetId {
            thin_id: ThinId(7),
            from: Some(IdState::Free),
            to: IdState::Faulty
        }]
    );
    let found = free.heal().only(&foreign(7));
    assert_eq!(
        (found.severity, found.remedy.action),
        (Severity::Space, Treatment::LeaveAlone)
    );
    for state in [IdState::Taken, IdState::Faulty] {
        let found = stage().thin(7).id(7, state).only(&foreign(7));
        assert_eq!(
            (found.severity, found.remedy.action),
            (Severity::Space, Treatment::LeaveAlone)
        );
    }
}

#[test]
fn numbers_above_the_sequence_are_passed_over_and_none_is_lost() {
    // containerd stands at 3, and the pool has 5 and 8.
    let stage = stage().id(3, IdState::Taken).thin(5).thin(8);
    let set = |id, to| Act::SetId {
        thin_id: ThinId(id),
        from: None,
        to,
    };
    let raise = |to| Act::RaiseIdSequence { from: 3, to };
    let found = stage.judge().found;
    assert_eq!(
        found[0].remedy.acts,
        [set(4, IdState::Free), set(5, IdState::Faulty), raise(5)]
    );
    assert_eq!(
        found[1].remedy.acts,
        [
            set(6, IdState::Free),
            set(7, IdState::Free),
            set(8, IdState::Faulty),
            raise(8)
        ]
    );
    let healed = stage.heal();
    assert_eq!(healed.survey.pool_db.id_sequence, 8);
    assert!(healed.judge().found.iter().all(|one| one.remedy.acts.is_empty()));
}

#[test]
fn a_number_that_containerd_never_comes_to_is_in_nobodys_way() {
    // Passed by the sequence, and not known: never drawn.
    let passed = stage().id(9, IdState::Taken).thin(5);
    assert_eq!(passed.only(&foreign(5)).severity, Severity::Space);
    // Years away.
    let far = stage().thin(65_537);
    assert_eq!(far.only(&foreign(65_537)).remedy.action, Treatment::LeaveAlone);
    let near = stage().thin(65_536);
    let acts = near.only(&foreign(65_536)).remedy.acts;
    assert_eq!(acts.len(), 65_537);
    for id in [0, ThinId::MAX.0, u32::MAX] {
        let odd = stage()
            .thin(id)
            .with(|survey| survey.pool_db.id_sequence = u64::from(id).saturating_sub(1));
        assert_eq!(odd.only(&foreign(id)).remedy.action, Treatment::LeaveAlone);
    }
}

#[test]
fn a_burned_id_is_freed() {
    let burned = stage().id(7, IdState::Faulty);
    let found = burned.only("burned-id/tp/7");
    assert_eq!(found.severity, Severity::Notice);
    assert_eq!(
        found.remedy.acts,
        [Act::SetId {
            thin_id: ThinId(7),
            from: Some(IdState::Faulty),
            to: IdState::Free
        }]
    );
    burned.heal().nothing();
    for state in [IdState::Free, IdState::Taken] {
        stage().id(7, state).nothing();
    }
    assert_eq!(stage().id(7, IdState::Faulty).thin(7).ids(), [foreign(7)]);
    stage()
        .id(7, IdState::Faulty)
        .with(|survey| survey.thin = None)
        .nothing();
    // What maps it says that it is there.
    stage().id(7, IdState::Faulty).node("somebodys", 7).nothing();
    assert_eq!(
        stage().sequence(4).record(5, 7, Faulty).ids(),
        ["faulty-next/tp/tp-snap-5"]
    );
}

#[test]
fn numbers_that_containerd_never_gives_out_are_not_freed() {
    for id in [0, ThinId::MAX.0 + 1] {
        let odd = stage().id(id, IdState::Faulty);
        assert_eq!(odd.ids(), [""; 0]);
        assert_eq!(odd.judge().not_understood.len(), 1);
    }
    let odd = stage().id(4, IdState::Other(9));
    assert!(odd.judge().not_understood[0].contains("id 4 says 9"));
}
