//! Process 1 of the test VM: brings the machine up, then serves the host as an agent.
//!
//! Process 1 itself only boots, starts this same program again as the agent, and from then on reaps what is left to
//! it. The agent, being another process, can wait for its own children without a race for their exit status.

mod agent;
mod boot;
mod compat;
mod flood;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

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
        return ExitCode::FAILURE;
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
    if let Err(error) = boot::bring_up().and_then(|()| run_agent()) {
        println!("suture-vm-guest: could not boot: {error:#}");
    }
    power_off()
}

/// Starts the agent and reaps until it is gone.
fn run_agent() -> Result<()> {
    let agent = Command::new("/run/suture-vm-guest")
        .arg(AGENT)
        .spawn()
        .context("starting the agent")?;
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
