//! The command line as people meet it: what it says when something is not as it should be, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/check.rs"]
mod check;
#[path = "cli/citizen.rs"]
#[expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod citizen;
#[path = "cli/control.rs"]
mod control;
#[path = "shared/thin_image.rs"]
#[expect(
    dead_code,
    clippy::indexing_slicing,
    reason = "the readers' tests use all of it; a test fails by panicking"
)]
mod thin_image;

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

const COMMANDS: [&str; 18] = [
    "check",
    "inspect",
    "explain",
    "run",
    "status",
    "watch",
    "history",
    "record",
    "replay",
    "repair",
    "findings",
    "approve",
    "reject",
    "pause",
    "resume",
    "config",
    "completions",
    "man",
];

#[test]
fn every_command_is_known_here_and_has_an_example_in_its_help() {
    let all = String::from_utf8(suture(&["--help"]).stdout).unwrap();
    let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed: Vec<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.strip_prefix("  ")?
                .split(' ')
                .next()
                .filter(|name| !name.is_empty())
        })
        .filter(|name| *name != "help")
        .collect();
    let known: std::collections::BTreeSet<&str> = COMMANDS.into();
    assert_eq!(
        listed.into_iter().collect::<std::collections::BTreeSet<_>>(),
        known,
        "{all}"
    );
    for command in COMMANDS {
        let text = String::from_utf8(suture(&[command, "--help"]).stdout).unwrap();
        assert!(text.contains("Example:\n"), "{command}: {text}");
    }
}

/// What bash completes a line to, by the script that suture prints.
fn completed(words: &[&str]) -> String {
    let script = String::from_utf8(suture(&["completions", "bash"]).stdout).unwrap();
    let run = r#"eval "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _suture suture "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; echo "${COMPREPLY[*]}""#;
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", run, &script]).args(words).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_shell_completes_commands_and_options() {
    assert_eq!(completed(&["suture", "rep"]), "repair replay");
    assert_eq!(completed(&["suture", "repair", "--off"]), "--offline");
    assert_eq!(completed(&["suture", "completions", "fi"]), "fish");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = suture(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page_with_its_example() {
    let folder = tempfile::tempdir().unwrap();
    let manuals = path(&folder, "share/man1");
    assert!(suture(&["man", &manuals]).status.success());
    let page = |name: &str| fs::read_to_string(folder.path().join("share/man1").join(name)).unwrap();
    assert!(
        page("suture.1").contains("suture\\-repair(1)"),
        "{}",
        page("suture.1")
    );
    for command in COMMANDS {
        let text = page(&format!("suture-{command}.1"));
        assert!(
            text.contains(".TH") && text.contains("Example:"),
            "{command}: {text}"
        );
    }
    let repair = page("suture-repair.1");
    assert!(
        repair.contains("offline") && !repair.contains("as\\-worker"),
        "{repair}"
    );
    refuses(
        &["man", "/dev/null/x"],
        &["writing manual pages into /dev/null/x", "Not a directory"],
    );
}

#[test]
fn a_wrong_word_on_the_command_line_is_a_usage_error() {
    for wrong in [
        &["run", "--grace", "-1"][..],
        &["run", "--pool", "tp"],
        &["watch", "--output", "xml"],
        &["run", "--metrics", "everywhere"],
        &["run", "--queue-events", "1"],
        &["record", "r", "--max-bytes", "1"],
        &["record"],
        &["heal"],
    ] {
        let output = suture(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_wrong_word_after_repair_has_the_code_of_fsck() {
    for wrong in [
        &["repair", "--only", "nonsense"][..],
        &["repair", "--delete-thin", "16777216"],
        &["repair", "--deadline", "-1"],
        &["repair", "--undo", "--plan"],
        &["repair", "--pool", "tp"],
    ] {
        let output = suture(wrong);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(16), "{wrong:?}: {text}");
    }
    assert_eq!(suture(&["repair", "--help"]).status.code(), Some(0));
}

/// Runs `suture repair` on a node of its own: the fixtures as databases, and no pool.
fn repair(folder: &tempfile::TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
    let root = folder.path().join("devmapper");
    if !root.exists() {
        fs::create_dir(&root).unwrap();
        fs::copy(fixtures.join("pool.db"), root.join("pool.db")).unwrap();
        fs::copy(fixtures.join("metadata.db"), root.join("metadata.db")).unwrap();
    }
    let (root, ledger, backups) = (
        path(folder, "devmapper"),
        path(folder, "ledger.db"),
        path(folder, "backups"),
    );
    let mut all = vec!["repair", "--pool", "pool", "--root-path", &root];
    all.extend(["--ledger", &ledger, "--backups", &backups]);
    all.extend(arguments);
    let output = suture(&all);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn an_undo_needs_no_folder_named() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = repair(&folder, &["--undo"]);
    assert_eq!(code, Some(8), "{said}");
    assert!(
        said.contains("backup") && !said.contains("a value is required"),
        "{said}"
    );
}

#[test]
fn a_policy_that_is_named_must_be_understood() {
    let folder = tempfile::tempdir().unwrap();
    let policy = path(&folder, "policy.toml");
    for mode in [&["--offline"][..], &["--plan"]] {
        let (code, text) = repair(&folder, &[mode, &["--policy", &policy]].concat());
        assert_eq!(code, Some(8), "{text}");
        assert!(text.contains(&policy) && text.contains("No such file"), "{text}");
    }
    fs::write(&policy, "[repair]\nwedge = \"always\"\n").unwrap();
    let (code, text) = repair(&folder, &["--offline", "--policy", &policy]);
    assert_eq!(code, Some(8), "{text}");
    assert!(text.contains("line 2") && text.contains("always"), "{text}");
    assert!(!folder.path().join("backups").exists());
}

#[test]
fn a_repair_under_somebodys_lock_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first) = repair(&folder, &["--offline"]);
    let database = folder.path().join("devmapper/pool.db");
    let before = fs::read(&database).unwrap();
    let held = fs::File::options()
        .read(true)
        .write(true)
        .open(&database)
        .unwrap();
    held.lock().unwrap();
    let begun = std::time::Instant::now();
    let (code, text) = repair(&folder, &["--offline"]);
    assert_eq!(code, Some(8), "{first} {text}");
    assert!(text.contains("containerd runs"), "{text}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    drop(held);
    assert_eq!(fs::read(&database).unwrap(), before);
}

#[test]
fn a_node_without_a_first_start_has_nothing_to_repair() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("devmapper")).unwrap();
    let (code, text) = repair(&folder, &["--offline"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing to repair"), "{text}");
    assert!(
        !folder.path().join("ledger.db").exists(),
        "nothing is made where nothing is done"
    );
}

#[test]
fn a_repair_that_hangs_ends_at_its_deadline_and_says_what_it_was_doing() {
    let folder = tempfile::tempdir().unwrap();
    let policy = path(&folder, "policy.toml");
    // Opening a pipe that nobody writes to hangs.
    assert!(Command::new("mkfifo").arg(&policy).status().unwrap().success());
    let begun = std::time::Instant::now();
    let (code, text) = repair(&folder, &["--offline", "--policy", &policy, "--deadline", "0.5"]);
    assert_eq!(code, Some(8), "{text}");
    assert!(
        text.contains("not finished within 0.5 s") && text.contains("reading the policy"),
        "{text}"
    );
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
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
