//! containerd as systemd's service, from the unit that Debian's package ships.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kills::BREAK_FOLDER;
use super::{Containerd, Options};
use crate::vm::Vm;

/// How long a service may take to come up, with everything before it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where the service writes, since the VM has no journal.
const LOG: &str = "/run/containerd.log";

/// A containerd that systemd starts, and starts again.
pub struct Service<'vm> {
    vm: &'vm Vm,
    containerd: Containerd<'vm>,
}

impl<'vm> Service<'vm> {
    /// Makes the pool or brings it up, and what a VM needs beside Debian's unit: programs that stand in for others, no
    /// udev, a log, and a quick restart. The VM must have been booted with [`crate::vm::VmBuilder::systemd`]. The
    /// service is not started.
    pub fn set_up(vm: &'vm Vm, options: Options) -> Result<Self> {
        vm.wait_until("systemd is up", PATIENCE, || {
            let asked = vm.run(["systemctl", "is-system-running"])?;
            Ok(asked.stdout.trim() == "running" || asked.stdout.trim() == "degraded")
        })?;
        let containerd = Containerd::set_up(vm, options)?;
        vm.write_file(
            "/etc/systemd/system/containerd.service.d/vm.conf",
            format!(
                "[Service]\nRestartSec=1\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\n\
                 Environment=DM_DISABLE_UDEV=1 PATH={BREAK_FOLDER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
            ),
            0o644,
        )?;
        let service = Self { vm, containerd };
        service.reload()?;
        Ok(service)
    }

    /// The containerd, to be asked; it is systemd that starts it.
    #[must_use]
    pub fn containerd(&self) -> &Containerd<'vm> {
        &self.containerd
    }

    /// Lets systemd read its units again.
    pub fn reload(&self) -> Result<()> {
        self.vm.run(["systemctl", "daemon-reload"])?.ok()?;
        Ok(())
    }

    /// `systemctl start containerd`.
    pub fn start(&self) -> Result<()> {
        let started = self.vm.run(["systemctl", "start", "containerd"])?;
        ensure!(
            started.status.success(),
            "{}; its log:\n{}",
            started.stderr,
            self.log()?
        );
        Ok(())
    }

    /// `systemctl stop containerd`.
    pub fn stop(&self) -> Result<()> {
        self.vm.run(["systemctl", "stop", "containerd"])?.ok()?;
        Ok(())
    }

    /// Waits until systemd has started it so many times again, and it serves.
    pub fn wait_for_restart(&self, number: u32) -> Result<()> {
        self.vm
            .wait_until("systemd has restarted containerd", PATIENCE, || {
                Ok(self.restarts()? >= number
                    && self.property("ActiveState")? == "active"
                    && self.containerd.snapshotter_is_up().unwrap_or_default())
            })
            .with_context(|| format!("its log: {}", self.log().unwrap_or_default()))
    }

    /// How often systemd has restarted it since it was started.
    pub fn restarts(&self) -> Result<u32> {
        self.property("NRestarts")?
            .parse()
            .context("reading systemd's count of restarts")
    }

    /// The process id of the running containerd.
    pub fn pid(&self) -> Result<u32> {
        self.property("MainPID")?
            .parse()
            .context("reading systemd's process id of containerd")
    }

    /// A property of the unit, as systemd tells it.
    pub fn property(&self, name: &str) -> Result<String> {
        let asked = self
            .vm
            .run(["systemctl", "show", "containerd", "--value", "--property", name])?
            .ok()?;
        Ok(asked.stdout.trim().to_owned())
    }

    /// What the service has written, also what ran before it, without containerd's own small talk.
    pub fn log(&self) -> Result<String> {
        self.vm.sh(&format!("grep -v level=info {LOG} || true"))
    }
}
