//! What concerns snapshots that exist: they survive byte for byte.

use anyhow::{Context as _, Result, ensure};
use suture::model::{DeviceState, ThinId};
use xtask::vm::{Signal, containerd::Side};

use crate::{hand, stage::*, support::*};

/// A snapshot with contents in it, and the checksum of the whole device.
struct Layer {
    name: String,
    thin: ThinId,
    checksum: String,
}

impl Layer {
    fn make(stage: &Stage<'_>, key: &str) -> Result<Self> {
        let number = stage.next()?;
        Kept::write(stage.vm, &stage.containerd, key, u32::try_from(number)?)?;
        let name = format!("tp-snap-{number}");
        let thin = stage
            .pool_db()?
            .devices
            .get(&name)
            .context("the record")?
            .device_id;
        let checksum = contents(stage, thin)?;
        Ok(Self { name, thin, checksum })
    }

    /// The files alone: the device was mounted meanwhile, and writable.
    fn expect_files(&self, stage: &Stage<'_>) -> Result<()> {
        let now = contents(stage, self.thin)?;
        ensure!(
            now.lines().next() == self.checksum.lines().next() && now.contains("./data"),
            "{} was {}, is {now}",
            self.name,
            self.checksum
        );
        Ok(())
    }

    fn expect_whole(&self, stage: &Stage<'_>) -> Result<()> {
        let now = contents(stage, self.thin)?;
        ensure!(
            now == self.checksum,
            "{} was {}, is {now}",
            self.name,
            self.checksum
        );
        Ok(())
    }
}

/// What is mounted of a thin device, as a second node of it shows it, read-only and without replay of a journal: every
/// file's checksum, and the whole device's.
fn contents(stage: &Stage<'_>, thin: ThinId) -> Result<String> {
    stage.vm.sh(&format!(
        "echo 3 > /proc/sys/vm/drop_caches
        dmsetup create sum --readonly --table '0 131072 thin /dev/mapper/tp {thin}'
        mkdir -p /mnt/sum; mount -o ro,noload /dev/mapper/sum /mnt/sum
        (cd /mnt/sum; find . -type f | sort | xargs sha256sum); umount /mnt/sum
        sha256sum < /dev/mapper/sum; dmsetup remove --retry sum"
    ))
}

fn commit<'a>(name: &'a str, key: &'a str) -> [&'a str; 6] {
    ["snapshots", "--snapshotter", "devmapper", "commit", name, key]
}

/// containerd dies while it commits: its next start takes the good layer for garbage. It is put back as it was.
#[test]
fn faulty_live_is_restored_byte_for_byte() -> Result<()> {
    on_stage(|stage| {
        for (key, state) in [
            ("suspending", DeviceState::Suspending),
            ("resuming", DeviceState::Resuming),
            ("deactivating", DeviceState::Deactivating),
        ] {
            let layer = Layer::make(stage, key)?;
            let committed = format!("{key}-committed");
            stage.kill_when(&commit(&committed, key), "the record says so", |database| {
                database
                    .devices
                    .get(&layer.name)
                    .is_some_and(|record| record.state == state)
            })?;
            stage.containerd.start()?;
            let mut expected = vec!["faulty-live restore-record offline"];
            if state == DeviceState::Resuming {
                expected.push("suspended-device resume-node online");
            }
            stage.check()?.expect(&expected).context(key)?;
            // Nothing online but the resuming, and nothing is ever deleted.
            stage.repair_online()?;
            stage
                .check()?
                .expect(&["faulty-live restore-record offline"])
                .context(key)?;
            ensure!(stage.containerd.thin_ids()?.contains(&u64::from(layer.thin.0)));
            stage.repair_offline(&[])?.ok().context(key)?;
            stage.expect_nothing().context(key)?;
            let record = stage.pool_db()?.devices.get(&layer.name).cloned();
            ensure!(
                record
                    .as_ref()
                    .is_some_and(|record| record.state == DeviceState::Activated),
                "{record:?}"
            );
            layer.expect_whole(stage).context(key)?;
            // And it can be gone on with.
            stage.containerd.commit(&committed, key)?.ok().context(key)?;
            layer.expect_whole(stage).context(key)?;
            stage
                .containerd
                .prepare(&format!("{key}-child"), Some(&committed))?
                .ok()
                .context(key)?;
        }
        stage.expect_works()
    })
}

/// A committed layer that was still in use, with its node suspended for a snapshot of it: whoever opens it hangs.
#[test]
fn suspended_device_is_resumed() -> Result<()> {
    on_stage(|stage| {
        let layer = Layer::make(stage, "base")?;
        // Held open, so that the commit leaves its node there.
        stage.vm.sh(&format!(
            "mkdir -p /mnt/held; mount /dev/mapper/{} /mnt/held; sync",
            layer.name
        ))?;
        stage.containerd.commit("layer", "base")?.ok()?;
        stage.containerd.kill_at_dmsetup(Side::After, "suspend *")?;
        stage.containerd.prepare("child", Some("layer"))?;
        stage.containerd.wait_for_death()?;
        stage.containerd.remove_wrappers()?;
        stage.containerd.start()?;
        // Suspending was the last word, so the start marked it faulty as well.
        let both = [
            "faulty-live restore-record offline",
            "suspended-device resume-node online",
        ];
        let found = stage.check()?.expect(&both)?.the("suspended-device")?;
        ensure!(found["subject"]["name"] == layer.name, "{found}");
        stage.repair_online()?.ok()?;
        stage.vm.sh("timeout 20 umount /mnt/held")?;
        stage.check()?.expect(&["faulty-live restore-record offline"])?;
        stage.repair_offline(&[])?.ok()?;
        layer.expect_files(stage)?;
        stage.containerd.prepare("child", Some("layer"))?.ok()?;
        stage.expect_works()
    })
}

