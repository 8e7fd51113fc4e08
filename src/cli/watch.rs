//! `suture watch`: the live stream of what device-mapper did, which block operations failed, and what containerd
//! committed to its databases.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    CliError, Output,
    places::{Databases, PlaceArguments},
};
use crate::{
    model::{
        Observation, Origin,
        dm::{Caller, DmIoctl},
        sense::Quality,
    },
    observe::{
        databases::DatabaseWatch,
        kernel_watch::{KernelWatch, UseBpf},
        probes::{Means, ProbeOptions, Seen},
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
    /// Do without kernel probes, as on a machine that forbids them: shows dm devices that come, go and change, and the
    /// block errors of the kernel's log.
    #[arg(long)]
    no_bpf: bool,
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
    /// device-mapper calls that may be under way at once (984 bytes each, in the kernel).
    #[arg(long, default_value_t = ProbeOptions::default().calls_in_flight, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub calls_in_flight: u32,
    /// Processes whose parent is remembered (some 100 bytes each, in the kernel).
    #[arg(long, default_value_t = ProbeOptions::default().lineage_entries, value_name = "PROCESSES", value_parser = clap::value_parser!(u32).range(1..=1 << 22))]
    pub lineage_entries: u32,
    /// By what means the kernel is watched.
    #[arg(long, value_enum, default_value_t, value_name = "MEANS")]
    pub probes: ProbeChoice,
}

/// By what means the kernel is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProbeChoice {
    /// The best that this kernel offers.
    #[default]
    Best,
    /// Tracepoints only, as on a kernel whose functions can not be probed.
    Tracepoints,
}

impl From<RingArguments> for ProbeOptions {
    fn from(arguments: RingArguments) -> Self {
        Self {
            dm_ring_bytes: arguments.dm_ring_bytes,
            block_ring_bytes: arguments.block_ring_bytes,
            calls_in_flight: arguments.calls_in_flight,
            lineage_entries: arguments.lineage_entries,
            means: match arguments.probes {
                ProbeChoice::Best => Means::Best,
                ProbeChoice::Tracepoints => Means::Tracepoints,
            },
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
    let use_bpf = if arguments.no_bpf {
        UseBpf::Never
    } else {
        UseBpf::Always
    };
    let databases = arguments.places.databases()?;
    let pool = databases.as_ref().map(|databases| databases.places.pool.clone());
    let reading = KernelWatch::start(use_bpf, arguments.rings.into(), pool.as_ref(), sender)?;
    for sense in reading
        .senses()
        .iter()
        .filter(|sense| sense.quality != Quality::Full)
    {
        eprintln!("not as well as could be: {sense}");
    }
    let (databases, mut commits) = match watch_databases(databases)? {
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
            Some(Seen::Barrier(_) | Seen::Senses(_)) => {}
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

fn watch_databases(databases: Option<Databases>) -> Result<Option<Watched>, CliError> {
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

/// A JSON line: the observation, and who seems to stand behind it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    observation: &'a Observation,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
}

fn print(observation: &Observation, output: Output) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match output {
        Output::Text => {
            writeln!(out, "{} {observation}", clock_time(observation.at())).map_err(CliError::Print)?;
        }
        Output::Json => {
            let line = serde_json::to_string(&Line {
                observation,
                origin: observation.caller().map(Caller::origin),
            })?;
            writeln!(out, "{line}").map_err(CliError::Print)?;
        }
    }
    out.flush().map_err(CliError::Print)
}
