//! Where nothing is to be found, or nothing can be.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{stage::*, support::*};

/// How many checks are made under load, and how many in the long lane of `cargo xtask test`.
const FEW_CHECKS: u32 = 25;
const MANY_CHECKS: u32 = 1000;
/// How many rounds of a prepare and a removal there are at least, and how many are under way at once.
const FEW_OPERATIONS: u32 = 25;
const MANY_OPERATIONS: u32 = 200;
const WORKERS: u32 = 4;

/// One of those that keep containerd busy: base devices and children of a layer that is in use, prepared and removed.
const WORKER: &str = r"
me=$1; done=0
while [ ! -e /run/load-ends ]; do
    key=load-$me-$done
    if [ $((done % 2)) = 0 ]; then parent=; else parent=load-layer; fi
    ctr snapshots --snapshotter devmapper prepare $key $parent > /dev/null 2>> /run/load-errors
    ctr snapshots --snapshotter devmapper rm $key 2>> /run/load-errors
    done=$((done + 1))
    if [ $((done % 5)) = 0 ]; then
        ctr leases create --id l-$me > /dev/null; ctr leases delete --sync l-$me > /dev/null
    fi
    echo $done > /run/load-done-$me
done
";

/// Checks again and again, and keeps what is not clean.
const CHECKER: &str = r#"
number=0; bad=0
until [ $number -ge $1 ] && [ $(cat /run/load-done-* | awk '{ sum += $1 } END { print sum }') -ge $2 ]; do
    code=0; suture check --output json > /run/load-check.json 2> /run/load-check.err || code=$?
    number=$((number + 1))
    if [ $code != 0 ] || ! grep -q '"findings": *\[\]' /run/load-check.json; then
        bad=$((bad + 1)); echo "check $number: exit code $code"; cat /run/load-check.json /run/load-check.err
        [ $bad -lt 3 ] || break
    fi
done
echo "$number checks, $bad bad"
"#;

/// Prepares and removals run all the time, by several clients, sync and async, and no check ever sees a finding in them.
fn no_finding_under_load(async_remove: bool, checks: u32, operations: u32) -> Result<()> {
    let vm = machine().time_limit(std::time::Duration::from_hours(3)).boot()?;
    let containerd = containerd(&vm)?;
    let mut stage = Stage { vm: &vm, containerd };
    stage.containerd.set_async_remove(async_remove)?;
    stage.containerd.restart()?;
    stage.containerd.prepare("base", None)?.ok()?;
    // Held open, so that each snapshot of it suspends and resumes it.
    vm.sh("mkdir -p /mnt/layer; mount /dev/mapper/tp-snap-1 /mnt/layer; sync")?;
    stage.containerd.commit("load-layer", "base")?.ok()?;
    stage.expect_nothing()?;
    vm.write_file("/run/worker", WORKER, 0o755)?;
    vm.write_file("/run/checker", CHECKER, 0o755)?;
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        vm.sh(&format!("echo 0 > /run/load-done-{number}"))?;
        workers.push(vm.spawn(["sh", "/run/worker", &number.to_string()], &[])?);
    }
    let told = vm
        .run(["sh", "/run/checker", &checks.to_string(), &operations.to_string()])?
        .ok()?
        .stdout;
    vm.sh("touch /run/load-ends")?;
    for mut worker in workers {
        worker.wait(PATIENCE)?;
    }
    eprintln!("{}", told.lines().last().unwrap_or_default());
    ensure!(told.contains(" checks, 0 bad"), "{told}");
    let errors = vm.sh("cat /run/load-errors")?;
    ensure!(errors.trim().is_empty(), "the load itself failed: {errors}");
    vm.sh("umount /mnt/layer")?;
    stage.containerd.collect_after_a_removal()?;
    stage.expect_works()
}

#[test]
fn operations_in_flight_are_no_findings() -> Result<()> {
    no_finding_under_load(false, FEW_CHECKS, FEW_OPERATIONS)
}

/// The long lane.
#[test]
fn operations_in_flight_are_no_findings_in_a_thousand_checks() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    for async_remove in [false, true] {
        no_finding_under_load(async_remove, MANY_CHECKS, MANY_OPERATIONS)?;
    }
    Ok(())
}

/// Without root it says what it lacks, and does not call a node clean that it can not see.
#[test]
fn an_unprivileged_check_says_what_it_lacks() -> Result<()> {
    on_stage(|stage| {
        let nobody = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "suture",
            "check",
        ];
        let people = stage.vm.run(nobody)?;
        ensure!(people.status.code() == 8, "{people:?}");
        let text = format!("{}{}", people.stdout, people.stderr);
        ensure!(
            text.contains("root") || text.contains("CAP_"),
            "it does not say what it lacks: {text}"
        );
        let programs = stage
            .vm
            .run(nobody.iter().chain(&["--output", "json"]).copied())?;
        ensure!(programs.status.code() == 8, "{programs:?}");
        if let Ok(json) = serde_json::from_str::<Value>(&programs.stdout) {
            ensure!(json["status"] != "clean", "{json}");
        }
        Ok(())
    })
}

/// containerd is stopped, or was never there.
#[test]
fn a_check_needs_neither_a_running_containerd_nor_the_sidecar() -> Result<()> {
    on_stage(|stage| {
        stage.containerd.prepare("kept", None)?.ok()?;
        stage.stop()?;
        stage.expect_nothing()?;
        stage.repair_offline(&[])?.ok()?;
        ensure!(
            stage
                .containerd
                .ls()?
                .iter()
                .any(|snapshot| snapshot.key == "kept")
        );
        stage.expect_works()
    })
}
