//! `suture man`: manual pages, from the very definition that parses the words.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory as _};

use super::{Cli, CliError};

/// Write manual pages into a folder: one of suture, and one of each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  suture man /usr/local/share/man/man1 && man suture-check")]
pub(super) struct ManArguments {
    /// Where to; it is made where it is missing.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &ManArguments) -> Result<(), CliError> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|source| CliError::ManualPages {
            folder: folder.display().to_string(),
            source,
        })
}
