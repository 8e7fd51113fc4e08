//! A stage that scenarios hand on to each other: a VM with a containerd on a pool in which nothing is wrong. To boot one
//! takes as long as a scenario does, so whoever leaves it clean leaves it to the next.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use suture::model::{PoolDb, SnapshotDb};
use xtask::vm::{
    Output, Process, Signal, Vm,
    containerd::{Containerd, Options, Parked},
};

use crate::support::{PATIENCE, long_lane};

/// How long a VM on which scenarios follow each other may live: as long as the lane, on a busy machine.
fn life() -> Duration {
    Duration::from_hours(if long_lane() { 6 } else { 1 })
}

/// How long each commit stays on show to somebody who waits for one: the machine may be busy.
const ON_SHOW: Duration = Duration::from_millis(2500);

/// Stages that nobody is on. They are never dropped: a guest whose host process is gone switches itself off.
static IDLE: Mutex<Vec<(Vm, Parked)>> = Mutex::new(Vec::new());

/// A VM, its containerd, and what a scenario asks of them.
pub(crate) struct Stage<'vm> {
    pub(crate) vm: &'vm Vm,
    pub(crate) containerd: Containerd<'vm>,
}

/// Plays a scenario where others have played before; it must end as clean as it began.
pub(crate) fn on_stage(scenario: impl FnOnce(&mut Stage<'_>) -> Result<()>) -> Result<()> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let (vm, parked) = if let Some(stage) = idle {
        stage
    } else {
        let vm = super::support::machine().time_limit(life()).boot()?;
        let parked = Containerd::serving(&vm)?.park();
        (vm, parked)
    };
    let begun = Instant::now();
    let mut stage = Stage {
        vm: &vm,
        containerd: Containerd::unpark(&vm, parked),
    };
    stage
        .expect_nothing()
        .context("the stage was not clean to begin with")?;
    scenario(&mut stage)?;
    stage.leave_clean().context("the stage is not left clean")?;
    xtask::vm::tell_time(begun.elapsed());
    let parked = stage.containerd.park();
    IDLE.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((vm, parked));
    Ok(())
}

/// What `suture check` says.
pub(crate) struct Check {
    pub(crate) code: i32,
    pub(crate) json: Value,
}

impl Check {
    /// `suture check` where no stage is.
    pub(crate) fn in_vm(vm: &Vm) -> Result<Self> {
        Self::of(&vm.run(["suture", "check", "--output", "json"])?)
    }

    fn of(output: &Output) -> Result<Self> {
        let json = serde_json::from_str(&output.stdout)
            .with_context(|| format!("suture check said: {}\n{}", output.stdout, output.stderr))?;
        Ok(Self {
            code: output.status.code(),
            json,
        })
    }

    pub(crate) fn findings(&self) -> Vec<Value> {
        self.json["findings"].as_array().cloned().unwrap_or_default()
    }

    /// The classes that it found, each as often as it was found, in order.
    pub(crate) fn classes(&self) -> Vec<String> {
        let mut classes: Vec<String> = self
            .findings()
            .iter()
            .map(|finding| finding["class"].as_str().unwrap_or_default().to_owned())
            .collect();
        classes.sort();
        classes
    }

    /// The only finding of a class.
    pub(crate) fn the(&self, class: &str) -> Result<Value> {
        let found: Vec<Value> = self
            .findings()
            .into_iter()
            .filter(|finding| finding["class"] == class)
            .collect();
        ensure!(
            found.len() == 1,
            "{} findings of {class} in {}",
            found.len(),
            self.json
        );
        found.into_iter().next().context("no finding")
    }

    /// These classes and no others, each with what its remedy is and when that may be: `wedge mark-faulty offline`.
    pub(crate) fn expect(self, expected: &[&str]) -> Result<Self> {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let mut told: Vec<String> = self
            .findings()
            .iter()
            .map(|finding| {
                let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
                let remedy = &finding["remedy"];
                [&finding["class"], &remedy["action"], &remedy["when"]]
                    .map(word)
                    .join(" ")
            })
            .collect();
        told.sort();
        ensure!(
            told == expected,
            "expected {expected:?}, told {told:?}: {}",
            self.json
        );
        let is_worse = self
            .findings()
            .iter()
            .any(|finding| finding["severity"] != "notice");
        let (status, code) = if is_worse { ("findings", 4) } else { ("clean", 0) };
        ensure!(
            self.json["status"] == status && self.code == code,
            "exit code {}, {}",
            self.code,
            self.json
        );
        for finding in self.findings() {
            ensure!(
                finding["evidence"]
                    .as_array()
                    .is_some_and(|evidence| !evidence.is_empty()),
                "no evidence: {finding}"
            );
        }
        Ok(self)
    }
}

/// What `suture repair` says.
#[derive(Debug)]
pub(crate) struct Repair(Output);

impl Repair {
    /// Everything was corrected, or there was nothing to do.
    pub(crate) fn ok(self) -> Result<()> {
        let code = self.0.status.code();
        ensure!(code == 0 || code == 1, "{self:?}");
        Ok(())
    }

    /// What it did, act by act, by their names in `--output json`.
    pub(crate) fn done(&self) -> Result<Vec<String>> {
        let told: Value = serde_json::from_str(&self.0.stdout).context("reading what the repair said")?;
        let mut done = Vec::new();
        for repair in told["repairs"].as_array().into_iter().flatten() {
            let acts = repair["acts"].as_array().map_or(&[][..], Vec::as_slice);
            let made = match repair["outcome"]["outcome"].as_str() {
                Some("done") => acts.len(),
                _ => usize::try_from(repair["outcome"]["done"].as_u64().unwrap_or_default())?,
            };
            let names = acts
                .iter()
                .take(made)
                .filter_map(|act| act["act"]["act"].as_str());
            done.extend(names.map(str::to_owned));
        }
        Ok(done)
    }
}

