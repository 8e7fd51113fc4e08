//! The command line: one file per subcommand. Nothing is decided here; each command wires rooms together and prints.

#[cfg(not(feature = "node"))]
mod absent;
#[cfg(feature = "node")]
mod approve;
#[cfg(feature = "node")]
mod check;
mod completions;
#[cfg(feature = "node")]
mod config;
mod error;
#[cfg_attr(
    not(feature = "node"),
    expect(dead_code, reason = "without a node a wrong word is all that can go wrong")
)]
mod exit;
#[cfg(feature = "node")]
mod explain;
#[cfg(feature = "node")]
mod findings;
#[cfg(feature = "node")]
mod heal;
#[cfg(feature = "node")]
mod history;
#[cfg(feature = "node")]
mod inspect;
#[cfg(feature = "node")]
mod look;
mod man;
#[cfg(feature = "node")]
mod paper;
#[cfg(feature = "node")]
mod pause;
#[cfg(feature = "node")]
mod places;
#[cfg(feature = "node")]
mod record;
#[cfg(feature = "node")]
mod reject;
#[cfg(feature = "node")]
mod repair;
mod replay;
#[cfg(feature = "node")]
mod resume;
#[cfg(feature = "node")]
mod run;
#[cfg(feature = "node")]
mod settings;
#[cfg(feature = "node")]
mod status;
#[cfg(feature = "node")]
mod watch;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

#[cfg(not(feature = "node"))]
use absent::AbsentArguments as NodeArguments;
pub use error::CliError;

use crate::reporter::Format;
#[cfg(feature = "node")]
use crate::{citizen::OnlyOneError, control::AskError};

/// Exit code where only a part of a recording could be read.
const DAMAGED: u8 = 3;

/// Sees half-finished storage operations of containerd's devmapper snapshotter in the kernel, and heals them when that
/// is proven safe.
#[derive(Debug, Parser)]
#[command(name = "suture", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[cfg(feature = "node")]
#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArguments),
    Inspect(inspect::InspectArguments),
    Explain(explain::ExplainArguments),
    Run(run::RunArguments),
    Status(status::StatusArguments),
    Watch(watch::WatchArguments),
    Findings(findings::FindingsArguments),
    Approve(approve::ApproveArguments),
    Reject(reject::RejectArguments),
    Pause(pause::PauseArguments),
    Resume(resume::ResumeArguments),
    History(history::HistoryArguments),
    Record(record::RecordArguments),
    Repair(repair::RepairArguments),
    Config(config::ConfigArguments),
    /// Looks and acts for a running sidecar.
    #[command(hide = true, name = crate::healer::WORKER)]
    HealWorker,
    /// Stops containerd, repairs, and starts it again, for a running sidecar.
    #[command(hide = true, name = crate::healer::RESTART)]
    RestartAndRepair(heal::RestartArguments),
    Replay(replay::ReplayArguments),
    Completions(completions::CompletionsArguments),
    Man(man::ManArguments),
}

#[cfg(not(feature = "node"))]
#[derive(Debug, Subcommand)]
enum Command {
    /// Not in this build: check the snapshotter against its pool.
    Check(NodeArguments),
    /// Not in this build: show every device and what is known of it.
    Inspect(NodeArguments),
    /// Not in this build: show why a finding is one.
    Explain(NodeArguments),
    /// Not in this build: watch and heal a node.
    Run(NodeArguments),
    /// Not in this build: show device-mapper calls and block errors as they happen.
    Watch(NodeArguments),
    /// Not in this build: list what a running suture found.
    Findings(NodeArguments),
    /// Not in this build: let a running suture carry out a plan.
    Approve(NodeArguments),
    /// Not in this build: keep a running suture from a plan.
    Reject(NodeArguments),
    /// Not in this build: keep suture from healing.
    Pause(NodeArguments),
    /// Not in this build: let suture heal again.
    Resume(NodeArguments),
    /// Not in this build: show what was found and done.
    History(NodeArguments),
    /// Not in this build: ask a running suture how it is.
    Status(NodeArguments),
    /// Not in this build: record what suture sees.
    Record(NodeArguments),
    /// Not in this build: heal what a check finds.
    Repair(NodeArguments),
    /// Not in this build: print and check suture's configuration.
    Config(NodeArguments),
    Replay(replay::ReplayArguments),
    Completions(completions::CompletionsArguments),
    Man(man::ManArguments),
}

/// Exit code where a command was understood and not followed: suture says no, or the person who gave it did.
#[cfg(feature = "node")]
const NOT_DONE: u8 = 5;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON value a line, for programs.
    Json,
}

