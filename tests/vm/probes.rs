//! What the probes see of the real device-mapper and of failing bios, on both kernels.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::*;

const MOMENT: Duration = Duration::from_secs(30);

fn probes_see_the_real_thing(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let containerd = containerd(&vm)?;
    let mut watch = vm.spawn(["suture", "watch"], &[])?;
    let mut for_programs = vm.spawn(["suture", "watch", "--output", "json"], &[])?;
    watch.wait_for_line(|line| line.contains("watching"), MOMENT)?;
    for_programs.wait_for_line(|line| line.contains("watching"), MOMENT)?;

    // A message that works, one that does not, by hand and by containerd.
    vm.sh("dmsetup message tp 0 'create_thin 50'; ! dmsetup message tp 0 'create_snap 50 50' 2>/dev/null")?;
    watch.wait_for_line(|line| line.contains("create_thin 50 on tp -> ok, "), MOMENT)?;
    let refused = watch.wait_for_line(|line| line.contains("create_snap 50 50"), MOMENT)?;
    ensure!(
        refused.contains("on tp -> EEXIST (file exists), ") && refused.contains("ms, dmsetup ["),
        "{refused}"
    );
    ensure!(refused.contains("under sh"), "{refused}");
    containerd.prepare("one", None)?.ok()?;
    for step in [
        "create_thin 1 on tp -> ok",
        "create device tp-snap-1 -> ok",
        "load table of tp-snap-1: 0 131072 thin /dev/mapper/tp 1 -> ok",
        "resume tp-snap-1 -> ok",
    ] {
        let line = watch.wait_for_line(|line| line.contains(step), MOMENT)?;
        ensure!(
            line.contains("under containerd") || line.contains("under dmsetup"),
            "{line}"
        );
    }

    // A bio-based device that fails everything: no request ever, so only the bio tells.
    vm.sh("dmsetup create bad --table '0 64 error'; ! dd if=/dev/mapper/bad of=/dev/null bs=4k count=1 iflag=direct,skip_bytes skip=8192 2>/dev/null")?;
    let number = vm.sh("dmsetup info -c --noheadings --separator : -o major,minor bad")?;
    let line = for_programs.wait_for_line(|line| line.contains("block_error"), MOMENT)?;
    let error: Value = serde_json::from_str(&line)?;
    ensure!(
        error["device"] == number.trim() && error["source"] == "bio" && error["direction"] == "read",
        "{error}"
    );
    ensure!(
        error["errno"] == 5 && error["sector"] == 16 && error["length"] == 8,
        "{error}"
    );
    let people = watch.wait_for_line(|line| line.contains(" failed: EIO"), MOMENT)?;
    ensure!(
        people.contains(&format!("read of 8 sectors at 16 on {}", number.trim())),
        "{people}"
    );
    Ok(())
}

#[test]
fn device_mapper_and_failing_bios_are_seen_as_they_are_on_6_1() -> Result<()> {
    probes_see_the_real_thing(Kernel::V6_1)
}

#[test]
fn device_mapper_and_failing_bios_are_seen_as_they_are_on_6_12() -> Result<()> {
    probes_see_the_real_thing(Kernel::V6_12)
}
