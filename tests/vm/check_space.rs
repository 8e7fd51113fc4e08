//! What only takes space, or only a number: each is named, and nothing else; each is given back, or left alone.

use anyhow::{Context as _, Result, ensure};
use suture::model::DeviceState;
use xtask::vm::{
    Signal,
    containerd::{Containerd, Side},
};

use crate::{stage::*, support::*};

/// The sidecar watched it being made, and its ledger is there.
#[test]
fn leaked_thin_that_the_sidecar_saw_is_deleted() -> Result<()> {
    on_stage(|stage| {
        let suture = Suture::start(stage.vm, &[], &[])?;
        break_and_restart(&mut stage.containerd)?;
        let before = stage.pool_db()?;
        let leaked = before
            .devices
            .values()
            .find(|record| record.state == DeviceState::Faulty)
            .context("no device was half made")?
            .device_id;
        prepare_with_retries(&stage.containerd, "again")?;
        stage
            .check()?
            .expect(&["leaked-thin delete-thin online"])
            .context("with the sidecar")?;
        suture.stop()?;
        let found = stage
            .check()?
            .expect(&["leaked-thin delete-thin online"])?
            .the("leaked-thin")?;
        ensure!(found["subject"]["thin_id"] == leaked.0, "{found}");
        ensure!(found["provenance"]["known"] == "seen_by_probe", "{found}");
        stage.repair_online()?.ok()?;
        ensure!(!stage.containerd.thin_ids()?.contains(&u64::from(leaked.0)));
        // The number is all that is left of it, and containerd's to be told offline.
        stage.check()?.expect(&["burned-id free-id offline"])?;
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// The same device, and nobody saw it being made: it is nobody's to delete.
#[test]
fn a_leaked_thin_that_nobody_saw_is_foreign_and_goes_when_it_is_named() -> Result<()> {
    on_stage(|stage| {
        break_and_restart(&mut stage.containerd)?;
        prepare_with_retries(&stage.containerd, "again")?;
        let found = stage
            .check_with(&["--ledger", "/nonexistent"])?
            .expect(&["foreign-thin leave-alone never"])?
            .the("foreign-thin")?;
        let id = found["subject"]["thin_id"].to_string();
        stage.repair_online()?;
        stage.repair_offline(&[])?;
        ensure!(
            stage
                .containerd
                .thin_ids()?
                .iter()
                .any(|there| there.to_string() == id)
        );
        stage.repair(&["--delete-thin", &id])?;
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// Two devices of somebody else's in the pool: one is named and goes, the other is never touched, whatever is repaired.
#[test]
fn foreign_thin_is_never_deleted_unless_it_is_named() -> Result<()> {
    on_stage(|stage| {
        let sequence = u32::try_from(stage.pool_db()?.id_sequence)?;
        let (kept, named) = (sequence + 2, sequence + 4);
        let checksum = stage.containerd.make_foreign_thin(kept, 3)?;
        stage.containerd.make_foreign_thin(named, 1)?;
        let both = [
            "foreign-thin reserve-id offline",
            "foreign-thin reserve-id offline",
        ];
        stage.check()?.expect(&both)?;
        stage.repair_online()?;
        stage.check()?.expect(&both).context("after an online repair")?;
        // Reserved: containerd does not draw them any more. They are as they were.
        // The shipped policy only observes them: a person asks for it.
        stage.repair_offline(&[])?;
        stage.check()?.expect(&both).context("after an offline repair")?;
        stage.repair_offline(&["--only", "foreign-thin"])?;
        let left = ["foreign-thin leave-alone never", "foreign-thin leave-alone never"];
        stage.check()?.expect(&left)?;
        for number in 0..4 {
            stage
                .containerd
                .prepare(&format!("beside-{number}"), None)?
                .ok()
                .context("no prepare meets a reserved id")?;
        }
        stage.repair(&["--delete-thin", &named.to_string()])?;
        let ids = stage.containerd.thin_ids()?;
        ensure!(
            ids.contains(&u64::from(kept)) && !ids.contains(&u64::from(named)),
            "{ids:?}"
        );
        ensure!(stage.containerd.thin_checksum(kept)? == checksum);
        stage.containerd.works()?;
        ensure!(stage.containerd.thin_checksum(kept)? == checksum);
        stage.repair(&["--delete-thin", &kept.to_string()])?;
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// Where in an async removal containerd is killed.
enum Window {
    /// When the record says so.
    State(DeviceState),
    /// Around a call of dmsetup.
    Call(Side, &'static str),
}

/// containerd dies in its clean-up; gives the name of the record that it leaves.
fn die_in_cleanup(stage: &mut Stage<'_>, key: &str, window: &Window) -> Result<String> {
    let name = format!("tp-snap-{}", stage.next()?);
    stage.containerd.prepare(key, None)?.ok()?;
    stage.containerd.ctr(["leases", "create", "--id", key])?.ok()?;
    stage.containerd.remove(key)?.ok()?;
    let collect = ["leases", "delete", "--sync", key];
    match window {
        Window::State(wanted) => stage.kill_when(&collect, "the record says so", |database| {
            database
                .devices
                .get(&name)
                .is_some_and(|record| record.state == *wanted)
        })?,
        Window::Call(side, call) => {
            stage.containerd.kill_at_dmsetup(*side, call)?;
            let _client = stage.begin(&collect)?;
            stage.containerd.wait_for_death()?;
            stage.containerd.remove_wrappers()?;
        }
    }
    stage.containerd.start()?;
    Ok(name)
}

/// The windows of `async_remove`'s clean-up: with everything left, with the record at rest, with only the record left; in
/// the long lane those between too. What is removed in order is never a finding.
#[test]
fn orphan_record_of_every_window_of_an_async_removal_is_undone() -> Result<()> {
    on_stage(|stage| {
        stage.containerd.set_async_remove(true)?;
        stage.containerd.restart()?;
        stage.containerd.prepare("in order", None)?.ok()?;
        stage.containerd.remove("in order")?.ok()?;
        stage.expect_nothing().context("removed, and not collected yet")?;
        stage.containerd.collect_garbage()?;
        stage.expect_nothing().context("removed in order")?;

        let windows = [
            ("a3", Window::State(DeviceState::Deactivating)),
            ("a4", Window::Call(Side::After, "remove *")),
            ("a5", Window::State(DeviceState::Deactivated)),
            ("a6", Window::Call(Side::Before, "message * delete *")),
        ];
        for (key, window) in windows {
            if !long_lane() && (key == "a4" || key == "a6") {
                continue;
            }
            let name = die_in_cleanup(stage, key, &window).context(key)?;
            let found = stage
                .check()?
                .expect(&["orphan-record undo-half-done online"])
                .context(key)?
                .the("orphan-record")?;
            ensure!(found["subject"]["name"] == name, "{found}");
            if key == "a3" || key == "a5" {
                stage.repair_online()?.ok().context(key)?;
                stage
                    .check()?
                    .expect(&["burned-id free-id offline"])
                    .context(key)?;
            }
            stage.repair_offline(&[])?.ok().context(key)?;
            stage.expect_nothing().context(key)?;
            ensure!(!stage.pool_db()?.devices.contains_key(&name));
        }
        // A7: the thin device is gone already, only the record is left.
        die_in_cleanup(stage, "a7", &Window::Call(Side::After, "message * delete *"))?;
        stage.check()?.expect(&["burned-id free-id offline"])?;
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// A device that is busy for as long as containerd tries: its clean-up never comes back to it.
#[test]
fn stuck_cleanup_is_finished_once_the_device_is_free() -> Result<()> {
    on_stage(|stage| {
        stage.containerd.set_async_remove(true)?;
        stage.containerd.restart()?;
        let name = format!("tp-snap-{}", stage.next()?);
        stage.containerd.prepare("busy", None)?.ok()?;
        stage.containerd.remove("busy")?.ok()?;
        // What dmsetup says of a busy device; the real one takes five seconds for it, and containerd asks a hundred times.
        stage.containerd.write_wrapper(
            "dmsetup",
            "#!/bin/sh\nif [ \"$1\" = remove ]; then\necho 'device-mapper: remove ioctl on x failed: Device or resource busy' >&2\n\
             echo 'Command failed.' >&2; exit 1; fi\nexec /usr/sbin/dmsetup \"$@\"\n",
        )?;
        stage.containerd.collect_garbage()?;
        let record = stage.pool_db()?.devices.get(&name).cloned();
        ensure!(
            record
                .as_ref()
                .is_some_and(|record| record.state == DeviceState::Deactivating && !record.error.is_empty()),
            "{record:?}"
        );
        stage.containerd.remove_wrappers()?;
        stage.check()?.expect(&["stuck-cleanup undo-half-done online"])?;
        // Somebody has it open: it is left alone.
        stage
            .vm
            .sh(&format!("sleep 600 < /dev/mapper/{name} & echo $! > /run/holder"))?;
        stage
            .check()?
            .expect(&["stuck-cleanup leave-alone never"])
            .context("open")?;
        stage.repair_online()?;
        stage.vm.sh(&format!(
            "dmsetup info {name} > /dev/null; kill $(cat /run/holder); sleep 0.2"
        ))?;
        stage.repair_online()?.ok()?;
        stage.check()?.expect(&["burned-id free-id offline"])?;
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// containerd dies before it asks the pool for a device: the number that it drew is never used again.
#[test]
fn burned_id_is_given_back() -> Result<()> {
    on_stage(|stage| {
        let name = format!("tp-snap-{}", stage.next()?);
        stage.kill_when(
            &["snapshots", "--snapshotter", "devmapper", "prepare", "half"],
            "the record is there",
            |database| {
                let record = database.devices.get(&name);
                record.is_some_and(|record| {
                    matches!(record.state, DeviceState::Unknown | DeviceState::Creating)
                })
            },
        )?;
        let drawn = stage.pool_db()?.devices.get(&name).context("a record")?.device_id;
        stage
            .check()?
            .expect(&["faulty-next free-id offline"])
            .context("stopped")?;
        stage.containerd.start()?;
        stage
            .check()?
            .expect(&["faulty-next free-id offline"])
            .context("running")?;
        prepare_with_retries(&stage.containerd, "again")?;
        let found = stage
            .check()?
            .expect(&["burned-id free-id offline"])?
            .the("burned-id")?;
        ensure!(found["subject"]["thin_id"] == drawn.0, "{found}");
        stage.repair_offline(&[])?.ok()?;
        ensure!(stage.pool_db()?.device_ids.get(&drawn) == Some(&suture::model::IdState::Free));
        stage.expect_works()
    })
}

/// Databases gone, pool kept (containerd#4790): it is explained, nothing is deleted, and prepares work again.
#[test]
fn wiped_databases_are_explained_and_no_device_is_touched() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = Containerd::serving(&vm)?;
    let mut kept = Vec::new();
    for number in 1..=3_u32 {
        Kept::write(&vm, &containerd, &format!("old-{number}"), number)?;
    }
    containerd.kill(Signal::KILL)?;
    vm.sh("for node in /dev/mapper/tp-snap-*; do dmsetup remove $node; done")?;
    for number in 1..=3 {
        kept.push(containerd.thin_checksum(number)?);
    }
    containerd.wipe_databases()?;
    containerd.start()?;
    let mut stage = Stage { vm: &vm, containerd };
    let three = ["foreign-thin reserve-id offline"; 3];
    let told = stage.check()?.expect(&three)?;
    let text = told.json.to_string();
    ensure!(
        text.contains("lost") || text.contains("wiped"),
        "it is not explained: {text}"
    );
    // It is as the facts say: each prepare meets one of them.
    let refused = stage.containerd.prepare("meets it", None)?;
    ensure!(
        refused.stderr.to_lowercase().contains("file exists"),
        "{refused:?}"
    );
    stage.repair_online()?;
    ensure!(stage.containerd.thin_ids()? == [1, 2, 3]);
    stage.repair_offline(&["--only", "foreign-thin"])?;
    stage.containerd.prepare("at once", None)?.ok()?;
    stage.containerd.works()?;
    for (number, before) in (1..).zip(&kept) {
        ensure!(
            &stage.containerd.thin_checksum(number)? == before,
            "device {number}"
        );
    }
    stage.check()?.expect(&["foreign-thin leave-alone never"; 3])?;
    Ok(())
}
