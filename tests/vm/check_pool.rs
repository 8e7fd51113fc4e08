//! What is wrong with the pool itself: named, left alone, and gone once a person has healed it.

use anyhow::{Result, ensure};
use xtask::vm::{
    Vm,
    containerd::{Containerd, Options, break_disk, swap_table},
};

use crate::{stage::*, support::*};

fn own(vm: &Vm, options: Options) -> Result<Stage<'_>> {
    let mut containerd = Containerd::set_up(vm, options)?;
    containerd.start()?;
    Ok(Stage { vm, containerd })
}

/// Somebody else's snapshot of the metadata: it is told, used by nobody, and never released.
#[test]
fn metadata_snapshot_held_is_told_and_never_released() -> Result<()> {
    on_stage(|stage| {
        stage.vm.sh("dmsetup message tp 0 reserve_metadata_snap")?;
        let held = stage.vm.sh("dmsetup status tp")?;
        stage
            .check()?
            .expect(&["metadata-snapshot-held leave-alone never"])?;
        // What is in the pool is read all the same, as it is now and not as it was when the snapshot was made.
        stage.containerd.prepare("newer", None)?.ok()?;
        let sequence = u32::try_from(stage.pool_db()?.id_sequence)?;
        stage.containerd.make_foreign_thin(sequence + 1, 1)?;
        stage.check()?.expect(&[
            "foreign-thin reserve-id offline",
            "metadata-snapshot-held leave-alone never",
        ])?;
        // Not while containerd may draw that very id.
        let named = ["--delete-thin", &(sequence + 1).to_string()];
        stage.repair(&named)?;
        stage.repair_online()?;
        let word = |status: &str| status.split_whitespace().nth(6).map(str::to_owned);
        ensure!(
            word(&stage.vm.sh("dmsetup status tp")?) == word(&held) && word(&held) != Some("-".to_owned()),
            "{held}"
        );
        stage.vm.sh("dmsetup message tp 0 release_metadata_snap")?;
        ensure!(stage.containerd.thin_ids()?.contains(&u64::from(sequence + 1)));
        stage.repair_offline(&named)?;
        ensure!(!stage.containerd.thin_ids()?.contains(&u64::from(sequence + 1)));
        stage.expect_works()
    })
}

/// A pool that was made read-only, by its table as by a failed write.
#[test]
fn pool_read_only_is_told_until_it_is_writable() -> Result<()> {
    on_stage(|stage| {
        let table = stage.vm.sh("dmsetup table tp")?.trim().to_owned();
        swap_table(
            stage.vm,
            "tp",
            &table.replace("1 skip_block_zeroing", "2 skip_block_zeroing read_only"),
        )?;
        stage.check()?.expect(&["pool-read-only leave-alone never"])?;
        stage.repair_online()?;
        let refused = stage.containerd.prepare("refused", None)?;
        ensure!(!refused.status.success(), "{refused:?}");
        swap_table(stage.vm, "tp", &table)?;
        // What the refused prepares burned is given back.
        stage.repair_offline(&[])?;
        stage.expect_works()
    })
}

/// A pool without free blocks: a snapshot has eaten it.
#[test]
fn pool_out_of_space_is_told_until_there_is_space() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let stage = own(
        &vm,
        Options {
            data_mib: 48,
            pool_features: vec!["skip_block_zeroing".into(), "error_if_no_space".into()],
            ..Options::default()
        },
    )?;
    stage.containerd.prepare("eater", None)?.ok()?;
    vm.sh("mkdir -p /mnt/eater; mount /dev/mapper/tp-snap-1 /mnt/eater
        dd if=/dev/zero of=/mnt/eater/data bs=1M count=60 oflag=direct 2>/dev/null || true; sync || true
        umount /mnt/eater")?;
    stage.check()?.expect(&["pool-out-of-space leave-alone never"])?;
    stage.repair_online()?;
    stage.containerd.remove("eater")?.ok()?;
    stage.containerd.collect_garbage()?;
    vm.wait_until("the pool has space again", PATIENCE, || {
        Ok(vm.sh("dmsetup status tp")?.contains(" rw "))
    })?;
    stage.expect_works()
}

/// The metadata device is so small that it is always nearly full.
#[test]
fn pool_metadata_nearly_full_is_told() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let stage = own(
        &vm,
        Options {
            metadata_mib: 1,
            ..Options::default()
        },
    )?;
    stage
        .check()?
        .expect(&["pool-metadata-nearly-full leave-alone never"])?;
    stage.containerd.prepare("works still", None)?.ok()?;
    stage.repair_online()?;
    stage
        .check()?
        .expect(&["pool-metadata-nearly-full leave-alone never"])?;
    Ok(())
}

