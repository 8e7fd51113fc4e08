//! More than suture can take in: it counts what it lost, stays small, and claims nothing that it did not see.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::vm::Vm;

use crate::support::*;

const FLOOD: &str = "/run/suture-vm-guest";
/// What the design gives suture under load, in KiB.
const RESIDENT: u64 = 64 * 1024;

fn resident_kib(vm: &Vm) -> Result<u64> {
    // The first of them: while it starts another program, that has its name too for a moment.
    let text = vm.sh("grep -h VmHWM /proc/$(pidof suture | tr ' ' '\\n' | sort -n | head -n 1)/status")?;
    let word = text.split_whitespace().nth(1).context("no VmHWM")?;
    Ok(word.parse()?)
}

#[test]
fn a_flood_is_counted_costs_bounded_memory_and_leads_to_no_false_claim() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    // Small rings, so that the flood is more than they hold for certain.
    let rings = ["--dm-ring-bytes", "16384", "--block-ring-bytes", "4096"];
    let arguments = [&["--act", "--grace", "2"][..], &rings[..]].concat();
    let mut suture = Suture::start(&vm, &arguments, &[])?;
    vm.sh("dmsetup create bad --table '0 4096 error'")?;
    let mut flood = vm.spawn([FLOOD, "flood", "40", "/dev/mapper/bad"], &[])?;

    // Meanwhile: a device that containerd leaks, one that an administrator makes, and one whose id he uses again.
    std::thread::sleep(Duration::from_secs(2));
    break_and_restart(&mut containerd)?;
    vm.sh(
        "dmsetup message tp 0 'create_thin 100'; dmsetup message tp 0 'create_thin 101'
        dmsetup message tp 0 'delete 101'; dmsetup message tp 0 'create_thin 101'",
    )?;
    prepare_with_retries(&containerd, "again")?;
    let flooded = flood.wait(PATIENCE)?.ok()?.stdout;
    eprintln!("{}", flooded.trim());

    let lost = suture.expect_ever("gap_opened", |report| {
        report["why"].to_string().contains("ring buffer was full")
    })?;
    eprintln!("{}", lost["why"]);
    // The next full read closes the gap, and then it is as before.
    suture.expect("gap_closed", |_| true)?;
    let resident = resident_kib(&vm)?;
    eprintln!("at most {resident} KiB were resident");
    ensure!(resident < RESIDENT, "{resident} KiB were resident");
    std::thread::sleep(Duration::from_secs(12));

    // Whatever was found about the administrator's devices, nobody claims that containerd made them, and they live.
    let ids = containerd.thin_ids()?;
    ensure!(
        ids.contains(&1) && ids.contains(&100) && ids.contains(&101),
        "{ids:?}"
    );
    for report in suture.reports()? {
        let finding = &report["finding"];
        if finding["class"] == "leaked-thin" {
            ensure!(finding["thin_id"] == 2, "a false claim: {report}");
        }
        if report["report"] == "remedy" {
            ensure!(report["plan"]["thin_id"] == 2, "a false remedy: {report}");
        }
    }
    ensure!(kept.is_whole(&vm)?);
    for id in [100, 101] {
        let found = suture.expect_ever("found", |report| report["finding"]["thin_id"] == id)?;
        ensure!(found["finding"]["class"] == "foreign-thin", "{found}");
    }
    suture.stop()
}
