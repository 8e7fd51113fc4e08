//! `cargo xtask setup`: makes this machine ready to build and test suture.

use std::process::ExitCode;

use anyhow::Result;

/// What may be asked of the set-up.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Look for newer package versions and take them; otherwise what is there stays.
    #[arg(long)]
    refresh: bool,
}

/// Does the set-up and says where it stands.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let begun = std::time::Instant::now();
    crate::setup::everything(arguments.refresh)?;
    eprintln!("setup: everything is ready ({:.1?})", begun.elapsed());
    Ok(ExitCode::SUCCESS)
}
