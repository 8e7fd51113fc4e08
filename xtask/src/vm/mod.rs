//! A virtual machine with a real device-mapper and a real containerd, made for tests that read as arrange, break,
//! expect.
//!
//! ```no_run
//! use xtask::vm::{Kernel, Vm};
//!
//! let vm = Vm::builder().kernel(Kernel::V6_12).boot()?;
//! assert!(vm.run(["dmsetup", "targets"])?.ok()?.stdout.contains("thin-pool"));
//! vm.cut_power()?;
//! # anyhow::Ok(())
//! ```
//!
//! Emulated in software, so it runs where nested virtualisation does not. It boots in about five seconds; dropping the
//! [`Vm`] ends it, and so does its time limit. A guest whose host process is gone switches itself off.

mod builder;
mod console;
pub mod containerd;
mod cut;
mod link;
mod machine;
mod media;
mod output;
mod process;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use suture_vm_guest::{Ask, Program, Tell};

pub use self::builder::VmBuilder;
pub use self::console::ConsoleSink;
pub use self::cut::CutOn;
pub use self::output::{Ended, Output};
pub use self::process::Process;
pub use crate::setup::Kernel;
pub use rustix::process::Signal;
pub use suture_vm_guest::Stream;

use self::link::Link;
use self::machine::Machine;

/// How often [`Vm::wait_until`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running VM.
pub struct Vm {
    /// Shared with the processes that were spawned.
    link: Arc<Link>,
    machine: Arc<Machine>,
    time_told: bool,
    /// Disk images and the socket; removed when the VM is dropped.
    _work: tempfile::TempDir,
    _socket: tempfile::TempDir,
}

impl Vm {
    /// Says what the VM is to be like; [`VmBuilder::boot`] then starts it.
    #[must_use]
    pub fn builder() -> VmBuilder {
        VmBuilder::new()
    }

    /// Runs a program to its end. An exit code other than 0 is no error here; see [`Output::ok`].
    pub fn run<S: Into<String>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Output> {
        self.spawn(argv, &[])?.finish()
    }

    /// Runs a script with `sh -e`, and gives what it wrote to standard output. An exit code other than 0 is an error
    /// that shows the script and both outputs.
    pub fn sh(&self, script: &str) -> Result<String> {
        Ok(self.run(["sh", "-ec", script])?.ok()?.stdout)
    }

    /// Starts a program in the background, with variables added to its environment. It goes on when the handle is
    /// dropped.
    pub fn spawn<S: Into<String>>(
        &self,
        argv: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Result<Process> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let argv = argv.into_iter().map(Into::into).collect();
        self.start(Program {
            argv,
            env,
            folder: None,
            stdin: Vec::new(),
        })
    }

    /// Starts a program of which folder and standard input matter too.
    pub fn start(&self, program: Program) -> Result<Process> {
        let words = program.argv.join(" ");
        Process::start(&self.link, program).with_context(|| format!("starting `{words}` in the VM"))
    }

    /// Writes a file, with its folders. Those below `/persist` are kept with the disks, all others are gone with the
    /// VM.
    pub fn write_file(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let ask = Ask::WriteFile {
            path: path.to_owned(),
            mode,
            bytes: bytes.as_ref().to_vec(),
        };
        match self.link.ask(ask)? {
            Tell::Done => Ok(()),
            other => bail!("the VM answered {other:?} to the writing of {path}"),
        }
    }

    /// Reads a file.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        match self.link.ask(Ask::ReadFile {
            path: path.to_owned(),
        })? {
            Tell::File(bytes) => Ok(bytes),
            other => bail!("the VM answered {other:?} to the reading of {path}"),
        }
    }

    /// Asks `is_so` again and again until it says yes. `what` completes the sentence "waiting until ...".
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            if is_so().with_context(|| format!("waiting until {what}"))? {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("waited {limit:?} until {what}, in vain");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Cuts the power: the machine is gone in the middle of whatever it did. What it had written to the disks is kept.
    pub fn cut_power(&self) -> Result<()> {
        self.machine.kill("the power was cut")
    }

    /// Switches the machine off in order, with file systems synced.
    pub fn shutdown(self) -> Result<()> {
        self.machine.expect_end("it was shut down");
        self.link.tell(Ask::PowerOff)?;
        self.machine.wait_for_end(Duration::from_secs(20))
    }

    /// What the kernel wrote to its console, the last part if it was much.
    #[must_use]
    pub fn console(&self) -> String {
        self.machine.console()
    }

    /// How long ago the machine was started.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.machine.uptime()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Already gone, most likely after a cut or a shutdown, is just as well.
        let _ = self.machine.kill("its handle was dropped");
        if self.time_told {
            tell_time(self.uptime());
        }
    }
}

/// Says on standard error how long the test took that this thread runs. A test program keeps what is printed by tests that
/// pass to itself, and stable Rust tells no times: without this nobody sees which scenario makes a run long.
pub fn tell_time(took: Duration) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(std::io::stderr(), "vm: {test}: {:.0} s", took.as_secs_f32());
}
