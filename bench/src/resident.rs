//! Memory and processor time of `suture watch` on this machine: nothing to see, and 1,000 device-mapper calls a second.

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
    process::{Usage, usage},
    report::Row,
};

const RATE: u32 = 1000;
const IDLE: Duration = Duration::from_secs(20);
const BUSY: Duration = Duration::from_secs(10);

struct Watch(Child);

impl Watch {
    fn start(setting: &Setting) -> Result<Self> {
        let mut child = Command::new(&setting.suture)
            .args(["watch", "--output", "json", "--all", "--probes", "tracepoints"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", setting.suture.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("it has no standard error")?).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.starts_with("watching")));
        let watch = Self(child);
        if !ready {
            bail!("`suture watch` ended before it watched");
        }
        Ok(watch)
    }

    fn usage(&self) -> Result<Usage> {
        let folder = format!("/proc/{}", self.0.id());
        let read = |name: &str| {
            fs::read_to_string(format!("{folder}/{name}")).with_context(|| format!("reading {folder}/{name}"))
        };
        Ok(usage(&read("status")?, &read("stat")?))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let watch = Watch::start(setting)?;
    let share = |before: Usage, after: Usage, begun: Instant| {
        (after.cpu_seconds - before.cpu_seconds) / begun.elapsed().as_secs_f64() * 100.0
    };
    let (fresh, begun) = (watch.usage()?, Instant::now());
    std::thread::sleep(IDLE);
    let idle = watch.usage()?;
    let idle_share = share(fresh, idle, begun);
    let begun = Instant::now();
    let made = Target::open("/dev/null")?.pace(RATE, BUSY);
    let busy = watch.usage()?;
    let busy_share = share(idle, busy, begun);
    let memory = |usage: Usage| {
        format!(
            "{:.1} MiB, {:.1} of it its own",
            usage.resident_mib, usage.own_mib
        )
    };
    Ok(vec![
        Row::new("resident memory of `suture watch`, idle", memory(idle))
            .target("<= 25 MiB", idle.resident_mib <= 25.0),
        Row::new(
            format!("resident memory of `suture watch`, after {made} calls at {RATE}/s"),
            memory(busy),
        )
        .target("<= 64 MiB", busy.resident_mib <= 64.0),
        Row::new(
            "processor time of `suture watch`, idle",
            format!("{idle_share:.2} % of a core"),
        )
        .target("<= 0.1 %", idle_share <= 0.1),
        Row::new(
            format!("processor time of `suture watch --output json --all`, at {RATE} calls/s"),
            format!("{busy_share:.2} % of a core"),
        )
        .target("<= 1 %", busy_share <= 1.0),
    ])
}
