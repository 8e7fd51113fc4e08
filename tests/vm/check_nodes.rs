//! dm devices that nobody keeps a record of, or that were broken under their users.

use anyhow::{Result, ensure};

use crate::stage::*;

/// A device of a name that containerd is going to use.
#[test]
fn orphan_node_is_removed_unless_somebody_has_it_open() -> Result<()> {
    on_stage(|stage| {
        let name = format!("tp-snap-{}", stage.next()? + 1);
        stage
            .vm
            .sh(&format!("dmsetup create {name} --table '0 8 zero'"))?;
        stage
            .vm
            .sh(&format!("sleep 600 < /dev/mapper/{name} & echo $! > /run/holder"))?;
        stage.check()?.expect(&["orphan-node leave-alone never"])?;
        stage.repair_online()?;
        stage.vm.sh(&format!(
            "dmsetup info {name} > /dev/null; kill $(cat /run/holder); sleep 0.2"
        ))?;
        stage.check()?.expect(&["orphan-node remove-node online"])?;
        stage.repair_online()?.ok()?;
        stage.vm.sh(&format!("! dmsetup info {name} 2> /dev/null"))?;
        stage.expect_works()
    })
}

/// What `dmsetup remove --force` does to a device that is in use.
#[test]
fn error_table_is_told_with_who_uses_it_and_left_alone() -> Result<()> {
    on_stage(|stage| {
        let name = format!("tp-snap-{}", stage.next()?);
        stage.containerd.prepare("forced", None)?.ok()?;
        stage.vm.sh(&format!(
            "mkdir -p /mnt/forced; mount /dev/mapper/{name} /mnt/forced
            ! dmsetup remove --force {name} 2> /dev/null"
        ))?;
        let found = stage
            .check()?
            .expect(&["error-table leave-alone never"])?
            .the("error-table")?;
        ensure!(found.to_string().contains("/mnt/forced"), "{found}");
        stage.repair_online()?;
        stage.vm.sh(&format!(
            "dmsetup table {name} | grep -q error; umount /mnt/forced"
        ))?;
        stage.containerd.remove("forced")?.ok()?;
        stage.containerd.collect_garbage()?;
        stage.expect_works()
    })
}
