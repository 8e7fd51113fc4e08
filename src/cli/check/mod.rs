//! `suture check`: a read-only fsck of the snapshotter against its pool. `report` is what programs read, `text` what people
//! read.

mod report;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod schema_tests;
mod text;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;

pub(super) use report::{FindingReport, PoolReport, WorldReport};
#[cfg(test)]
pub(super) use samples::{look_with_everything, quiet_look};
pub(super) use text::{command, hits};

use super::{
    CliError, Output,
    look::{self, LookArguments},
    paper::Paper,
};

/// Check containerd's devmapper snapshotter against its thin pool, and change nothing.
///
/// Reads containerd's databases without a lock, the pool's metadata, the dm devices, mounts and containers as one consistent
/// state, and says what is wrong, whom it hits, and what to do. Needs no configuration and no running suture on a node
/// where containerd is in its usual place. What is in flight is not a finding.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes, as of fsck(8):\n  0   clean; notices may be there\n  4   something is wrong\n  8   it could not be checked, or not all of it\n  16  a wrong word on the command line\n\nExample:\n  suture check\n  suture check --output json | jq -r '.findings[] | [.severity, .id, .remedy.command] | @tsv'\n  suture check --patience 0      # do not wait for what may be in flight\n  suture check --pool tp --root-path /var/lib/containerd/io.containerd.snapshotter.v1.devmapper\n  suture check --metadata-device /dev/vg0/tp_tmeta   # a pool that is not set up"
)]
pub(super) struct CheckArguments {
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Print every finding in full, also where there are very many of a class.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    look: LookArguments,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    look::ended(check(arguments))
}

fn check(arguments: &CheckArguments) -> Result<ExitCode, CliError> {
    let look = look::look(&arguments.look, look::Names::WhenFound)?;
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Json => {
            serde_json::to_writer(&mut out, &report::Report::new(&look)).map_err(CliError::json)?;
            writeln!(out)
        }
        Output::Text => write!(out, "{}", text::text(&look, Paper::stdout(), arguments.all)),
    }
    .and_then(|()| out.flush())
    .map_err(CliError::Print)?;
    let code = look.verdict().code();
    // The process ends now: what it holds need not be given back piece by piece.
    std::mem::forget(look);
    Ok(code)
}
