//! How fast and how small suture is: one file per benchmark, each giving lines of one table. Nothing here fails because
//! something was slow; the table says what was reached and what was promised.

#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the writer of the tests, which take more of it and fail by panicking"
)]
#[path = "../../tests/shared/bbolt_file.rs"]
mod bbolt_file;
mod calls;
mod ended;
mod fold;
mod latency;
mod machine;
mod operations_vm;
mod peer;
mod pipeline;
mod probe_cost;
mod probe_cost_vm;
mod process;
mod repair;
mod report;
mod resident;
mod resident_vm;
mod ring;
mod sample;
mod watching;
mod wire;
mod world;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use self::report::Row;

/// What a benchmark gets.
#[derive(Debug)]
struct Setting {
    /// The release build of suture, and this program itself.
    suture: PathBuf,
    this: PathBuf,
}

/// One benchmark: its name, and what runs it.
type Benchmark = (&'static str, fn(&Setting) -> Result<Vec<Row>>);

const BENCHMARKS: [Benchmark; 11] = [
    ("pipeline", pipeline::run),
    ("probe-cost", probe_cost::run),
    ("ring", ring::run),
    ("latency", latency::run),
    ("fold", fold::run),
    ("world", world::run),
    ("repair", repair::run),
    ("resident", resident::run),
    ("probe-cost-vm", probe_cost_vm::run),
    ("resident-vm", resident_vm::run),
    ("operations-vm", operations_vm::run),
];

/// Where the table is kept, below the workspace.
const PAGE: &str = "docs/benchmarks.md";

#[derive(Debug, Parser)]
#[command(name = "suture-bench", about = "Run by `cargo xtask bench`")]
struct CommandLine {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs benchmarks and prints their table
    Run {
        /// The release build of suture
        #[arg(long)]
        suture: PathBuf,
        /// Also write docs/benchmarks.md
        #[arg(long)]
        write: bool,
        /// Which; all if none is named
        names: Vec<String>,
    },
    /// Makes ioctls and tells what each cost; used in the VM
    Calls(calls::Arguments),
    /// Makes device-mapper ioctls at a steady pace; used in the VM
    Pace(calls::PaceArguments),
    /// Reads a large pool's files and tells what that cost
    ReadWorld(world::Arguments),
    /// Repairs a large pool's files and tells what that cost
    RepairOnce(repair::Arguments),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().what {
        What::Run { suture, write, names } => run(suture, write, &names),
        What::Calls(arguments) => calls::run(&arguments),
        What::Pace(arguments) => calls::pace(&arguments),
        What::ReadWorld(arguments) => world::read(&arguments),
        What::RepairOnce(arguments) => repair::once(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(suture: PathBuf, write: bool, names: &[String]) -> Result<()> {
    let known = BENCHMARKS.map(|(name, _)| name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "there is no benchmark `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    if write && !names.is_empty() {
        bail!("--write needs the whole table: name no benchmark");
    }
    xtask::tracefs::mount_if_missing()?;
    let setting = Setting {
        suture,
        this: std::env::current_exe().context("finding this program's own file")?,
    };
    let machine = machine::describe();
    let mut rows = Vec::new();
    for (name, benchmark) in BENCHMARKS {
        if names.is_empty() || names.iter().any(|one| one == name) {
            eprintln!("bench: {name}");
            rows.extend(benchmark(&setting).with_context(|| format!("the benchmark `{name}`"))?);
        }
    }
    println!("{machine}\n\n{}", report::table(&rows));
    if write {
        let path = xtask::workspace_root().join(PAGE);
        std::fs::write(&path, report::page(&machine, &rows))
            .with_context(|| format!("writing {}", path.display()))?;
        eprintln!("bench: wrote {}", path.display());
    }
    Ok(())
}
