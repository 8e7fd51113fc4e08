//! The restart path: containerd is a service of systemd's, with the drop-in that suture ships, and nobody types anything.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use xtask::vm::{
    Vm,
    containerd::{Containerd, Options, Service},
};

use crate::{stage::*, support::*};

/// How long the drop-in may keep containerd from starting, whatever happens, with what a busy emulator adds.
const IN_THE_WAY: Duration = Duration::from_secs(45);

/// The drop-in for containerd.service, as it is shipped.
fn drop_in() -> Result<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            if text.contains("ExecStartPre=") {
                let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
                return Ok((name, text));
            }
        }
    }
    anyhow::bail!("no drop-in with an ExecStartPre= is shipped")
}

/// The program that the drop-in runs.
fn program(text: &str) -> Result<String> {
    let line = text
        .lines()
        .find(|line| line.starts_with("ExecStartPre="))
        .context("the drop-in's ExecStartPre=")?;
    let words = line
        .trim_start_matches("ExecStartPre=")
        .trim_start_matches(['-', '+', '!', ':', '@']);
    words
        .split_whitespace()
        .find(|word| word.ends_with("/suture"))
        .map(str::to_owned)
        .context("the drop-in's program")
}

/// Installs the drop-in as a user would, and gives the path at which it wants suture.
fn install(vm: &Vm) -> Result<String> {
    let (name, text) = drop_in()?;
    vm.write_file(
        &format!("/etc/systemd/system/containerd.service.d/{name}"),
        &text,
        0o644,
    )?;
    let policy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/suture.toml");
    vm.write_file("/etc/suture/suture.toml", std::fs::read(policy)?, 0o644)?;
    let wanted = program(&text)?;
    vm.sh(&format!(
        "mkdir -p $(dirname {wanted}); [ -e {wanted} ] || cp -L /host/suture {wanted}"
    ))?;
    Ok(wanted)
}

fn served(vm: &Vm) -> Result<(Service<'_>, String)> {
    let service = Service::set_up(vm, Options::default())?;
    let wanted = install(vm)?;
    service.reload()?;
    Ok((service, wanted))
}

/// containerd#5646 by a killed process: the user sees one slow start.
#[test]
fn wedge_of_a_killed_containerd_is_healed_by_the_drop_in_alone() -> Result<()> {
    let vm = machine().systemd().boot()?;
    let (service, _) = served(&vm)?;
    service.start()?;
    let containerd = service.containerd();
    let kept = Kept::write(&vm, containerd, "kept", 1)?;
    containerd.kill_after_mkfs()?;
    let killed = Instant::now();
    ensure!(!containerd.prepare("half", None)?.status.success());
    service.wait_for_restart(1)?;
    eprintln!("back {:.1?} after it was killed", killed.elapsed());
    containerd
        .prepare("at once", None)?
        .ok()
        .with_context(|| format!("its log: {}", service.log().unwrap_or_default()))?;
    ensure!(containerd.thin_ids()? == [1, 2] || containerd.thin_ids()? == [1, 3]);
    ensure!(kept.is_whole(&vm)?);
    let log = service.log()?;
    ensure!(log.contains("wedge"), "the log says what was done: {log}");
    containerd.works()?;
    Check::in_vm(&vm)?.expect(&[])?;
    // And a start with nothing to do.
    let begun = Instant::now();
    vm.run(["systemctl", "restart", "containerd"])?.ok()?;
    eprintln!("restarted with nothing to do in {:.1?}", begun.elapsed());
    containerd.prepare("and on", None)?.ok()?;
    Ok(())
}

/// The same by a power cut.
#[test]
fn wedge_of_a_power_cut_is_healed_by_the_drop_in_alone() -> Result<()> {
    let disks = tempfile::tempdir()?;
    let kept = {
        let vm = machine().systemd().disks(disks.path()).boot()?;
        let (service, _) = served(&vm)?;
        service.start()?;
        let containerd = service.containerd();
        let kept = Kept::write(&vm, containerd, "kept", 1)?;
        containerd.stop_after_mkfs()?;
        let _prepare = containerd.begin_prepare("half")?;
        vm.wait_until("the file system is made", PATIENCE, || {
            Ok(vm.run(["test", "-e", Containerd::STOPPED])?.status.success())
        })?;
        vm.cut_power()?;
        kept
    };
    let vm = machine().systemd().disks(disks.path()).boot()?;
    let (service, _) = served(&vm)?;
    service.start()?;
    let containerd = service.containerd();
    containerd
        .prepare("at once", None)?
        .ok()
        .with_context(|| format!("its log: {}", service.log().unwrap_or_default()))?;
    ensure!(kept.is_whole(&vm)?);
    containerd.works()?;
    Check::in_vm(&vm)?.expect(&[]).map(drop)
}

