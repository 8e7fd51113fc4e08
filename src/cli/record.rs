//! `suture record`: watch, tell and record; change nothing.

use std::path::PathBuf;

use clap::Args;

use super::{
    CliError, Output,
    places::{Databases, PlaceArguments},
    run::{BpfArguments, start},
    seconds,
    watch::RingArguments,
};
use crate::{
    agent::{Bounds, Listen, Options},
    decide::Policy,
    recording::RecordingOptions,
};

/// Record everything that suture sees, for `suture replay`: as `suture run` without --act, and without a ledger.
///
/// A recording names dm devices, snapshots and processes. It holds no contents of files, no container's specification and
/// no environment.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  suture record /var/tmp/node.suture --max-bytes 16777216 --keep 2")]
pub(super) struct RecordArguments {
    /// The file to record to. Recordings that are there already are kept as FILE.1, FILE.2, ...
    file: PathBuf,
    #[command(flatten)]
    size: SizeArguments,
    /// How long a finding must have stood unchanged before a plan is made for it, in seconds.
    #[arg(long, default_value_t = 15.0, value_name = "SECONDS", value_parser = seconds)]
    grace: f64,
    /// Tell of every operation of containerd's, not only of those that were left half done.
    #[arg(long, short)]
    verbose: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    places: PlaceArguments,
    #[command(flatten)]
    bpf: BpfArguments,
    #[command(flatten)]
    rings: RingArguments,
}

/// How much to keep.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct SizeArguments {
    /// Bytes of a recording, at least 65536; then the next one is begun.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(65_536..))]
    max_bytes: u64,
    /// How many recordings are kept, the newest included.
    #[arg(long, default_value_t = 4, value_name = "FILES", value_parser = clap::value_parser!(u32).range(1..=1000))]
    keep: u32,
}

impl SizeArguments {
    pub(super) fn of(self, file: PathBuf) -> RecordingOptions {
        RecordingOptions {
            file,
            max_bytes: self.max_bytes,
            keep: self.keep,
        }
    }
}

pub(super) fn run(arguments: RecordArguments) -> Result<(), CliError> {
    let Databases { places, core } = arguments.places.required()?;
    start(Options {
        core_db: core,
        healing: None,
        places,
        policy: Policy {
            act: false,
            grace: std::time::Duration::from_secs_f64(arguments.grace),
        },
        use_bpf: arguments.bpf.into(),
        probes: arguments.rings.into(),
        bounds: Bounds::default(),
        listen: Listen::default(),
        ledger: None,
        record: Some(arguments.size.of(arguments.file)),
        only_record: true,
        verbose: arguments.verbose,
        format: arguments.output.into(),
    })
}
