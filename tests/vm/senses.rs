//! Every sense shown by the real thing: each break here is made on a real kernel, and `suture watch` must tell of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{
    Vm,
    containerd::{break_disk, disk_with_a_bad_spot},
};

use crate::support::*;

const MOMENT: Duration = Duration::from_secs(40);

/// Waits for a call of a pool's own function, with what came of it.
fn expect_of_pool(watch: &mut Watch, function: &str, error: Option<&str>) -> Result<Value> {
    watch.expect(&format!("{function} with {error:?}"), |seen| {
        seen["kind"] == "pool_call" && seen["what"]["function"] == function && seen["error"].as_str() == error
    })
}

/// A pool `tp` on `tmeta` and `tdata`, whose tables can be swapped for the error target. Gives the number of `tmeta`.
fn pool(vm: &Vm, data_mib: u32) -> Result<String> {
    let sectors = data_mib * 2048;
    let number = vm.sh(&format!(
        "mkdir -p /tmp/pool; truncate -s 16M /tmp/pool/meta; truncate -s {data_mib}M /tmp/pool/data
        meta=$(losetup -f --show /tmp/pool/meta); data=$(losetup -f --show /tmp/pool/data)
        dmsetup create tmeta --table \"0 32768 linear $meta 0\"
        dmsetup create tdata --table \"0 {sectors} linear $data 0\"
        dmsetup create tp --table '0 {sectors} thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 0 1 skip_block_zeroing'
        dmsetup info -c --noheadings --separator : -o major,minor tmeta"
    ))?;
    Ok(number.trim().to_owned())
}

fn pools_are_seen_from_inside(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let mut watch = Watch::start(&vm, &[])?;
    let metadata = pool(&vm, 64)?;
    let mode = expect_of_pool(&mut watch, "set_mode", None)?;
    ensure!(
        mode["what"]["mode"] == "read_write" && mode["metadata_device"] == metadata.as_str(),
        "{mode}"
    );

    // Create, snapshot, a snapshot that is refused, delete: each as it really ended, and each made durable.
    vm.sh("dmsetup message tp 0 'create_thin 1'")?;
    let created = expect_of_pool(&mut watch, "create_thin", None)?;
    ensure!(
        created["what"]["id"] == 1 && created["metadata_device"] == metadata.as_str(),
        "{created}"
    );
    expect_of_pool(&mut watch, "commit", None)?;
    let asked = watch.expect("the call", |seen| seen["kind"] == "dm_ioctl")?;
    ensure!(
        asked["origin"] == "shell" && asked["caller"]["cgroup_path"].is_string(),
        "{asked}"
    );
    vm.sh("dmsetup message tp 0 'create_snap 2 1'; ! dmsetup message tp 0 'create_snap 2 1' 2>/dev/null")?;
    let created = expect_of_pool(&mut watch, "create_snap", None)?;
    ensure!(
        created["what"]["id"] == 2 && created["what"]["origin"] == 1,
        "{created}"
    );
    expect_of_pool(&mut watch, "create_snap", Some("EEXIST"))?;
    vm.sh("dmsetup message tp 0 'delete 2'")?;
    let deleted = expect_of_pool(&mut watch, "delete_thin", None)?;
    ensure!(deleted["what"]["id"] == 2, "{deleted}");
    expect_of_pool(&mut watch, "commit", None)?;

    // A removal that is put off, and completes when the last user lets go.
    vm.sh("dmsetup create held --table '0 8192 thin /dev/mapper/tp 1'")?;
    let number = vm.sh("dmsetup info -c --noheadings --separator : -o major,minor held")?;
    let mut user = vm.spawn(
        ["sh", "-c", "exec 3</dev/mapper/held; echo open; exec sleep 600"],
        &[],
    )?;
    user.wait_for_line(|line| line == "open", MOMENT)?;
    vm.sh("dmsetup remove --deferred held")?;
    watch.expect("the removal", |seen| {
        seen["kind"] == "dm_ioctl" && seen["command"] == "dev_remove"
    })?;
    std::thread::sleep(Duration::from_secs(1));
    user.kill(Signal::KILL)?;
    user.wait(MOMENT)?;
    let ended = watch.expect("its end", |seen| seen["kind"] == "device_ended")?;
    ensure!(
        ended["device"] == number.trim() && ended["deferred"] == true,
        "{ended}"
    );
    // And one that is not.
    vm.sh("dmsetup create plain --table '0 8192 thin /dev/mapper/tp 1'; dmsetup remove plain")?;
    let ended = watch.expect("its end", |seen| seen["kind"] == "device_ended")?;
    ensure!(ended["deferred"] == false, "{ended}");

    // No free data blocks.
    vm.sh("dmsetup create big --table '0 262144 thin /dev/mapper/tp 1'
        dd if=/dev/zero of=/dev/mapper/big bs=1M count=80 oflag=direct 2>/dev/null & sleep 4; echo filled")?;
    watch.expect("no free blocks", |seen| {
        seen["what"]["function"] == "set_mode" && seen["what"]["mode"] == "out_of_data_space"
    })?;

    // The metadata device fails: the call is acknowledged, the commit behind it is not, and the pool gives up.
    break_disk(&vm, "tmeta")?;
    vm.sh("dmsetup message tp 0 'create_thin 9' || true")?;
    expect_of_pool(&mut watch, "commit", Some("EIO"))?;
    let given_up = expect_of_pool(&mut watch, "operation_failed", Some("EIO"))?;
    ensure!(
        given_up["what"]["operation"]
            .as_str()
            .is_some_and(|name| name.contains("commit")),
        "{given_up}"
    );
    expect_of_pool(&mut watch, "abort", Some("EIO"))?;
    watch.expect("the failed pool", |seen| {
        seen["what"]["function"] == "set_mode" && seen["what"]["mode"] == "failed"
    })?;
    Ok(())
}

fn failing_disks_are_seen(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let mut watch = Watch::start(&vm, &[])?;
    // A disk with a medium error at sector 0x1234 (scsi_debug's OPT_MEDIUM_ERR_ADDR), found by its model.
    let number = disk_with_a_bad_spot(&vm)?;
    let name = vm.sh(&format!("basename $(readlink /sys/dev/block/{number})"))?;
    let name = name.trim();
    vm.sh(&format!(
        "! dd if=/dev/{name} of=/dev/null bs=512 skip=4660 count=8 iflag=direct 2>/dev/null"
    ))?;
    let request = watch.expect("the failed request", |seen| {
        seen["kind"] == "block_error" && seen["source"] == "request"
    })?;
    ensure!(
        request["device"] == number.as_str() && request["direction"] == "read",
        "{request}"
    );
    // Told once: the kernel does not trace the bios of a request again (`blk_update_request`, block/blk-mq.c).
    // 0x1234 is inside of what failed; EIO or ENODATA (medium error), by the kernel's mapping of the sense key.
    let (first, length) = (request["sector"].as_u64(), request["length"].as_u64());
    let (first, length) = (first.context("a sector")?, length.context("a length")?);
    ensure!((first..first + length).contains(&0x1234), "{request}");
    Ok(())
}

fn containerd_comes_and_goes(kernel: Kernel) -> Result<()> {
    let vm = boot(kernel)?;
    let mut watch = Watch::start(&vm, &[])?;
    let mut containerd = containerd(&vm)?;
    let process = |seen: &Value, pid: u32| seen["kind"] == "process" && seen["who"]["process"]["pid"] == pid;
    let pid = containerd.pid()?;
    watch.expect("its start", |seen| process(seen, pid) && seen["ended"].is_null())?;
    containerd.kill(Signal::KILL)?;
    let ended = watch.expect("its end", |seen| process(seen, pid) && !seen["ended"].is_null())?;
    ensure!(
        ended["ended"]["how"] == "signalled" && ended["ended"]["signal"] == 9,
        "{ended}"
    );

    containerd.start()?;
    let pid = containerd.pid()?;
    containerd.kill(Signal::TERM)?;
    let ended = watch.expect("its end", |seen| process(seen, pid) && !seen["ended"].is_null())?;
    ensure!(
        ended["ended"]["how"] == "exited" && ended["ended"]["code"] == 0,
        "{ended}"
    );

    // The kernel's own choice, when memory runs out: containerd is first in line.
    containerd.start()?;
    let pid = containerd.pid()?;
    vm.sh(&format!(
        "echo 1000 > /proc/{pid}/oom_score_adj; echo f > /proc/sysrq-trigger"
    ))?;
    containerd.wait_for_death()?;
    let ended = watch.expect("its end", |seen| process(seen, pid) && !seen["ended"].is_null())?;
    ensure!(ended["ended"]["how"] == "out_of_memory", "{ended}");
    Ok(())
}

/// A program of 32 bits, which the syscall tracepoints do not see.
#[test]
fn calls_of_32_bit_programs_are_seen() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut watch = Watch::start(&vm, &[])?;
    pool(&vm, 64)?;
    vm.sh("/run/suture-vm-guest compat tp 'create_thin 5'")?;
    let call = watch.expect("the call", |seen| {
        seen["kind"] == "dm_ioctl"
            && seen["payload"]["message"] == "create_thin"
            && seen["payload"]["id"] == 5
    })?;
    ensure!(call["error"].is_null() && call["name"] == "tp", "{call}");
    Ok(())
}

