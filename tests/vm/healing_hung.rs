//! A kernel that does not answer: the running sidecar says so, goes on with everything else, and comes back to it.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{Vm, containerd::Containerd};

use crate::{
    healing::*,
    preload::{AT_DELETE, preload},
    support::*,
};

/// Takes the disk under the pool's metadata away, once, just before suture asks the kernel to delete a thin device: the call
/// itself then hangs in the kernel.
const HANG_AT_DELETE: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void before_delete(void) {
    if (open("/run/hung", O_CREAT | O_EXCL | O_WRONLY, 0600) < 0) return;
    unsetenv("LD_PRELOAD");
    system("dmsetup suspend --noflush tmeta");
}
static void after_delete(void) {}
"#;

/// What `suture status` says, and its exit code. It has to come at once, whatever the kernel does.
fn status(vm: &Vm) -> Result<(i32, Value)> {
    let begun = Instant::now();
    let output = vm.run(["timeout", "20", "suture", "status", "--output", "json"])?;
    let told = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    eprintln!("suture status answered after {:.1?}", begun.elapsed());
    Ok((output.status.code(), told))
}

#[test]
fn a_kernel_that_hangs_in_a_deletion_hangs_nothing_else_and_what_came_of_it_is_told() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = Containerd::on_breakable_disks(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    preload(&vm, "/opt/hang.so", &[HANG_AT_DELETE, AT_DELETE])?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "2"], &[("LD_PRELOAD", "/opt/hang.so")])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;

    let held = suture.expect_ever("decided", |report| {
        report["text"]
            .as_str()
            .is_some_and(|text| text.contains("the kernel has not answered within"))
    })?;
    ensure!(
        held["finding"]["class"] == "leaked-thin" && held["finding"]["thin_id"] == 2,
        "{held}"
    );
    // While it hangs suture answers, and says so.
    vm.wait_until("the status says that the kernel hangs", PATIENCE, || {
        let (code, told) = status(&vm)?;
        Ok(code == 3
            && told["overall"]
                .to_string()
                .contains("the kernel has not answered to a deletion"))
    })?;
    suture.expect_ever("trouble", |report| {
        report["what"]
            .as_str()
            .is_some_and(|what| what.contains("a device hangs"))
    })?;
    vm.wait_until("the status says that the world can not be read", PATIENCE, || {
        let (code, told) = status(&vm)?;
        Ok(code == 3 && told["overall"].to_string().contains("a device hangs"))
    })?;
    let people = vm.run(["timeout", "20", "suture", "findings"])?;
    ensure!(people.stdout.contains("leaked-thin"), "{people:?}");
    if long_lane() {
        // Nor do the healing rounds wait for ever.
        suture.expect_ever("trouble", |report| {
            report["what"].as_str().is_some_and(|what| {
                what.contains("did not answer within") || what.contains("hangs in the kernel")
            })
        })?;
    }
    // A guard may have refused before: containerd goes on writing.
    let ended = |report: &Value| report["report"] == "remedy" && report["outcome"]["outcome"] != "refused";
    let told = suture.reports()?;
    ensure!(
        !told.iter().any(ended),
        "nobody knows yet what came of it: {:?}",
        told.iter().filter(|report| ended(report)).collect::<Vec<_>>()
    );

    vm.sh("dmsetup resume tmeta")?;
    suture.expect_remedy("done")?;
    suture.expect_ever("trouble_over", |_| true)?;
    suture.expect_ever("resolved", |report| report["finding"]["class"] == "leaked-thin")?;
    ensure!(containerd.thin_ids()? == [1, 3], "{:?}", containerd.thin_ids()?);
    ensure!(kept.is_whole(&vm)?);
    // Done once, and the ledger knows what came of it.
    let history = history(&vm)?;
    let leaks = history
        .iter()
        .filter(|one| one["finding"]["class"] == "leaked-thin");
    let remedies = leaks.flat_map(|one| one["remedies"].as_array().cloned().unwrap_or_default());
    let outcomes: Vec<Value> = remedies
        .map(|remedy| remedy["outcome"]["outcome"].clone())
        .filter(|outcome| outcome != "refused")
        .collect();
    ensure!(outcomes == ["done"], "{history:?}");
    vm.wait_until("nothing is amiss", PATIENCE, || Ok(status(&vm)?.0 == 0))?;
    // The rounds go on too.
    vm.sh("dmsetup create tp-snap-9 --table '0 8 zero'")?;
    suture.expect_ever("repair", |report| {
        report["plan"]["class"] == "orphan-node" && report["outcome"]["outcome"] == "done"
    })?;
    ensure!(!node_is_there(&vm, "tp-snap-9")?);
    suture.stop()?;
    containerd.works()
}