impl Stage<'_> {
    /// `suture check` with more arguments.
    pub(crate) fn check_with(&self, arguments: &[&str]) -> Result<Check> {
        let argv = ["suture", "check", "--output", "json"];
        Check::of(&self.vm.run(argv.iter().chain(arguments).copied())?)
    }

    pub(crate) fn check(&self) -> Result<Check> {
        self.check_with(&[])
    }

    /// Nothing is found, not even something to be noted.
    pub(crate) fn expect_nothing(&self) -> Result<()> {
        self.check()?.expect(&[]).map(drop)
    }

    /// `suture repair` with more arguments.
    pub(crate) fn repair(&self, arguments: &[&str]) -> Result<Repair> {
        let argv = ["suture", "repair", "--output", "json"];
        let repair = Repair(self.vm.run(argv.iter().chain(arguments).copied())?);
        // 8 is "could not do its work", 16 a wrong word; below, something may be left on purpose.
        ensure!(repair.0.status.code() < 8, "{repair:?}");
        eprintln!("repair {arguments:?}: {}", repair.0.stdout.trim());
        Ok(repair)
    }

    /// Repairs what can be repaired while containerd runs.
    pub(crate) fn repair_online(&self) -> Result<Repair> {
        self.repair(&[])
    }

    /// Stops containerd, repairs, and starts it again.
    pub(crate) fn repair_offline(&mut self, arguments: &[&str]) -> Result<Repair> {
        self.stop()?;
        let argv: Vec<&str> = ["--offline"].iter().chain(arguments).copied().collect();
        let output = self.repair(&argv)?;
        self.containerd
            .start()
            .with_context(|| format!("after {output:?}"))?;
        Ok(output)
    }

    /// Stops containerd in order, if it runs.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.containerd.is_up() {
            self.containerd.kill(Signal::TERM)?;
        }
        Ok(())
    }

    /// containerd works in every way that users need, and nothing is wrong then.
    pub(crate) fn expect_works(&self) -> Result<()> {
        self.containerd.works()?;
        self.expect_nothing()
    }

    /// What is left over is removed; nothing else may be wrong.
    fn leave_clean(&mut self) -> Result<()> {
        self.containerd.remove_wrappers()?;
        if !self.containerd.is_up() {
            self.containerd.start()?;
        }
        if self.containerd.options() != &Options::default() {
            // What waits for the clean-up is cleaned up only as long as that is on.
            self.remove_all()?;
            self.containerd.set_async_remove(false)?;
            self.containerd.restart()?;
        }
        self.remove_all()?;
        self.expect_nothing()
    }

    /// Removes every snapshot: a layer only once nothing is on it any more.
    pub(crate) fn remove_all(&self) -> Result<()> {
        let mut left = usize::MAX;
        loop {
            let snapshots = self.containerd.ls()?;
            if snapshots.is_empty() || snapshots.len() >= left {
                break;
            }
            left = snapshots.len();
            for snapshot in snapshots.iter().rev() {
                self.containerd.remove(&snapshot.key)?;
            }
        }
        self.containerd.collect_after_a_removal()
    }

    /// The pool database as it is at this moment.
    pub(crate) fn pool_db(&self) -> Result<PoolDb> {
        let copy = self.copy(&self.containerd.options().pool_db())?;
        Ok(PoolDb::read(copy.path())?)
    }

    /// The database of the snapshots as it is at this moment.
    pub(crate) fn snapshot_db(&self) -> Result<SnapshotDb> {
        let path = self.containerd.options().snapshot_db();
        if !self.vm.run(["test", "-e", &path])?.status.success() {
            // containerd makes it with the first snapshot.
            return Ok(SnapshotDb::read("/nonexistent/metadata.db")?);
        }
        let copy = self.copy(&path)?;
        Ok(SnapshotDb::read(copy.path())?)
    }

    /// A copy of one of the guest's files.
    pub(crate) fn copy(&self, path: &str) -> Result<tempfile::NamedTempFile> {
        let copy = tempfile::NamedTempFile::new()?;
        std::fs::write(copy.path(), self.vm.read_file(path)?)?;
        Ok(copy)
    }

    /// The number of the snapshot that containerd makes next.
    pub(crate) fn next(&self) -> Result<u64> {
        Ok(self.snapshot_db()?.sequence + 1)
    }

    /// Begins an operation of `ctr`, and kills containerd as soon as its pool database reads so.
    pub(crate) fn kill_when(
        &mut self,
        operation: &[&str],
        what: &str,
        is_so: impl Fn(&PoolDb) -> bool,
    ) -> Result<()> {
        self.containerd.slow_commits(ON_SHOW)?;
        let _client = self.begin(operation)?;
        self.vm.wait_until(what, PATIENCE, || {
            // A copy that was taken in the middle of a write reads badly; there will be another.
            Ok(self.pool_db().is_ok_and(|database| is_so(&database)))
        })?;
        self.containerd.kill(Signal::KILL)?;
        ensure!(
            is_so(&self.pool_db()?),
            "it was killed too late: {:?}",
            self.pool_db()?
        );
        Ok(())
    }

    /// Begins an operation of `ctr`.
    pub(crate) fn begin(&self, operation: &[&str]) -> Result<Process> {
        self.vm.spawn(["ctr"].iter().chain(operation).copied(), &[])
    }
}
