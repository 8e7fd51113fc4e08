//! Memory and processor time of `suture run` on this machine, on a pool that is not there: nothing to see, and 1,000
//! device-mapper calls a second.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Setting,
    calls::Target,
    process::{Usage, exact_cpu_seconds, usage},
    report::Row,
};

const RATE: u32 = 1000;
const IDLE: Duration = Duration::from_secs(20);
const BUSY: Duration = Duration::from_secs(10);

struct Sidecar {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Sidecar {
    fn start(setting: &Setting) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for its ledger")?;
        let inside = |name: &str| folder.path().join(name);
        let mut child = Command::new(&setting.suture)
            .args([
                "run",
                "--output",
                "json",
                "--probes",
                "tracepoints",
                "--pool",
                "none",
                "--root-path",
            ])
            .arg(folder.path())
            .arg("--ledger")
            .arg(inside("ledger.db"))
            .arg("--socket")
            .arg(inside("socket"))
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", setting.suture.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("it has no standard output")?).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("\"started\"")));
        // What it tells later is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let sidecar = Self {
            child,
            _folder: folder,
        };
        if !ready {
            bail!("`suture run` ended before it watched");
        }
        Ok(sidecar)
    }

    fn usage(&self) -> Result<Usage> {
        let folder = format!("/proc/{}", self.child.id());
        let read = |name: &str| {
            fs::read_to_string(format!("{folder}/{name}")).with_context(|| format!("reading {folder}/{name}"))
        };
        let by_ticks = usage(&read("status")?, &read("stat")?);
        Ok(Usage {
            cpu_seconds: exact_cpu_seconds(self.child.id()).unwrap_or(by_ticks.cpu_seconds),
            ..by_ticks
        })
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let sidecar = Sidecar::start(setting)?;
    let share = |before: Usage, after: Usage, begun: Instant| {
        (after.cpu_seconds - before.cpu_seconds) / begun.elapsed().as_secs_f64() * 100.0
    };
    let (fresh, begun) = (sidecar.usage()?, Instant::now());
    std::thread::sleep(IDLE);
    let idle = sidecar.usage()?;
    let idle_share = share(fresh, idle, begun);
    let begun = Instant::now();
    let made = Target::open("/dev/null")?.pace(RATE, BUSY);
    let busy = sidecar.usage()?;
    let busy_share = share(idle, busy, begun);
    let memory = |usage: Usage| {
        format!(
            "{:.1} MiB, {:.1} of it its own",
            usage.resident_mib, usage.own_mib
        )
    };
    Ok(vec![
        Row::new("resident memory of `suture run`, idle", memory(idle))
            .target("<= 25 MiB", idle.resident_mib <= 25.0),
        Row::new(
            format!("resident memory of `suture run`, after {made} calls at {RATE}/s"),
            memory(busy),
        )
        .target("<= 64 MiB", busy.resident_mib <= 64.0),
        Row::new(
            "processor time of `suture run`, idle",
            format!("{idle_share:.2} % of a core"),
        )
        .target("<= 0.1 %", idle_share <= 0.1),
        Row::new(
            format!("processor time of `suture run`, at {RATE} calls/s"),
            format!("{busy_share:.2} % of a core"),
        )
        .target("<= 1 %", busy_share <= 1.0),
    ])
}
