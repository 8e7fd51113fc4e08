use proptest::prelude::*;

use super::{
    CoreDb, DeviceNumber, Shared, Survey, ThinId, TxId,
    databases::{SnapshotKind, SnapshotRow},
    survey::{ContainerdState, CoreSnapshot, Unread},
};
use crate::testing;

fn with(rows: &[u8], known: &[u8]) -> Survey {
    let key = |number: &u8| format!("ns/{number}/key");
    let mut survey = testing::survey();
    survey.snapshots.snapshots.clear();
    for number in rows {
        let row = SnapshotRow {
            id: super::SnapshotId(u64::from(*number)),
            kind: SnapshotKind::Active,
            parent: None,
        };
        survey.snapshots.snapshots.insert(key(number), row);
    }
    let client = |number: &u8| CoreSnapshot {
        namespace: "ns".to_owned(),
        key: number.to_string(),
        parent: None,
        leases: Vec::new(),
    };
    survey.core = Some(Shared::from(CoreDb {
        snapshots: known.iter().map(|number| (key(number), client(number))).collect(),
        ..CoreDb::default()
    }));
    survey
}

proptest! {
    #[test]
    fn a_lost_snapshot_is_the_first_that_a_search_for_each_finds(
        rows in prop::collection::vec(0..20_u8, 0..20),
        known in prop::collection::vec(0..20_u8, 0..20),
    ) {
        let survey = with(&rows, &known);
        let core = survey.core.clone().unwrap();
        let searched = core
            .snapshots
            .keys()
            .find(|key| !survey.snapshots.snapshots.contains_key(*key));
        prop_assert_eq!(survey.lost_snapshot().map(|(key, _)| key), searched.map(String::as_str));
    }
}

#[test]
fn a_survey_shows_the_same_only_where_nothing_but_its_time_is_otherwise() {
    let survey = with(&[1, 2], &[1]);
    let later = Survey {
        begun: testing::at(9),
        ..survey.clone()
    };
    assert_ne!(later.begun, survey.begun);
    assert!(later.shows_what(&survey));
    let device = DeviceNumber { major: 253, minor: 7 };
    let node = testing::node("tp-snap-7", 7, device);
    let unread = Unread {
        what: "it".to_owned(),
        why: "no".to_owned(),
        matters: false,
    };
    let differs = |what: &str, change: &dyn Fn(&mut Survey)| {
        let mut other = survey.clone();
        change(&mut other);
        assert!(!other.shows_what(&survey) && !survey.shows_what(&other), "{what}");
    };
    differs("name", &|one| one.pool_name = super::PoolName::new("other"));
    differs("pool", &|one| one.pool = None);
    differs("usage", &|one| one.usage = None);
    differs("pool database", &|one| one.pool_db.txid = TxId(7777));
    differs("storage", &|one| one.snapshots.sequence += 1);
    differs("thin", &|one| one.thin = None);
    differs("roots", &|one| one.mapping_roots = [(ThinId(77), 7)].into());
    differs("nodes", &|one| one.nodes = vec![node.clone()]);
    differs("core", &|one| one.core = None);
    differs("mounts", &|one| {
        one.mounts.by_device = [(device, Vec::new())].into();
    });
    differs("containerd", &|one| {
        one.containerd = ContainerdState::Unknown { why: "no".to_owned() };
    });
    differs("async_remove", &|one| one.async_remove = None);
    differs("unread", &|one| one.unread = vec![unread.clone()]);
}
