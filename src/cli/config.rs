//! `suture config`: prints the configuration with every key explained, and says where a file is wrong.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CliError, Output, exit};
use crate::{
    config::{Checked, Config, ConfigFileError, DEFAULT_PATH, Fault, Place},
    words,
};

/// Print suture's configuration, or check it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  printed, or the file is right\n  8  the file can not be read\n  16 the file is wrong, or a wrong word on the command line\n\nExample:\n  suture config default > /etc/suture/suture.toml\n  suture config check"
)]
pub(super) struct ConfigArguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print what is shipped, every key explained.
    Default,
    /// Say whether a file is right, and if not, where it is wrong.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        file: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print what is in force with a file: what it says, and what is shipped where it says nothing.
    Show {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        file: PathBuf,
    },
}

/// What a check found, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    status: &'static str,
    errors: Vec<Place>,
    warnings: Vec<Place>,
}

/// Runs it.
pub(super) fn run(arguments: &ConfigArguments) -> Result<ExitCode, CliError> {
    match &arguments.command {
        ConfigCommand::Default => print(&Config::default().text()),
        ConfigCommand::Check { file, output } => match Config::check(file) {
            Ok(checked) => report(file, &checked, *output),
            Err(error) => Ok(unread(&error)),
        },
        ConfigCommand::Show { file } => match Config::check(file) {
            Ok(Checked {
                result: Ok((config, _)),
                ..
            }) => print(&config.text()),
            Ok(checked) => report(file, &checked, Output::Text),
            Err(ConfigFileError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound && file == Path::new(DEFAULT_PATH) =>
            {
                print(&Config::default().text())
            }
            Err(error) => Ok(unread(&error)),
        },
    }
}

fn print(text: &str) -> Result<ExitCode, CliError> {
    io::stdout().write_all(text.as_bytes()).map_err(CliError::Print)?;
    Ok(ExitCode::SUCCESS)
}

fn unread(error: &ConfigFileError) -> ExitCode {
    eprintln!("suture: {}", words::explain(error));
    exit::OPERATIONAL.into()
}

fn report(file: &Path, checked: &Checked, output: Output) -> Result<ExitCode, CliError> {
    let none: &[Fault] = &[];
    let (errors, warnings) = match &checked.result {
        Ok((_, warnings)) => (none, warnings.as_slice()),
        Err(errors) => (errors.as_slice(), none),
    };
    let code = if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        exit::USAGE.into()
    };
    let mut out = io::stdout().lock();
    match output {
        Output::Json => {
            let places = |faults: &[Fault]| faults.iter().map(|fault| fault.place(&checked.text)).collect();
            let report = Report {
                file,
                status: if errors.is_empty() { "right" } else { "wrong" },
                errors: places(errors),
                warnings: places(warnings),
            };
            serde_json::to_writer(&mut out, &report).map_err(CliError::json)?;
            writeln!(out).map_err(CliError::Print)?;
        }
        Output::Text => {
            let path = file.display().to_string();
            let shown = |faults: &[Fault], is_error| -> Vec<String> {
                let faults = faults.iter();
                faults
                    .map(|fault| fault.shown(&checked.text, &path, is_error))
                    .collect()
            };
            for text in shown(errors, true).into_iter().chain(shown(warnings, false)) {
                writeln!(out, "{text}\n").map_err(CliError::Print)?;
            }
            let verdict = match (errors.len(), warnings.len()) {
                (0, 0) => "is right".to_owned(),
                (0, 1) => "can be used, with 1 thing that is probably not meant".to_owned(),
                (0, more) => format!("can be used, with {more} things that are probably not meant"),
                (1, _) => "can not be used: 1 thing is wrong".to_owned(),
                (more, _) => format!("can not be used: {more} things are wrong"),
            };
            writeln!(out, "{path} {verdict}").map_err(CliError::Print)?;
        }
    }
    Ok(code)
}
