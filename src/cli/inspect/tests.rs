//! The five sources joined, and what of it people and programs read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{find::find, join, json::Inventory, one, table, tree, words};
use crate::{
    cli::{
        check::{look_with_everything, quiet_look},
        look::Look,
        paper::Paper,
    },
    model::{
        Bytes, DeviceSpace, DeviceState, FindingClass, IdState, Reclaimable, SnapshotId, Space, ThinId,
        databases::{SnapshotKind, SnapshotRow},
    },
};

const PAPER: Paper = Paper {
    width: 80,
    table: None,
    colours: false,
    unicode: true,
};

fn space() -> Space {
    let devices = [11, 12, 13, 17, 18].map(|id| {
        let space = DeviceSpace {
            mapped: 160,
            exclusive: 16,
        };
        (ThinId(id), space)
    });
    Space {
        devices: devices.into(),
        mapped: 200,
        shared: 144,
        data_block: Bytes(65536),
        incomplete: None,
    }
}

fn titles(look: &Look, name: &str) -> Result<Vec<String>, String> {
    let devices = join::devices(look);
    find(&devices, name).map(|found| found.into_iter().map(join::Device::title).collect())
}

#[test]
fn what_containerd_has_marked_faulty_counts_as_faulty_though_it_is_harmless() {
    let mut look = look_with_everything();
    look.diagnoses.found.clear();
    let faulty = |look: &Look| -> Vec<String> {
        let devices = join::devices(look);
        let faulty = devices.iter().filter(|one| words::is_faulty(one));
        faulty.map(join::Device::title).collect()
    };
    assert_eq!(faulty(&look), Vec::<String>::new());
    let mark = |look: &mut Look, state: DeviceState| {
        look.survey.pool_db.devices.get_mut("tp-snap-2").unwrap().state = state;
    };
    mark(&mut look, DeviceState::Faulty);
    look.survey.pool_db.device_ids.insert(ThinId(18), IdState::Faulty);
    assert_eq!(faulty(&look), ["tp-snap-2", "thin 18"]);
    // A mark that a good record has outlived says nothing.
    mark(&mut look, DeviceState::Deactivated);
    look.survey.pool_db.device_ids.insert(ThinId(12), IdState::Faulty);
    assert_eq!(faulty(&look), ["thin 18"]);
}

