//! The stage: a VM with a containerd and a suture, and what a scenario asks of them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use fake_opentelemetry_collector::{ExportedSpan, FakeCollectorServer};
use serde_json::Value;
pub(crate) use xtask::vm::{Kernel, Signal};
use xtask::vm::{Process, Vm, VmBuilder, containerd::Containerd};

/// How long suture may take for anything, grace and back-off included. Emulation is slow, and the machine is shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Whether what takes long is to be played too (`cargo xtask test --long`).
pub(crate) fn long_lane() -> bool {
    std::env::var_os("SUTURE_LONG_LANE").is_some()
}

/// A VM with suture on its PATH.
pub(crate) fn boot(kernel: Kernel) -> Result<Vm> {
    machine().kernel(kernel).boot()
}

/// The same, with disks that outlive it.
pub(crate) fn boot_with_disks(folder: &Path) -> Result<Vm> {
    machine().disks(folder).boot()
}

/// The same, on a kernel of choice.
pub(crate) fn boot_on_disks(kernel: Kernel, folder: &Path) -> Result<Vm> {
    machine().kernel(kernel).disks(folder).boot()
}

pub(crate) fn machine() -> VmBuilder {
    Vm::builder()
        .time_limit(Duration::from_mins(8))
        .time_told()
        .file(env!("CARGO_BIN_EXE_suture"), "suture")
}

/// A containerd that serves.
pub(crate) fn containerd(vm: &Vm) -> Result<Containerd<'_>> {
    Containerd::serving(vm)
}

/// A running `suture run --output json`.
pub(crate) struct Suture {
    process: Process,
    read: usize,
}

impl Suture {
    /// Starts it and waits until it has read the world once: from then on it misses nothing.
    pub(crate) fn start(vm: &Vm, arguments: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let mut suture = Self::start_blind(vm, arguments, env)?;
        suture.expect("gap_closed", |_| true)?;
        Ok(suture)
    }

    /// Starts it in a world that it may not be able to read.
    pub(crate) fn start_blind(vm: &Vm, arguments: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let argv = ["suture", "run", "--output", "json"]
            .into_iter()
            .chain(arguments.iter().copied());
        let mut suture = Self {
            process: vm.spawn(argv, env)?,
            read: 0,
        };
        suture.expect("started", |_| true)?;
        Ok(suture)
    }

