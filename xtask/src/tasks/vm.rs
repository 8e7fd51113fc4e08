//! `cargo xtask vm`: runs a command in the test VM.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::build::{self, Profile};
use crate::vm::{CutOn, Kernel, Stream, Vm, VmBuilder};

/// What may be asked of the VM.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(
    after_help = "Examples:\n  cargo xtask vm -- dmsetup targets\n  cargo xtask vm --kernel 6.12 --disks /tmp/d --cut-on 'half way' -- sh -c 'echo half way; sleep 9'"
)]
pub struct Arguments {
    /// The kernel: 6.1 or 6.12
    #[arg(long, default_value_t)]
    kernel: Kernel,
    /// Keep what is written below /persist in this folder, for the next VM that names it
    #[arg(long, value_name = "DIR")]
    disks: Option<PathBuf>,
    /// Cut the power as soon as a line of the output or the console contains this
    #[arg(long, value_name = "TEXT")]
    cut_on: Option<String>,
    /// The memory, in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// After how many seconds the VM is killed
    #[arg(long, default_value_t = 600)]
    time_limit: u64,
    /// Put this file on the guest's PATH too
    #[arg(long, value_name = "PATH")]
    with_file: Vec<PathBuf>,
    /// Let systemd be the guest's first process
    #[arg(long)]
    systemd: bool,
    /// Show the kernel's console, on standard error
    #[arg(long)]
    console: bool,
    /// Do without suture, which is built first otherwise
    #[arg(long)]
    no_suture: bool,
    /// Take the release build of suture
    #[arg(long)]
    release: bool,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Boots, runs the command, and ends with its exit code; with `--cut-on`, ends well if the power was cut.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut builder = Vm::builder()
        .kernel(arguments.kernel)
        .memory_mib(arguments.memory)
        .time_limit(Duration::from_secs(arguments.time_limit));
    if let Some(folder) = &arguments.disks {
        builder = builder.disks(folder);
    }
    if arguments.systemd {
        builder = builder.systemd();
    }
    if !arguments.no_suture {
        let profile = if arguments.release {
            Profile::Release
        } else {
            Profile::Debug
        };
        builder = builder.file(build::suture(profile)?, "suture");
    }
    for file in &arguments.with_file {
        let name = file.file_name().and_then(|name| name.to_str());
        builder = builder.file(
            file,
            name.with_context(|| format!("{} has no name", file.display()))?,
        );
    }
    if arguments.console {
        builder = builder.console(Box::new(|piece| {
            // Who closed the stream does not want to read it.
            let _ = std::io::stderr().write_all(piece);
        }));
    }
    let Some(text) = &arguments.cut_on else {
        let code = boot_and_run(builder, &arguments.command)?;
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
    };
    let cut = CutOn::new(text);
    match boot_and_run(builder.cut_power_on(&cut), &arguments.command) {
        // The command may have ended with the very line that the power was cut at.
        _ if cut.has_fired() => {
            eprintln!("vm: the power was cut at `{text}`");
            Ok(ExitCode::SUCCESS)
        }
        Ok(code) => {
            bail!("the command ended with code {code} and `{text}` never appeared, so the power was not cut")
        }
        Err(error) => Err(error.context(format!("waiting for `{text}` to cut the power at"))),
    }
}

/// Gives the command's exit code.
fn boot_and_run(builder: VmBuilder, command: &[String]) -> Result<i32> {
    let vm = builder.boot()?;
    let mut process = vm.spawn(command.iter().cloned(), &[])?;
    let output = process.finish_with(|stream, piece| {
        let _ = match stream {
            Stream::Out => std::io::stdout()
                .write_all(piece)
                .and_then(|()| std::io::stdout().flush()),
            Stream::Err => std::io::stderr().write_all(piece),
        };
    })?;
    Ok(output.status.code())
}
