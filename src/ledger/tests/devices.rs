use super::*;
use crate::model::SnapshotId;

fn named(id: u32, state: OperationState) -> OperationRow {
    let mut row = operation_of(id, state);
    row.operation.device_name = Some("tp-snap-41".to_owned());
    row.operation.origin = Some(ThinId(3));
    row
}

#[test]
fn who_made_a_device_is_known_also_when_its_operation_ended_well_and_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let row = named(7, OperationState::InFlight);
    ledger.save_operation(&row).unwrap();
    assert_eq!(
        ledger.maker_of(&pool(), ThinId(7)).unwrap().unwrap().making,
        Making::UnderWay
    );
    ledger.forget_operation(&row.operation.id).unwrap();
    assert_eq!(ledger.open_operations().unwrap(), []);
    let maker = ledger.maker_of(&pool(), ThinId(7)).unwrap().unwrap();
    assert_eq!(maker.making, Making::Ended);
    assert_eq!(maker.snapshot, Some(SnapshotId(41)));
    assert_eq!(maker.origin, Some(ThinId(3)));
    assert_eq!(maker.operation, row.operation.id);
    assert_eq!(maker.made, row.operation.began());
    assert!(
        maker.maker.contains("dmsetup [900]") && maker.maker.contains("containerd [500]"),
        "{}",
        maker.maker
    );
    assert_eq!(ledger.maker_of(&PoolName::new("other"), ThinId(7)).unwrap(), None);
    assert_eq!(ledger.devices_there(&pool()).unwrap(), [ThinId(7)].into());
}

#[test]
fn a_device_that_was_never_made_has_no_maker() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let row = named(7, OperationState::InFlight);
    ledger.save_operation(&row).unwrap();
    let failed = OperationState::Failed {
        error: "EEXIST".to_owned(),
    };
    ledger.save_operation(&named(7, failed)).unwrap();
    assert_eq!(ledger.devices_of(&pool(), ThinId(7)).unwrap(), []);
}

#[test]
fn an_id_that_is_used_again_has_a_new_maker_and_the_old_one_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let first = named(7, OperationState::InFlight);
    let mut second = first.clone();
    second.operation.id = OperationId::new(at(99), ThinId(7));
    ledger.save_operation(&first).unwrap();
    ledger.save_operation(&second).unwrap();
    // What is said late of the first one does not take the place of the second.
    ledger.save_operation(&first).unwrap();
    let both = ledger.devices_of(&pool(), ThinId(7)).unwrap();
    assert_eq!(both.len(), 2);
    assert!(both[0].gone.is_some());
    let maker = ledger.maker_of(&pool(), ThinId(7)).unwrap().unwrap();
    assert_eq!(maker.operation, second.operation.id);
}

#[test]
fn a_world_says_which_devices_are_gone_and_how_the_others_look() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    for id in [7, 8] {
        ledger
            .save_operation(&named(id, OperationState::InFlight))
            .unwrap();
    }
    // Made while the world was read: nothing is said of it.
    let early = world(5).thin(7);
    ledger.see_devices(&early).unwrap();
    assert_eq!(ledger.devices_there(&pool()).unwrap().len(), 2);
    let later = world(100).thin(7);
    ledger.see_devices(&later).unwrap();
    assert_eq!(ledger.devices_there(&pool()).unwrap(), [ThinId(7)].into());
    assert_eq!(
        ledger.devices_of(&pool(), ThinId(8)).unwrap()[0].gone,
        Some(at(100))
    );
    assert_eq!(
        ledger.maker_of(&pool(), ThinId(7)).unwrap().unwrap().mark,
        Some(mark(7))
    );

    // Written to since, it is still the same; made at another time, it is another one.
    let mut written = world(101).thin(7);
    written.mapping_roots.insert(ThinId(7), 4000);
    ledger.see_devices(&written).unwrap();
    assert_eq!(ledger.devices_there(&pool()).unwrap(), [ThinId(7)].into());
    let mut another = world(102).thin(7);
    another.thin.get_mut(&ThinId(7)).unwrap().creation_time = 9;
    ledger.see_devices(&another).unwrap();
    assert_eq!(ledger.maker_of(&pool(), ThinId(7)).unwrap(), None);
}
