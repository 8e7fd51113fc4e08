//! `suture pause`: keeps suture from healing. A running one is told; where none runs the kill switch is made, so that one
//! that is started meanwhile heals nothing.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;

use super::{
    CliError,
    approve::{HowArguments, by},
    settings::ConfigArgument,
};
use crate::{
    config,
    control::{
        AskError, Request,
        stop::{self, KillSwitch},
    },
};

/// Keep suture from healing anything by itself, until `suture resume` or for a time.
///
/// It goes on watching and telling. Where none runs, the kill switch of the configuration is made: one that is started heals
/// nothing while that is there. `suture repair` is not kept from anything: a person starts it, or containerd's start does.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  it is paused, or the kill switch is there\n  1  suture could not be told, or the kill switch not be made\n  2  a wrong word on the command line\n  4  none runs, and --for needs one\n  5  suture refuses\n\nExample:\n  suture pause --for 1h --why 'the pool is being extended'\n  suture pause"
)]
pub(super) struct PauseArguments {
    /// For so long, such as 30m, 1h or 2d; without, until `suture resume`.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    lasting: Option<Duration>,
    /// Why; it is shown by `suture status`.
    #[arg(long, value_name = "TEXT", default_value_t)]
    why: String,
    #[command(flatten)]
    how: HowArguments,
    #[command(flatten)]
    config: ConfigArgument,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = config::parse_time(text)?;
    if time < Duration::from_secs(1) || time > Duration::from_hours(366 * 24) {
        return Err("expected a time from 1s to 366d".to_owned());
    }
    Ok(time)
}

pub(super) fn run(arguments: &PauseArguments) -> Result<(), CliError> {
    let told = arguments.how.tell(&Request::Pause {
        for_seconds: arguments.lasting.map(|time| time.as_secs()),
        why: arguments.why.clone(),
        by: by(),
    });
    match told {
        Err(CliError::Ask(error @ AskError::NotRunning { .. })) => {
            if arguments.lasting.is_some() {
                eprintln!(
                    "suture: a pause that ends by itself needs one that runs; without --for the kill switch is made, which stays until `suture resume`"
                );
                return Err(error.into());
            }
            make_kill_switch(arguments)
        }
        other => other,
    }
}

fn make_kill_switch(arguments: &PauseArguments) -> Result<(), CliError> {
    let path = arguments.config.read()?.policy.kill_switch.clone();
    let who = by().unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let what = match stop::make(&path, &arguments.why, &who)? {
        KillSwitch::Made => "was made",
        _ => "is there already",
    };
    writeln!(
        io::stdout(),
        "no suture runs here; the kill switch {} {what}, and one that is started heals nothing while it is there",
        path.display()
    )
    .map_err(CliError::Print)
}
