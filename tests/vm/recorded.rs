//! A live run and its recording tell the same.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::*;

const RECORDING: &str = "/run/r.suture";

/// What the brain told, without what only the shell around it knows: traces, its own start and end, and what a healing round
/// decides, which no recording has.
fn thoughts(reports: impl IntoIterator<Item = Value>) -> Vec<Value> {
    const OF_THE_SHELL: [&str; 6] = [
        "started",
        "stopped",
        "recording",
        "replaying",
        "replayed",
        "judged",
    ];
    let mut thoughts: Vec<Value> = reports
        .into_iter()
        .filter(|report| OF_THE_SHELL.iter().all(|shell| report["report"] != *shell))
        .collect();
    for report in &mut thoughts {
        if let Some(trace) = report.get_mut("traceparent") {
            *trace = Value::Null;
        }
    }
    thoughts
}

#[test]
fn a_replay_tells_what_the_live_run_told_when_it_was_told() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(
        &vm,
        &["--act", "--grace", "2", "--verbose", "--record", RECORDING],
        &[],
    )?;
    containerd.prepare("kept", None)?.ok()?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect_remedy("done")?;
    suture.expect("resolved", |report| report["finding"]["class"] == "leaked-thin")?;
    vm.sh("dmsetup message tp 0 'create_thin 77'")?;
    suture.expect("found", |report| report["finding"]["class"] == "foreign-thin")?;

    // What was seen is in the file within a second or so: a killed suture loses no more.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let cut = vm.run(["suture", "replay", "--output", "json", RECORDING])?;
    ensure!(cut.status.code() == 3, "{cut:?}");
    ensure!(
        cut.stdout.contains("foreign-thin") && cut.stderr.contains("end mark"),
        "{cut:?}"
    );

    suture.signal(Signal::TERM)?;
    suture.expect("stopped", |_| true)?;
    let live = thoughts(suture.reports()?);
    let replayed = vm
        .run(["suture", "replay", "--output", "json", RECORDING])?
        .ok()?
        .stdout;
    let lines = replayed
        .lines()
        .map(|line| serde_json::from_str(line).context("reading the replay"));
    let replayed = thoughts(lines.collect::<Result<Vec<Value>>>()?);
    ensure!(live.len() > 10, "{live:?}");
    for (live, replayed) in live.iter().zip(&replayed) {
        ensure!(live == replayed, "live: {live}\nreplayed: {replayed}");
    }
    ensure!(
        live.len() == replayed.len(),
        "{} and {} reports",
        live.len(),
        replayed.len()
    );
    Ok(())
}

/// A full disk ends the recording, with one report, and nothing else.
#[test]
fn a_recording_that_can_not_be_written_ends_and_watching_goes_on() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let _containerd = containerd(&vm)?;
    vm.sh("mkdir -p /small; mount -t tmpfs -o size=64k tmpfs /small")?;
    let mut suture = Suture::start(&vm, &["--record", "/small/r"], &[])?;
    vm.sh("dd if=/dev/zero of=/small/fill bs=4096 2>/dev/null || true
        for i in $(seq 100); do dmsetup info tp > /dev/null; done")?;
    let stopped = suture.expect("recording_stopped", |_| true)?;
    ensure!(
        stopped["why"]
            .as_str()
            .is_some_and(|why| why.contains("No space left")),
        "{stopped}"
    );
    vm.sh("dmsetup message tp 0 'create_thin 77'")?;
    suture.expect("found", |report| report["finding"]["thin_id"] == 77)?;
    let told = suture.reports()?;
    ensure!(
        told.iter()
            .filter(|report| report["report"] == "recording_stopped")
            .count()
            == 1
    );
    // What was written before can be replayed.
    let replayed = vm.run(["suture", "replay", "/small/r"])?;
    ensure!(
        replayed.status.code() == 3 && replayed.stdout.contains("gap closed"),
        "{replayed:?}"
    );
    suture.stop()
}
