//! Disks that fail below a pool, pools that fail with them, and the record that stops all further snapshots.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{
    Vm,
    containerd::{Containerd, break_disk, disk_with_a_bad_spot, swap_table},
};

use crate::support::*;

fn number_of(vm: &Vm, name: &str) -> Result<String> {
    let number = vm.sh(&format!(
        "dmsetup info -c --noheadings -o major,minor --separator : {name}"
    ))?;
    Ok(number.trim().to_owned())
}

fn is_class(class: &'static str) -> impl Fn(&Value) -> bool {
    move |report| report["finding"]["class"] == class
}

/// The findings of a class that the ledger has.
fn findings(vm: &Vm, class: &str) -> Result<Vec<Value>> {
    let entries = history(vm)?.into_iter().map(|mut entry| entry["finding"].take());
    Ok(entries.filter(|finding| finding["class"] == class).collect())
}

fn a_failing_data_device(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let containerd = Containerd::on_breakable_disks(&vm)?;
    containerd.prepare("one", None)?.ok()?;
    let tdata = number_of(&vm, "tdata")?;
    let mut suture = Suture::start(&vm, &["--act"], &[])?;
    let table = break_disk(&vm, "tdata")?;
    // The superblock of the file system: surely mapped.
    vm.sh("! dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null")?;
    let found = suture.expect("found", is_class("block-errors"))?;
    ensure!(found["finding"]["device"] == tdata.as_str(), "{found}");
    let evidence = found["finding"]["evidence"].to_string();
    ensure!(
        evidence.contains(&format!("{tdata} (tdata) is the data device of pool tp"))
            && evidence.contains("the live table of")
            && evidence.contains("EIO"),
        "{evidence}"
    );
    // The failed prepare is rolled back.
    let failed = containerd.prepare("two", None)?;
    ensure!(!failed.status.success(), "nothing can be written");
    // One finding, with the snapshot and with the levels above as its evidence.
    vm.wait_until("the snapshot that is hit is named", PATIENCE, || {
        let all = findings(&vm, "block-errors")?;
        ensure!(all.len() == 1, "{all:?}");
        let evidence = all[0]["evidence"].to_string();
        Ok(
            evidence.contains("thin device 1, containerd's tp-snap-1, active snapshot default/")
                && evidence.contains("the same shows above it, on tp-snap-1"),
        )
    })?;
    let decided = suture.expect_ever("decided", is_class("block-errors"))?;
    ensure!(decided["kind"] == "tell", "{decided}");

    swap_table(&vm, "tdata", &table)?;
    prepare_with_retries(&containerd, "three")?;
    ensure!(!suture.told("remedy")?);
    suture.stop()?;
    // A new suture has counted nothing; that does not make the disk a good one.
    let mut suture = Suture::start(&vm, &["--act"], &[])?;
    std::thread::sleep(Duration::from_secs(7));
    ensure!(!suture.told("resolved")?, "{:?}", suture.reports()?);
    suture.stop()
}

#[test]
fn a_failing_data_device_is_named_with_the_snapshots_that_it_hits() -> Result<()> {
    a_failing_data_device(Kernel::V6_1)
}

/// A disk that answers requests and has a bad spot: `scsi_debug` can not read ten sectors from 0x1234 on.
fn a_bad_spot(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let disk = disk_with_a_bad_spot(&vm)?;
    let containerd = Containerd::with_data_on(&vm, &disk, 2048)?;
    containerd.prepare("one", None)?.ok()?;
    vm.sh("dd if=/dev/zero of=/dev/mapper/tp-snap-1 bs=1M count=64 oflag=direct 2>/dev/null")?;
    let mut suture = Suture::start(&vm, &[], &[])?;
    vm.sh("dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=64k iflag=direct conv=noerror 2>/dev/null || true")?;
    let found = suture.expect("found", is_class("block-errors"))?;
    ensure!(found["finding"]["device"] == disk.as_str(), "{found}");
    // 0x1234 less where the data begin is sector 2612 of the pool, in data block 20.
    vm.wait_until("the one block that is bad is named", PATIENCE, || {
        let all = findings(&vm, "block-errors")?;
        ensure!(all.len() == 1, "{all:?}");
        let evidence = all[0]["evidence"].to_string();
        Ok(
            evidence.contains("the failed sectors lie in data blocks 20 of the pool")
                && evidence.contains("containerd's tp-snap-1, active snapshot default/")
                && evidence.contains("has data in 1 of these blocks"),
        )
    })?;
    suture.stop()
}

