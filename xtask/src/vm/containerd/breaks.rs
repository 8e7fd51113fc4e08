//! More ways to break what a containerd stands on: its disks, its databases, its life in the middle of a commit.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Containerd, Options};
use crate::vm::Vm;

impl<'vm> Containerd<'vm> {
    /// A containerd that serves, on a pool of which data and metadata lie on dm-linear devices, `tdata` and `tmeta`, that
    /// can be broken with [`break_disk`].
    pub fn on_breakable_disks(vm: &'vm Vm) -> Result<Self> {
        Self::with_data_on(vm, "$5", 0)
    }

    /// The same, with the data on another disk (`8:0`), from a sector on.
    pub fn with_data_on(vm: &'vm Vm, data: &str, from: u64) -> Result<Self> {
        let mut containerd = Self::set_up(vm, Options::default())?;
        vm.sh(&format!(
            "set -- $(dmsetup table tp)
            metadata=$4; data={data}
            sectors=$(($(cat /sys/dev/block/$data/size) - {from}))
            dmsetup remove tp
            dmsetup create tmeta --table \"0 $(cat /sys/dev/block/$metadata/size) linear $metadata 0\"
            dd if=/dev/zero of=/dev/mapper/tmeta bs=4k count=1 oflag=direct 2>/dev/null
            dmsetup create tdata --table \"0 $sectors linear $data {from}\"
            dmsetup create tp --table \"0 $sectors thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 32768 1 skip_block_zeroing\""
        ))?;
        containerd.start()?;
        Ok(containerd)
    }

    /// Kills containerd in the middle of a commit: at its `count`th `fdatasync` in one thread from now on.
    pub fn kill_at_fdatasync(&mut self, count: u32) -> Result<()> {
        let pid = self.pid()?;
        let mut strace = self.vm.spawn(
            [
                "strace",
                "-f",
                "-p",
                &pid.to_string(),
                "-e",
                "trace=fdatasync",
                "-e",
                &format!("inject=fdatasync:signal=KILL:when={count}"),
            ],
            &[],
        )?;
        strace
            .wait_for_line(|line| line.contains("attached"), Duration::from_secs(30))
            .context("attaching strace to containerd")?;
        Ok(())
    }
}

/// A disk with a bad spot: `scsi_debug` can not read ten sectors from 0x1234 on. Gives its number, such as `8:0`.
pub fn disk_with_a_bad_spot(vm: &Vm) -> Result<String> {
    let number = vm.sh("modprobe sd_mod; modprobe scsi_debug dev_size_mb=200 opts=2
        for try in $(seq 20); do
            for disk in /sys/block/sd*; do
                grep -qs scsi_debug $disk/device/model && { cat $disk/dev; exit 0; }
            done; sleep 0.5
        done; exit 1")?;
    Ok(number.trim().to_owned())
}

/// From now on all I/O of a dm device fails. Gives the table that it had.
pub fn break_disk(vm: &Vm, name: &str) -> Result<String> {
    let table = vm.sh(&format!("dmsetup table {name}"))?.trim().to_owned();
    let sectors = table.split(' ').nth(1).context("a table without a length")?;
    swap_table(vm, name, &format!("0 {sectors} error"))?;
    Ok(table)
}

/// Gives a dm device another table, under whatever stands on it.
pub fn swap_table(vm: &Vm, name: &str, table: &str) -> Result<()> {
    vm.sh(&format!(
        "dmsetup suspend --noflush --nolockfs {name}; dmsetup load {name} --table '{table}'; dmsetup resume {name}"
    ))?;
    Ok(())
}
