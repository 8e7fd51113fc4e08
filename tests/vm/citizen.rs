//! The unit that suture ships, under a real systemd: it starts, sees and heals inside its fences, is restarted when it
//! hangs, ends in time, and keeps nobody's mounts.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{
    Vm,
    containerd::{Options, Service},
};

use crate::support::*;

/// The highest exposure that `systemd-analyze security` calls OK is 4.9.
const EXPOSURE: f64 = 4.9;

/// Installs suture and its unit as a user would; `more` goes into a drop-in.
fn install(vm: &Vm, options: &str, more: &str) -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    for (from, to) in [
        ("suture.service", "/etc/systemd/system/suture.service"),
        ("suture.toml", "/etc/suture/suture.toml"),
    ] {
        let text = std::fs::read(folder.join(from)).with_context(|| format!("reading {from}"))?;
        vm.write_file(to, text, 0o644)?;
    }
    vm.write_file(
        "/etc/default/suture",
        format!("SUTURE_OPTIONS={options}\n"),
        0o644,
    )?;
    // The VM has no journal.
    let log = "StandardOutput=append:/run/suture.log\nStandardError=append:/run/suture.log\n";
    vm.write_file(
        "/etc/systemd/system/suture.service.d/vm.conf",
        format!("[Service]\n{log}{more}"),
        0o644,
    )?;
    vm.sh("[ -e /usr/local/bin/suture ] || cp -L /host/suture /usr/local/bin/suture")?;
    vm.run(["systemctl", "daemon-reload"])?.ok()?;
    Ok(())
}

fn property(vm: &Vm, name: &str) -> Result<String> {
    let asked = vm
        .run(["systemctl", "show", "suture", "--value", "--property", name])?
        .ok()?;
    Ok(asked.stdout.trim().to_owned())
}

fn log(vm: &Vm) -> String {
    vm.sh("cat /run/suture.log").unwrap_or_default()
}

fn start(vm: &Vm) -> Result<()> {
    let started = vm.run(["systemctl", "start", "suture"])?;
    ensure!(
        started.status.success(),
        "{}; its log:\n{}",
        started.stderr,
        log(vm)
    );
    Ok(())
}

fn reports(vm: &Vm, kind: &str) -> Vec<Value> {
    let values = log(vm);
    let values = values.lines().filter_map(|line| serde_json::from_str(line).ok());
    values.filter(|value: &Value| value["report"] == kind).collect()
}

#[test]
fn the_shipped_unit_sees_everything_and_heals_inside_its_fences() -> Result<()> {
    let vm = machine().systemd().boot()?;
    let service = Service::set_up(&vm, Options::default())?;
    install(&vm, "--act --output json --grace 5", "")?;
    let analyzed = vm.run([
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        "/etc/systemd/system/suture.service",
    ])?;
    let verdict = analyzed.stdout.lines().last().unwrap_or_default().to_owned();
    eprintln!("{verdict}");
    let exposure: f64 = verdict
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .with_context(|| format!("no number in {analyzed:?}"))?;
    ensure!(exposure <= EXPOSURE, "{}", analyzed.stdout);

    // Before containerd, as at a boot.
    start(&vm)?;
    service.start()?;
    let sentence = property(&vm, "StatusText")?;
    ensure!(sentence.contains("watches pool tp; heals"), "{sentence}");
    let pid = property(&vm, "MainPID")?;
    ensure!(
        vm.sh(&format!("readlink /proc/{pid}/ns/mnt"))? == vm.sh("readlink /proc/1/ns/mnt")?,
        "a mount namespace of its own keeps devices busy that the node has unmounted"
    );
    let containerd = service.containerd();
    let kept = Kept::write(&vm, containerd, "kept", 1)?;
    vm.wait_until("nothing is amiss", PATIENCE, || {
        Ok(vm.run(["suture", "status"])?.status.success())
    })
    .with_context(|| vm.sh("suture status").unwrap_or_else(|error| error.to_string()))?;
    ensure!(reports(&vm, "degraded").is_empty(), "{}", log(&vm));

    // The lock is one for all, however a suture was started.
    let second = vm.run(["suture", "run", "--ledger", "/tmp/second.db"])?;
    ensure!(
        second.status.code() == 8
            && second
                .stderr
                .contains(&format!("suture [{pid}] watches the pool tp already")),
        "{second:?}"
    );

    containerd.kill_after_dmsetup_create()?;
    ensure!(!containerd.prepare("half", None)?.status.success());
    service.wait_for_restart(1)?;
    containerd.remove_wrappers()?;
    prepare_with_retries(containerd, "again")?;
    vm.wait_until("the leaked device is deleted", PATIENCE, || {
        Ok(reports(&vm, "remedy")
            .iter()
            .any(|report| report["outcome"]["outcome"] == "done"))
    })
    .with_context(|| log(&vm))?;
    ensure!(kept.is_whole(&vm)?);

    vm.run(["systemctl", "reload", "suture"])?.ok()?;
    ensure!(property(&vm, "MainPID")? == pid, "a reload is no restart");
    let begun = Instant::now();
    vm.run(["systemctl", "stop", "suture"])?.ok()?;
    eprintln!("stopped in {:.1?}", begun.elapsed());
    ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    ensure!(property(&vm, "Result")? == "success" && property(&vm, "ExecMainStatus")? == "0");
    containerd.works()
}

#[test]
fn one_that_hangs_is_restarted_by_the_watchdog() -> Result<()> {
    let vm = machine().systemd().boot()?;
    let _service = Service::set_up(&vm, Options::default())?;
    install(&vm, "", "WatchdogSec=10\nTimeoutAbortSec=2\nRestartSec=1\n")?;
    start(&vm)?;
    let pid = property(&vm, "MainPID")?;
    // One that lives is left alone for longer than that.
    std::thread::sleep(Duration::from_secs(15));
    ensure!(property(&vm, "MainPID")? == pid, "{}", log(&vm));
    vm.sh(&format!("kill -STOP {pid}"))?;
    vm.wait_until("it was restarted", PATIENCE, || {
        let now = property(&vm, "MainPID")?;
        Ok(now != "0" && now != pid && property(&vm, "ActiveState")? == "active")
    })
    .with_context(|| log(&vm))?;
    ensure!(property(&vm, "NRestarts")? == "1");
    ensure!(vm.sh("cat /run/suture/tp.lock")?.trim() == property(&vm, "MainPID")?);
    Ok(())
}