#[test]
fn a_bad_spot_of_a_disk_leads_to_the_one_block_that_it_hits() -> Result<()> {
    a_bad_spot(Kernel::V6_1)
}

fn a_failing_metadata_device(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let containerd = Containerd::on_breakable_disks(&vm)?;
    containerd.prepare("one", None)?.ok()?;
    let tmeta = number_of(&vm, "tmeta")?;
    let mut suture = Suture::start(&vm, &["--act"], &[])?;
    vm.sh("dmsetup message tp 0 'create_thin 77'")?;
    suture.expect("found", is_class("foreign-thin"))?;
    break_disk(&vm, "tmeta")?;
    let failed = containerd.prepare("two", None)?;
    ensure!(!failed.status.success(), "nothing can be made");
    suture.expect_ever("found", |report| {
        is_class("pool-failed")(report) || is_class("pool-read-only")(report)
    })?;
    let found = suture.expect_ever("found", |report| {
        is_class("block-errors")(report) && report["finding"]["device"] == tmeta.as_str()
    })?;
    ensure!(
        found.to_string().contains("is the metadata device of pool tp")
            && found.to_string().contains("the whole pool is hit"),
        "{found}"
    );
    // The world can not be read any more: that says nothing about thin devices.
    suture.expect_ever("trouble", |_| true)?;
    std::thread::sleep(Duration::from_secs(12));
    let resolved = suture
        .reports()?
        .into_iter()
        .filter(|report| report["report"] == "resolved");
    let resolved: Vec<Value> = resolved.collect();
    ensure!(
        resolved.iter().all(|report| !is_class("foreign-thin")(report)),
        "{resolved:?}"
    );
    ensure!(!suture.told("remedy")?);
    suture.stop()
}

#[test]
fn a_failing_metadata_device_takes_the_pool_with_it_and_both_are_told() -> Result<()> {
    a_failing_metadata_device(Kernel::V6_1)
}

/// Reads of 4 KiB that each of the three passes over the device makes.
const READS: u64 = 8192;

