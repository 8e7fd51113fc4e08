//! The command line: one file per subcommand. Nothing is decided here; each command wires rooms together and prints.

mod history;
mod places;
mod run;
mod status;
mod watch;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    agent::AgentError,
    control::AskError,
    ledger::LedgerError,
    observe::{containerd::ConfigError, kernel_watch::KernelWatchError},
};

/// Sees half-finished storage operations of containerd's devmapper snapshotter in the kernel, and heals them when that
/// is proven safe.
#[derive(Debug, Parser)]
#[command(name = "suture", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArguments),
    Status(status::StatusArguments),
    Watch(watch::WatchArguments),
    History(history::HistoryArguments),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON value a line, for programs.
    Json,
}

/// Why a command ended early. Its message says what was being done; its sources say why that failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The agent could not start, or ended.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A running suture could not be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Where the snapshotter keeps its things is not known.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The databases could not be watched.
    #[error("starting the thread that watches containerd's databases")]
    Databases(#[source] io::Error),
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The kernel could not be watched.
    #[error(transparent)]
    KernelWatch(#[from] KernelWatchError),
    /// Reading the probes broke off.
    #[error("reading the kernel's events broke off: {0}")]
    ProbesBroke(String),
    /// The asynchronous runtime could not start.
    #[error("starting the runtime's threads")]
    Runtime(#[source] io::Error),
    /// Standard output could not be written, other than by its reader going away.
    #[error("writing to standard output")]
    Print(#[source] io::Error),
    /// A value could not be written as JSON.
    #[error("writing a result as JSON")]
    Json(#[from] serde_json::Error),
}

/// Runs the command that was asked for; the exit code says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let success = |()| ExitCode::SUCCESS;
    let result = match cli.command {
        Command::Run(arguments) => run::run(arguments).map(success),
        Command::Status(arguments) => status::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments).map(success),
        Command::History(arguments) => history::run(&arguments).map(success),
    };
    match result {
        Ok(code) => code,
        // The reader went away (`suture watch | head`): nobody is left to tell.
        Err(CliError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suture: {}", crate::words::explain(&error));
            match error {
                CliError::Ask(AskError::NotRunning { .. }) => status::NOT_RUNNING.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
