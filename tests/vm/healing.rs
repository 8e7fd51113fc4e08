//! The running sidecar heals by itself what `suture repair` would, and leaves what it must leave.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{Output, Vm};

use crate::{stage::*, support::*};

/// Where the sidecar's configuration lies.
pub(crate) const POLICY: &str = "/run/healing/suture.toml";
/// Its kill switch.
pub(crate) const KILL_SWITCH: &str = "/run/healing/stop";

/// A sidecar that heals after a second, by the shipped policy and what is said here, with a ledger that nobody used before.
pub(crate) fn sidecar(vm: &Vm, policy: &str) -> Result<Suture> {
    vm.sh("rm -rf /run/healing; mkdir -p /run/healing")?;
    write_policy(vm, policy)?;
    sidecar_again(vm, &[])
}

/// The same, on what an earlier one left.
pub(crate) fn sidecar_again(vm: &Vm, env: &[(&str, &str)]) -> Result<Suture> {
    let arguments = ["--act", "--grace", "1", "--config", POLICY, "--ledger", LEDGER];
    Suture::start(vm, &arguments, env)
}

/// Where its ledger is.
pub(crate) const LEDGER: &str = "/run/healing/ledger.db";

/// What its configuration says, beside where its kill switch is.
pub(crate) fn write_policy(vm: &Vm, policy: &str) -> Result<()> {
    let text = format!("[policy]\nkill-switch = \"{KILL_SWITCH}\"\n{policy}");
    vm.write_file(POLICY, text, 0o644)
}

/// One of suture's commands to the running one.
pub(crate) fn say(vm: &Vm, words: &[&str]) -> Result<Output> {
    vm.run(["suture"].iter().chain(words).copied())
}

impl Suture {
    /// Waits for what is decided about a finding of a class in a round.
    pub(crate) fn expect_judged(&mut self, class: &str, kind: &str) -> Result<Value> {
        self.expect("judged", |report| {
            report["finding"]["class"] == class && report["kind"] == kind
        })
    }

    /// Waits for what came of a plan of a round.
    pub(crate) fn expect_repair(&mut self, class: &str, outcome: &str) -> Result<Value> {
        self.expect("repair", |report| {
            report["plan"]["class"] == class && report["outcome"]["outcome"] == outcome
        })
    }

    /// How many repairs it has told of.
    pub(crate) fn repairs(&mut self) -> Result<usize> {
        let reports = self.reports()?;
        Ok(reports
            .iter()
            .filter(|report| report["report"] == "repair")
            .count())
    }
}

/// Lets the sidecar make another round, and waits until that is over: it is told of nothing new where nothing is new.
pub(crate) fn another_round(vm: &Vm) -> Result<()> {
    say(vm, &["resume", "--config", POLICY])?;
    // A look waits ten seconds for what may be in flight.
    std::thread::sleep(std::time::Duration::from_secs(25));
    Ok(())
}

/// What the ledger has of repairs.
pub(crate) fn repairs_in_ledger(vm: &Vm) -> Result<Vec<Value>> {
    let history = ["suture", "history", "--output", "json", "--ledger", LEDGER];
    let text = vm.run(history)?.ok()?.stdout;
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).context("reading the history"))
        .collect::<Result<_>>()?;
    let repairs = rows.iter().filter(|row| row["repair"].is_object());
    Ok(repairs.map(|row| row["repair"].clone()).collect())
}

/// A dm device with a name that containerd is going to use; gives the name.
pub(crate) fn make_orphan(stage: &Stage<'_>, ahead: u64) -> Result<String> {
    let name = format!("tp-snap-{}", stage.next()? + ahead);
    stage
        .vm
        .sh(&format!("dmsetup create {name} --table '0 8 zero'"))?;
    Ok(name)
}

/// Whether there is a dm device of that name.
pub(crate) fn node_is_there(vm: &Vm, name: &str) -> Result<bool> {
    Ok(vm.run(["dmsetup", "info", name])?.status.success())
}

/// A device in the way of containerd: a round sees it, and removes it by the policy as it is shipped. Nobody asks.
#[test]
fn orphan_node_is_removed_by_a_round_unless_somebody_has_it_open() -> Result<()> {
    on_stage(|stage| {
        let mut suture = sidecar(stage.vm, "")?;
        let name = make_orphan(stage, 1)?;
        let done = suture.expect_repair("orphan-node", "done")?;
        ensure!(done["plan"]["subject"].to_string().contains(&name) || done.to_string().contains(&name));
        suture.expect("resolved", |report| report["finding"]["class"] == "orphan-node")?;
        ensure!(!node_is_there(stage.vm, &name)?);
        let repairs = repairs_in_ledger(stage.vm)?;
        ensure!(
            repairs.len() == 1 && repairs[0]["outcome"] == "done",
            "{repairs:?}"
        );

        // The same, and somebody has it open.
        let held = make_orphan(stage, 2)?;
        stage
            .vm
            .sh(&format!("sleep 600 < /dev/mapper/{held} & echo $! > /run/holder"))?;
        suture.expect_judged("orphan-node", "observe")?;
        another_round(stage.vm)?;
        ensure!(suture.repairs()? == 1 && node_is_there(stage.vm, &held)?);
        stage.vm.sh("kill $(cat /run/holder)")?;
        another_round(stage.vm)?;
        suture.expect_repair("orphan-node", "done")?;
        ensure!(!node_is_there(stage.vm, &held)?);
        suture.stop()?;
        stage.expect_works()
    })
}

/// What a `dmsetup suspend` leaves that never comes to its resume: whoever opens the device hangs.
#[test]
fn suspended_device_is_resumed_by_a_round() -> Result<()> {
    on_stage(|stage| {
        let name = format!("tp-snap-{}", stage.next()?);
        stage.containerd.prepare("suspended", None)?.ok()?;
        let mut suture = sidecar(stage.vm, "")?;
        stage.vm.sh(&format!("dmsetup suspend {name}"))?;
        suture.expect_repair("suspended-device", "done")?;
        suture.expect("resolved", |report| {
            report["finding"]["class"] == "suspended-device"
        })?;
        stage.vm.sh(&format!(
            "dmsetup info {name} | grep -q 'State: *ACTIVE'; dd if=/dev/mapper/{name} of=/dev/null bs=4k count=1"
        ))?;
        suture.stop()?;
        stage.containerd.remove("suspended")?.ok()?;
        stage.containerd.collect_garbage()?;
        stage.expect_works()
    })
}
