//! `suture watch`: the live stream of what device-mapper did, which block operations failed, and what containerd
//! committed to its databases.

use std::io::{self, Write};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{CliError, Output, places::PlaceArguments};
use crate::{
    model::{Observation, dm::DmIoctl},
    observe::{
        databases::DatabaseWatch,
        probes::{self, ProbeOptions, Probes, Seen},
    },
    words::clock_time,
};

/// Show device-mapper calls, block errors and commits to containerd's databases as they happen, decoded.
///
/// The databases are those that containerd's configuration tells of, or that --pool and --root-path name; without any of
/// them only the kernel is watched. Calls that only ask (status, list, version) are left out unless they fail or `--all` is given.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  suture watch --output json | jq 'select(.kind == \"dm_ioctl\" and .error)'"
)]
pub(super) struct WatchArguments {
    /// Also show calls that only ask and succeed.
    #[arg(long)]
    all: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Stop after this many lines.
    #[arg(long, value_name = "LINES")]
    count: Option<u64>,
    #[command(flatten)]
    places: PlaceArguments,
    #[command(flatten)]
    rings: RingArguments,
}

/// Sizes of the rings between kernel and agent.
#[derive(Debug, Clone, Copy, Args)]
pub struct RingArguments {
    /// Bytes of the ring of device-mapper calls (976 an event); a power of two.
    #[arg(long, default_value_t = ProbeOptions::default().dm_ring_bytes, value_name = "BYTES")]
    pub dm_ring_bytes: u32,
    /// Bytes of the ring of block errors (40 an event); a power of two.
    #[arg(long, default_value_t = ProbeOptions::default().block_ring_bytes, value_name = "BYTES")]
    pub block_ring_bytes: u32,
}

impl From<RingArguments> for ProbeOptions {
    fn from(arguments: RingArguments) -> Self {
        Self {
            dm_ring_bytes: arguments.dm_ring_bytes,
            block_ring_bytes: arguments.block_ring_bytes,
        }
    }
}

pub(super) fn run(arguments: &WatchArguments) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(watch(arguments))
}

async fn watch(arguments: &WatchArguments) -> Result<(), CliError> {
    let (sender, mut receiver) = mpsc::channel(4096);
    let probes = Probes::attach(arguments.rings.into())?;
    let reading = probes::start(probes, sender)?;
    let (databases, mut commits) = match watch_databases(arguments)? {
        Some((watch, commits)) => (Some(watch), Some(commits)),
        None => (None, None),
    };
    let mut interrupted = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    let what = match &databases {
        Some(watch) => format!(", block errors and {}", watch.senses()),
        None => " and block errors".to_owned(),
    };
    eprintln!("watching device-mapper{what}; end with Ctrl-C");
    let mut left = arguments.count;
    let result = loop {
        if left == Some(0) {
            break Ok(());
        }
        let seen = tokio::select! {
            seen = receiver.recv() => seen,
            commit = next(commits.as_mut()) => Some(Seen::Observation(commit)),
            _ = interrupted.recv() => break Ok(()),
            _ = terminated.recv() => break Ok(()),
        };
        match seen {
            Some(Seen::Observation(observation)) => {
                if arguments.all || worth_showing(&observation) {
                    if let Err(error) = print(&observation, arguments.output) {
                        break Err(error);
                    }
                    left = left.map(|lines| lines.saturating_sub(1));
                }
            }
            Some(Seen::Barrier(_)) => {}
            Some(Seen::Broken(why)) => break Err(CliError::ProbesBroke(why)),
            None => break Ok(()),
        }
    };
    // The thread may be waiting to hand something over: without a receiver it stops.
    drop(receiver);
    drop(reading);
    drop(databases);
    result
}

type Watched = (DatabaseWatch, mpsc::Receiver<Observation>);

fn watch_databases(arguments: &WatchArguments) -> Result<Option<Watched>, CliError> {
    let databases = arguments.places.databases()?;
    databases
        .map(|databases| DatabaseWatch::start(&databases.places, databases.core))
        .transpose()
        .map_err(CliError::Databases)
}

/// The next commit; never, where none are watched.
async fn next(commits: Option<&mut mpsc::Receiver<Observation>>) -> Observation {
    if let Some(commits) = commits
        && let Some(observation) = commits.recv().await
    {
        return observation;
    }
    std::future::pending().await
}

fn worth_showing(observation: &Observation) -> bool {
    match observation {
        Observation::DmIoctl(call) => !is_quiet(call),
        _ => true,
    }
}

fn is_quiet(call: &DmIoctl) -> bool {
    call.command.is_query() && call.result.0.is_ok()
}

fn print(observation: &Observation, output: Output) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match output {
        Output::Text => {
            writeln!(out, "{} {observation}", clock_time(observation.at())).map_err(CliError::Print)?;
        }
        Output::Json => {
            let line = serde_json::to_string(observation)?;
            writeln!(out, "{line}").map_err(CliError::Print)?;
        }
    }
    out.flush().map_err(CliError::Print)
}
