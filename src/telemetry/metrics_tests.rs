//! The page of metrics against its documentation, and against Prometheus' own tool.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::metrics::{Exposition, Metrics, ReadTimes};
use crate::{
    model::{Status, observation::LossKind, sense::Quality, status::OpenGap},
    testing::{at, status},
};

fn page(status: Status, exposition: Exposition) -> String {
    let reads = ReadTimes::default();
    reads.note(Duration::from_millis(20));
    let feed = watch::Sender::new(Arc::new(status));
    Metrics::new(feed.subscribe(), reads).encode(exposition).unwrap()
}

/// Each metric with its type and labels.
fn exported(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending).filter(|name| found.contains_key(*name)))
                .unwrap_or(name);
            let (_, labels) = found
                .get_mut(family)
                .unwrap_or_else(|| panic!("{line} has no type"));
            // No label of ours holds a comma followed by something like a label.
            let inside = line.split_once('{').map_or("", |(_, rest)| rest);
            labels.extend(
                inside
                    .split("\",")
                    .filter_map(|label| label.split_once("=\""))
                    .map(|(label, _)| label.to_owned())
                    .filter(|label| label != "le"),
            );
        }
    }
    found
}

/// The table rows of docs/metrics.md: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    // Four columns; the tables of senses and of bounds have fewer.
    let is_metric = |line: &&str| line.starts_with("| `") && line.split('|').count() == 6;
    let rows = text.lines().filter(is_metric);
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`'));
        (
            cells[1].trim_matches('`').to_owned(),
            (
                cells[2].to_owned(),
                labels
                    .filter(|label| !label.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        )
    })
    .collect()
}

#[test]
fn what_is_exported_is_documented_and_what_is_documented_is_exported() {
    let exported = exported(&page(status(), Exposition::Text));
    assert!(exported.len() >= 25);
    assert_eq!(exported, documented());
}

#[test]
fn the_documentation_names_every_value_of_a_label() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let page = page(status(), Exposition::Text);
    let values = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("means=") && !line.contains("version="))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|value| value.parse::<f64>().is_err() && *value != "+Inf");
    for value in values {
        assert!(text.contains(&format!("`{value}`")), "{value} is not documented");
    }
}

#[test]
fn the_numbers_are_those_of_the_status() {
    let mut changed = status();
    changed.senses[0].quality = Quality::Degraded;
    changed.gap = Some(OpenGap {
        noticed: at(1),
        why: "lost".to_owned(),
    });
    changed.containerd.up = None;
    let text = page(changed, Exposition::Text);
    for line in [
        "suture_build_info{version=\"0.1.0\"} 1",
        "suture_heals 1",
        "suture_degraded 0",
        "suture_sense{sense=\"device_mapper_calls\",quality=\"full\"} 0",
        "suture_sense{sense=\"device_mapper_calls\",quality=\"degraded\"} 1",
        "suture_sense{sense=\"lineage\",quality=\"full\"} 1",
        "suture_sense_info{sense=\"holder\",means=\"the \\\"lock\\\"\\\\\\nand a pidfd\"} 1",
        "suture_gap_open 1",
        "suture_containerd_up 0",
        "suture_events_total{kind=\"dm_ioctl\"} 41",
        "suture_events_total{kind=\"commit\"} 0",
        "suture_lost_events_total{kind=\"dm_ring_full\"} 7",
        "suture_lost_events_total{kind=\"polling\"} 0",
        "suture_findings{class=\"leaked-thin\"} 1",
        "suture_findings{class=\"wedge\"} 0",
        "suture_operations_open 1",
        "suture_world_reads_total{result=\"consistent\"} 9",
        "suture_world_read_seconds_count 1",
        "suture_world_read_seconds_bucket{le=\"0.025\"} 1",
        "suture_world_read_seconds_bucket{le=\"0.01\"} 0",
        "suture_world_read_timestamp_seconds 1999.0",
        "suture_bound_limit{bound=\"dm_ring_bytes\"} 1048576",
        "suture_bound_current{bound=\"queue_events\"} 5",
        "suture_bound_hits_total{bound=\"dm_ring_bytes\"} 7",
        "suture_spans_kept 12",
        "suture_spans_dropped_total 3",
        "suture_traces_failing 1",
    ] {
        assert!(text.lines().any(|one| one == line), "`{line}` is not in:\n{text}");
    }
    assert!(!text.contains("suture_bound_current{bound=\"dm_ring_bytes\"}"));
}

#[test]
fn losses_of_one_name_are_one_series() {
    let mut changed = status();
    for database in [
        crate::model::commit::DatabaseKind::Pool,
        crate::model::commit::DatabaseKind::Core,
    ] {
        changed.losses.push(crate::model::status::LossTotal {
            kind: LossKind::DatabaseUnread { database },
            total: 2,
            last: at(5),
        });
    }
    let text = page(changed, Exposition::Text);
    assert_eq!(
        text.matches("suture_lost_events_total{kind=\"database_unread\"} 4")
            .count(),
        1
    );
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let promtool = xtask::setup::promtool(false).unwrap();
    let check = |text: &str| {
        let mut child = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let text = page(status(), Exposition::Text);
    assert_eq!(check(&text), (true, String::new()));
    // It does look.
    let (fine, said) = check(&text.replace("# HELP suture_degraded", "# nothing of suture_degraded"));
    assert!(!fine && said.contains("suture_degraded"), "{said}");
    let (fine, said) = check(&format!("{text}suture broken\n"));
    assert!(!fine, "{said}");
}
