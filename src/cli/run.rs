//! `suture run`: the sidecar.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{
    CliError, Output,
    places::{Databases, PlaceArguments},
    record::SizeArguments,
    seconds,
    settings::ConfigArgument,
    status::SocketArgument,
    watch::RingArguments,
};
use crate::{
    agent::{Agent, Bounds, Healing, Listen, Options},
    citizen::{OnlyOne, Orders},
    decide::Policy,
    model::FindingClass,
    observe::kernel_watch::UseBpf,
};

/// Watch containerd's devmapper snapshotter, tell what was left half done, and heal it where that is proven safe.
///
/// Without --act nothing is ever changed: the plan is printed instead. Traces go to the collector that the standard
/// `OTEL_EXPORTER_OTLP_*` variables name.
///
/// SIGTERM and SIGINT end it within 5 s, a second one at once; SIGHUP makes it read its configuration again. A service
/// manager that asks (`NOTIFY_SOCKET`, `WATCHDOG_USEC`) is told how it is.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  it was asked to end\n  1  it could not start or go on, or was ended before everything was stored\n  8  another suture watches the pool; the message says which\n\nExample:\n  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 suture run --act"
)]
pub(super) struct RunArguments {
    /// Heal. Without it suture only tells.
    #[arg(long)]
    act: bool,
    /// How long a finding must have stood unchanged before it is acted on, in seconds, whatever the configuration says.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    grace: Option<f64>,
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
    bpf: BpfArguments,
    #[command(flatten)]
    rings: RingArguments,
    /// Events that may wait for the agent, of about 1 KiB each; more wait in the rings.
    #[arg(long, default_value_t = queue_default(), value_name = "EVENTS",
        value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    queue_events: u32,
    #[command(flatten)]
    socket: SocketArgument,
    #[command(flatten)]
    config: ConfigArgument,
    /// Serve metrics for Prometheus there, such as 127.0.0.1:9469: /metrics, and /healthz. Anybody who reaches the
    /// address can read them.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SUTURE_METRICS")]
    metrics: Option<SocketAddr>,
}

/// Whether to use kernel probes.
#[derive(Debug, Args)]
pub(super) struct BpfArguments {
    /// Do without kernel probes, as on a machine that forbids them: less is seen, later, and nothing is deleted.
    #[arg(long, conflicts_with = "require_bpf")]
    no_bpf: bool,
    /// End with an error where the kernel takes no probes, instead of doing without them.
    #[arg(long)]
    require_bpf: bool,
}

impl From<BpfArguments> for UseBpf {
    fn from(arguments: BpfArguments) -> Self {
        match arguments {
            BpfArguments { no_bpf: true, .. } => Self::Never,
            BpfArguments {
                require_bpf: true, ..
            } => Self::Always,
            _ => Self::IfPossible,
        }
    }
}

/// Where the ledger is unless told otherwise.
pub(super) const LEDGER: &str = "/var/lib/suture/ledger.db";

/// Where the ledger is.
#[derive(Debug, Args)]
pub(super) struct LedgerArgument {
    /// The ledger: what was found and done, kept across restarts.
    #[arg(
        long,
        default_value = LEDGER,
        value_name = "FILE",
        env = "SUTURE_LEDGER"
    )]
    pub(super) ledger: PathBuf,
}

fn queue_default() -> u32 {
    Bounds::default().queue_events.try_into().unwrap_or(u32::MAX)
}

pub(super) fn run(arguments: RunArguments) -> Result<(), CliError> {
    let survey = arguments.places.survey_places()?;
    let Databases { places, core } = arguments.places.required()?;
    let read = arguments.config.read()?;
    let group = read.control.group.clone();
    let said = arguments.grace.map(Duration::from_secs_f64);
    let shipped = read.policy.of(FindingClass::LeakedThin).grace;
    let _only_one = OnlyOne::of(&places.pool)?;
    start(Options {
        healing: Some(Healing {
            places: survey,
            file: arguments.config.path(),
            grace: said,
            config: read,
        }),
        core_db: core,
        places,
        policy: Policy {
            act: arguments.act,
            grace: said.unwrap_or(shipped),
        },
        use_bpf: arguments.bpf.into(),
        probes: arguments.rings.into(),
        bounds: Bounds {
            queue_events: arguments.queue_events.try_into().unwrap_or(usize::MAX),
        },
        listen: Listen {
            socket: Some(arguments.socket.socket),
            group,
            metrics: arguments.metrics,
        },
        ledger: Some(arguments.ledger.ledger),
        record: arguments.record.map(|file| arguments.size.of(file)),
        only_record: false,
        verbose: arguments.verbose,
        format: arguments.output.into(),
    })
}

/// Runs an agent until it is asked to stop.
pub(super) fn start(options: Options) -> Result<(), CliError> {
    // Before anything else is begun: a signal must find somebody who ends it in order.
    let orders = Orders::by_signals().map_err(CliError::Runtime)?;
    // Two threads: the agent, and whoever reads the world or talks to the collector.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let result = runtime.block_on(async {
        Agent::start(options)?.run(orders).await?;
        Ok(())
    });
    // A read of a device that hangs must not keep suture from ending.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}
