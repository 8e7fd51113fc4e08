//! `suture replay`: the same brain over a recording.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{CliError, Output, seconds};
use crate::{
    brain::Report,
    recording::{Reader, ReplayOptions, replay},
    reporter::Reporter,
};

/// Think a recording over again, and tell what the suture that made it told. Nothing is done and nothing is needed: no root,
/// no containerd, no Linux.
///
/// The exit code is 0 when all of it was read, 3 when it is damaged or breaks off: then everything before that was told.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  suture replay tests/recordings/leaked-thin.suture\n  suture replay --act-as-if --grace 60 node.suture"
)]
pub(super) struct ReplayArguments {
    /// The recording; `-` for standard input.
    file: PathBuf,
    /// Another grace than the recorded one, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    grace: Option<f64>,
    /// Decide as if acting had been allowed, and tell whether the guards hold. Still nothing is done.
    #[arg(long)]
    act_as_if: bool,
    /// Tell of every operation of containerd's, not only of those that were left half done.
    #[arg(long, short)]
    verbose: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(arguments: &ReplayArguments) -> Result<(), CliError> {
    let name = || arguments.file.display().to_string();
    let from = open(&arguments.file).map_err(|source| CliError::Open { file: name(), source })?;
    let reader = Reader::open(from).map_err(|source| CliError::NotARecording { file: name(), source })?;
    let options = ReplayOptions {
        grace: arguments.grace.map(Duration::from_secs_f64),
        act_as_if: arguments.act_as_if,
        verbose: arguments.verbose,
    };
    let mut entries = 0;
    let mut reporter = Reporter::new(arguments.output.into(), io::BufWriter::new(io::stdout().lock()));
    let damage = replay(reader, options, |at, report| {
        if let Report::Replayed { entries: read, .. } = report {
            entries = *read;
        }
        reporter.tell(at, report)
    });
    match damage.map_err(CliError::Print)? {
        None => Ok(()),
        Some(source) => Err(CliError::Damaged {
            file: name(),
            entries,
            source: Box::new(source),
        }),
    }
}

fn open(file: &Path) -> io::Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(file)?)))
}