/// containerd dies in a removal, with the record gone and the snapshot still there: it could never be removed, nor its
/// parent.
#[test]
fn row_without_record_can_be_removed_again_and_so_can_its_parent() -> Result<()> {
    on_stage(|stage| {
        let mut halved = false;
        for attempt in 1..=5 {
            halved = halve_a_removal(stage, attempt)?;
            if halved {
                break;
            }
            stage.containerd.start()?;
        }
        ensure!(
            halved,
            "no removal was cut between its two databases: {:?} {:?}",
            stage.snapshot_db()?,
            stage.pool_db()?
        );
        stage.containerd.start()?;
        stage
            .check()?
            .expect(&["row-without-record insert-removed-record offline"])?;
        stage.repair_offline(&[])?.ok()?;
        stage.containerd.collect_after_a_removal()?;
        ensure!(
            stage.snapshot_db()?.snapshots.is_empty(),
            "{:?}",
            stage.snapshot_db()?
        );
        stage.expect_works()
    })
}

/// Removes a snapshot, its parent and its parent's parent, and kills containerd in a commit of its snapshot storage: in the
/// first one, or in the second where strace came too late for that. Says whether that left a snapshot without its record,
/// and its parent.
fn halve_a_removal(stage: &mut Stage<'_>, attempt: u32) -> Result<bool> {
    let [base, layer, middle, upper, doomed, lease] =
        ["base", "layer", "middle", "upper", "doomed", "gc"].map(|name| format!("{name}-{attempt}"));
    stage.containerd.prepare(&base, None)?.ok()?;
    stage.containerd.commit(&layer, &base)?.ok()?;
    stage.containerd.prepare(&middle, Some(&layer))?.ok()?;
    stage.containerd.commit(&upper, &middle)?.ok()?;
    stage.containerd.prepare(&doomed, Some(&upper))?.ok()?;
    stage.containerd.ctr(["leases", "create", "--id", &lease])?.ok()?;
    for snapshot in [&doomed, &upper, &layer] {
        stage.containerd.remove(snapshot)?.ok()?;
    }
    let snapshots = stage.containerd.options().snapshot_db();
    stage.containerd.kill_at_commit(&snapshots)?;
    let _client = stage.begin(&["leases", "delete", "--sync", &lease])?;
    stage.containerd.wait_for_death()?;
    // The pool database's part of a removal is committed first.
    let records = stage.pool_db()?.devices;
    let rows = stage.snapshot_db()?.snapshots;
    let without = rows
        .values()
        .filter(|row| !records.contains_key(&format!("tp-snap-{}", row.id)));
    let mut without = without.map(|row| row.parent.is_some());
    Ok(without.next() == Some(true) && without.next().is_none())
}

/// Somebody has deleted the device under a snapshot: its data are lost, and that is said. What keeps containerd from
/// starting after a reboot is marked, so that it starts.
#[test]
fn row_without_thin_is_told_and_does_not_keep_containerd_from_starting() -> Result<()> {
    on_stage(|stage| {
        let name = format!("tp-snap-{}", stage.next()?);
        stage.containerd.prepare("lost", None)?.ok()?;
        let thin = stage
            .pool_db()?
            .devices
            .get(&name)
            .context("the record")?
            .device_id;
        stage.containerd.kill(Signal::KILL)?;
        stage.vm.sh(&format!(
            "dmsetup remove {name}; dmsetup message tp 0 'delete {thin}'"
        ))?;
        let found = stage
            .check()?
            .expect(&["row-without-thin mark-faulty offline"])?
            .the("row-without-thin")?;
        ensure!(found["severity"] == "damage", "{found}");
        // As it is, containerd's next start would not bring the snapshotter up.
        stage.repair_offline(&[])?;
        stage.check()?.expect(&["row-without-thin leave-alone never"])?;
        stage.containerd.remove("lost")?.ok()?;
        stage.containerd.collect_garbage()?;
        stage.expect_works()
    })
}

/// By hand: the number of rows and of free ids do not match, so the pool database was lost in part: nothing is invented.
#[test]
fn row_without_record_is_left_alone_where_the_pool_database_was_lost() -> Result<()> {
    on_stage(|stage| {
        let layer = Layer::make(stage, "kept")?;
        stage.stop()?;
        let before = stage.pool_db()?;
        let record = before.devices.get(&layer.name).context("the record")?.clone();
        // Its id is not free: no removal of containerd's leaves it so.
        stage.edit_pool_db(&[hand::forget_record(&layer.name)])?;
        let told = stage.check()?;
        let found = told.the("row-without-record")?;
        ensure!(
            found["remedy"]["when"] == "never" || found["remedy"]["action"] == "insert-removed-record",
            "{found}"
        );
        stage.repair(&["--offline"])?;
        layer.expect_whole(stage)?;
        let now = stage.pool_db()?;
        let mut edits = vec![
            hand::put_record(&record)?,
            hand::put_id(record.device_id, suture::model::IdState::Taken),
        ];
        for made in now
            .device_ids
            .keys()
            .filter(|id| !before.device_ids.contains_key(id))
        {
            edits.push(hand::put_id(*made, suture::model::IdState::Free));
        }
        stage.edit_pool_db(&edits)?;
        stage.containerd.start()?;
        stage.expect_works()
    })
}