/// The disk under the metadata fails: the pool fails for good, until somebody brings it up again.
#[test]
fn pool_failed_is_told_and_nothing_is_made_worse() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let containerd = Containerd::on_breakable_disks(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    containerd.prepare("second", None)?.ok()?;
    let healthy = break_disk(&vm, "tmeta")?;
    let refused = containerd.prepare("refused", None)?;
    ensure!(!refused.status.success(), "{refused:?}");
    let mut stage = Stage { vm: &vm, containerd };
    let told = stage.check()?;
    ensure!(
        told.classes().contains(&"pool-failed".to_owned()) && told.code == 4,
        "{} {}",
        told.code,
        told.json
    );
    // Nothing is judged on a pool that can not be read.
    ensure!(
        told.classes()
            .iter()
            .all(|class| class.starts_with("pool-") || class == "faulty-next" || class == "wedge"),
        "{}",
        told.json
    );
    stage.repair_online()?;
    stage.stop()?;
    stage.repair(&["--offline"])?;
    // A new disk, and the pool brought up on it.
    swap_table(&vm, "tmeta", &healthy)?;
    let table = vm.sh("dmsetup table tp")?.trim().to_owned();
    vm.sh(&format!(
        "for node in /dev/mapper/tp-snap-*; do dmsetup remove $node; done
        dmsetup remove tp; dmsetup create tp --table '{table}'"
    ))?;
    stage.containerd.start()?;
    stage.repair_offline(&[])?;
    ensure!(kept.is_whole(&vm)?);
    stage.expect_works()
}

/// The kernel's flag in the superblock (`THIN_METADATA_NEEDS_CHECK_FLAG`, drivers/md/dm-thin-metadata.c).
const NEEDS_CHECK: u8 = 1;
/// `SUPERBLOCK_CSUM_XOR`, drivers/md/dm-thin-metadata.c.
const CHECKSUM_XOR: u32 = 160_774;

/// Sets the flag as the kernel would, in a copy of the metadata's first block.
fn with_needs_check(mut block: Vec<u8>) -> Vec<u8> {
    if let Some(flags) = block.get_mut(4) {
        *flags |= NEEDS_CHECK;
    }
    // The kernel's checksum lacks the last inversion (`dm_bm_checksum`, dm-block-manager.c).
    let checksum = !crc32c::crc32c(block.get(4..).unwrap_or_default()) ^ CHECKSUM_XOR;
    if let Some(place) = block.get_mut(..4) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    block
}

/// The kernel wants the metadata checked; `thin_check` does it, as the finding says.
#[test]
fn pool_needs_check_is_told_until_it_was_checked() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut stage = own(&vm, Options::default())?;
    let kept = Kept::write(&vm, &stage.containerd, "kept", 1)?;
    stage.stop()?;
    let table = vm.sh("dmsetup table tp")?.trim().to_owned();
    let metadata = stage.containerd.metadata_device().to_owned();
    let bring_down = "for node in /dev/mapper/tp-snap-*; do dmsetup remove $node; done; dmsetup remove tp";
    vm.sh(&format!(
        "{bring_down}; dd if={metadata} of=/run/superblock bs=4k count=1 iflag=direct 2>/dev/null"
    ))?;
    vm.write_file(
        "/run/superblock",
        with_needs_check(vm.read_file("/run/superblock")?),
        0o600,
    )?;
    let bring_up = format!("dmsetup create tp --table '{table}'");
    vm.sh(&format!(
        "dd if=/run/superblock of={metadata} bs=4k count=1 oflag=direct conv=notrunc 2>/dev/null; {bring_up}"
    ))?;
    ensure!(vm.sh("dmsetup status tp")?.contains("needs_check"));
    let both = [
        "pool-needs-check leave-alone never",
        "pool-read-only leave-alone never",
    ];
    stage.check()?.expect(&both)?;
    stage.repair(&["--offline"])?;
    stage.check()?.expect(&both)?;
    vm.sh(&format!(
        "dmsetup remove tp; thin_check --clear-needs-check-flag {metadata} > /dev/null; {bring_up}"
    ))?;
    stage.containerd.start()?;
    ensure!(kept.is_whole(&vm)?);
    stage.expect_works()
}
