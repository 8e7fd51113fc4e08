//! The scenario kit: a containerd with a devmapper snapshotter on a thin pool, and ways to break it.
//!
//! ```no_run
//! use xtask::vm::{Vm, containerd::{Containerd, Options}};
//!
//! let vm = Vm::builder().boot()?;
//! let mut containerd = Containerd::set_up(&vm, Options::default())?;
//! containerd.start()?;
//! containerd.kill_after_dmsetup_create()?;
//! containerd.prepare("layer", None)?;
//! containerd.wait_for_death()?;
//! assert_eq!(containerd.thin_ids()?, [1]);
//! # anyhow::Ok(())
//! ```

mod breaks;
mod image;
mod kills;
mod operations;
mod options;
mod pool;
mod service;
mod works;

use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use self::breaks::{break_disk, disk_with_a_bad_spot, swap_table};
use self::kills::BREAK_FOLDER;
pub use self::kills::Side;
pub use self::options::Options;
pub use self::service::Service;
use super::{Ended, Output, Process, Signal, Vm};

/// How long containerd may take to come up or to die.
const PATIENCE: Duration = Duration::from_mins(1);

/// One line of `ctr snapshots ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot's key.
    pub key: String,
    /// The parent's key; empty if it has none.
    pub parent: String,
    /// `Active`, `Committed` or `View`.
    pub kind: String,
}

/// What is left of a [`Containerd`] that lets its VM go; it runs on.
pub struct Parked {
    options: Options,
    metadata_device: String,
    daemon: Option<Process>,
}

/// A thin pool with a containerd on it.
pub struct Containerd<'vm> {
    vm: &'vm Vm,
    options: Options,
    metadata_device: String,
    daemon: Option<Process>,
}

impl<'vm> Containerd<'vm> {
    /// Makes the pool, or brings up the one that is there from an earlier life of the VM's disks, and writes
    /// containerd's configuration. containerd itself is not started.
    pub fn set_up(vm: &'vm Vm, options: Options) -> Result<Self> {
        let metadata_device = pool::bring_up(vm, &options).context("making the thin pool in the VM")?;
        vm.write_file("/etc/containerd/config.toml", options.configuration(), 0o644)?;
        Ok(Self {
            vm,
            options,
            metadata_device,
            daemon: None,
        })
    }

    /// One that serves, with everything as it usually is.
    pub fn serving(vm: &'vm Vm) -> Result<Self> {
        let mut containerd = Self::set_up(vm, Options::default())?;
        containerd.start()?;
        Ok(containerd)
    }

    /// Lets the VM go, for somebody who takes it up later with [`Self::unpark`].
    #[must_use]
    pub fn park(self) -> Parked {
        let Self {
            options,
            metadata_device,
            daemon,
            vm: _,
        } = self;
        Parked {
            options,
            metadata_device,
            daemon,
        }
    }

    /// Takes up what was parked in the same VM.
    #[must_use]
    pub fn unpark(vm: &'vm Vm, parked: Parked) -> Self {
        let Parked {
            options,
            metadata_device,
            daemon,
        } = parked;
        Self {
            vm,
            options,
            metadata_device,
            daemon,
        }
    }

    /// What it is like.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The device that has the pool's metadata.
    #[must_use]
    pub fn metadata_device(&self) -> &str {
        &self.metadata_device
    }

