//! `suture status`: how the running suture is. `render` puts it into words.

mod render;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use clap::Args;
use comfy_table::Table;

use super::{CliError, Output};
use crate::{
    control::{self, AskError},
    model::{Status, Timestamp, status::OverallQuality},
};

/// Exit code: it runs, and sees or does less than it could.
const DEGRADED: u8 = 3;
/// Exit code: none runs.
pub(super) const NOT_RUNNING: u8 = 4;

/// Show how the running suture is: what it sees and by what means, what it found, lost and hit.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  it runs, and nothing is amiss\n  3  it runs degraded; the first line says why\n  4  none runs\n  1  it could not be asked\n\nExample:\n  suture status\n  suture status --output json | jq '.senses[] | select(.quality != \"full\")'\n  suture status >/dev/null || echo \"look at suture on $(hostname)\""
)]
pub(super) struct StatusArguments {
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    socket: SocketArgument,
}

/// Where a running suture is asked.
#[derive(Debug, Args)]
pub(super) struct SocketArgument {
    /// The socket at which a running suture is asked how it is.
    #[arg(long, default_value = control::DEFAULT_SOCKET, value_name = "FILE", env = "SUTURE_SOCKET")]
    pub(super) socket: PathBuf,
}

pub(super) fn run(arguments: &StatusArguments) -> Result<ExitCode, CliError> {
    let path = &arguments.socket.socket;
    let told = control::ask_status(path)?;
    let mut out = io::stdout().lock();
    // As it came: a suture of another version may tell more.
    if arguments.output == Output::Json {
        let line = serde_json::to_string(&told)?;
        writeln!(out, "{line}").map_err(CliError::Print)?;
    }
    let status: Status = serde_json::from_value(told).map_err(|source| AskError::Strange {
        path: path.clone(),
        source,
    })?;
    let now = Timestamp::from(SystemTime::now());
    if arguments.output == Output::Text {
        write!(out, "{}", render::text(&status, now, Table::new().width())).map_err(CliError::Print)?;
    }
    out.flush().map_err(CliError::Print)?;
    let well = status.overall.quality == OverallQuality::Full && status.staleness(now).is_none();
    Ok(if well { ExitCode::SUCCESS } else { DEGRADED.into() })
}
