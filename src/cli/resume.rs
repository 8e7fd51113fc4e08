//! `suture resume`: lets suture heal again, and takes up again what a circuit breaker had given up.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;

use super::{
    CliError, NOT_DONE,
    approve::{HowArguments, by},
    settings::ConfigArgument,
};
use crate::control::{
    AskError, Request,
    stop::{self, KillSwitch},
};

/// Let suture heal again after `suture pause`, and take up again what a circuit breaker had given up.
///
/// A kill switch that `suture pause` made is removed. One that somebody made by hand stays, and is named.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  it goes on, or the kill switch of `suture pause` is removed\n  1  suture could not be told, or the kill switch not be removed\n  2  a wrong word on the command line\n  4  none runs, and there is no kill switch\n  5  a kill switch that somebody made by hand is still there\n\nExample:\n  suture resume"
)]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    how: HowArguments,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &ResumeArguments) -> Result<ExitCode, CliError> {
    let told = arguments.how.tell(&Request::Resume { by: by() });
    let not_running = match told {
        Err(CliError::Ask(error @ AskError::NotRunning { .. })) => Some(error),
        other => {
            other?;
            None
        }
    };
    let path = arguments.config.read()?.policy.kill_switch.clone();
    let said = match (stop::remove(&path)?, not_running) {
        (KillSwitch::NotOurs, _) => {
            eprintln!(
                "suture: the kill switch {} is still there, and nothing is healed meanwhile; `suture pause` did not make it, so remove it by hand",
                path.display()
            );
            return Ok(NOT_DONE.into());
        }
        (KillSwitch::Removed, _) => {
            format!(
                "the kill switch {} that `suture pause` made is removed",
                path.display()
            )
        }
        (_, Some(error)) => return Err(error.into()),
        (_, None) => return Ok(ExitCode::SUCCESS),
    };
    // Told apart from what the running one said, which may be for a program.
    writeln!(io::stderr(), "{said}").map_err(CliError::Print)?;
    Ok(ExitCode::SUCCESS)
}
