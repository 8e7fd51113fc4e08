//! Without kernel probes: the same breaks are found, later, and nothing is ever deleted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{
    Vm,
    containerd::{Containerd, break_disk, swap_table},
};

use crate::support::*;

const MOMENT: Duration = Duration::from_secs(30);
/// Several rounds of reading the world, in which it would have acted.
const ROUNDS: Duration = Duration::from_secs(12);

/// A suture that does without probes. It never says that the gap is closed: it is not.
fn blind(vm: &Vm, arguments: &[&str]) -> Result<Suture> {
    let arguments: Vec<&str> = ["--no-bpf"].iter().chain(arguments).copied().collect();
    let mut suture = Suture::start_blind(vm, &arguments, &[])?;
    let told = suture.expect("degraded", |_| true)?;
    let senses = told["senses"].as_array().context("the senses are told")?;
    let calls = senses
        .iter()
        .find(|sense| sense["sense"] == "device_mapper_calls");
    ensure!(
        calls
            .is_some_and(|sense| sense["quality"] == "degraded"
                && sense["means"].to_string().contains("DM_DEV_ARM_POLL")),
        "{told}"
    );
    ensure!(
        senses
            .iter()
            .any(|sense| sense["sense"] == "lineage" && sense["quality"] == "missing"),
        "{told}"
    );
    Ok(suture)
}

fn a_half_made_device_is_told_and_never_deleted(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let mut containerd = containerd(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    let mut suture = blind(&vm, &["--act", "--grace", "0"])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;

    let found = suture.expect("found", |report| report["finding"]["thin_id"] == 2)?;
    ensure!(
        found["finding"]["class"] == "foreign-thin" && found["finding"]["provenance"]["known"] == "unknown",
        "{found}"
    );
    let decided = suture.expect_ever("decided", |report| report["finding"]["thin_id"] == 2)?;
    ensure!(decided["kind"] == "tell", "{decided}");
    std::thread::sleep(ROUNDS);
    ensure!(!suture.told("remedy")? && !suture.told("gap_closed")?);
    ensure!(
        containerd.thin_ids()? == [1, 2, 3],
        "{:?}",
        containerd.thin_ids()?
    );
    ensure!(kept.is_whole(&vm)?);
    suture.stop()?;

    // A kernel that takes no probes is met the same way without being asked to, unless that is not wanted.
    vm.sh(
        "umount /sys/kernel/debug; umount /sys/kernel/tracing; ! grep -E ' (tracefs|debugfs) ' /proc/mounts",
    )?;
    let mut suture = Suture::start_blind(&vm, &["--act", "--grace", "0"], &[])?;
    let told = suture.expect("degraded", |_| true)?;
    ensure!(
        told["why"].to_string().contains("tracefs is not mounted"),
        "{told}"
    );
    suture.expect_ever("decided", |report| report["finding"]["thin_id"] == 2)?;
    suture.stop()?;
    let refused = vm.run(["suture", "run", "--require-bpf"])?;
    ensure!(
        refused.status.code() == 1 && refused.stderr.contains("tracefs is not mounted"),
        "{refused:?}"
    );
    ensure!(
        containerd.thin_ids()? == [1, 2, 3],
        "{:?}",
        containerd.thin_ids()?
    );
    Ok(())
}

#[test]
fn without_probes_a_half_made_device_is_told_and_never_deleted_on_6_1() -> Result<()> {
    a_half_made_device_is_told_and_never_deleted(Kernel::V6_1)
}

fn what_an_earlier_suture_saw_is_not_acted_on(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "600"], &[])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect("found", |report| report["finding"]["class"] == "leaked-thin")?;
    suture.stop()?;

    let mut suture = blind(&vm, &["--act", "--grace", "0"])?;
    let decided = suture.expect("decided", |report| report["finding"]["thin_id"] == 1)?;
    ensure!(
        decided["finding"]["class"] == "leaked-thin"
            && decided["kind"] == "tell"
            && decided["text"].to_string().contains("without kernel probes"),
        "{decided}"
    );
    std::thread::sleep(ROUNDS);
    ensure!(!suture.told("remedy")? && containerd.thin_ids()? == [1, 2]);
    suture.stop()?;

    // The twin: with probes the same ledger gives leave to delete it.
    let mut suture = Suture::start(&vm, &["--act", "--grace", "0"], &[])?;
    suture.expect_remedy("done")?;
    ensure!(containerd.thin_ids()? == [2]);
    suture.stop()
}

