//! `suture run`: the sidecar.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Output, record::SizeArguments, seconds, watch::RingArguments};
use crate::{
    agent::{Agent, Options},
    decide::Policy,
    model::PoolName,
    observe::{containerd::read_config, world::Places},
};

/// Watch containerd's devmapper snapshotter, tell what was left half done, and heal it where that is proven safe.
///
/// Without --act nothing is ever changed: the plan is printed instead. Traces go to the collector that the standard
/// `OTEL_EXPORTER_OTLP_*` variables name.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 suture run --act")]
pub(super) struct RunArguments {
    /// Heal. Without it suture only tells.
    #[arg(long)]
    act: bool,
    /// How long a finding must have stood unchanged before it is acted on, in seconds.
    #[arg(long, default_value_t = 15.0, value_name = "SECONDS", value_parser = seconds)]
    grace: f64,
    /// Tell of every operation of containerd's, not only of those that were left half done.
    #[arg(long, short)]
    verbose: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Record everything that is seen to this file, for `suture replay`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    size: SizeArguments,
    #[command(flatten)]
    places: PlaceArguments,
    #[command(flatten)]
    ledger: LedgerArgument,
    #[command(flatten)]
    rings: RingArguments,
}

/// Where the snapshotter keeps its things.
#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    /// containerd's configuration, which tells pool and folder.
    #[arg(long, default_value = "/etc/containerd/config.toml", value_name = "FILE")]
    containerd_config: PathBuf,
    /// dm name of the thin pool, instead of the configuration's.
    #[arg(long, value_name = "NAME", requires = "root_path")]
    pool: Option<String>,
    /// Folder of the snapshotter's databases, instead of the configuration's.
    #[arg(long, value_name = "FOLDER", requires = "pool")]
    root_path: Option<PathBuf>,
}

/// Where the ledger is.
#[derive(Debug, Args)]
pub(super) struct LedgerArgument {
    /// The ledger: what was found and done, kept across restarts.
    #[arg(
        long,
        default_value = "/var/lib/suture/ledger.db",
        value_name = "FILE",
        env = "SUTURE_LEDGER"
    )]
    pub(super) ledger: PathBuf,
}

impl PlaceArguments {
    pub(super) fn places(self) -> Result<Places, CliError> {
        match (self.pool, self.root_path) {
            (Some(pool), Some(root)) => Ok(Places {
                pool: PoolName::new(pool),
                root,
            }),
            _ => Ok(read_config(&self.containerd_config)?.places),
        }
    }
}

pub(super) fn run(arguments: RunArguments) -> Result<(), CliError> {
    start(Options {
        places: arguments.places.places()?,
        policy: Policy {
            act: arguments.act,
            grace: Duration::from_secs_f64(arguments.grace),
        },
        probes: arguments.rings.into(),
        ledger: Some(arguments.ledger.ledger),
        record: arguments.record.map(|file| arguments.size.of(file)),
        verbose: arguments.verbose,
        format: arguments.output.into(),
    })
}

/// Runs an agent until it is asked to stop.
pub(super) fn start(options: Options) -> Result<(), CliError> {
    // Two threads: the agent, and whoever reads the world or talks to the collector.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let result = runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
        let stop = async move {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
        };
        Agent::start(options)?.run(stop).await?;
        Ok(())
    });
    // A read of a device that hangs must not keep suture from ending.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}