impl From<Output> for Format {
    fn from(output: Output) -> Self {
        match output {
            Output::Text => Self::Text,
            Output::Json => Self::Json,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Whether the command is one of those that end as fsck(8) does.
fn ends_as_fsck() -> bool {
    std::env::args_os()
        .nth(1)
        .is_some_and(|word| exit::AS_FSCK.iter().any(|name| word == *name))
}

/// Prints what clap has to say: help and version are no errors, and what is one depends on the subcommand.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell where this fails.
    drop(error.print());
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if ends_as_fsck() => exit::USAGE.into(),
        code => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

/// Runs the command that was asked for; the exit code says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let success = |()| ExitCode::SUCCESS;
    let result = match cli.command {
        #[cfg(feature = "node")]
        Command::Check(arguments) => Ok(check::run(&arguments)),
        #[cfg(feature = "node")]
        Command::Inspect(arguments) => Ok(inspect::run(&arguments)),
        #[cfg(feature = "node")]
        Command::Explain(arguments) => Ok(explain::run(&arguments)),
        #[cfg(feature = "node")]
        Command::Run(arguments) => run::run(arguments).map(success),
        #[cfg(feature = "node")]
        Command::Watch(arguments) => watch::run(&arguments).map(success),
        #[cfg(feature = "node")]
        Command::Findings(arguments) => findings::run(&arguments).map(success),
        #[cfg(feature = "node")]
        Command::Approve(arguments) => approve::run(&arguments).map(success),
        #[cfg(feature = "node")]
        Command::Reject(arguments) => reject::run(&arguments).map(success),
        #[cfg(feature = "node")]
        Command::Pause(arguments) => pause::run(&arguments).map(success),
        #[cfg(feature = "node")]
        Command::Resume(arguments) => resume::run(&arguments),
        #[cfg(feature = "node")]
        Command::History(arguments) => history::run(&arguments).map(success),
        #[cfg(feature = "node")]
        Command::Record(arguments) => record::run(arguments).map(success),
        #[cfg(feature = "node")]
        Command::Repair(arguments) => Ok(repair::run(&arguments)),
        #[cfg(feature = "node")]
        Command::Config(arguments) => config::run(&arguments),
        #[cfg(feature = "node")]
        Command::HealWorker => Ok(heal::work()),
        #[cfg(feature = "node")]
        Command::RestartAndRepair(arguments) => Ok(heal::restart(arguments)),
        #[cfg(feature = "node")]
        Command::Status(arguments) => status::run(&arguments),
        #[cfg(not(feature = "node"))]
        Command::Check(_)
        | Command::Inspect(_)
        | Command::Explain(_)
        | Command::Run(_)
        | Command::Status(_)
        | Command::Watch(_)
        | Command::Findings(_)
        | Command::Approve(_)
        | Command::Reject(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::History(_)
        | Command::Record(_)
        | Command::Repair(_)
        | Command::Config(_) => Err(CliError::WithoutNode),
        Command::Replay(arguments) => replay::run(&arguments).map(success),
        Command::Completions(arguments) => completions::run(&arguments).map(success),
        Command::Man(arguments) => man::run(&arguments).map(success),
    };
    match result {
        Ok(code) => code,
        // The reader went away (`suture watch | head`): nobody is left to tell.
        Err(CliError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suture: {}", crate::words::explain(&error));
            match error {
                #[cfg(feature = "node")]
                CliError::Ask(AskError::NotRunning { .. }) => status::NOT_RUNNING.into(),
                #[cfg(feature = "node")]
                CliError::Ask(AskError::NotFollowed { .. }) | CliError::NotAgreed(_) => NOT_DONE.into(),
                #[cfg(feature = "node")]
                CliError::OnlyOne(OnlyOneError::Taken { .. }) => exit::OPERATIONAL.into(),
                // 1 would say that everything was corrected.
                #[cfg(not(feature = "node"))]
                CliError::WithoutNode if ends_as_fsck() => exit::OPERATIONAL.into(),
                CliError::Damaged { .. } => ExitCode::from(DAMAGED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Nodes for the tests of other rooms.
#[cfg(all(test, feature = "node"))]
pub(crate) mod samples {
    use super::check::{look_with_everything, quiet_look};
    use crate::{
        model::{Diagnoses, Survey},
        observe::survey::SurveyPlaces,
    };

    /// One on which nothing is wrong, and where that is.
    pub(crate) fn quiet() -> (Survey, SurveyPlaces) {
        let look = quiet_look();
        (look.survey, look.at)
    }

    /// One with a finding of every class.
    pub(crate) fn everything() -> (Survey, Diagnoses) {
        let look = look_with_everything();
        (look.survey, look.diagnoses)
    }
}
