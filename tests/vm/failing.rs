//! What fails at this moment: told when it begins, counted while it lasts, and over when it is.

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::vm::containerd::swap_table;

use crate::{stage::*, support::*};

fn is(id: &str) -> impl Fn(&Value) -> bool + '_ {
    move |report| report["finding"]["id"] == id
}

/// A pool that takes no messages, and then a thin device that bears the number that containerd draws next.
#[test]
fn what_containerd_can_not_make_is_a_finding_while_it_fails_and_no_longer() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let containerd = containerd(&vm)?;
    containerd.prepare("kept", None)?.ok()?;
    let stage = Stage { vm: &vm, containerd };
    let mut suture = Suture::start(&vm, &["--act"], &[])?;

    let table = vm.sh("dmsetup table tp")?.trim().to_owned();
    let read_only = table.replace("1 skip_block_zeroing", "2 skip_block_zeroing read_only");
    swap_table(&vm, "tp", &read_only)?;
    for key in ["one", "two"] {
        let refused = stage.containerd.prepare(key, None)?;
        ensure!(
            !refused.status.success() && refused.stderr.contains("operation not supported"),
            "{refused:?}"
        );
    }
    let id = "failing-create/tp/pool-refuses";
    let found = suture.expect_ever("found", is(id))?;
    let evidence = found["finding"]["evidence"].to_string();
    ensure!(
        evidence.contains("create_thin fails with EOPNOTSUPP")
            && evidence.contains("`operation not supported`"),
        "{found}"
    );
    let decided = suture.expect_ever("decided", is(id))?;
    ensure!(
        decided["kind"] == "tell" && decided["text"].to_string().contains("pool-read-only"),
        "{decided}"
    );
    // The other finding that it points at.
    suture.expect_ever("found", |report| report["finding"]["class"] == "pool-read-only")?;
    let listed = vm.run(["suture", "findings", "--output", "json"])?.ok()?.stdout;
    ensure!(listed.contains(id), "{listed}");
    // A check sees no calls, only what the failed ones left.
    stage.check()?.expect(&[
        "burned-id free-id offline",
        "faulty-next free-id offline",
        "pool-read-only leave-alone never",
    ])?;

    swap_table(&vm, "tp", &table)?;
    prepare_with_retries(&stage.containerd, "three")?;
    suture.expect_ever("resolved", is(id))?;
    let kept = |id: &str| -> Result<Value> {
        let entries = history(&vm)?.into_iter();
        Ok(entries.filter(|one| one["finding"]["id"] == id).collect())
    };
    let entry = kept(id)?;
    let evidence = entry[0]["finding"]["evidence"][0].to_string();
    ensure!(
        !entry[0]["resolved"].is_null() && evidence.contains("times), first at"),
        "it keeps how often it was: {entry}"
    );

    let next = stage.pool_db()?.id_sequence + 1;
    vm.sh(&format!("dmsetup message tp 0 'create_thin {next}'"))?;
    let refused = stage.containerd.prepare("four", None)?;
    ensure!(
        !refused.status.success() && refused.stderr.to_lowercase().contains("file exists"),
        "{refused:?}"
    );
    let id = "failing-create/tp/id-in-pool";
    let found = suture.expect_ever("found", is(id))?;
    ensure!(
        found["finding"]["evidence"]
            .to_string()
            .contains(&format!("thin id {next}")),
        "{found}"
    );
    prepare_with_retries(&stage.containerd, "five")?;
    suture.expect_ever("resolved", is(id))?;
    ensure!(
        !suture.told("remedy")? && !suture.told("repair")?,
        "it only tells"
    );
    ensure!(stage.containerd.thin_ids()?.contains(&next), "it is somebody's");
    suture.stop()
}

/// A name that somebody has taken, a device that somebody has open, and a parent that the pool has lost.
#[test]
fn what_is_in_containerds_way_is_told_while_it_tries_and_is_over_when_it_is_gone() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let containerd = containerd(&vm)?;
    containerd.prepare("base", None)?.ok()?;
    containerd.commit("layer", "base")?.ok()?;
    let stage = Stage { vm: &vm, containerd };
    let mut suture = Suture::start(&vm, &[], &[])?;

    let name = format!("tp-snap-{}", stage.next()?);
    vm.sh(&format!("dmsetup create --notable {name}"))?;
    // The first of two may be what containerd takes back and does not meet again.
    for key in ["one", "two"] {
        let refused = stage.containerd.prepare(key, None)?;
        ensure!(
            !refused.status.success() && refused.stderr.contains("device or resource busy"),
            "{refused:?}"
        );
    }
    let id = format!("failing-create/tp/name-taken/create/{name}");
    let found = suture.expect_ever("found", is(&id))?;
    ensure!(
        found["finding"]["evidence"]
            .to_string()
            .contains("`device or resource busy`"),
        "{found}"
    );
    vm.sh(&format!("dmsetup remove {name}"))?;
    prepare_with_retries(&stage.containerd, "three")?;
    suture.expect_ever("resolved", is(&id))?;

    let name = format!("tp-snap-{}", stage.next()?);
    stage.containerd.prepare("held", None)?.ok()?;
    let _holder = vm.spawn(["sh", "-c", &format!("exec sleep 600 < /dev/mapper/{name}")], &[])?;
    vm.wait_until("the device is open", PATIENCE, || {
        let open = vm.sh(&format!("dmsetup info -c --noheadings -o open {name}"))?;
        Ok(open.trim() == "1")
    })?;
    let mut removal = stage.begin(&["snapshots", "--snapshotter", "devmapper", "rm", "held"])?;
    let id = format!("failing-remove/tp/in-use/remove/{name}");
    let found = suture.expect_ever("found", is(&id))?;
    ensure!(
        found["finding"]["evidence"]
            .to_string()
            .contains("removing a dm device fails with EBUSY"),
        "{found}"
    );
    vm.sh("kill $(pidof sleep)")?;
    removal.wait(PATIENCE)?.ok()?;
    suture.expect_ever("resolved", is(&id))?;

    let lost = stage.pool_db()?.devices["tp-snap-1"].device_id;
    vm.sh(&format!("dmsetup message tp 0 'delete {lost}'"))?;
    let refused = stage.containerd.prepare("child", Some("layer"))?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("no data available"),
        "{refused:?}"
    );
    let id = format!("failing-create/tp/parent-missing/{lost}");
    let found = suture.expect_ever("found", is(&id))?;
    ensure!(
        found["finding"]["evidence"]
            .to_string()
            .contains(&format!("from thin device {lost}")),
        "{found}"
    );
    // What is in the way is a finding of its own.
    suture.expect_ever("found", |report| report["finding"]["class"] == "row-without-thin")?;
    suture.stop()
}
