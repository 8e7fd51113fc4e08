//! `suture completions`: what a shell needs to complete suture's words, from the very definition that parses them.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, CliError};

/// Print a script that lets a shell complete suture's commands and options.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  suture completions bash > /usr/share/bash-completion/completions/suture\n  suture completions zsh > /usr/local/share/zsh/site-functions/_suture\n  suture completions fish > ~/.config/fish/completions/suture.fish"
)]
pub(super) struct CompletionsArguments {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<(), CliError> {
    // Into memory first: the generator panics where its output can not be written.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "suture", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(CliError::Print)
}
