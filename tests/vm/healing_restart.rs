//! A node that can start no container: the running sidecar asks, and then restarts containerd with the repair.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::containerd::{Options, Service};

use crate::{healing::*, stage::*, support::*};

/// containerd#5646 while a container runs. One word of a person's, and the node works; the container never noticed.
#[test]
fn wedge_is_healed_by_a_restart_that_a_person_approves_and_containers_go_on() -> Result<()> {
    let vm = machine().systemd().boot()?;
    let service = Service::set_up(&vm, Options::default())?;
    service.start()?;
    let containerd = service.containerd();
    let image = containerd.import_image(2)?;
    let run = [
        "run",
        "--snapshotter",
        "devmapper",
        "--detach",
        &image,
        "lives",
        "/bin/sleep",
        "3000",
    ];
    containerd.ctr(run)?.ok()?;
    let process = |what: &str| -> Result<String> {
        let tasks = containerd.ctr(["tasks", "ls"])?.ok()?.stdout;
        let line = tasks
            .lines()
            .find(|line| line.starts_with("lives"))
            .context("no task")?;
        ensure!(line.contains("RUNNING"), "{what}: {tasks}");
        let pid = line.split_whitespace().nth(1).context("no pid")?;
        // When it began, in ticks: a pid alone may be another's later.
        vm.sh(&format!("echo {pid} $(cut -d' ' -f22 /proc/{pid}/stat)"))
    };
    let before = process("before")?;
    let mut suture = sidecar(&vm, "")?;
    // Not the sidecar's configuration: by this one nothing would be repaired.
    vm.sh("mkdir -p /etc/suture && touch /etc/suture/stop")?;
    let elsewhere = "[policy]\nkill-switch = \"/etc/suture/stop\"\n";
    vm.write_file("/etc/suture/suture.toml", elsewhere, 0o644)?;
    containerd.kill_after_mkfs()?;
    ensure!(!containerd.prepare("half", None)?.status.success());
    service.wait_for_restart(1)?;
    containerd.remove_wrappers()?;
    ensure!(!containerd.prepare("wedged", None)?.status.success());

    let asked = suture.expect_judged("wedge", "restart-and-repair")?;
    let text = asked["text"].as_str().unwrap_or_default();
    ensure!(text.starts_with("waits for `suture approve wedge-"), "{asked}");
    let finding = asked["finding"]["id"].as_str().context("an id")?;
    // One thing is one finding, whoever found it: in the kernel's events at once, and in a round with its plan.
    let reports = suture.reports()?;
    let found: Vec<_> = reports
        .iter()
        .filter(|report| report["report"] == "found" && report["finding"]["class"] == "wedge")
        .collect();
    ensure!(
        found.len() == 1 && found[0]["finding"]["id"] == finding,
        "{found:?}"
    );
    // Killed by the wrapper of mkfs: what nobody sees, mkfs and the mount after it, is told as a set.
    let windows = &found[0]["finding"]["died_in"]["windows"];
    ensure!(
        windows
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == "B8")),
        "{found:?}"
    );
    let listed = say(&vm, &["findings", "--class", "wedge", "--output", "json"])?
        .ok()?
        .stdout;
    let rows: Vec<Value> = listed
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(
        rows.len() == 1 && rows[0]["id"] == finding && rows[0]["verdict"]["asks"] == true,
        "{listed}"
    );
    let pid = service.pid()?;
    another_round(&vm)?;
    ensure!(
        service.pid()? == pid && suture.repairs()? == 0,
        "nobody has approved it yet"
    );
    let approved = say(&vm, &["approve", finding, "--yes"])?;
    ensure!(
        approved.status.success() && approved.stderr.contains("containerd is stopped for it"),
        "{approved:?}"
    );
    suture
        .expect_repair("wedge", "done")
        .with_context(|| format!("its log: {}", service.log().unwrap_or_default()))?;
    vm.wait_until("containerd serves", PATIENCE, || {
        Ok(
            service.property("ActiveState")? == "active"
                && containerd.snapshotter_is_up().unwrap_or_default(),
        )
    })?;
    ensure!(service.pid()? != pid, "it was restarted");
    ensure!(
        process("afterwards")? == before,
        "the container's process is another one"
    );
    containerd.prepare("at once", None)?.ok()?;
    containerd.works()?;
    suture.expect_ever("resolved", |report| report["finding"]["class"] == "wedge")?;
    // One restart, and no more of them.
    let pid = service.pid()?;
    another_round(&vm)?;
    ensure!(service.pid()? == pid && suture.repairs()? == 1);
    Check::in_vm(&vm)?.expect(&[])?;
    suture.stop()
}
