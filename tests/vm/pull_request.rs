//! What the people of containerd's pull request 3436 met, one scenario for each of their comments: made anew with a real
//! containerd, named by suture, healed or left to a person, and containerd works on.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use suture::model::{DeviceState, IdState, ThinId};
use xtask::vm::{
    Output, Vm,
    containerd::{Containerd, Options},
};

use crate::{stage::*, support::*};

/// A `dmsetup` that does something of its own, once, before a call that matches a pattern of the shell's, or after it.
fn meddle(containerd: &Containerd<'_>, call: &str, before: &str, after: &str) -> Result<()> {
    let pattern = call.replace(' ', "\\ ");
    containerd.write_wrapper(
        "dmsetup",
        &format!(
            "#!/bin/sh\ncase \"$*\" in {pattern}) mkdir /run/meddled 2>/dev/null && mine=yes;; esac\n\
             [ -z \"$mine\" ] || {{ {before}\n}} > /dev/null 2>&1\n\
             /usr/sbin/dmsetup \"$@\"; code=$?\n\
             [ -z \"$mine\" ] || {{ {after}\n}} > /dev/null 2>&1\n\
             exit $code\n"
        ),
    )
}

/// What unplugs the disk below a pool on breakable disks, in a shell: from then on every read and write of it fails.
const UNPLUG: &str = "for disk in tmeta tdata; do
    dmsetup suspend --noflush --nolockfs $disk
    dmsetup load $disk --table \"0 $(dmsetup table $disk | cut -d' ' -f2) error\"; dmsetup resume $disk
done";

/// It failed, and containerd's reason has all these words.
fn expect_refused(tried: &Output, words: &[&str]) -> Result<()> {
    ensure!(!tried.status.success(), "it went well");
    eprintln!("containerd says: {}", tried.stderr.trim());
    let reason = tried.stderr.to_lowercase();
    for word in words {
        ensure!(reason.contains(word), "`{word}` is not in {}", tried.stderr);
    }
    Ok(())
}

/// The ledger is kept with the disks, as on a node.
fn keep_ledger(vm: &Vm) -> Result<()> {
    vm.sh("mkdir -p /persist/suture /var/lib/suture; mount --bind /persist/suture /var/lib/suture")?;
    Ok(())
}

fn copy_of(disks: &Path) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    let copied = Command::new("cp")
        .args(["--sparse=always", "-r"])
        .arg(disks.join("."))
        .arg(copy.path())
        .status()?;
    ensure!(copied.success());
    Ok(copy)
}

/// The machine comes back with a disk that works.
fn reboot(vm: &Vm) -> Result<Stage<'_>> {
    keep_ledger(vm)?;
    let containerd = Containerd::set_up(vm, Options::default())?;
    Ok(Stage { vm, containerd })
}

