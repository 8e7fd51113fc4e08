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
