//! Operations that go well, beside a sidecar that may heal: it does nothing at all. How much it slows them is what
//! `cargo xtask bench operations-vm` shows.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{Process, Vm};

use crate::{healing::*, stage::*, support::*};

/// How many: in every run, and in the long lane. Each half beside a sidecar of its own, with as many without one before it.
const FEW: u32 = 40;
const MANY: u32 = 200;

/// What a suture that has nothing to do tells; `commanded` is the answer to who asks for another round.
const CALM: [&str; 6] = [
    "started",
    "gap_opened",
    "gap_closed",
    "observed",
    "commanded",
    "stopped",
];

/// Asks for one healing round after the other, so that each finds containerd in the middle of something else.
fn rounds(vm: &Vm) -> Result<Process> {
    let again = format!("while sleep 5; do suture resume --config {POLICY}; done");
    vm.spawn(["sh", "-c", &again], &[])
}

/// How many calls of device-mapper's the running suture has seen.
fn calls_seen(vm: &Vm) -> Result<u64> {
    let told = say(vm, &["status", "--output", "json"])?.stdout;
    let told: Value = serde_json::from_str(&told).with_context(|| format!("its status: {told}"))?;
    Ok(told["events"]["dm_ioctl"].as_u64().unwrap_or_default())
}

fn nothing_is_done_beside(operations: u32) -> Result<()> {
    on_stage(|stage| {
        stage.containerd.prepare_for_operations()?;
        stage.vm.sh("rm -rf /run/healing; mkdir -p /run/healing")?;
        write_policy(stage.vm, "")?;
        let half = operations / 2;
        for _ in 0..2 {
            let without = stage.containerd.operations(half)?;
            let mut suture = sidecar_again(stage.vm, &[])?;
            let rounds = rounds(stage.vm)?;
            let with = stage.containerd.operations(half)?;
            eprintln!("{half} operations took {without:.1?}, beside a sidecar {with:.1?}");
            rounds.kill(Signal::KILL)?;
            let calls = calls_seen(stage.vm)?;
            ensure!(
                calls > u64::from(half),
                "it saw only {calls} calls, so this shows nothing"
            );
            for report in suture.reports()? {
                let kind = report["report"].as_str().unwrap_or_default();
                ensure!(CALM.contains(&kind), "it told {report}");
            }
            ensure!(
                say(stage.vm, &["findings", "--output", "json"])?
                    .ok()?
                    .stdout
                    .trim()
                    .is_empty(),
                "something was found"
            );
            suture.stop()?;
        }
        // The ledger knows of no finding, plan, remedy or repair.
        let history = say(stage.vm, &["history", "--output", "json", "--ledger", LEDGER])?;
        ensure!(history.ok()?.stdout.trim().is_empty());
        let all = say(
            stage.vm,
            &["findings", "all", "--output", "json", "--ledger", LEDGER],
        )?;
        ensure!(all.ok()?.stdout.trim().is_empty());
        stage.containerd.end_operations()?;
        stage.expect_works()
    })
}

#[test]
fn beside_clean_operations_a_sidecar_that_may_heal_does_nothing() -> Result<()> {
    nothing_is_done_beside(FEW)
}

/// The long lane.
#[test]
fn beside_two_hundred_clean_operations_a_sidecar_that_may_heal_does_nothing() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    nothing_is_done_beside(MANY)
}
