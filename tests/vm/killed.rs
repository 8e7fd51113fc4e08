//! suture itself, killed between its intent, its ioctl and its outcome, or with the whole machine.

use anyhow::{Result, ensure};
use xtask::vm::containerd::{Containerd, Options};

use crate::{
    preload::{AT_DELETE, preload},
    support::*,
};

/// Kills its process at the `delete` message: before the kernel is called, or after it has answered.
const KILL_AT_IOCTL: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void at(const char *place) {
    const char *when = getenv("KILL_AT_DELETE");
    if (when && !strcmp(when, place)) kill(getpid(), SIGKILL);
}

static void before_delete(void) { at("before"); }
static void after_delete(void) { at("after"); }
"#;

fn killed_at_the_ioctl(when: &str, device_is_there: bool, settled: &str) -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    preload(&vm, "/opt/kill.so", &[KILL_AT_IOCTL, AT_DELETE])?;
    let mut containerd = containerd(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    let act = ["--act", "--grace", "2"];
    let doomed = Suture::start(
        &vm,
        &act,
        &[("LD_PRELOAD", "/opt/kill.so"), ("KILL_AT_DELETE", when)],
    )?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    let code = doomed.end()?;
    ensure!(
        code == 137,
        "suture should have been killed, it ended with {code}"
    );
    ensure!(
        containerd.thin_ids()?.contains(&2) == device_is_there,
        "{:?}",
        containerd.thin_ids()?
    );
    let before = history(&vm)?;
    // The last one: an earlier one is refused where containerd happens to write to its databases at that moment.
    let last = before[0]["remedies"]
        .as_array()
        .map_or(0, Vec::len)
        .saturating_sub(1);
    ensure!(
        before[0]["remedies"][last]["intended"].is_string()
            && before[0]["remedies"][last]["outcome"].is_null(),
        "the intent is there, the outcome is not: {before:?}"
    );

    let mut suture = Suture::start(&vm, &act, &[])?;
    suture.expect_remedy(settled)?;
    if device_is_there {
        suture.expect_remedy("done")?;
    }
    suture.expect("resolved", |report| report["finding"]["class"] == "leaked-thin")?;
    ensure!(containerd.thin_ids()? == [1, 3], "{:?}", containerd.thin_ids()?);
    ensure!(kept.is_whole(&vm)?);
    let after = history(&vm)?;
    ensure!(
        after.len() == 1 && after[0]["remedies"][last]["outcome"]["outcome"] == settled,
        "{after:?}"
    );
    ensure!(
        after[0]["trace"] == before[0]["trace"],
        "the story goes on in the same trace"
    );
    suture.stop()
}

#[test]
fn killed_between_intent_and_ioctl_it_looks_and_then_does_it() -> Result<()> {
    killed_at_the_ioctl("before", true, "settled_not_done")
}

#[test]
fn killed_between_ioctl_and_outcome_it_looks_and_does_nothing_more() -> Result<()> {
    killed_at_the_ioctl("after", false, "settled_done")
}

/// A dmsetup that makes the device and then takes its time, so that the power goes before containerd can say so.
const SLOW_DMSETUP: &str =
    "#!/bin/sh\n/usr/sbin/dmsetup \"$@\"\ncode=$?\nif [ \"$1\" = create ]; then sleep 600; fi\nexit $code\n";

#[test]
fn what_suture_saw_before_a_power_cut_still_counts_after_the_reboot() -> Result<()> {
    let disks = tempfile::tempdir()?;
    let act = [
        "--act",
        "--verbose",
        "--grace",
        "2",
        "--ledger",
        "/persist/suture/ledger.db",
    ];
    let first = boot_with_disks(disks.path())?;
    let kept = {
        let mut containerd = containerd(&first)?;
        let kept = Kept::write(&first, &containerd, "kept", 1)?;
        let mut suture = Suture::start(&first, &act, &[])?;
        first.write_file("/opt/break/dmsetup", SLOW_DMSETUP, 0o755)?;
        let _prepare = containerd.begin_prepare("half")?;
        let operation = suture.expect("operation", |report| {
            report["operation"]["device_name"] == "tp-snap-2"
        })?;
        ensure!(operation["operation"]["state"] == "in_flight", "{operation}");
        // The resume is the last call before the transaction that never comes.
        suture.expect("operation", |report| {
            let steps = report["operation"]["steps"].as_array();
            steps.is_some_and(|steps| steps.iter().any(|step| step["request"] == "resume tp-snap-2"))
        })?;
        ensure!(containerd.pid()? > 0);
        first.cut_power()?;
        kept
    };
    drop(first);

    let second = boot_with_disks(disks.path())?;
    let mut containerd = Containerd::set_up(&second, Options::default())?;
    let mut suture = Suture::start(&second, &act, &[])?;
    containerd.start()?;
    prepare_with_retries(&containerd, "again")?;
    let found = suture.expect("found", |report| report["finding"]["class"] == "leaked-thin")?;
    ensure!(found["finding"]["thin_id"] == 2, "{found}");
    suture.expect_remedy("done")?;
    ensure!(containerd.thin_ids()? == [1, 3], "{:?}", containerd.thin_ids()?);
    ensure!(kept.is_whole(&second)?);
    suture.stop()
}

/// suture and containerd die while a device is being made; somebody cleans up by hand and uses the id for something else.
#[test]
fn an_operation_that_nobody_watched_to_its_end_gives_no_leave_to_delete() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--verbose", "--grace", "0"], &[])?;
    vm.write_file("/opt/break/dmsetup", SLOW_DMSETUP, 0o755)?;
    let _prepare = containerd.begin_prepare("half")?;
    suture.expect("operation", |report| report["operation"]["state"] == "in_flight")?;
    suture.signal(Signal::KILL)?;
    suture.end()?;
    containerd.kill(Signal::KILL)?;
    vm.sh("rm /opt/break/dmsetup")?;
    containerd.start()?;
    prepare_with_retries(&containerd, "again")?;
    vm.sh("dmsetup message tp 0 'delete 1'; dmsetup message tp 0 'create_thin 1'")?;

    let mut suture = Suture::start(&vm, &["--act", "--grace", "0"], &[])?;
    let found = suture.expect_ever("found", |report| report["finding"]["thin_id"] == 1)?;
    ensure!(found["finding"]["class"] == "foreign-thin", "{found}");
    std::thread::sleep(std::time::Duration::from_secs(12));
    ensure!(!suture.told("remedy")? && containerd.thin_ids()?.contains(&1));
    suture.stop()
}