#[test]
fn what_an_earlier_suture_saw_is_not_acted_on_without_probes_on_6_1() -> Result<()> {
    what_an_earlier_suture_saw_is_not_acted_on(Kernel::V6_1)
}

/// A thin pool whose metadata lie on a device that can be made to fail.
const POOL_ON_DM: &str = "truncate -s 16M /run/meta; truncate -s 64M /run/data
    dmsetup create tmeta --table \"0 32768 linear $(losetup -f --show /run/meta) 0\"
    dmsetup create frail --table \"0 131072 thin-pool /dev/mapper/tmeta $(losetup -f --show /run/data) 128 0 1 skip_block_zeroing\"
    dmsetup message frail 0 'create_thin 1'
    dmsetup create thin1 --table '0 65536 thin /dev/mapper/frail 1'
    dd if=/dev/zero of=/dev/mapper/thin1 bs=64k count=1 oflag=direct 2>/dev/null";

fn expect_change(watch: &mut Watch, name: &str, change: &str) -> Result<Value> {
    watch.expect(&format!("{name} to have {change}"), |value| {
        value["kind"] == "device_change" && value["name"] == name && value["change"] == change
    })
}

fn devices_pools_and_disks_are_seen(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    vm.sh(POOL_ON_DM)?;
    let mut watch = Watch::start(&vm, &["--no-bpf", "--pool", "frail", "--root-path", "/nowhere"])?;
    watch.expect("the pool as it is", |value| {
        value["kind"] == "pool_status" && value["mode"] == "read_write"
    })?;

    // Devices that come and go; one goes only when its last user has closed it.
    vm.sh("dmsetup create passing --table '0 64 zero'; sleep 2; dmsetup remove passing")?;
    let come = expect_change(&mut watch, "passing", "appeared")?;
    ensure!(come["since"].as_str() < come["at"].as_str(), "{come}");
    expect_change(&mut watch, "passing", "disappeared")?;
    vm.sh("dmsetup create busy --table '0 64 zero'; sleep 2
        exec 3</dev/mapper/busy; dmsetup remove --deferred busy; dmsetup info busy >/dev/null; exec 3<&-")?;
    expect_change(&mut watch, "busy", "appeared")?;
    expect_change(&mut watch, "busy", "disappeared")?;

    // A name that device-mapper's list can not be read with blinds nobody.
    vm.sh(r#"dmsetup --manglename none create "$(printf 'evil\377')" --table '0 8 zero'; dmsetup create beside --table '0 8 zero'"#)?;
    expect_change(&mut watch, r"evil\xff", "appeared")?;
    expect_change(&mut watch, "beside", "appeared")?;
    vm.sh(r#"dmsetup --manglename none remove "$(printf 'evil\377')""#)?;
    expect_change(&mut watch, r"evil\xff", "disappeared")?;

    // A disk that fails at one place; the log is the only one to tell.
    vm.sh("modprobe sd_mod; modprobe scsi_debug dev_size_mb=8 opts=2")?;
    vm.wait_until("the disk is there", MOMENT, || {
        Ok(vm.run(["test", "-b", "/dev/sda"])?.status.success())
    })?;
    vm.sh("! dd if=/dev/sda of=/dev/null bs=512 skip=4660 count=1 iflag=direct 2>/dev/null")?;
    let error = watch.expect("the failed read", |value| value["kind"] == "block_error")?;
    let disk = vm.sh("cat /sys/class/block/sda/dev")?;
    ensure!(
        error["device"] == disk.trim() && error["sector"] == 4660 && error["source"] == "kernel_log",
        "{error}"
    );
    ensure!(error["errno"] == 61 && error["direction"] == "read", "{error}");

    // Of a dm device only what the page cache reads is logged. What user space writes into the log is not believed.
    vm.sh("echo '<3>I/O error, dev sda, sector 1' > /dev/kmsg
        dmsetup create bad --table '0 64 error'
        ! dd if=/dev/mapper/bad of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
        ! dd if=/dev/mapper/bad of=/dev/null bs=4k skip=2 count=1 2>/dev/null")?;
    let bad = vm.sh("dmsetup info -c --noheadings --separator : -o major,minor bad")?;
    let error = watch.expect("the failed buffer", |value| {
        value["kind"] == "block_error" && value["device"] == bad.trim()
    })?;
    ensure!(
        error["errno"] == 5 && error["operation"].to_string().contains("async page read"),
        "{error}"
    );

    // The log runs over while nobody reads it: how much was missed is told.
    watch.signal(Signal::STOP)?;
    vm.sh("i=0; while [ $i -lt 6000 ]; do printf '<15>%0400d' $i > /dev/kmsg; i=$((i + 1)); done")?;
    watch.signal(Signal::CONT)?;
    let overrun = watch.expect("the overrun", |value| value["what"] == "kernel_log_overrun")?;
    let missed = overrun["count"].as_u64().unwrap_or_default();
    ensure!((1..6000).contains(&missed), "{overrun}");

    // The pool loses its metadata device, and needs it.
    break_disk(&vm, "tmeta")?;
    vm.sh("dd if=/dev/zero of=/dev/mapper/thin1 bs=64k count=1 seek=40 oflag=direct conv=fsync 2>/dev/null || true")?;
    expect_change(&mut watch, "frail", "event")?;
    let broken = watch.expect("the broken pool", |value| {
        value["kind"] == "pool_status" && value["mode"] != "read_write"
    })?;
    ensure!(
        broken["pool"] == "frail" && (broken["mode"] == "failed" || broken["mode"] == "read_only"),
        "{broken}"
    );
    let lines = watch.lines()?;
    ensure!(!lines.contains("\"sector\":1,"), "{lines}");
    Ok(())
}

/// The long lane: what is read without probes hardly differs between kernels, and the other one is in every run.
#[test]
fn devices_pools_and_disks_are_seen_without_probes_on_6_1() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    devices_pools_and_disks_are_seen(Kernel::V6_1)
}

#[test]
fn devices_pools_and_disks_are_seen_without_probes_on_6_12() -> Result<()> {
    devices_pools_and_disks_are_seen(Kernel::V6_12)
}

fn the_same_breaks_are_found(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let mut containerd = Containerd::on_breakable_disks(&vm)?;
    containerd.prepare("in-use", None)?.ok()?;
    let mut suture = blind(&vm, &["--act", "--grace", "0"])?;
    let class = |class: &'static str| move |report: &Value| report["finding"]["class"] == class;

    // Killed during mkfs: no snapshot can be made any more.
    containerd.kill_after_mkfs()?;
    containerd.prepare("half-done", None)?;
    containerd.wait_for_death()?;
    containerd.start()?;
    let refused = containerd.prepare("next", None)?;
    ensure!(refused.stderr.contains("already exists"), "{}", refused.stderr);
    suture.expect_ever("found", class("wedge"))?;

    // The data device fails: the kernel's log tells of buffered reads.
    let table = break_disk(&vm, "tdata")?;
    vm.sh("echo 3 > /proc/sys/vm/drop_caches; ! dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=4k count=1 2>/dev/null")?;
    let found = suture.expect_ever("found", class("block-errors"))?;
    ensure!(found.to_string().contains("tp-snap-1"), "{found}");
    swap_table(&vm, "tdata", &table)?;

    // How it is: an operator sees at once that less is seen.
    let status = vm.run(["suture", "status"])?;
    ensure!(
        status.status.code() == 3 && status.stdout.contains("DEGRADED"),
        "{}",
        status.stdout
    );

    // The metadata device fails: the pool says so.
    break_disk(&vm, "tmeta")?;
    vm.sh("dmsetup message tp 0 'create_thin 90' || true")?;
    suture.expect_ever("found", |report| {
        class("pool-failed")(report) || class("pool-read-only")(report)
    })?;
    ensure!(!suture.told("remedy")?);
    suture.stop()
}

#[test]
fn the_same_breaks_are_found_on_6_1() -> Result<()> {
    the_same_breaks_are_found(Kernel::V6_1)
}

/// The long lane, as above.
#[test]
fn the_same_breaks_are_found_on_6_12() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    the_same_breaks_are_found(Kernel::V6_12)
}
