//! `cargo xtask`: the tasks of a developer of suture.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::tasks;

/// The tasks of a developer of suture
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make this machine ready: host packages, the BPF compiler and linker, qemu, kernels, the root disk, promtool, the real bbolt
    Setup(tasks::setup::Arguments),
    /// Build suture: one self-contained binary, target/release/suture
    Build(tasks::build::Arguments),
    /// Run suture on this machine's containerd or, where it has none, break and heal one in the test VM
    Run(tasks::run::Arguments),
    /// Run every test, unit to VM
    Test(tasks::test::Arguments),
    /// Give every parser of suture hostile inputs, for as long as you like
    Fuzz(tasks::fuzz::Arguments),
    /// Make tests/recordings anew: break a containerd in the test VM, and record what suture sees
    Recordings(tasks::recordings::Arguments),
    /// Measure how fast and how small suture is, against what its design promises
    Bench(tasks::bench::Arguments),
    /// Run a command in the test VM: a real kernel with a real containerd, and suture on its PATH
    Vm(tasks::vm::Arguments),
}

fn main() -> ExitCode {
    let task = CommandLine::parse().task;
    let result = xtask::ensure_called_at_home().and_then(|()| run(task));
    result.unwrap_or_else(|error| {
        // `{:#}` gives the chain of causes on one line; a backtrace would help nobody here.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup(arguments) => tasks::setup::run(&arguments),
        Task::Build(arguments) => tasks::build::run(&arguments),
        Task::Run(arguments) => tasks::run::run(&arguments),
        Task::Test(arguments) => tasks::test::run(&arguments),
        Task::Fuzz(arguments) => tasks::fuzz::run(&arguments),
        Task::Recordings(arguments) => tasks::recordings::run(&arguments),
        Task::Bench(arguments) => tasks::bench::run(&arguments),
        Task::Vm(arguments) => tasks::vm::run(&arguments),
    }
}
