//! The shape that ARCHITECTURE.md promises, held by a test: the pure rooms are pure, and only `remedy` has hands.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn offenders(folders: &[&str], forbidden: &[&str]) -> Vec<String> {
    folders
        .iter()
        .flat_map(|folder| sources(folder))
        .flat_map(|(path, text)| {
            let hits = forbidden.iter().filter(|word| text.contains(**word));
            hits.map(|word| format!("{} has `{word}`", path.display()))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_pure_rooms_know_no_clock_no_file_no_kernel_and_no_room_that_does() {
    let forbidden = [
        "SystemTime::now",
        "Instant",
        "std::fs",
        "std::net",
        "async fn",
        "tokio",
        "rustix",
        "devicemapper::",
        "rusqlite",
        "crate::observe",
        "crate::remedy",
        "crate::ledger",
        "crate::telemetry",
        "crate::agent",
        "crate::cli",
        "crate::control",
    ];
    assert_eq!(
        offenders(&["model", "correlate", "diagnose", "decide"], &forbidden),
        Vec::<String>::new()
    );
}

#[test]
fn only_remedy_sends_messages_to_a_pool() {
    let rooms = [
        "agent",
        "cli",
        "control",
        "correlate",
        "decide",
        "diagnose",
        "ledger",
        "model",
        "observe",
        "telemetry",
    ];
    let hands = [
        ".target_msg(",
        ".device_create(",
        ".device_remove(",
        ".device_rename(",
        ".table_load(",
        ".device_suspend(",
    ];
    assert_eq!(offenders(&rooms, &hands), Vec::<String>::new());
}
