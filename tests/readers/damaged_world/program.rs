//! `suture check` as people run it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Stage;
use crate::small_world::PAGE;

/// Runs `suture check` with little memory and little time.
fn check(stage: &Stage) -> (Option<i32>, String) {
    let root = stage.places.places.root.to_str().unwrap();
    let metadata = stage.places.metadata_device.as_ref().unwrap();
    let nowhere: PathBuf = stage.folder.path().join("nowhere");
    let output = Command::new("timeout")
        // Far more than a file of some pages needs, and far less than a wrong length would ask for.
        .args(["30", "prlimit", "--data=134217728", env!("CARGO_BIN_EXE_suture"), "check"])
        .args(["--pool", "tp", "--root-path", root, "--output", "json"])
        .args([Path::new("--metadata-device"), metadata])
        .args([Path::new("--ledger"), &nowhere, Path::new("--socket"), &nowhere])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// The program itself, whole pages and blocks at a time.
#[test]
fn suture_check_on_a_damaged_file_ends_with_findings_or_an_error_that_names_it() {
    let stage = Stage::new();
    assert_eq!(check(&stage), (Some(4), String::new()));
    let places = &stage.places;
    let files = [
        places.places.pool_db(),
        places.places.snapshot_db(),
        places.core_db.clone().unwrap(),
        places.metadata_device.clone().unwrap(),
    ];
    let mut refused = 0;
    for path in &files {
        let bytes = fs::read(path).unwrap();
        let count = bytes.len() / PAGE;
        for page in 0..count {
            let mut zeroed = bytes.clone();
            zeroed[page * PAGE..(page + 1) * PAGE].fill(0xff);
            for (what, damaged) in [("spoiled", &zeroed[..]), ("cut", &bytes[..page * PAGE + 100])] {
                fs::write(path, damaged).unwrap();
                let (code, told) = check(&stage);
                let case = format!("{} page {page} {what}: {code:?} {told}", path.display());
                match code {
                    Some(8) => {
                        refused += 1;
                        assert!(
                            told.starts_with("suture: ") && told.contains(path.to_str().unwrap()),
                            "{case}"
                        );
                    }
                    code => assert_eq!(code, Some(4), "{case}"),
                }
            }
        }
        fs::write(path, &bytes).unwrap();
    }
    assert!(refused > 30, "{refused}");
}