/// Renzhengeek, July 21: "dev:59 is free in database, but exists in kernel". The disk is unplugged as a snapshot is removed:
/// the pool answers the `delete` and can not keep it, containerd takes the number back, and after a reboot the device is
/// there again. The pool says so to whoever draws the number.
#[test]
fn a_thin_id_that_is_free_in_the_database_and_exists_in_the_pool_is_named_before_containerd_draws_it()
-> Result<()> {
    let disks = tempfile::tempdir()?;
    {
        let vm = boot_with_disks(disks.path())?;
        let containerd = Containerd::on_breakable_disks(&vm)?;
        let stage = Stage { vm: &vm, containerd };
        stage.containerd.prepare("base", None)?.ok()?;
        stage.containerd.commit("layer", "base")?.ok()?;
        stage.containerd.prepare("container", Some("layer"))?.ok()?;
        meddle(&stage.containerd, "message tp 0 delete *", UNPLUG, ":")?;
        stage.containerd.remove("container")?.ok()?;
        stage.containerd.collect_garbage()?;
        let database = stage.pool_db()?;
        ensure!(
            database.device_ids.get(&ThinId(2)) == Some(&IdState::Free) && database.devices.len() == 1,
            "containerd believes that it is gone: {database:?}"
        );
        vm.cut_power()?;
    }

    // As it is, the next prepare meets it.
    let copy = copy_of(disks.path())?;
    {
        let vm = boot_with_disks(copy.path())?;
        let mut stage = reboot(&vm)?;
        stage.containerd.start()?;
        ensure!(stage.containerd.thin_ids()? == [1, 2]);
        let tried = stage.containerd.prepare("container", Some("layer"))?;
        expect_refused(&tried, &["failed to create snapshot", "(dev: 2)", "file exists"])?;
    }

    let vm = boot_with_disks(disks.path())?;
    let mut stage = reboot(&vm)?;
    let told = stage
        .check()?
        .expect(&["foreign-thin reserve-id offline"])?
        .the("foreign-thin")?;
    ensure!(
        told["subject"]["thin_id"] == 2 && told["severity"] == "outage",
        "{told}"
    );
    stage.containerd.start()?;
    // The sidecar names it too. That containerd made this device once is not what its databases say: it is nobody's to delete.
    let mut suture = Suture::start(&vm, &["--act", "--grace", "1"], &[])?;
    let found = suture.expect_ever("found", |report| report["finding"]["class"] == "foreign-thin")?;
    ensure!(found["finding"]["thin_id"] == 2, "{found}");
    stage.repair_online()?;
    ensure!(stage.containerd.thin_ids()? == [1, 2] && !suture.told("remedy")?);
    suture.stop()?;
    // A person who knows says so.
    stage.repair_offline(&["--delete-thin", "2"])?.ok()?;
    stage
        .containerd
        .prepare("container", Some("layer"))?
        .ok()
        .context("the first prepare works")?;
    stage.expect_works()
}

/// Renzhengeek, July 24: "`dmsetup remove` with `--deferred` may remove device in kernel latter than the time when its device
/// info has been removed". Today containerd defers a removal only when it commits: the device of a layer that somebody has
/// mounted goes when that is unmounted, here just as containerd makes a snapshot of it.
#[test]
fn a_deferred_removal_that_completes_late_under_a_new_snapshot_is_healed() -> Result<()> {
    on_stage(|stage| {
        let number = stage.next()?;
        let layer = format!("tp-snap-{number}");
        stage.containerd.prepare("base", None)?.ok()?;
        stage.vm.sh(&format!(
            "mkdir -p /mnt/late; mount /dev/mapper/{layer} /mnt/late; sync"
        ))?;
        stage.containerd.commit("layer", "base")?.ok()?;
        let waits = stage.vm.sh(&format!("dmsetup info {layer}"))?;
        ensure!(waits.contains("DEFERRED REMOVE"), "{waits}");
        // A device that waits for its last user is in order.
        stage.expect_nothing().context("while the removal is deferred")?;
        stage.repair_online()?.ok()?;
        ensure!(stage.vm.run(["dmsetup", "info", &layer])?.status.success());

        stage.vm.sh("rmdir /run/meddled 2>/dev/null || true")?;
        meddle(&stage.containerd, "suspend *", "umount /mnt/late", ":")?;
        let tried = stage.containerd.prepare("container", Some("layer"))?;
        expect_refused(&tried, &["failed to suspend device", "no such device"])?;
        stage.containerd.remove_wrappers()?;
        ensure!(
            !stage.vm.run(["dmsetup", "info", &layer])?.status.success(),
            "it is gone now"
        );
        // containerd goes on, and its next start takes the good layer for a broken one.
        stage.containerd.prepare("container", Some("layer"))?.ok()?;
        stage.containerd.restart()?;
        let found = stage
            .check()?
            .expect(&["faulty-live restore-record offline"])?
            .the("faulty-live")?;
        ensure!(found["subject"]["name"] == layer.as_str(), "{found}");
        stage.repair_offline(&[])?.ok()?;
        stage.containerd.prepare("another", Some("layer"))?.ok()?;
        stage.expect_works()
    })
}

