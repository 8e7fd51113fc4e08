//! The node's wall clock is set while the sidecar runs: neither a grace nor a budget is given away, nor lost.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use xtask::vm::Vm;

use crate::{healing::*, stage::*, support::*};

/// How long a finding must have stood.
const GRACE: u64 = 25;
/// Reading, judging and acting in an emulated machine.
const SLOWNESS: Duration = Duration::from_secs(45);

/// Sets the clock to so many minutes from the true time.
fn set_clock(vm: &Vm, minutes: i64) -> Result<()> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    vm.sh(&format!("date --set @$(({now} + {minutes} * 60))"))?;
    Ok(())
}

#[test]
fn a_clock_that_is_set_an_hour_forth_or_back_gives_no_grace_and_no_budget_away() -> Result<()> {
    on_stage(|stage| {
        let vm = stage.vm;
        vm.sh("rm -rf /run/healing; mkdir -p /run/healing")?;
        write_policy(vm, "[policy.budget.pool]\nactions-per-hour = 1\n")?;
        let grace = GRACE.to_string();
        let arguments = ["--act", "--grace", &grace, "--config", POLICY, "--ledger", LEDGER];
        let mut suture = Suture::start(vm, &arguments, &[])?;

        let first = make_orphan(stage, 1)?;
        let made = Instant::now();
        suture.expect_judged("orphan-node", "wait")?;
        let waits = Instant::now();
        set_clock(vm, 60)?;
        say(vm, &["resume", "--config", POLICY])?;
        let early = Duration::from_secs(GRACE - 10).saturating_sub(made.elapsed());
        std::thread::sleep(early);
        ensure!(node_is_there(vm, &first)?, "an hour forth gave the grace away");
        suture.expect_repair("orphan-node", "done")?;
        ensure!(
            made.elapsed() >= Duration::from_secs(GRACE),
            "after {:?}",
            made.elapsed()
        );
        ensure!(waits.elapsed() < Duration::from_secs(GRACE) + SLOWNESS);

        // The budget of this hour is spent, whatever hour it is said to be.
        let second = make_orphan(stage, 2)?;
        let spent = |report: &serde_json::Value| {
            report["finding"]["class"] == "orphan-node"
                && report["text"].to_string().contains("budget of the pool")
        };
        suture.expect("judged", spent)?;
        for minutes in [180, -60] {
            set_clock(vm, minutes)?;
            another_round(vm)?;
            ensure!(
                suture.repairs()? == 1 && node_is_there(vm, &second)?,
                "a clock {minutes} minutes off gave the budget away"
            );
        }
        // Nor does a suture that is started under another time have a new one.
        suture.stop()?;
        set_clock(vm, 120)?;
        let mut suture = sidecar_again(vm, &[])?;
        suture.expect_ever("judged", spent)?;
        ensure!(suture.repairs()? == 0 && node_is_there(vm, &second)?);
        suture.stop()?;
        set_clock(vm, 0)?;
        vm.sh(&format!("dmsetup remove {second}"))?;
        stage.expect_works()
    })
}

/// What containerd leaks after its node's clock was set back is seen, and deleted: suture does not lose its place in time.
#[test]
fn a_leak_after_the_clock_was_set_back_is_healed_all_the_same() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "2"], &[])?;
    containerd.prepare("before", None)?.ok()?;
    set_clock(&vm, -60)?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect_remedy("done")?;
    suture.expect("resolved", |report| report["finding"]["class"] == "leaked-thin")?;
    ensure!(containerd.thin_ids()? == [1, 3], "{:?}", containerd.thin_ids()?);
    suture.stop()
}