    /// Whether it was started, and its end was not waited for.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.daemon.is_some()
    }

    /// From its next start on it removes devices this way.
    pub fn set_async_remove(&mut self, async_remove: bool) -> Result<()> {
        self.options.async_remove = async_remove;
        self.vm
            .write_file("/etc/containerd/config.toml", self.options.configuration(), 0o644)
    }

    /// Starts containerd, and waits until it serves with a working devmapper snapshotter.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let booted = self
            .running()?
            .wait_for_line(|line| line.contains("containerd successfully booted"), PATIENCE)
            .context("starting containerd");
        if let Err(error) = booted {
            self.daemon = None;
            return Err(error);
        }
        if !self.snapshotter_is_up()? {
            bail!(
                "containerd's devmapper snapshotter does not work; its log says:\n{}",
                self.log()?.join("\n")
            );
        }
        Ok(())
    }

    /// Starts containerd, and waits for nothing: it may be meant to die on its way.
    pub fn launch(&mut self) -> Result<()> {
        let path = format!("{BREAK_FOLDER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        let daemon = self
            .vm
            .spawn(["containerd", "--log-level", "debug"], &[("PATH", &path)])?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Whether the running containerd has a devmapper snapshotter that works.
    pub fn snapshotter_is_up(&self) -> Result<bool> {
        let plugins = self.ctr(["plugins", "ls"])?.ok()?.stdout;
        let is_fine = |line: &str| line.contains("devmapper") && line.trim_end().ends_with("ok");
        Ok(plugins.lines().any(is_fine))
    }

    /// Sends containerd a signal and, if that ends it, waits for the end.
    pub fn kill(&mut self, signal: Signal) -> Result<()> {
        self.running()?.kill(signal)?;
        if [Signal::KILL, Signal::TERM, Signal::INT].contains(&signal) {
            self.wait_for_death()?;
        }
        Ok(())
    }

    /// Waits until containerd has died, by whatever broke it, and says how.
    pub fn wait_for_death(&mut self) -> Result<Ended> {
        let output = self
            .running()?
            .wait(PATIENCE)
            .context("waiting for containerd's death")?;
        self.daemon = None;
        Ok(output.status)
    }

    /// Kills containerd, if it runs, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            self.kill(Signal::KILL)?;
        }
        self.start()
    }

    /// The process id of the running containerd.
    pub fn pid(&mut self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    /// What the running containerd has logged.
    pub fn log(&mut self) -> Result<Vec<String>> {
        Ok(self.running()?.lines_so_far()?.to_vec())
    }

    /// Runs `ctr` with these arguments. See [`Output::ok`] for treating its failure as an error.
    pub fn ctr<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
        self.vm.run(
            ["ctr".to_owned()]
                .into_iter()
                .chain(arguments.into_iter().map(Into::into)),
        )
    }

    /// Prepares an active snapshot. A failure is in the output, since scenarios are about those.
    pub fn prepare(&self, key: &str, parent: Option<&str>) -> Result<Output> {
        self.snapshots(["prepare", key].into_iter().chain(parent))
    }

    /// Begins to prepare an active snapshot, and does not wait: for scenarios that stop it half way.
    pub fn begin_prepare(&self, key: &str) -> Result<Process> {
        self.vm.spawn(
            ["ctr", "snapshots", "--snapshotter", "devmapper", "prepare", key],
            &[],
        )
    }

    /// Commits the active snapshot `key` under a new name.
    pub fn commit(&self, name: &str, key: &str) -> Result<Output> {
        self.snapshots(["commit", name, key])
    }

    /// Removes a snapshot.
    pub fn remove(&self, key: &str) -> Result<Output> {
        self.snapshots(["rm", key])
    }

    /// The snapshots as containerd lists them.
    pub fn ls(&self) -> Result<Vec<Snapshot>> {
        Ok(parse_ls(&self.snapshots(["ls"])?.ok()?.stdout))
    }

    /// Runs a subcommand of `ctr snapshots` for the devmapper snapshotter.
    pub fn snapshots<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        self.ctr(
            ["snapshots", "--snapshotter", "devmapper"]
                .into_iter()
                .chain(arguments),
        )
    }

    /// The ids of the thin devices in the pool, from a snapshot of its metadata.
    pub fn thin_ids(&self) -> Result<Vec<u64>> {
        pool::thin_ids(self.vm, &self.options.pool, &self.metadata_device)
            .context("listing the pool's thin devices")
    }

    /// Imports a small image of `layers` layers, with busybox in the first, unpacked into snapshots; gives its name.
    /// It is made here, no registry is needed.
    pub fn import_image(&self, layers: usize) -> Result<String> {
        let name = format!("suture.test/busybox:{layers}");
        let archive = image::make(&name, layers).context("making an image")?;
        self.vm.write_file("/tmp/image.tar", archive, 0o644)?;
        self.ctr(["images", "import", "--snapshotter", "devmapper", "/tmp/image.tar"])?
            .ok()?;
        Ok(name)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.daemon
            .as_mut()
            .context("containerd is not running in the VM; call `start` first")
    }
}

fn parse_ls(text: &str) -> Vec<Snapshot> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The parent's column is empty for a base snapshot.
            let (key, parent, kind) = match words.as_slice() {
                [key, kind] => (key, "", kind),
                [key, parent, kind] => (key, *parent, kind),
                _ => return None,
            };
            Some(Snapshot {
                key: (*key).to_owned(),
                parent: parent.to_owned(),
                kind: (*kind).to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_snapshots_is_read_with_and_without_parents() {
        let text = "KEY  PARENT KIND\nbase        Committed\ntop  base   Active\n";
        let found = parse_ls(text);
        let expected =
            [("base", "", "Committed"), ("top", "base", "Active")].map(|(key, parent, kind)| Snapshot {
                key: key.into(),
                parent: parent.into(),
                kind: kind.into(),
            });
        assert_eq!(found, expected);
    }
}
