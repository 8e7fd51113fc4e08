//! `cargo xtask build`: one self-contained binary, with the BPF object inside.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::command::clean_cargo;

/// Which of cargo's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Debug,
    /// What is shipped.
    Release,
}

/// What may be asked of the build.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A debug build instead of the one that is shipped
    #[arg(long)]
    debug: bool,
}

/// Makes the machine ready as far as building needs it, and builds.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let profile = if arguments.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    println!("{}", suture(profile)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds suture as it is now, and gives the binary.
pub fn suture(profile: Profile) -> Result<PathBuf> {
    crate::setup::host_packages()?;
    crate::setup::bpf_toolchain(false)?;
    let target = crate::target_dir();
    let mut cargo = clean_cargo();
    cargo
        .args([
            "build",
            "--locked",
            "--package",
            "suture",
            "--bin",
            "suture",
            "--features",
            "node",
            "--target-dir",
        ])
        .arg(&target);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let status = cargo
        .current_dir(crate::workspace_root())
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("suture could not be built, see above");
    }
    let folder = if profile == Profile::Release {
        "release"
    } else {
        "debug"
    };
    Ok(target.join(folder).join("suture"))
}
