//! Memory and processor time of `suture run` beside a real containerd with a pool. The VM's processor is emulated, so its
//! share of it says little about a real one's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::vm::{Signal, Vm, containerd::Containerd};

use crate::{
    Setting,
    probe_cost_vm::pace,
    process::{Usage, usage},
    report::Row,
};

const RATE: u32 = 1000;
const IDLE: Duration = Duration::from_secs(30);
const BUSY: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let vm = Vm::builder()
        .time_limit(Duration::from_mins(6))
        .file(&setting.suture, "suture")
        .file(&setting.this, "suture-bench")
        .boot()?;
    let containerd = Containerd::serving(&vm)?;
    containerd.prepare("in-use", None)?.ok()?;
    let mut suture = vm.spawn(["suture", "run", "--verbose"], &[])?;
    suture.wait_for_line(|line| line.contains("gap closed"), PATIENCE)?;
    let of_suture = || of(&vm, suture.pid());

    let (fresh, begun) = (of_suture()?, vm.uptime());
    std::thread::sleep(IDLE);
    let (idle, at) = (of_suture()?, vm.uptime());
    let idle_share = share(fresh, idle, at.saturating_sub(begun));
    let begun = vm.uptime();
    let made = pace(&vm, RATE, BUSY)?;
    let (busy, at) = (of_suture()?, vm.uptime());
    let busy_share = share(idle, busy, at.saturating_sub(begun));
    suture.kill(Signal::TERM)?;
    suture.wait(PATIENCE)?;

    let memory = |usage: Usage| {
        format!(
            "{:.1} MiB, {:.1} of it its own",
            usage.resident_mib, usage.own_mib
        )
    };
    Ok(vec![
        Row::new(
            "resident memory of `suture run` beside containerd in the VM, idle",
            memory(idle),
        )
        .target("<= 25 MiB", idle.resident_mib <= 25.0),
        Row::new(
            format!("resident memory of `suture run` in the VM, after {made} DM_VERSION calls at {RATE}/s"),
            memory(busy),
        )
        .target("<= 64 MiB", busy.resident_mib <= 64.0),
        Row::new(
            "processor time of `suture run` in the VM (emulated: many times a real one's)",
            format!("idle {idle_share:.1} %, at {RATE} calls/s {busy_share:.0} %"),
        ),
    ])
}

fn of(vm: &Vm, pid: u32) -> Result<Usage> {
    let read = |name: &str| -> Result<String> {
        let bytes = vm
            .read_file(&format!("/proc/{pid}/{name}"))
            .with_context(|| format!("reading what the VM says of process {pid}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(usage(&read("status")?, &read("stat")?))
}

fn share(before: Usage, after: Usage, time: Duration) -> f64 {
    (after.cpu_seconds - before.cpu_seconds) / time.as_secs_f64() * 100.0
}
