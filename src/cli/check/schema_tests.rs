//! What programs read is what docs/check.schema.json says, for every class, and the schema refuses what it does not say.

use serde_json::{Value, json};

use super::{
    report::Report,
    samples::{look_with_everything, quiet_look},
    text::text,
};
use crate::{
    cli::{look::Look, paper::Paper},
    model::{ContainerdState, FindingClass, survey::Unread},
};

const PAPER: Paper = Paper {
    width: 80,
    table: None,
    colours: false,
    unicode: true,
};

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/check.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn document(look: &Look) -> Value {
    serde_json::to_value(Report::new(look)).unwrap()
}

fn states() -> Vec<Look> {
    let mut stopped = look_with_everything();
    stopped.survey.containerd = ContainerdState::Stopped {
        at_work: vec!["dmsetup".to_owned()],
    };
    stopped.survey.core = None;
    stopped.survey.thin = None;
    stopped.survey.usage = None;
    stopped.survey.pool = None;
    stopped.survey.snapshots.txid = None;
    stopped.survey.async_remove = None;
    let mut unknown = quiet_look();
    unknown.survey.containerd = ContainerdState::Unknown {
        why: "no /proc".to_owned(),
    };
    vec![look_with_everything(), quiet_look(), stopped, unknown]
}

#[test]
fn every_class_and_every_state_is_as_the_schema_says() {
    let validator = validator();
    for look in states() {
        let document = document(&look);
        let errors: Vec<_> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0]);
    }
    let document = document(&look_with_everything());
    let classes: std::collections::BTreeSet<_> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["class"].to_string())
        .collect();
    // What only happens at a moment is no check's to see.
    let live = FindingClass::ALL.iter().filter(|class| class.is_live()).count();
    assert_eq!((classes.len(), live), (FindingClass::ALL.len() - live, 2));
}

#[test]
fn a_document_that_says_other_things_is_refused() {
    let validator = validator();
    let good = document(&look_with_everything());
    let wrong = |change: fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(bad, good, "the change changes something");
        assert!(!validator.is_valid(&bad), "{}", bad["findings"][0]);
    };
    wrong(|one| one["status"] = json!("fine"));
    wrong(|one| one["new"] = json!(1));
    wrong(|one| one["findings"][0]["class"] = json!("no-such-class"));
    wrong(|one| one["findings"][0]["new"] = json!(1));
    wrong(|one| one["findings"][0]["subject"]["kind"] = json!("planet"));
    wrong(|one| one["findings"][0]["subject"]["new"] = json!(1));
    wrong(|one| one["findings"][0]["remedy"]["when"] = json!("soon"));
    wrong(|one| one["findings"][0]["remedy"]["new"] = json!(1));
    wrong(|one| one["findings"][0]["provenance"]["known"] = json!("guessed"));
    wrong(|one| one["findings"][0]["affected"]["new"] = json!(1));
    wrong(|one| one["world"]["new"] = json!(1));
    wrong(|one| one["world"]["containerd"]["state"] = json!("asleep"));
    wrong(|one| one["world"]["transactions"]["new"] = json!(1));
    wrong(|one| one["pool"]["mode"] = json!("odd"));
    wrong(|one| {
        one["findings"][0].as_object_mut().unwrap().remove("evidence");
    });
}

#[test]
fn the_first_line_is_the_verdict() {
    let first = |look: &Look| text(look, PAPER, false).lines().next().unwrap().to_owned();
    let mut look = quiet_look();
    assert_eq!(first(&look), "tp: clean (3 snapshots, 3 thin devices, 41 ms)");
    look.diagnoses.found = only(FindingClass::BurnedId);
    assert_eq!(
        first(&look),
        "tp: clean, 1 notice (3 snapshots, 3 thin devices, 41 ms)"
    );
    look.survey.unread.push(Unread {
        what: "device-mapper".to_owned(),
        why: "permission denied".to_owned(),
        matters: true,
    });
    assert!(
        first(&look).starts_with("tp: not all of it could be checked"),
        "{}",
        first(&look)
    );
    look.diagnoses.found.extend(only(FindingClass::Wedge));
    assert_eq!(first(&look), "tp: 1 finding, 1 stops every new container");
    look.diagnoses.found.extend(only(FindingClass::OrphanRecord));
    assert_eq!(
        first(&look),
        "tp: 2 findings, 1 stops every new container, 1 wastes space"
    );
}

fn only(class: FindingClass) -> Vec<crate::model::Diagnosis> {
    let mut found = look_with_everything().diagnoses.found;
    found.retain(|one| one.finding.class == class);
    found
}

#[test]
fn each_finding_says_what_it_is_whom_it_hits_and_what_to_type() {
    let mut look = look_with_everything();
    let told = text(&look, PAPER, false);
    for part in [
        "!! OUTAGE wedge: record tp-snap-7 (thin device 17)\n",
        "container c0ffee0123456789 (pod shop/web-0)",
        "image docker.io/library/web:1",
        "\n            systemctl stop containerd && suture repair --offline; systemctl start containerd\n",
        "\n            suture repair\n",
        "suture repair --offline --finding foreign-thin/tp/18; systemctl",
        "suture explain wedge/tp/7\n",
        "in flight: record tp-snap-7 (thin device 17): somebody is at work",
        "not understood: the record tp-snap-9 is in state 99",
        "notice: burned-id/tp/19: This is what burned-id means for it.",
        "The databases were wiped.",
    ] {
        assert!(told.contains(part), "`{part}` is not in:\n{told}");
    }
    assert!(!told.contains('\u{1b}'));
    look.survey.containerd = ContainerdState::Stopped { at_work: Vec::new() };
    look.repair_places = " --pool tp --root-path /dm".to_owned();
    look.offline_places = look.repair_places.clone();
    let told = text(&look, PAPER, false);
    assert!(
        told.contains("\n            suture repair --offline --pool tp --root-path /dm\n"),
        "{told}"
    );
    assert!(!told.contains("systemctl"), "{told}");
}

#[test]
fn very_many_of_a_class_are_counted() {
    let mut look = quiet_look();
    let one = only(FindingClass::LeakedThin).pop().unwrap();
    look.diagnoses.found = vec![one; 1000];
    let told = text(&look, PAPER, false);
    assert!(
        told.contains("and 995 more of leaked-thin; `suture check --all` prints them"),
        "{told}"
    );
    assert_eq!(told.matches("SPACE leaked-thin").count(), 5);
    assert_eq!(
        text(&look, PAPER, true).matches("SPACE leaked-thin").count(),
        1000
    );
}

#[test]
fn names_from_outside_drive_no_terminal() {
    let mut look = look_with_everything();
    for one in &mut look.diagnoses.found {
        for container in &mut one.users.containers {
            container.id = "\u{1b}[2J".to_owned();
        }
        one.users.images = vec!["\u{1b}]0;x\u{7}".to_owned()];
    }
    look.survey.unread.push(Unread {
        what: "\u{1b}[31m".to_owned(),
        why: "\r".to_owned(),
        matters: true,
    });
    let told = text(&look, PAPER, true);
    assert!(
        !told.chars().any(|one| one.is_control() && one != '\n'),
        "{told:?}"
    );
}