#[test]
fn every_device_is_one_line_and_what_is_wrong_comes_first() {
    let mut look = look_with_everything();
    look.diagnoses
        .found
        .retain(|one| one.finding.class == FindingClass::Wedge);
    look.in_flight.clear();
    let devices = join::devices(&look);
    let titles: Vec<_> = devices.iter().map(join::Device::title).collect();
    assert_eq!(
        titles,
        ["tp-snap-7", "tp-snap-1", "tp-snap-2", "tp-snap-3", "thin 18"]
    );
    let shown: Vec<_> = devices.iter().collect();
    let text = table::table(&shown, &look.survey, None, PAPER);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(
        lines[1].starts_with("!!  wedge  tp-snap-7    17  Activated    taken  -"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("    ok     tp-snap-1    11  Deactivated  taken  committed  -"),
        "{text}"
    );
    assert!(
        lines[4].contains("live, open 1") && lines[4].ends_with("pod shop/web-0"),
        "{text}"
    );
    let text = table::table(&shown, &look.survey, Some(&space()), PAPER);
    assert!(
        text.lines()
            .nth(2)
            .unwrap()
            .contains("10.0 MiB    1.0 MiB  9.0 MiB"),
        "{text}"
    );
}

#[test]
fn a_device_is_found_by_each_of_its_names() {
    let look = look_with_everything();
    for name in [
        "tp-snap-3",
        "k8s.io/3/c0ffee0123456789",
        "c0ffee0123456789",
        "c0ffee",
        "web-0",
        "shop/web-0",
        "13",
    ] {
        assert_eq!(titles(&look, name).unwrap(), ["tp-snap-3"], "{name}");
    }
    assert_eq!(titles(&look, "sha256:top").unwrap(), ["tp-snap-2"]);
    assert_eq!(titles(&look, "thin 18").unwrap(), ["thin 18"]);
    assert_eq!(titles(&look, "wedge/tp/7").unwrap(), ["tp-snap-7"]);
    assert!(
        titles(&look, "other/web-0")
            .unwrap_err()
            .contains("nothing goes by the name other/web-0")
    );
    assert!(
        titles(&look, "sha256:")
            .unwrap_err()
            .contains("2 things begin with sha256:")
    );
    assert!(titles(&look, "").is_err());
}

#[test]
fn one_device_is_told_with_all_five_sources_and_its_family() {
    let look = look_with_everything();
    let devices = join::devices(&look);
    let children = join::children(&look.survey);
    let told = |name: &str| {
        let found = find(&devices, name).unwrap();
        one::one(found[0], &look, &children, Some(&space()), PAPER)
    };
    let text = told("tp-snap-3");
    for part in [
        "pool database     Activated (4), 64.0 MiB in size; thin id 13 is taken",
        "snapshot database snapshot 3, active, key k8s.io/3/c0ffee0123456789",
        "  made from       tp-snap-2 (k8s.io/2/sha256:top)",
        "containerd        snapshot c0ffee0123456789 in namespace k8s.io",
        "pod shop/web-0 (u-1)",
        "pool metadata     thin device 13 maps",
        "1.0 MiB are its own, 9.0 MiB\n                    shared",
        "dm device         tp-snap-3 (253:7): live, open 1",
        "  mounted at      /run/rootfs by containerd-shim [77]",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(told("tp-snap-2").contains("  parent of       tp-snap-3"));
    let text = told("tp-snap-7");
    assert!(
        text.contains("!! wedge: ") && text.contains("suture explain wedge/tp/7"),
        "{text}"
    );
}

#[test]
fn layers_are_drawn_down_to_containers_and_what_is_loose_comes_after() {
    let mut look = look_with_everything();
    look.diagnoses
        .found
        .retain(|one| one.finding.class == FindingClass::Wedge);
    look.in_flight.clear();
    let devices = join::devices(&look);
    let text = tree::tree(&devices, &look, PAPER);
    assert_eq!(
        text,
        "tp-snap-1 committed  sha256:base\n\
         └── tp-snap-2 committed  image docker.io/library/web:1\n    \
         └── tp-snap-3 active  container c0ffee0123456789 (pod shop/web-0)\n\
         \n\
         in no snapshot:\n  \
         tp-snap-7  !! wedge\n  \
         thin 18\n"
    );
    let plain = Paper {
        unicode: false,
        ..PAPER
    };
    assert!(tree::tree(&devices, &look, plain).is_ascii());
}

#[test]
fn parents_in_a_circle_and_very_long_chains_are_drawn_once() {
    let mut look = quiet_look();
    look.survey.core = None;
    look.survey.snapshots.snapshots = (1..=20_000_u64)
        .map(|id| {
            let row = SnapshotRow {
                id: SnapshotId(id),
                kind: SnapshotKind::Committed,
                parent: Some(format!("k/{}", if id == 1 { 20_000 } else { id - 1 })),
            };
            (format!("k/{id}"), row)
        })
        .collect();
    let devices = join::devices(&look);
    let text = tree::tree(&devices, &look, PAPER);
    assert_eq!(text.lines().count(), 20_000);
    assert!(text.len() < 20_000 * 900, "{}", text.len());
}

fn document(look: &Look, space: Option<&Space>) -> Value {
    let devices = join::devices(look);
    let shown: Vec<_> = devices.iter().collect();
    let reclaimable = Reclaimable {
        blocks: 16,
        data_block: Bytes(65536),
        incomplete: None,
    };
    serde_json::to_value(Inventory::new(
        &shown,
        true,
        look,
        space,
        space.map(|_| &reclaimable),
    ))
    .unwrap()
}

fn validator() -> jsonschema::Validator {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let schema = read(include_str!("../../../docs/inspect.schema.json"));
    let check = read(include_str!("../../../docs/check.schema.json"));
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let id = check["$id"].as_str().unwrap().to_owned();
    let registry = jsonschema::Registry::new()
        .add(id, &check)
        .unwrap()
        .prepare()
        .unwrap();
    jsonschema::draft202012::options()
        .with_registry(&registry)
        .build(&schema)
        .unwrap()
}

#[test]
fn the_inventory_is_as_its_schema_says_and_the_schema_refuses_others() {
    let validator = validator();
    let space = space();
    for (look, space) in [(look_with_everything(), Some(&space)), (quiet_look(), None)] {
        let document = document(&look, space);
        let errors: Vec<_> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0]);
    }
    let good = document(&look_with_everything(), Some(&space));
    let wrong = |change: fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(bad, good);
        assert!(!validator.is_valid(&bad));
    };
    wrong(|one| one["new"] = json!(1));
    wrong(|one| one["devices"][0]["new"] = json!(1));
    wrong(|one| one["devices"][0]["pool_database"]["record"]["new"] = json!(1));
    wrong(|one| one["devices"][0]["thin_id"] = json!("x"));
    wrong(|one| one["findings"][0]["class"] = json!("odd"));
    wrong(|one| one["space"]["new"] = json!(1));
}

#[test]
fn a_hundred_thousand_devices_take_no_more_than_a_moment() {
    let mut look = quiet_look();
    let record = look.survey.pool_db.devices["tp-snap-1"].clone();
    let row = look.survey.snapshots.snapshots["k8s.io/1/sha256:base"].clone();
    let details = *look.survey.thin.as_ref().unwrap().values().next().unwrap();
    let mut thin = BTreeMap::new();
    for number in 10..100_010_u32 {
        let mut record = record.clone();
        record.name = format!("tp-snap-{number}");
        record.device_id = ThinId(number + 100);
        look.survey.pool_db.devices.insert(record.name.clone(), record);
        let row = SnapshotRow {
            id: SnapshotId(u64::from(number)),
            parent: Some("k8s.io/1/sha256:base".to_owned()),
            ..row.clone()
        };
        look.survey
            .snapshots
            .snapshots
            .insert(format!("k8s.io/{number}/x"), row);
        thin.insert(ThinId(number + 100), details);
    }
    look.survey.thin = Some(thin);
    let begun = std::time::Instant::now();
    let devices = join::devices(&look);
    let shown: Vec<_> = devices.iter().collect();
    assert_eq!(
        table::table(&shown, &look.survey, None, PAPER).lines().count(),
        devices.len() + 1
    );
    assert!(tree::tree(&devices, &look, PAPER).lines().count() >= 100_000);
    // Anything that asks each device about each other takes minutes.
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert!(devices.iter().filter(|one| words::state(one) == "ok").count() >= 100_000);
}
