//! `cargo xtask recordings`: the recordings of tests/recordings, made anew on a real kernel with a real containerd.
//!
//! One row of [`SCENARIOS`] is one recording. Beside each lies what a replay of it tells, which tests/replay.rs holds it to.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::build::{self, Profile};
use super::relay::Relay;
use crate::command::output;
use crate::vm::containerd::{Containerd, Options};
use crate::vm::{Kernel, Vm};

/// Where the recording is in the guest.
const IN_GUEST: &str = "/run/made.suture";

/// One recording to be made.
struct Scenario {
    /// Name of the file, without its ending.
    name: &'static str,
    /// What happens, for the person who waits.
    about: &'static str,
    /// More arguments for `suture record`.
    arguments: &'static [&'static str],
    /// The break. Called with a containerd that serves, and a suture that records and has read the world once.
    make: fn(&mut Stage<'_, '_>) -> Result<()>,
}

/// Every recording there is. A new one is a row here, a paragraph in tests/recordings/README.md, and a run of this task.
const SCENARIOS: &[Scenario] = &[Scenario {
    name: "leaked-thin",
    about: "containerd is killed right after the device of a new snapshot has appeared, and comes back",
    arguments: &["--grace", "5"],
    make: leaked_thin,
}];

/// What a scenario has to work with.
struct Stage<'s, 'vm> {
    containerd: &'s mut Containerd<'vm>,
    told: &'s mut Relay,
}

/// What may be asked of the task.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask recordings\n  cargo xtask recordings leaked-thin")]
pub struct Arguments {
    /// Only these; all of them if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The VM's kernel: 6.1 or 6.12
    #[arg(long, default_value_t)]
    kernel: Kernel,
    /// Make only what a replay tells anew, from the recordings that are there
    #[arg(long)]
    expected_only: bool,
}

/// Makes them.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    for name in &arguments.names {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            bail!("there is no recording `{name}`; there are {}", known.join(", "));
        }
    }
    let suture = build::suture(Profile::Debug)?;
    let folder = crate::workspace_root().join("tests/recordings");
    let wanted = |scenario: &&Scenario| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| name == scenario.name)
    };
    for scenario in SCENARIOS.iter().filter(wanted) {
        let recording = folder.join(format!("{}.suture", scenario.name));
        if !arguments.expected_only {
            println!("== {}: {}", scenario.name, scenario.about);
            let bytes = record(scenario, &suture, arguments.kernel)
                .with_context(|| format!("making the recording {}", scenario.name))?;
            fs::write(&recording, &bytes).with_context(|| format!("writing {}", recording.display()))?;
            println!("   {} bytes in {}", bytes.len(), recording.display());
        }
        expect(&suture, &recording)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Breaks a containerd under the eyes of a recording suture.
fn record(scenario: &Scenario, suture: &Path, kernel: Kernel) -> Result<Vec<u8>> {
    let vm = Vm::builder()
        .kernel(kernel)
        .time_limit(Duration::from_mins(10))
        .file(suture, "suture")
        .boot()?;
    let mut containerd = Containerd::set_up(&vm, Options::default())?;
    containerd.start()?;
    let command = ["suture", "record", IN_GUEST].into_iter();
    let mut told = Relay::of(vm.spawn(command.chain(scenario.arguments.iter().copied()), &[])?);
    told.until("gap closed")?;
    (scenario.make)(&mut Stage {
        containerd: &mut containerd,
        told: &mut told,
    })?;
    told.end()?;
    let bytes = vm.read_file(IN_GUEST)?;
    ensure!(!bytes.is_empty(), "suture recorded nothing");
    Ok(bytes)
}

/// Writes down what a replay of the recording tells, to be compared with from now on.
fn expect(suture: &Path, recording: &Path) -> Result<()> {
    let mut command = Command::new(suture);
    command.args(["replay", "--output", "json"]).arg(recording);
    let told = output(&mut command, "replaying the recording")?;
    let expected = recording.with_extension("expected");
    fs::write(&expected, told).with_context(|| format!("writing {}", expected.display()))?;
    println!("   what a replay tells is in {}", expected.display());
    Ok(())
}

fn leaked_thin(stage: &mut Stage<'_, '_>) -> Result<()> {
    stage.containerd.prepare("in-use", None)?.ok()?;
    stage.containerd.kill_after_dmsetup_create()?;
    let prepared = stage.containerd.prepare("half-done", None)?;
    ensure!(
        !prepared.status.success(),
        "containerd was not killed, and the snapshot was made"
    );
    stage.containerd.wait_for_death()?;
    stage.told.until("ABANDONED")?;
    stage.containerd.start()?;
    for _ in 1..=5 {
        if stage.containerd.prepare("next", None)?.status.success() {
            break;
        }
    }
    stage.told.until("FOUND leaked-thin")?;
    stage.told.until("would delete thin device 2")
}
