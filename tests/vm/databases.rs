//! containerd's commits as `suture watch` sees them: the databases' side of a create, transition by transition.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::*;

const MOMENT: Duration = Duration::from_secs(30);

/// Every commit to a database among the lines, in order.
fn commits(lines: &[String], database: &str) -> Vec<Value> {
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["kind"] == "commit" && line["database"] == database)
        .collect()
}

/// Transactions that a commit stands for beside its own.
fn skipped(commit: &Value) -> u64 {
    let number = |side: &str| commit[side].as_u64().unwrap_or_default();
    match commit["from"] {
        Value::Null => 0,
        _ => number("to") - number("from") - 1,
    }
}

fn commits_are_seen_as_they_are_made(kernel: Kernel) -> Result<()> {
    // On a disk: a commit waits for it twice. In memory commits follow each other within microseconds, and a fourth of
    // them is only seen with the next one.
    let folder = tempfile::tempdir()?;
    let vm = boot_on_disks(kernel, folder.path())?;
    let containerd = containerd(&vm)?;
    let mut watch = vm.spawn(["suture", "watch"], &[])?;
    let mut for_programs = vm.spawn(["suture", "watch", "--output", "json"], &[])?;
    let begun = watch.wait_for_line(|line| line.contains("watching"), MOMENT)?;
    ensure!(
        begun.contains("commits to the databases: full, by inotify"),
        "{begun}"
    );
    for_programs.wait_for_line(|line| line.contains("watching"), MOMENT)?;

    containerd.prepare("one", None)?.ok()?;
    watch.wait_for_line(
        |line| line.contains("pool database transaction") && line.contains("tp-snap-1: none -> "),
        MOMENT,
    )?;
    watch.wait_for_line(|line| line.contains("-> Activated"), MOMENT)?;
    watch.wait_for_line(
        |line| line.contains("snapshot default/1/one: none -> Active 1"),
        MOMENT,
    )?;
    let line = watch.wait_for_line(|line| line.contains("containerd's meta.db transaction"), MOMENT)?;
    ensure!(
        line.contains("snapshot one of namespace default: none -> default/1/one"),
        "{line}"
    );

    watch.kill(Signal::TERM)?;
    ensure!(
        watch.wait(MOMENT)?.status.code() == 0,
        "the watch did not end in order"
    );

    // A life: made, built upon, removed.
    containerd.commit("layer", "one")?.ok()?;
    for key in ["two", "three", "four"] {
        containerd.prepare(key, Some("layer"))?.ok()?;
    }
    for key in ["two", "three", "four"] {
        containerd.remove(key)?.ok()?;
    }
    for_programs.wait_for_line(
        // containerd's garbage collector may take its time with the rest.
        |line| line.contains("\"key\":\"four\"") && line.contains("\"to\":null"),
        MOMENT,
    )?;

    let lines = for_programs.lines_so_far()?.to_vec();
    let (mut told, mut missed) = (0, 0);
    for database in ["pool", "snapshots", "core"] {
        let mut at = Value::Null;
        for commit in commits(&lines, database) {
            // Nothing lies between two of them; meta.db has commits that are not told.
            if at != Value::Null && database != "core" {
                ensure!(commit["from"] == at, "{at} is not where this begins: {commit}");
            }
            at = commit["to"].clone();
            if database != "core" {
                (told, missed) = (told + 1, missed + skipped(&commit));
            }
        }
    }
    eprintln!("{told} commits were told one by one, {missed} more with the next");

    let mut state = Value::Null;
    let mut steps = Vec::new();
    let mut sums = 0;
    for commit in commits(&lines, "pool") {
        let changes = commit["changes"].as_array().into_iter().flatten();
        for change in changes.filter(|change| change["name"] == "tp-snap-1") {
            ensure!(
                change["from"]["state"] == state,
                "{change} does not follow on {state}"
            );
            state = change["to"]["state"].clone();
            steps.push(state.as_i64().unwrap_or(-1));
            sums += skipped(&commit);
        }
    }
    eprintln!("tp-snap-1 went through {steps:?}");
    // Created, activated; committed: suspended, resumed and deactivated.
    let whole = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    ensure!(steps.starts_with(&whole) || sums > 0, "{steps:?}");
    ensure!(steps.contains(&4) && steps.contains(&10), "{steps:?}");
    ensure!(!lines.iter().any(|line| line.contains("\"lost\"")), "{lines:?}");
    Ok(())
}

#[test]
fn commits_are_seen_as_containerd_makes_them_on_6_1() -> Result<()> {
    commits_are_seen_as_they_are_made(Kernel::V6_1)
}
