//! `cargo xtask run`: suture at its main job, on this machine where it has a containerd with a devmapper snapshotter, in
//! the test VM where it has none.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::build::{self, Profile};
use super::demo;
use crate::setup::Kernel;

/// Where containerd's packages keep its configuration.
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// What may be asked of a run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask run\n  cargo xtask run -- --act --grace 60")]
pub struct Arguments {
    /// Break a containerd in the test VM also where this machine has one of its own
    #[arg(long)]
    vm: bool,
    /// The VM's kernel: 6.1 or 6.12
    #[arg(long, default_value_t)]
    kernel: Kernel,
    /// Arguments for `suture run` on this machine; without `--act` it changes nothing
    #[arg(last = true, value_name = "ARGUMENT")]
    for_suture: Vec<String>,
}

/// Builds suture and runs it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let binary = build::suture(Profile::Release)?;
    match pool_of_this_machine() {
        Some(pool) if !arguments.vm => {
            eprintln!(
                "This machine's containerd has a devmapper snapshotter on the pool {pool}: suture runs on it."
            );
            if !arguments.for_suture.iter().any(|argument| argument == "--act") {
                eprintln!("It only watches and tells; `cargo xtask run -- --act` allows it to heal.");
            }
            run_here(&binary, &arguments.for_suture)
        }
        _ => {
            eprintln!(
                "This machine has no containerd with a devmapper snapshotter, so one is broken and healed in a virtual machine."
            );
            demo::run(&binary, arguments.kernel)
        }
    }
}

/// The thin pool of this machine's own devmapper snapshotter, if it has one and the pool is there.
fn pool_of_this_machine() -> Option<String> {
    let text = std::fs::read_to_string(CONTAINERD_CONFIG).ok()?;
    let pool = pool_name(&text)?;
    Path::new("/dev/mapper").join(&pool).exists().then_some(pool)
}

fn pool_name(configuration: &str) -> Option<String> {
    let table: toml::Table = configuration.parse().ok()?;
    let name = table
        .get("plugins")?
        .get("io.containerd.snapshotter.v1.devmapper")?
        .get("pool_name")?
        .as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Becomes `suture run`, as root.
fn run_here(binary: &Path, arguments: &[String]) -> Result<ExitCode> {
    let root = rustix::process::geteuid().is_root();
    let mut command = if root {
        Command::new(binary)
    } else {
        Command::new("sudo")
    };
    if !root {
        command.arg("--").arg(binary);
    }
    // Comes back only if it could not be done.
    let error = command.arg("run").args(arguments).exec();
    Err(error).context("starting suture; it needs root, so run this as root or install sudo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_found_in_containerds_configuration() {
        let text = "version = 2\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = \"tp\"\n";
        assert_eq!(pool_name(text).as_deref(), Some("tp"));
        assert_eq!(pool_name(&text.replace("\"tp\"", "\"\"")), None);
        assert_eq!(pool_name("version = 2\n"), None);
        assert_eq!(pool_name("= ="), None);
    }
}