/// The same as it was then: a removal that does not wait for the last user (containerd did so until commit 3741fd859).
/// containerd gives up on the thin device as long as it is in use, and never comes back to it.
#[test]
fn a_deferred_removal_that_completes_late_leaves_a_thin_device_that_is_deleted_once_it_is_free() -> Result<()>
{
    on_stage(|stage| {
        stage.containerd.set_async_remove(true)?;
        stage.containerd.restart()?;
        let name = format!("tp-snap-{}", stage.next()?);
        stage.containerd.prepare("late", None)?.ok()?;
        stage
            .vm
            .sh(&format!("sleep 600 < /dev/mapper/{name} & echo $! > /run/late"))?;
        stage.containerd.remove("late")?.ok()?;
        stage.containerd.write_wrapper(
            "dmsetup",
            "#!/bin/sh\nif [ \"$1\" = remove ]; then\nfor last; do :; done\nexec /usr/sbin/dmsetup remove --deferred \"$last\"\n\
             fi\nexec /usr/sbin/dmsetup \"$@\"\n",
        )?;
        stage.containerd.collect_garbage()?;
        stage.containerd.remove_wrappers()?;
        let record = stage
            .pool_db()?
            .devices
            .get(&name)
            .cloned()
            .context("its record")?;
        ensure!(
            record.state == DeviceState::Removing && record.error.to_lowercase().contains("busy"),
            "{record:?}"
        );
        // Still in use: it is told, and left alone.
        stage.check()?.expect(&["stuck-cleanup leave-alone never"])?;
        stage.repair_online()?;
        ensure!(
            stage
                .containerd
                .thin_ids()?
                .contains(&u64::from(record.device_id.0))
        );
        // The last user goes, and the kernel removes the dm device: late.
        stage.vm.sh("kill $(cat /run/late)")?;
        stage.vm.wait_until("the kernel has removed it", PATIENCE, || {
            Ok(!stage.vm.run(["dmsetup", "info", &name])?.status.success())
        })?;
        stage.containerd.collect_garbage()?;
        stage.check()?.expect(&["stuck-cleanup undo-half-done online"])?;
        stage.repair_online()?.ok()?;
        ensure!(
            !stage
                .containerd
                .thin_ids()?
                .contains(&u64::from(record.device_id.0))
        );
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// Renzhengeek, July 24: "containerd will keep trying to create snapshot with this snap-id, but only failed with object
/// already exists". His fault is a panic between two steps of a creation; here containerd is killed between them.
#[test]
fn an_object_that_already_exists_stops_every_prepare_until_suture_repairs_before_the_start() -> Result<()> {
    on_stage(|stage| {
        stage.containerd.prepare("base", None)?.ok()?;
        stage.containerd.commit("layer", "base")?.ok()?;
        let name = format!("tp-snap-{}", stage.next()?);
        let database = stage.containerd.options().pool_db();
        stage.containerd.kill_after_commits(&database, 5)?;
        let killed = stage.containerd.prepare("container", Some("layer"))?;
        ensure!(!killed.status.success());
        stage.containerd.wait_for_death()?;
        let record = stage
            .pool_db()?
            .devices
            .get(&name)
            .cloned()
            .context("its record")?;
        ensure!(record.state == DeviceState::Activated, "{record:?}");
        stage.containerd.start()?;
        for key in ["container", "another", "a third"] {
            let tried = stage.containerd.prepare(key, Some("layer"))?;
            expect_refused(&tried, &["object already exists", &name])?;
        }
        let mut suture = Suture::start(stage.vm, &["--act", "--grace", "0"], &[])?;
        let found = suture.expect_ever("found", |report| report["finding"]["class"] == "wedge")?;
        ensure!(found["finding"]["name"] == name.as_str(), "{found}");
        stage.check()?.expect(&["wedge undo-half-done offline"])?;
        // Not while containerd runs.
        stage.repair_online()?;
        ensure!(!stage.containerd.prepare("still", Some("layer"))?.status.success());
        suture.stop()?;
        stage.repair_offline(&[])?.ok()?;
        ensure!(
            !stage
                .containerd
                .thin_ids()?
                .contains(&u64::from(record.device_id.0))
        );
        stage
            .containerd
            .prepare("container", Some("layer"))?
            .ok()
            .context("the first prepare works")?;
        stage.expect_works()
    })
}

/// Jiazhiguang, July 24: "A disk was unplugged when trying to create a thin-device … After repairing the disk and restarting
/// the machine, the creation of the device still fails". The device is made, the disk goes, what is left can neither be
/// activated nor deleted, and it is there after the reboot.
#[test]
fn a_disk_that_is_unplugged_during_a_create_and_comes_back_after_a_reboot_leaves_a_device_that_is_told()
-> Result<()> {
    let disks = tempfile::tempdir()?;
    {
        let vm = boot_with_disks(disks.path())?;
        keep_ledger(&vm)?;
        let containerd = Containerd::on_breakable_disks(&vm)?;
        let stage = Stage { vm: &vm, containerd };
        stage.containerd.prepare("base", None)?.ok()?;
        stage.containerd.commit("layer", "base")?.ok()?;
        stage.containerd.prepare("beside", Some("layer"))?.ok()?;
        let mut suture = Suture::start(&vm, &["--act", "--grace", "1"], &[])?;
        // Somebody else writes meanwhile, so that the pool notices at once.
        let unplug = format!(
            "{UNPLUG}; timeout 20 dd if=/dev/zero of=/dev/mapper/tp-snap-2 bs=1M count=8 seek=40 oflag=direct; true"
        );
        meddle(&stage.containerd, "message tp 0 create_snap *", ":", &unplug)?;
        let tried = stage.containerd.prepare("container", Some("layer"))?;
        expect_refused(
            &tried,
            &[
                "failed to activate new thin device",
                "failed to delete device",
                "operation not supported",
            ],
        )?;
        let tried = stage.containerd.prepare("container", Some("layer"))?;
        expect_refused(&tried, &["operation not supported"])?;
        suture.expect_ever("found", |report| {
            let class = &report["finding"]["class"];
            class == "pool-failed" || class == "pool-read-only"
        })?;
        ensure!(!suture.told("remedy")?);
        vm.cut_power()?;
    }

    let vm = boot_with_disks(disks.path())?;
    let mut stage = reboot(&vm)?;
    ensure!(
        stage.containerd.thin_ids()? == [1, 2, 3],
        "the device that was made is there"
    );
    // A second try has overwritten containerd's own record of it, and what suture saw ended with the pool: nobody can prove
    // any more whose it is.
    let both = ["faulty-next free-id offline", "foreign-thin leave-alone never"];
    let told = stage.check()?.expect(&both)?.the("foreign-thin")?;
    ensure!(told["subject"]["thin_id"] == 3, "{told}");
    stage.repair(&["--offline"])?;
    ensure!(
        stage.containerd.thin_ids()? == [1, 2, 3],
        "nothing is deleted unasked"
    );
    stage.containerd.start()?;
    stage
        .containerd
        .prepare("container", Some("layer"))?
        .ok()
        .context("the first prepare works")?;
    stage.repair(&["--delete-thin", "3"])?;
    let ids = stage.containerd.thin_ids()?;
    ensure!(ids.contains(&2) && !ids.contains(&3), "{ids:?}");
    stage.repair_offline(&[])?.ok()?;
    stage.expect_works()
}

/// One device of `suture inspect`.
fn device(told: &serde_json::Value, name: &str) -> Result<serde_json::Value> {
    let devices = told["devices"].as_array().context("no devices")?;
    let found = devices.iter().find(|device| device["name"] == name);
    found.cloned().with_context(|| format!("{name} is not in {told}"))
}

/// Renzhengeek, July 31: "how can I find the faulty devices to look at and repair?", and mxpv's answer names a tool that
/// nobody wrote. A good layer, a half-made snapshot and a device that has lost its name are faulty, each for a reason of its own.
#[test]
fn the_faulty_devices_are_found_with_what_each_of_them_is_and_what_repairs_it() -> Result<()> {
    on_stage(|stage| {
        let inspect = |stage: &Stage<'_>| -> Result<serde_json::Value> {
            let said = stage
                .vm
                .run(["suture", "inspect", "--faulty", "--output", "json"])?;
            serde_json::from_str(&said.stdout).with_context(|| format!("{said:?}"))
        };
        let database = stage.containerd.options().pool_db();
        // Killed while it commits: a good device.
        let good = format!("tp-snap-{}", stage.next()?);
        stage.containerd.prepare("base", None)?.ok()?;
        stage.containerd.kill_after_commits(&database, 1)?;
        stage.containerd.commit("layer", "base")?;
        stage.containerd.wait_for_death()?;
        stage.containerd.start()?;
        // Killed while it prepares, twice: the second record takes the first one's place.
        let next = format!("tp-snap-{}", stage.next()?);
        let mut made = Vec::new();
        for key in ["first", "second"] {
            stage
                .containerd
                .kill_after_commits(&database, if key == "first" { 3 } else { 4 })?;
            stage.containerd.prepare(key, None)?;
            stage.containerd.wait_for_death()?;
            made.push(
                stage
                    .pool_db()?
                    .devices
                    .get(&next)
                    .context("its record")?
                    .device_id,
            );
            stage.containerd.start()?;
        }
        let ids = stage.pool_db()?.device_ids;
        let faulty: Vec<ThinId> = ids
            .into_iter()
            .filter_map(|(id, state)| (state == IdState::Faulty).then_some(id))
            .collect();
        ensure!(faulty.len() == 3, "{faulty:?}");

        let told = inspect(stage)?;
        let layer = device(&told, &good)?;
        ensure!(
            layer["state"] == "faulty-live" && layer["pool_database"]["record"]["state"] == "Faulty",
            "{layer}"
        );
        ensure!(
            layer["containerd"]["snapshot"].to_string().contains("base"),
            "whose it is: {layer}"
        );
        let half = device(&told, &next)?;
        ensure!(
            half["state"] == "faulty-next" && half["snapshot_database"].is_null(),
            "{half}"
        );
        let nameless = device(&told, &format!("thin {}", made[0]))?;
        ensure!(
            nameless["state"] == "foreign-thin" && nameless["pool_database"]["id_state"] == "faulty",
            "{nameless}"
        );
        let told_ids: Vec<u64> = told["devices"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|device| device["thin_id"].as_u64())
            .collect();
        ensure!(
            faulty.iter().all(|id| told_ids.contains(&u64::from(id.0))) && told_ids.len() == 3,
            "{told_ids:?}"
        );
        let people = stage.vm.run(["suture", "inspect", "--faulty"])?.stdout;
        ensure!(people.contains("3 faulty") && people.contains(&good), "{people}");

        // Each by its own remedy: the good one is given its state back, and the others go when a person names them.
        stage.repair_offline(&[])?;
        stage.repair(&["--delete-thin", &made[0].to_string()])?;
        stage
            .containerd
            .commit("layer", "base")?
            .ok()
            .context("the good one is good")?;
        // Whose number a new record takes has lost its name as well.
        stage.containerd.prepare("third", Some("layer"))?.ok()?;
        stage.repair(&["--delete-thin", &made[1].to_string()])?;
        stage.repair_offline(&[])?.ok()?;
        let left = inspect(stage)?["devices"].clone();
        ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
        stage.expect_works()
    })
}