/// The number that follows the last `sign` of a sentence.
fn number_after(sign: &str, sentence: &str) -> Result<u64> {
    let rest = if sign.is_empty() {
        sentence
    } else {
        sentence.rsplit(sign).next().unwrap_or_default()
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .with_context(|| format!("no number in `{sentence}`"))
}

fn a_flood(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let containerd = Containerd::on_breakable_disks(&vm)?;
    containerd.prepare("one", None)?.ok()?;
    vm.sh("dd if=/dev/zero of=/dev/mapper/tp-snap-1 bs=1M count=32 oflag=direct 2>/dev/null")?;
    let mut suture = Suture::start(&vm, &[], &[])?;
    break_disk(&vm, "tdata")?;
    vm.sh(
        "for pass in 1 2 3; do
            dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=4k count=8192 iflag=direct conv=noerror 2>/dev/null || true
        done",
    )?;
    suture.expect_ever("found", is_class("block-errors"))?;
    let (mut counted, mut lost) = (0, 0);
    vm.wait_until("every error is counted or told as lost", PATIENCE, || {
        let all = findings(&vm, "block-errors")?;
        ensure!(all.len() == 1, "{all:?}");
        (counted, lost) = (0, 0);
        for sentence in all[0]["evidence"].as_array().into_iter().flatten() {
            let sentence = sentence.as_str().unwrap_or_default();
            if sentence.contains(" reads on ") {
                counted += number_after("", sentence)?;
            } else if sentence.contains("the same shows above it") {
                counted += number_after(": ", sentence)?;
            } else if sentence.contains("block events were lost") {
                lost = number_after("least numbers: ", sentence)?;
            }
        }
        // On the thin device, on the pool and on its data device.
        Ok(counted + lost >= 3 * 3 * READS)
    })?;
    let status = vm.sh(&format!("cat /proc/{}/status", suture.pid()))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    let reports = suture.reports()?.len();
    println!("{counted} errors counted, {lost} lost, {resident} KiB resident, {reports} reports");
    ensure!(resident < 64 * 1024, "{resident} KiB are resident");
    ensure!(reports < 100, "{reports} reports are a flood");
    suture.stop()
}

#[test]
fn a_flood_of_errors_is_one_finding_with_a_count() -> Result<()> {
    a_flood(Kernel::V6_1)
}

/// What `dmsetup remove --force` leaves of a device that is in use.
fn an_error_table(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let containerd = Containerd::on_breakable_disks(&vm)?;
    containerd.prepare("one", None)?.ok()?;
    let node = number_of(&vm, "tp-snap-1")?;
    let mut suture = Suture::start(&vm, &["--act"], &[])?;
    vm.sh("mkdir -p /mnt/one; mount /dev/mapper/tp-snap-1 /mnt/one
        ! dmsetup remove --force tp-snap-1 2>/dev/null
        ! dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null")?;
    let found = suture.expect("found", is_class("block-errors"))?;
    ensure!(found["finding"]["device"] == node.as_str(), "{found}");
    let evidence = found["finding"]["evidence"].to_string();
    ensure!(
        evidence.contains("is thin device 1, containerd's tp-snap-1")
            && evidence.contains("dmsetup remove --force"),
        "{evidence}"
    );
    // Somebody else's disk is nobody's business here.
    vm.sh("dmsetup create stranger --table '0 8 error'
        ! dd if=/dev/mapper/stranger of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null")?;
    suture.expect_ever("block_errors", |report| {
        report["newest"]["device"] != node.as_str()
    })?;
    std::thread::sleep(Duration::from_secs(7));
    ensure!(findings(&vm, "block-errors")?.len() == 1);
    suture.stop()
}

#[test]
fn a_thin_device_whose_table_was_replaced_is_told_from_a_failing_disk() -> Result<()> {
    an_error_table(Kernel::V6_1)
}

/// containerd dies when the file system of a new snapshot is made, and comes back.
fn wedge(containerd: &mut Containerd<'_>) -> Result<()> {
    containerd.kill_after_mkfs()?;
    let prepared = containerd.prepare("half", None)?;
    ensure!(!prepared.status.success(), "the prepare can not have succeeded");
    containerd.wait_for_death()?;
    containerd.start()?;
    let refused = containerd.prepare("again", None)?;
    ensure!(
        refused.stderr.contains("already exists"),
        "it is no wedge: {}",
        refused.stderr
    );
    Ok(())
}

fn a_wedge(kernel: Kernel, seen: bool) -> Result<()> {
    let vm = boot(kernel)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = if seen {
        let suture = Suture::start(&vm, &["--act", "--grace", "0"], &[])?;
        wedge(&mut containerd)?;
        suture
    } else {
        wedge(&mut containerd)?;
        Suture::start(&vm, &["--act", "--grace", "0"], &[])?
    };
    let found = suture.expect_ever("found", is_class("wedge"))?;
    let finding = &found["finding"];
    // Unseen it is told by whichever looks first: the brain, which has nothing to go by, or a round, which goes by the record.
    let known: &[&str] = if seen {
        &["seen_by_probe"]
    } else {
        &["unknown", "told_by_record"]
    };
    let provenance = finding["provenance"]["known"].as_str().unwrap_or_default();
    ensure!(
        finding["name"] == "tp-snap-1" && finding["thin_id"] == 1 && known.contains(&provenance),
        "{found}"
    );
    let decided = suture.expect_ever("decided", is_class("wedge"))?;
    ensure!(decided["kind"] == "tell", "{decided}");
    ensure!(!suture.told("remedy")? && containerd.thin_ids()? == [1]);
    suture.stop()
}

#[test]
fn a_wedge_that_suture_saw_happen_is_found() -> Result<()> {
    a_wedge(Kernel::V6_1, true)
}

#[test]
fn a_wedge_that_was_there_before_suture_is_found() -> Result<()> {
    a_wedge(Kernel::V6_1, false)
}

/// A mkfs that takes longer than several reads of the world.
const SLOW_MKFS: &str = "#!/bin/sh\nsleep 12\nexec /usr/sbin/mkfs.ext4 \"$@\"\n";

fn healthy_prepares(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--verbose"], &[])?;
    vm.write_file("/opt/break/mkfs.ext4", SLOW_MKFS, 0o755)?;
    containerd.prepare("slow", None)?.ok()?;
    vm.sh("rm /opt/break/mkfs.ext4")?;
    containerd.commit("layer", "slow")?.ok()?;
    for nth in 0..8 {
        containerd.prepare(&format!("fast {nth}"), Some("layer"))?.ok()?;
        containerd.prepare(&format!("base {nth}"), None)?.ok()?;
    }
    suture.expect_ever("operation", |report| report["operation"]["state"] == "completed")?;
    std::thread::sleep(Duration::from_secs(6));
    ensure!(!suture.told("found")?, "{:?}", suture.reports()?);
    suture.stop()
}

#[test]
fn a_healthy_prepare_is_no_wedge_however_long_it_takes() -> Result<()> {
    healthy_prepares(Kernel::V6_1)
}
