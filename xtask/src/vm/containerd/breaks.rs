//! Ways to break what a containerd stands on: its disks, its databases, its pool.

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
        containerd.rebuild_on(data, from)?;
        containerd.start()?;
        Ok(containerd)
    }
}

impl Containerd<'_> {
    /// Makes the pool, which nobody may have used yet, again on dm-linear devices, `tdata` and `tmeta`.
    pub fn rebuild_on_breakable_disks(&self) -> Result<()> {
        self.rebuild_on("$5", 0)
    }

    fn rebuild_on(&self, data: &str, from: u64) -> Result<()> {
        self.vm.sh(&format!(
            "set -- $(dmsetup table tp)
            metadata=$4; data={data}
            sectors=$(($(cat /sys/dev/block/$data/size) - {from}))
            dmsetup remove tp
            dmsetup create tmeta --table \"0 $(cat /sys/dev/block/$metadata/size) linear $metadata 0\"
            dd if=/dev/zero of=/dev/mapper/tmeta bs=4k count=1 oflag=direct 2>/dev/null
            dmsetup create tdata --table \"0 $sectors linear $data {from}\"
            dmsetup create tp --table \"0 $sectors thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 32768 1 skip_block_zeroing\""
        ))?;
        Ok(())
    }

    /// Removes containerd's databases and keeps the pool (containerd#4790). containerd must not run.
    pub fn wipe_databases(&self) -> Result<()> {
        let Options { root, .. } = &self.options;
        self.vm.sh(&format!("rm -r {root}; mkdir -p {root}/devmapper"))?;
        Ok(())
    }

    /// Makes a thin device that containerd knows nothing of, with a file of `mib` MiB in an ext4 of its own; gives the
    /// checksum of the whole device. It is not active afterwards.
    pub fn make_foreign_thin(&self, id: u32, mib: u32) -> Result<String> {
        let pool = &self.options.pool;
        self.vm.sh(&format!(
            "dmsetup message {pool} 0 'create_thin {id}'
            dmsetup create foreign-{id} --table '0 131072 thin /dev/mapper/{pool} {id}'
            mkfs.ext4 -q /dev/mapper/foreign-{id}
            mkdir -p /mnt/foreign-{id}; mount /dev/mapper/foreign-{id} /mnt/foreign-{id}
            dd if=/dev/urandom of=/mnt/foreign-{id}/data bs=1M count={mib} 2>/dev/null
            umount /mnt/foreign-{id}; dmsetup remove foreign-{id}"
        ))?;
        self.thin_checksum(id)
    }

    /// The checksum of a thin device that is not active, read from the pool.
    pub fn thin_checksum(&self, id: u32) -> Result<String> {
        let pool = &self.options.pool;
        self.vm.sh(&format!(
            "dmsetup create sum-{id} --readonly --table '0 131072 thin /dev/mapper/{pool} {id}'
            sha256sum < /dev/mapper/sum-{id}; dmsetup remove --retry sum-{id}"
        ))
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
