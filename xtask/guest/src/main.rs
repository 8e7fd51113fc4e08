//! Process 1 of the test VM: brings the machine up, then serves the host as an agent.
//!
//! Process 1 itself only boots, starts this same program again as the agent, and from then on reaps what is left to
//! it. The agent, being another process, can wait for its own children without a race for their exit status. Where the
//! kernel's command line says so, process 1 becomes systemd instead, with the agent as an older sibling of its services.

mod agent;
mod boot;
mod compat;
mod flood;

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use suture_vm_guest::SYSTEMD;

/// The argument that makes this program the agent.
const AGENT: &str = "agent";
/// The argument that makes it flood the machine with what suture watches.
const FLOOD: &str = "flood";
/// The argument that makes it send a message as a 32-bit program does.
const COMPAT: &str = "compat";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(AGENT) {
        if let Err(error) = agent::serve() {
            println!("suture-vm-guest: the agent gave up: {error:#}");
        }
        // Nobody is left to serve, and systemd as process 1 would not know.
        return power_off();
    }
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let tool = match std::env::args().nth(1).as_deref() {
        Some(FLOOD) => Some(flood::run(&arguments)),
        Some(COMPAT) => Some(compat::run(&arguments)),
        _ => None,
    };
    match tool {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
        None => {}
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("this program is the first process of suture's test VM; see `cargo xtask vm`");
        return ExitCode::FAILURE;
    }
    if let Err(error) = boot::bring_up().and_then(|()| take_up_service()) {
        println!("suture-vm-guest: could not boot: {error:#}");
    }
    power_off()
}

/// Starts the agent, and is process 1 in the way that the host chose.
fn take_up_service() -> Result<()> {
    let agent = Command::new("/run/suture-vm-guest")
        .arg(AGENT)
        .spawn()
        .context("starting the agent")?;
    let arguments = std::fs::read_to_string("/proc/cmdline").context("reading the kernel's command line")?;
    if arguments.split_whitespace().any(|word| word == SYSTEMD) {
        become_systemd()?;
    }
    reap_until_gone(&agent)
}

/// systemd finds the file systems mounted and leaves them; processes that it finds it moves into a scope of their own
/// (`manager_setup_cgroup`, src/core/cgroup.c).
fn become_systemd() -> Result<Infallible> {
    let error = Command::new("/lib/systemd/systemd").exec();
    Err(error).context("becoming systemd")
}

/// Reaps until the agent is gone.
fn reap_until_gone(agent: &std::process::Child) -> Result<()> {
    let agent = i32::try_from(agent.id())?;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get() == agent => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for processes"),
        }
    }
}

fn power_off() -> ExitCode {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    ExitCode::FAILURE
}
