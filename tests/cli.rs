//! The command line as people meet it: what it says when something is not as it should be, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn suture(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_suture"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Ends with an error of one line that says all of this.
fn refuses(arguments: &[&str], said: &[&str]) {
    let output = suture(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("suture: ") && text.trim_end().lines().count() == 1,
        "{text}"
    );
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in ["run", "status", "watch", "history"] {
        let text = String::from_utf8(suture(&[command, "--help"]).stdout).unwrap();
        assert!(text.contains("Example:\n"), "{command}: {text}");
    }
}

#[test]
fn a_wrong_word_on_the_command_line_is_a_usage_error() {
    for wrong in [
        &["run", "--grace", "-1"][..],
        &["run", "--pool", "tp"],
        &["watch", "--output", "xml"],
        &["run", "--metrics", "everywhere"],
        &["run", "--queue-events", "1"],
        &["heal"],
    ] {
        let output = suture(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_configuration_that_does_not_tell_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = path(&folder, "config.toml");
    refuses(
        &["run", "--containerd-config", &config],
        &[&config, "--pool", "--root-path", "No such file"],
    );
    fs::write(&config, "version = 2\n").unwrap();
    refuses(
        &["run", "--containerd-config", &config],
        &[&config, "names no pool"],
    );
}

#[test]
fn a_configuration_that_is_no_toml_is_shown_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = path(&folder, "config.toml");
    fs::write(&config, "version = 2\nplugins = [\n").unwrap();
    let output = suture(&["run", "--containerd-config", &config]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("understanding containerd's configuration") && text.contains("line"),
        "{text}"
    );
}

#[test]
fn a_history_without_a_ledger_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = path(&folder, "ledger.db");
    refuses(
        &["history", "--ledger", &ledger],
        &["no ledger", &ledger, "--ledger"],
    );
    assert!(!Path::new(&ledger).exists(), "reading makes no file");
}

#[test]
fn a_ledger_that_is_none_or_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = path(&folder, "garbage.db");
    fs::write(&garbage, vec![7; 8192]).unwrap();
    refuses(&["history", "--ledger", &garbage], &[&garbage, "not a database"]);
    let newer = path(&folder, "newer.db");
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    refuses(&["history", "--ledger", &newer], &[&newer, "version 99"]);
}

#[test]
fn an_empty_ledger_is_an_empty_history() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = path(&folder, "ledger.db");
    drop(suture::ledger::Ledger::open(Path::new(&ledger)).unwrap());
    let output = suture(&["history", "--ledger", &ledger]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "nothing was found so far\n"
    );
    let json = suture(&["history", "--output", "json", "--ledger", &ledger]);
    assert!(json.status.success() && json.stdout.is_empty());
}

#[test]
fn the_status_of_a_suture_that_does_not_run_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = path(&folder, "suture.sock");
    for output in ["text", "json"] {
        let output = suture(&["status", "--output", output, "--socket", &socket]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(
            text.contains(&socket) && text.contains("`suture run`") && text.contains("--socket"),
            "{text}"
        );
        assert!(output.stdout.is_empty());
    }
    let help = String::from_utf8(suture(&["status", "--help"]).stdout).unwrap();
    assert!(
        help.contains("3  it runs degraded") && help.contains("4  none runs"),
        "{help}"
    );
}

/// A typing error in a variable must not leave a node unwatched.
#[test]
fn a_collector_that_can_not_be_one_is_told_and_suture_goes_on() {
    xtask::tracefs::mount_if_missing().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ledger = path(&folder, "ledger.db");
    let root = folder.path().to_str().unwrap();
    let output = Command::new("timeout")
        .args([
            "--signal=INT",
            "5",
            env!("CARGO_BIN_EXE_suture"),
            "run",
            "--pool",
            "no-such-pool",
        ])
        .args(["--root-path", root, "--ledger", &ledger])
        .args(["--socket", &path(&folder, "suture.sock")])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("traces are not exported") && text.contains("'nonsense'"),
        "{text}"
    );
    assert!(text.contains("watching pool no-such-pool"), "{text}");
    assert!(text.contains("stopped"), "ended in order: {text}");
}