    /// Everything it has told so far.
    pub(crate) fn reports(&mut self) -> Result<Vec<Value>> {
        let lines = self.process.lines_so_far()?;
        Ok(lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Waits for the next report of a kind that `is_it` accepts. Reports before it are not looked at again.
    pub(crate) fn expect(&mut self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let reports = self.reports()?;
            while let Some(report) = reports.get(self.read) {
                self.read += 1;
                if report["report"] == kind && is_it(report) {
                    return Ok(report.clone());
                }
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "suture did not tell `{kind}` as expected; it told:\n{}",
                    self.process.lines_so_far()?.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for a report of a kind that may have come at any time, also before what was last waited for.
    pub(crate) fn expect_ever(&mut self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let read = std::mem::take(&mut self.read);
        let found = self.expect(kind, is_it);
        self.read = self.read.max(read);
        found
    }

    /// Whether it has told something of a kind, ever.
    pub(crate) fn told(&mut self, kind: &str) -> Result<bool> {
        Ok(self.reports()?.iter().any(|report| report["report"] == kind))
    }

    /// Waits for what came of a plan.
    pub(crate) fn expect_remedy(&mut self, outcome: &str) -> Result<Value> {
        self.expect("remedy", |report| report["outcome"]["outcome"] == outcome)
    }

    /// Its process id in the guest.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.kill(signal)
    }

    /// Waits for its end and gives its exit code.
    pub(crate) fn end(mut self) -> Result<i32> {
        Ok(self.process.wait(PATIENCE)?.status.code())
    }

    /// Ends it in order.
    pub(crate) fn stop(self) -> Result<()> {
        self.process.kill(Signal::TERM)?;
        let code = self.end()?;
        ensure!(code == 0, "suture ended with {code}");
        Ok(())
    }
}

/// `suture watch --output json`.
pub(crate) struct Watch {
    process: Process,
    read: usize,
}

/// How long an observation may take to be seen.
const MOMENT: Duration = Duration::from_secs(40);

impl Watch {
    /// Starts it, with more arguments, and waits until it watches.
    pub(crate) fn start(vm: &Vm, arguments: &[&str]) -> Result<Self> {
        let argv = ["suture", "watch", "--output", "json"];
        let mut process = vm.spawn(argv.iter().chain(arguments).copied(), &[])?;
        process.wait_for_line(|line| line.contains("watching"), MOMENT)?;
        Ok(Self { process, read: 0 })
    }

    /// Waits for the next observation that `is_it` accepts; those before it are not looked at again.
    pub(crate) fn expect(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let lines = self.process.lines_so_far()?.to_vec();
            while let Some(line) = lines.get(self.read) {
                self.read += 1;
                let Ok(value) = serde_json::from_str::<Value>(line) else {
                    continue;
                };
                if is_it(&value) {
                    return Ok(value);
                }
            }
            ensure!(
                begun.elapsed() < MOMENT,
                "not seen: {what}; seen:\n{}",
                lines.join("\n")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every line that it has shown so far.
    pub(crate) fn lines(&mut self) -> Result<String> {
        Ok(self.process.lines_so_far()?.join("\n"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.kill(signal)
    }
}

/// The break of this project's first scenario: containerd is killed as soon as the device node of a new snapshot has
/// appeared, and comes back.
pub(crate) fn break_and_restart(containerd: &mut Containerd<'_>) -> Result<()> {
    containerd.kill_after_dmsetup_create()?;
    let prepared = containerd.prepare("half", None)?;
    ensure!(!prepared.status.success(), "the prepare can not have succeeded");
    containerd.wait_for_death()?;
    containerd.start()
}

/// Prepares, as a client would: again when the first try fails.
pub(crate) fn prepare_with_retries(containerd: &Containerd<'_>, key: &str) -> Result<u32> {
    for attempt in 1..=5 {
        if containerd.prepare(key, None)?.status.success() {
            return Ok(attempt);
        }
    }
    let last = containerd.prepare(key, None)?;
    bail!("five prepares of {key} failed, the last with {}", last.stderr)
}

/// A snapshot with contents, and their checksum.
pub(crate) struct Kept {
    device: String,
    checksum: String,
}

impl Kept {
    /// Prepares the snapshot, which gets the given number, and writes to it.
    pub(crate) fn write(vm: &Vm, containerd: &Containerd<'_>, key: &str, number: u32) -> Result<Self> {
        containerd.prepare(key, None)?.ok()?;
        let device = format!("/dev/mapper/tp-snap-{number}");
        let checksum = vm.sh(&format!(
            "mkdir -p /mnt/kept; mount {device} /mnt/kept
            dd if=/dev/urandom of=/mnt/kept/data bs=1M count=3 2>/dev/null
            sync; umount /mnt/kept
            mount {device} /mnt/kept; sha256sum /mnt/kept/data; umount /mnt/kept"
        ))?;
        ensure!(checksum.len() > 64, "no checksum: {checksum}");
        Ok(Self { device, checksum })
    }

    /// Whether the contents are still the same, read from the disk.
    pub(crate) fn is_whole(&self, vm: &Vm) -> Result<bool> {
        let now = vm.sh(&format!(
            "mkdir -p /mnt/kept; echo 3 > /proc/sys/vm/drop_caches; mount {} /mnt/kept; sha256sum /mnt/kept/data; umount /mnt/kept",
            self.device
        ))?;
        Ok(now == self.checksum)
    }
}

/// The ledger, as `suture history` shows it.
pub(crate) fn history(vm: &Vm) -> Result<Vec<Value>> {
    let text = vm.run(["suture", "history", "--output", "json"])?.ok()?.stdout;
    let all: Result<Vec<Value>> = text
        .lines()
        .map(|line| serde_json::from_str(line).context("reading the history"))
        .collect();
    // On its way from a crash containerd has a record that its next prepare overwrites: a healing round may see it, and leaves it.
    let is_passing = |one: &Value| one["finding"]["class"] == "faulty-next";
    Ok(all?.into_iter().filter(|one| !is_passing(one)).collect())
}

/// A collector on the host, and the variables that lead suture to it from inside the guest.
pub(crate) struct Collector {
    runtime: tokio::runtime::Runtime,
    server: FakeCollectorServer,
}

impl Collector {
    pub(crate) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let server = runtime
            .block_on(FakeCollectorServer::start())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { runtime, server })
    }

    /// The host as the guest's user-mode network shows it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://10.0.2.2:{}", self.server.address().port())
    }

    /// Every span delivered since it was asked last; waits until there is one of each of these names, or until a minute is over.
    pub(crate) fn spans(&mut self, named: &[&str]) -> Vec<ExportedSpan> {
        let begun = Instant::now();
        let mut spans: Vec<ExportedSpan> = Vec::new();
        let is_there = |spans: &[ExportedSpan], name: &str| spans.iter().any(|span| span.name == name);
        loop {
            let more = self.server.exported_spans(1, Duration::from_secs(1));
            spans.extend(self.runtime.block_on(more));
            if named.iter().all(|name| is_there(&spans, name)) || begun.elapsed() > Duration::from_mins(1) {
                return spans;
            }
        }
    }
}
