//! `cargo xtask bench`: how fast and how small suture is. The measuring is done by the package `suture-bench`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::build::{self, Profile};
use crate::command::clean_cargo;

/// What may be asked of the benchmarks.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench pipeline ring\n  cargo xtask bench --write"
)]
pub struct Arguments {
    /// Also write docs/benchmarks.md
    #[arg(long, conflicts_with = "names")]
    write: bool,
    /// Which; all if none is named (a wrong name tells which there are)
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Builds suture and the benchmarks, and runs them.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the benchmarks load BPF programs into this machine's kernel and need root; run `sudo -E env PATH=\"$PATH\" cargo xtask bench`"
        );
    }
    let suture = build::suture(Profile::Release)?;
    let target = crate::target_dir();
    let status = clean_cargo()
        .args([
            "build",
            "--locked",
            "--release",
            "--package",
            "suture-bench",
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(crate::workspace_root())
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("the benchmarks could not be built, see above");
    }
    let mut bench = Command::new(target.join("release/suture-bench"));
    bench.arg("run").arg("--suture").arg(suture);
    if arguments.write {
        bench.arg("--write");
    }
    let status = bench
        .args(&arguments.names)
        .status()
        .context("starting the benchmarks")?;
    // What went wrong, it has said itself.
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
