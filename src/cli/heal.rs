//! The hidden words by which a running sidecar has itself done what must not hang it.

use std::{io, os::fd::AsFd as _, os::unix::net::UnixStream, path::PathBuf, process::ExitCode};

use clap::Args;

use super::exit::OPERATIONAL;
use crate::{
    healer::{self, Restart},
    words::explain,
};

/// What is restarted and repaired.
#[derive(Debug, Args)]
pub(super) struct RestartArguments {
    /// containerd's unit.
    #[arg(long)]
    unit: String,
    /// dm name of the thin pool.
    #[arg(long)]
    pool: String,
    /// Folder of the snapshotter's databases.
    #[arg(long)]
    root_path: PathBuf,
    /// The ledger.
    #[arg(long)]
    ledger: PathBuf,
    /// suture's own configuration, where it is not in its usual place.
    #[arg(long)]
    config: Option<PathBuf>,
}

pub(super) fn restart(arguments: RestartArguments) -> ExitCode {
    let restart = Restart {
        unit: arguments.unit,
        pool: arguments.pool,
        root: arguments.root_path,
        ledger: arguments.ledger,
        config: arguments.config,
    };
    restart.carry_out().unwrap_or(OPERATIONAL).into()
}

/// Works for the sidecar at the other end of the standard input.
pub(super) fn work() -> ExitCode {
    let channel = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    match channel.map_err(healer::WorkerError::from).and_then(healer::work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suture: {}", explain(&error));
            OPERATIONAL.into()
        }
    }
}
