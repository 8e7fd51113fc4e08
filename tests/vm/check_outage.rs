//! What stops every new container, or is about to: a record of the next snapshot's name.

use anyhow::{Context as _, Result, ensure};
use suture::model::{DeviceState, IdState, ThinId};
use xtask::vm::containerd::{Containerd, Options, Side};

use crate::{hand, stage::*, support::*};

/// Every further prepare fails, and says why.
fn expect_wedged(stage: &Stage<'_>, key: &str) -> Result<()> {
    let refused = stage.containerd.prepare(key, None)?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("already exists"),
        "{refused:?}"
    );
    Ok(())
}

/// containerd#5646, as people meet it: containerd is killed while `mkfs` runs.
#[test]
fn wedge_of_a_kill_during_mkfs_is_healed_offline() -> Result<()> {
    on_stage(|stage| {
        let name = format!("tp-snap-{}", stage.next()?);
        stage.containerd.kill_after_mkfs()?;
        stage.containerd.prepare("half", None)?;
        stage.containerd.wait_for_death()?;
        stage.containerd.remove_wrappers()?;
        stage.containerd.start()?;
        expect_wedged(stage, "wedged")?;
        let found = stage
            .check()?
            .expect(&["wedge undo-half-done offline"])?
            .the("wedge")?;
        ensure!(
            found["severity"] == "outage" && found["subject"]["name"] == name,
            "{found}"
        );
        let thin = found["subject"]["thin_id"].as_u64().context("a thin id")?;
        // Online nothing can be done about it, and that is said.
        stage.repair_online()?;
        expect_wedged(stage, "still wedged")?;
        stage.repair_offline(&[])?.ok()?;
        ensure!(!stage.containerd.thin_ids()?.contains(&thin));
        stage
            .containerd
            .prepare("at once after mkfs", None)?
            .ok()
            .context("the first prepare works")?;
        stage.expect_works()
    })
}

/// The same by a power cut. The long lane: in every run the drop-in heals one (`restart_path`).
#[test]
fn wedge_of_a_power_cut_during_mkfs_is_healed_offline() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    let disks = tempfile::tempdir()?;
    let kept = {
        let vm = boot_with_disks(disks.path())?;
        let containerd = containerd(&vm)?;
        let kept = Kept::write(&vm, &containerd, "kept", 1)?;
        containerd.stop_after_mkfs()?;
        let _prepare = containerd.begin_prepare("half")?;
        vm.wait_until("the file system is made", PATIENCE, || {
            Ok(vm.run(["test", "-e", Containerd::STOPPED])?.status.success())
        })?;
        vm.cut_power()?;
        kept
    };
    let vm = boot_with_disks(disks.path())?;
    let mut containerd = Containerd::set_up(&vm, Options::default())?;
    containerd.start()?;
    let mut stage = Stage { vm: &vm, containerd };
    expect_wedged(&stage, "wedged")?;
    stage.check()?.expect(&["wedge undo-half-done offline"])?;
    stage.repair_offline(&[])?.ok()?;
    ensure!(stage.containerd.thin_ids()? == [1]);
    ensure!(kept.is_whole(&vm)?);
    stage.expect_works()
}

/// In a state that no interrupted prepare leaves: the outage is healed, the device is not proven to be waste.
#[test]
fn wedge_in_another_state_is_healed_and_its_device_kept() -> Result<()> {
    on_stage(|stage| {
        let next = stage.next()?;
        let name = format!("tp-snap-{next}");
        stage.stop()?;
        let id = u32::try_from(stage.pool_db()?.id_sequence)? + 7;
        let checksum = stage.containerd.make_foreign_thin(id, 1)?;
        stage.edit_pool_db(&[
            hand::put_record(&hand::record(&name, id, DeviceState::Deactivated))?,
            hand::put_id(ThinId(id), IdState::Taken),
        ])?;
        stage.containerd.start()?;
        expect_wedged(stage, "wedged")?;
        stage.check()?.expect(&["wedge mark-faulty offline"])?;
        stage.repair_offline(&[])?.ok()?;
        stage.containerd.prepare("at once after the mark", None)?.ok()?;
        ensure!(stage.containerd.thin_checksum(id)? == checksum);
        // Its record is overwritten now, so it is nobody's, and a person may name it.
        stage.check()?.expect(&["foreign-thin leave-alone never"])?;
        stage.repair(&["--delete-thin", &id.to_string()])?;
        stage.repair_offline(&[])?.ok()?;
        stage.expect_works()
    })
}

/// A prepare that was interrupted after the pool had made the device: undone before containerd's next start, which would
/// forget whose it is; afterwards it is left alone.
#[test]
fn faulty_next_is_undone_while_it_can_be_proven_and_left_alone_later() -> Result<()> {
    on_stage(|stage| {
        for proven in [true, false] {
            let key = format!("half-{proven}");
            stage.containerd.kill_at_dmsetup(Side::After, "create *")?;
            stage.containerd.prepare(&key, None)?;
            stage.containerd.wait_for_death()?;
            stage.containerd.remove_wrappers()?;
            if proven {
                stage.check()?.expect(&["faulty-next undo-half-done offline"])?;
                stage.repair_offline(&[])?.ok()?;
                stage.expect_nothing()?;
                stage
                    .containerd
                    .prepare(&key, None)?
                    .ok()
                    .context("not even the first prepare fails")?;
                continue;
            }
            stage.containerd.start()?;
            // Its node would make the next prepare fail; it holds no data.
            stage.check()?.expect(&["faulty-next remove-node offline"])?;
            let ids = stage.containerd.thin_ids()?;
            stage.repair_online()?;
            stage.repair_offline(&[])?.ok()?;
            stage.check()?.expect(&["faulty-next leave-alone never"])?;
            ensure!(stage.containerd.thin_ids()? == ids);
            stage
                .containerd
                .prepare(&key, None)?
                .ok()
                .context("with the node gone the first prepare works")?;
            let found = stage
                .check()?
                .expect(&["foreign-thin leave-alone never"])?
                .the("foreign-thin")?;
            let id = found["subject"]["thin_id"].to_string();
            stage.repair(&["--delete-thin", &id])?;
            stage.repair_offline(&[])?.ok()?;
        }
        stage.expect_works()
    })
}
