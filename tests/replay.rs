//! Every recording of tests/recordings, thought over again: the same bytes as were expected, and the same ones twice. Needs
//! nothing of a node: this runs on any machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn recordings() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "suture"))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn suture(arguments: &[&str], input: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_suture"))
        .args(arguments)
        .stdin(input)
        .output()
        .unwrap()
}

fn replay(recording: &Path, more: &[&str]) -> String {
    let arguments = [&["replay", recording.to_str().unwrap()], more].concat();
    let output = suture(&arguments, Stdio::null());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_recording_tells_what_is_expected_and_the_same_twice() {
    for recording in recordings() {
        let expected = fs::read_to_string(recording.with_extension("expected")).unwrap();
        for _ in 0..2 {
            let told = replay(&recording, &["--output", "json"]);
            for (told, expected) in told.lines().zip(expected.lines()) {
                assert_eq!(told, expected, "{}", recording.display());
            }
            assert_eq!(told, expected, "{}", recording.display());
        }
        let input = Stdio::from(File::open(&recording).unwrap());
        let piped = suture(&["replay", "--output", "json", "-"], input);
        assert_eq!(String::from_utf8(piped.stdout).unwrap(), expected);
    }
}

#[test]
fn every_recording_is_small_and_says_how_it_was_made() {
    let made = fs::read_to_string(folder().join("README.md")).unwrap();
    for recording in recordings() {
        let name = recording.file_stem().unwrap().to_str().unwrap();
        assert!(
            made.contains(&format!("cargo xtask recordings {name}")),
            "README.md does not tell of {name}"
        );
        assert!(fs::metadata(&recording).unwrap().len() < 200_000, "{name}");
    }
}

#[test]
fn a_replay_can_decide_as_if_acting_were_allowed_and_with_another_grace() {
    let recording = folder().join("leaked-thin.suture");
    let told = replay(&recording, &[]);
    assert!(
        told.contains("start with --act to allow it") && !told.contains("NOT DONE"),
        "{told}"
    );
    let told = replay(&recording, &["--act-as-if"]);
    assert!(
        told.contains("NOT DONE delete thin device 2 from pool tp: this is a replay; every guard holds"),
        "{told}"
    );
    let told = replay(&recording, &["--act-as-if", "--grace", "3600"]);
    assert!(
        told.contains("must stand unchanged for 3600 s") && !told.contains("NOT DONE"),
        "{told}"
    );
    assert!(replay(&recording, &["--verbose"]).lines().count() > told.lines().count());
}

#[test]
fn a_damaged_recording_is_told_up_to_the_damage_with_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(self::folder().join("leaked-thin.suture")).unwrap();
    let path = folder.path().join("r");
    let replayed = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let output = suture(&["replay", path.to_str().unwrap()], Stdio::null());
        let texts = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), texts)
    };
    let (code, [told, error]) = replayed(&whole[..whole.len() / 2]);
    assert_eq!(code, Some(3), "{error}");
    assert!(
        told.contains("replaying what suture") && told.contains("read up to entry"),
        "{told}"
    );
    assert!(
        error.contains("read up to entry") && error.contains("without its end mark"),
        "{error}"
    );

    let mut changed = whole.clone();
    let place = whole.len() / 2;
    changed[place] ^= 1;
    let (code, [_, error]) = replayed(&changed);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("damaged"), "{error}");

    let mut future = whole;
    future[8] = 7;
    let (code, [told, error]) = replayed(&future);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        told.is_empty() && error.contains("version 7") && error.contains("version 1"),
        "{error}"
    );
}

#[cfg(not(feature = "node"))]
#[test]
fn what_needs_a_node_says_so() {
    for arguments in [
        &["run", "--act"][..],
        &["watch", "--help"],
        &["history"],
        &["record", "file", "--keep", "2"],
    ] {
        let output = suture(arguments, Stdio::null());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("--features node") && text.contains("cargo xtask build"),
            "{text}"
        );
    }
}
