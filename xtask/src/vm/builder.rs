//! What a VM is to be like, and its start.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use suture_vm_guest::{PORT_NAME, SYSTEMD};

use super::console::ConsoleSink;
use super::cut::CutOn;
use super::link::Link;
use super::machine::Machine;
use super::media;
use super::{Kernel, Vm};
use crate::setup::{self, VmParts, qemu::tool};

/// How long a boot may take. It takes a tenth of that on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// A VM to be. See [`Vm::builder`].
pub struct VmBuilder {
    kernel: Kernel,
    memory_mib: u32,
    time_limit: Duration,
    disks: Option<PathBuf>,
    files: Vec<(PathBuf, String)>,
    kernel_arguments: String,
    console: Option<ConsoleSink>,
    cut_on: Option<CutOn>,
    time_told: bool,
}

impl VmBuilder {
    pub(super) fn new() -> Self {
        Self {
            kernel: Kernel::default(),
            memory_mib: 2048,
            time_limit: Duration::from_mins(3),
            disks: None,
            files: Vec::new(),
            kernel_arguments: String::new(),
            console: None,
            cut_on: None,
            time_told: false,
        }
    }

    /// Which kernel; 6.1 if not said.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// How much memory; 2048 MiB if not said.
    #[must_use]
    pub fn memory_mib(mut self, memory: u32) -> Self {
        self.memory_mib = memory;
        self
    }

    /// How long the VM may live, counted from its start; 180 s if not said. Then it is killed, and what waits for it
    /// gets an error that says so.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Keeps what the guest writes below `/persist` in this folder, for the next VM that names it. Without it
    /// `/persist` is memory.
    #[must_use]
    pub fn disks(mut self, folder: &Path) -> Self {
        self.disks = Some(folder.to_path_buf());
        self
    }

    /// Puts a file of the host on the guest's `PATH`, under this name.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>, name: &str) -> Self {
        self.files.push((path.as_ref().to_path_buf(), name.to_owned()));
        self
    }

    /// Adds to the kernel's command line.
    #[must_use]
    pub fn kernel_arguments(mut self, arguments: &str) -> Self {
        self.kernel_arguments.push(' ');
        self.kernel_arguments.push_str(arguments);
        self
    }

    /// Runs systemd as the guest's first process, with no units but those that a scenario brings; `systemctl` works
    /// once [`Vm::wait_until`] it does. Without it no service manager is there.
    #[must_use]
    pub fn systemd(self) -> Self {
        self.kernel_arguments(SYSTEMD)
    }

    /// Gives the kernel's console to `sink` as it comes. [`Vm::console`] works without it.
    #[must_use]
    pub fn console(mut self, sink: ConsoleSink) -> Self {
        self.console = Some(sink);
        self
    }

    /// Cuts the power as soon as a text appears, which may be while the VM boots.
    #[must_use]
    pub fn cut_power_on(mut self, cut_on: &CutOn) -> Self {
        self.cut_on = Some(cut_on.clone());
        self
    }

    /// Says on standard error, once the VM ends, which test it was for and how long it lived ([`super::tell_time`]).
    #[must_use]
    pub fn time_told(mut self) -> Self {
        self.time_told = true;
        self
    }

    /// Starts the VM, and waits until it takes commands. What the set-up lacks for it is made first.
    pub fn boot(self) -> Result<Vm> {
        let parts = setup::vm(false)?;
        let kernel = parts.kernel(self.kernel);
        let work = media::work_folder()?;
        media::write_initramfs(&work.path().join("initramfs"), &media::guest_program()?, &kernel)?;
        media::make_files_disk(&work.path().join("files.img"), &self.files)?;
        let persist = self.disks.as_deref().map(media::kept_disk).transpose()?;

        // Not in `work`: the path of a socket must be short.
        let socket = tempfile::Builder::new()
            .prefix("suture-vm")
            .tempdir()
            .context("making a folder for a socket")?;
        let listener = UnixListener::bind(socket.path().join("agent")).context("listening for the VM")?;
        let command = self.qemu(&parts, &kernel, work.path(), socket.path(), persist.as_deref());
        let machine = Machine::start(command, self.time_limit, self.console, self.cut_on)?;
        let link = accept(&listener, &machine)
            .and_then(|stream| Link::open(stream, Arc::clone(&machine), BOOT_LIMIT))
            .inspect_err(|_| {
                // Nobody will get a handle that could end it.
                let _ = machine.kill("it was given up");
            })?;
        Ok(Vm {
            link,
            machine,
            time_told: self.time_told,
            _work: work,
            _socket: socket,
        })
    }

    fn qemu(
        &self,
        parts: &VmParts,
        kernel: &Path,
        work: &Path,
        socket: &Path,
        persist: Option<&Path>,
    ) -> Command {
        let share = parts.tools.join("usr/share");
        let mut qemu = tool(&parts.tools, "usr/bin/qemu-system-x86_64");
        qemu.env(
            "QEMU_MODULE_DIR",
            parts.tools.join("usr/lib/x86_64-linux-gnu/qemu"),
        )
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=1024",
            "-cpu",
            "Nehalem",
            "-smp",
            "1",
        ])
        .args(["-m", &self.memory_mib.to_string()])
        .arg("-L")
        .arg(share.join("qemu"))
        .arg("-L")
        .arg(share.join("seabios"))
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(work.join("initramfs"))
        .args([
            "-append",
            // An emulator on a busy host may be too late for the kernel's look at its timer.
            &format!(
                "console=ttyS0 loglevel=4 panic=-1 rdinit=/init net.ifnames=0 mitigations=off no_timer_check{}",
                self.kernel_arguments
            ),
        ])
        .args([
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ])
        .args(["-device", "virtio-serial-pci", "-chardev"])
        .arg(format!("socket,id=agent,path={}", escaped(&socket.join("agent"))))
        .args([
            "-device",
            &format!("virtserialport,chardev=agent,name={PORT_NAME}"),
        ])
        .args([
            "-netdev",
            "user,id=net",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ]);
        add_disk(&mut qemu, "root", &parts.root_disk, "readonly=on");
        add_disk(&mut qemu, "modules", &kernel.join("modules.img"), "readonly=on");
        add_disk(&mut qemu, "files", &work.join("files.img"), "readonly=on");
        if let Some(image) = persist {
            // What the guest wrote is with the host's kernel, so it outlives a killed qemu; a flush need not wait for
            // the host's disk, since it is not the host that loses its power.
            add_disk(&mut qemu, "persist", image, "cache=unsafe,discard=unmap");
        }
        qemu
    }
}

fn add_disk(qemu: &mut Command, name: &str, image: &Path, options: &str) {
    qemu.arg("-drive")
        .arg(format!(
            "file={},if=none,id={name},format=raw,{options}",
            escaped(image)
        ))
        .arg("-device")
        .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
}

/// A path as a part of one of qemu's options.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Waits for qemu to connect.
fn accept(listener: &UnixListener, machine: &Machine) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("waiting for the VM to connect"),
        }
        if machine.is_gone() {
            bail!("qemu did not start: {}", machine.why_gone());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