#[test]
fn pools_are_seen_from_inside_on_6_1() -> Result<()> {
    pools_are_seen_from_inside(Kernel::V6_1)
}

#[test]
fn pools_are_seen_from_inside_on_6_12() -> Result<()> {
    pools_are_seen_from_inside(Kernel::V6_12)
}

#[test]
fn failing_disks_are_seen_on_6_1() -> Result<()> {
    failing_disks_are_seen(Kernel::V6_1)
}

#[test]
fn failing_disks_are_seen_on_6_12() -> Result<()> {
    failing_disks_are_seen(Kernel::V6_12)
}

#[test]
fn containerd_comes_and_goes_on_6_1() -> Result<()> {
    containerd_comes_and_goes(Kernel::V6_1)
}

#[test]
fn containerd_comes_and_goes_on_6_12() -> Result<()> {
    containerd_comes_and_goes(Kernel::V6_12)
}

/// The kernel has only so many places to watch returns from one function: enough calls that wait in it take them all.
#[test]
fn missed_returns_are_noticed_and_cured() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--verbose"], &[])?;
    // As dmeventd waits for events of each device that it monitors.
    vm.sh("dmsetup create waited --table '0 8 zero'
        for each in $(seq 40); do dmsetup wait waited & done 2>/dev/null; sleep 3; echo waiting")?;
    vm.sh("dmsetup message tp 0 'create_thin 50'")?;
    let gap = suture.expect("gap_opened", |report| {
        report["why"].to_string().contains("return was not seen")
    })?;
    eprintln!("{}", gap["why"]);
    suture.expect("gap_closed", |_| true)?;
    // From now on by means that miss nothing: the whole story of a break is seen, and healed.
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect_remedy("done")?;
    ensure!(containerd.thin_ids()?.contains(&50));
    suture.stop()
}