/// Whatever becomes of suture, containerd starts, and soon.
#[test]
fn a_drop_in_that_can_not_work_lets_containerd_start() -> Result<()> {
    let vm = machine().systemd().boot()?;
    let (service, wanted) = served(&vm)?;
    let replace = |script: &str| {
        vm.sh(&format!("rm -f {wanted}"))?;
        vm.write_file(&wanted, script, 0o755)
    };
    let starts = |what: &str| -> Result<()> {
        let begun = Instant::now();
        service.start().with_context(|| what.to_owned())?;
        eprintln!("{what}: up in {:.1?}", begun.elapsed());
        ensure!(begun.elapsed() < IN_THE_WAY, "{what}: {:?}", begun.elapsed());
        ensure!(service.containerd().snapshotter_is_up()?, "{what}");
        service.stop()
    };
    starts("suture works")?;
    replace("#!/bin/sh\necho no >&2; exit 8\n")?;
    starts("suture fails")?;
    replace("#!/bin/sh\nkill -SEGV $$\n")?;
    starts("suture crashes")?;
    replace("#!/bin/sh\ntrap '' TERM\nsleep 600 &\nwhile :; do wait; done\n")?;
    starts("suture hangs")?;
    vm.sh(&format!("rm {wanted}"))?;
    starts("suture is missing")?;
    // suture itself, and a pool of which every answer takes for ever.
    vm.sh(&format!("cp -L /host/suture {wanted}"))?;
    service.start()?;
    let containerd = service.containerd();
    containerd.kill_after_mkfs()?;
    service.stop()?;
    vm.sh("dmsetup suspend tp")?;
    let begun = Instant::now();
    let _ = vm.spawn(["systemctl", "start", "containerd"], &[])?;
    vm.wait_until("containerd itself was started", IN_THE_WAY, || {
        Ok(
            service.pid()? > 0
                && vm.sh(&format!("cat /proc/{}/comm", service.pid()?))?.trim() == "containerd",
        )
    })
    .with_context(|| format!("its log: {}", service.log().unwrap_or_default()))?;
    eprintln!("with the pool suspended: started after {:.1?}", begun.elapsed());
    vm.sh("dmsetup resume tp")?;
    Ok(())
}

/// Pids of processes of that name that hang in the kernel (state D), where no signal ends them.
fn hanging(vm: &Vm, name: &str) -> Result<Vec<String>> {
    let all = vm.sh(&format!(
        "for task in /proc/[0-9]*/task/*/status; do
            grep -qsx 'Name:.{name}' $task && grep -qs '^State:.D' $task && echo $task || true
        done"
    ))?;
    Ok(all.lines().map(str::to_owned).collect())
}

/// The disk under the pool's metadata answers nobody, and the repair hangs on it in the kernel: it is left behind, what
/// it was doing is said, and containerd is started. Once the disk answers, the next start heals.
#[test]
fn a_repair_that_hangs_in_the_kernel_is_left_behind_and_said_so() -> Result<()> {
    let vm = machine().systemd().boot()?;
    let (service, _) = served(&vm)?;
    let containerd = service.containerd();
    containerd.rebuild_on_breakable_disks()?;
    service.start()?;
    let kept = Kept::write(&vm, containerd, "kept", 1)?;
    // The wedge, and nobody who starts containerd at once.
    let by_hand = "/etc/systemd/system/containerd.service.d/zz-by-hand.conf";
    vm.write_file(by_hand, "[Service]\nRestart=no\n", 0o644)?;
    service.reload()?;
    containerd.kill_after_mkfs()?;
    ensure!(!containerd.prepare("half", None)?.status.success());
    vm.wait_until("containerd is down", PATIENCE, || {
        Ok(service.property("ActiveState")? == "failed")
    })?;
    containerd.remove_wrappers()?;

    vm.sh("dmsetup suspend --noflush tmeta")?;
    let begun = Instant::now();
    let _starting = vm.spawn(["systemctl", "start", "containerd"], &[])?;
    vm.wait_until("the repair hangs in the kernel", PATIENCE, || {
        Ok(!hanging(&vm, "suture-repair")?.is_empty())
    })?;
    vm.wait_until("containerd itself was started", IN_THE_WAY, || {
        let pid = service.pid()?;
        Ok(pid > 0 && vm.sh(&format!("cat /proc/{pid}/comm"))?.trim() == "containerd")
    })
    .with_context(|| format!("its log: {}", service.log().unwrap_or_default()))?;
    eprintln!("started after {:.1?}", begun.elapsed());
    let log = service.log()?;
    for part in [
        "was not finished within 10 s. It was: ",
        "it hangs in the kernel and can not be stopped; it holds no lock that containerd waits for",
    ] {
        ensure!(log.contains(part), "`{part}` is not in: {log}");
    }
    ensure!(
        !hanging(&vm, "suture-repair")?.is_empty(),
        "it was not left behind, so this shows nothing"
    );

    vm.sh("dmsetup resume tmeta")?;
    vm.wait_until("what was left behind is gone", PATIENCE, || {
        Ok(vm
            .sh("cat /proc/[0-9]*/comm 2> /dev/null | grep -cx suture-repair || true")?
            .trim()
            == "0")
    })?;
    vm.wait_until("containerd serves", PATIENCE, || {
        Ok(containerd.snapshotter_is_up().unwrap_or_default())
    })?;
    let refused = containerd.prepare("meets it", None)?;
    ensure!(!refused.status.success(), "nothing was healed: {refused:?}");
    vm.run(["systemctl", "restart", "containerd"])?.ok()?;
    containerd
        .prepare("at once", None)?
        .ok()
        .with_context(|| format!("its log: {}", service.log().unwrap_or_default()))?;
    ensure!(kept.is_whole(&vm)?);
    containerd.works()?;
    Check::in_vm(&vm)?.expect(&[]).map(drop)
}
