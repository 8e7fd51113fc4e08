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
use crate::vm::containerd::{Containerd, break_disk, disk_with_a_bad_spot, swap_table};
use crate::vm::{Kernel, Signal, Vm};

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
    /// What happens on an earlier machine with the same disks.
    before: Option<fn(&Vm) -> Result<()>>,
    /// What is there before suture begins to record.
    set_up: fn(&Vm) -> Result<Containerd<'_>>,
    /// The break. Called with a containerd that serves, and a suture that records and has read the world once.
    make: fn(&mut Stage<'_, '_>) -> Result<()>,
}

/// Every recording there is. A new one is a row here, a paragraph in tests/recordings/README.md, and a run of this task.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "leaked-thin",
        about: "containerd is killed right after the device of a new snapshot has appeared, and comes back",
        arguments: &["--grace", "5"],
        before: None,
        set_up: |vm| Containerd::serving(vm),
        make: leaked_thin,
    },
    Scenario {
        name: "killed-in-mkfs",
        about: "containerd is killed right after mkfs of a new snapshot, and comes back: no snapshot can be made any more",
        arguments: &[],
        before: None,
        set_up: |vm| Containerd::serving(vm),
        make: killed_in_mkfs,
    },
    Scenario {
        name: "killed-in-commit",
        about: "containerd is killed in the middle of a commit to its databases, and comes back",
        arguments: &["--grace", "5"],
        before: None,
        set_up: |vm| Containerd::serving(vm),
        make: killed_in_commit,
    },
    Scenario {
        name: "power-cut",
        about: "the power is cut right after mkfs of a new snapshot; suture starts with the machine",
        arguments: &[],
        before: Some(cut_the_power),
        set_up: |vm| Containerd::serving(vm),
        make: wedge_is_found,
    },
    Scenario {
        name: "databases-gone",
        about: "containerd's databases are deleted and the pool is kept",
        arguments: &[],
        before: None,
        set_up: without_databases,
        make: databases_gone,
    },
    Scenario {
        name: "data-device-fails",
        about: "the pool's data device fails, and comes back",
        arguments: &[],
        before: None,
        set_up: |vm| Containerd::on_breakable_disks(vm),
        make: data_device_fails,
    },
    Scenario {
        name: "metadata-device-fails",
        about: "the pool's metadata device fails while a snapshot is made",
        arguments: &[],
        before: None,
        set_up: |vm| Containerd::on_breakable_disks(vm),
        make: metadata_device_fails,
    },
    Scenario {
        name: "bad-spot",
        about: "a disk below the pool can not read ten sectors",
        arguments: &[],
        before: None,
        set_up: on_a_bad_disk,
        make: bad_spot,
    },
];

/// What a scenario has to work with.
struct Stage<'s, 'vm> {
    vm: &'vm Vm,
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
            let (bytes, told) = record(scenario, &suture, arguments.kernel)
                .with_context(|| format!("making the recording {}", scenario.name))?;
            fs::write(&recording, &bytes).with_context(|| format!("writing {}", recording.display()))?;
            finds_the_same(&suture, &recording, &told)?;
            println!("   {} bytes in {}", bytes.len(), recording.display());
        }
        expect(&suture, &recording)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Breaks a containerd under the eyes of a recording suture.
fn record(scenario: &Scenario, suture: &Path, kernel: Kernel) -> Result<(Vec<u8>, Vec<String>)> {
    let disks = tempfile::tempdir().context("making a folder for the VM's disks")?;
    let boot = || {
        Vm::builder()
            .kernel(kernel)
            .time_limit(Duration::from_mins(10))
            .disks(disks.path())
            .file(suture, "suture")
            .boot()
    };
    if let Some(before) = scenario.before {
        before(&boot()?)?;
    }
    let vm = boot()?;
    let mut containerd = (scenario.set_up)(&vm)?;
    let command = ["suture", "record", IN_GUEST].into_iter();
    let mut told = Relay::of(vm.spawn(command.chain(scenario.arguments.iter().copied()), &[])?);
    told.until("gap closed")?;
    (scenario.make)(&mut Stage {
        vm: &vm,
        containerd: &mut containerd,
        told: &mut told,
    })?;
    let told = told.end()?;
    let bytes = vm.read_file(IN_GUEST)?;
    ensure!(!bytes.is_empty(), "suture recorded nothing");
    Ok((bytes, told))
}

/// Whether a replay finds and decides what the live run found and decided, at the same times.
fn finds_the_same(suture: &Path, recording: &Path, live: &[String]) -> Result<()> {
    let replayed = output(
        Command::new(suture).arg("replay").arg(recording),
        "replaying the recording",
    )?;
    let judged = |line: &&str| {
        [" FOUND ", " decision on ", " resolved "]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let live: Vec<&str> = live.iter().map(String::as_str).filter(judged).collect();
    let replayed: Vec<&str> = replayed.lines().filter(judged).collect();
    ensure!(
        live == replayed && !live.is_empty(),
        "the replay differs from the live run:\n{}\n--- replayed:\n{}",
        live.join("\n"),
        replayed.join("\n")
    );
    Ok(())
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

fn killed_in_mkfs(stage: &mut Stage<'_, '_>) -> Result<()> {
    stage.containerd.prepare("in-use", None)?.ok()?;
    stage.containerd.kill_after_mkfs()?;
    stage.containerd.prepare("half-done", None)?;
    stage.containerd.wait_for_death()?;
    stage.containerd.start()?;
    wedge_is_found(stage)
}

fn wedge_is_found(stage: &mut Stage<'_, '_>) -> Result<()> {
    let refused = stage.containerd.prepare("next", None)?;
    ensure!(
        refused.stderr.contains("already exists"),
        "it is no wedge: {}",
        refused.stderr
    );
    stage.told.until("FOUND wedge")?;
    stage.told.until("left to a person")
}

fn killed_in_commit(stage: &mut Stage<'_, '_>) -> Result<()> {
    stage.containerd.prepare("in-use", None)?.ok()?;
    // Two syncs make a commit: this is inside of the one that would say `Created`.
    stage.containerd.kill_at_fdatasync(5)?;
    stage.containerd.prepare("half-done", None)?;
    stage.containerd.wait_for_death()?;
    stage.told.until("ABANDONED")?;
    stage.containerd.start()?;
    for _ in 1..=5 {
        if stage.containerd.prepare("next", None)?.status.success() {
            break;
        }
    }
    stage.told.until("FOUND leaked-thin")?;
    stage.told.until("would delete thin device")
}

/// The power fails when the device of a new snapshot has its file system, and containerd has not committed the snapshot.
fn cut_the_power(vm: &Vm) -> Result<()> {
    let containerd = Containerd::serving(vm)?;
    containerd.prepare("in-use", None)?.ok()?;
    containerd.stop_after_mkfs()?;
    let _waits = containerd.begin_prepare("half-done")?;
    vm.wait_until("the file system is made", Duration::from_mins(1), || {
        Ok(vm.run(["test", "-e", Containerd::STOPPED])?.status.success())
    })?;
    vm.cut_power()?;
    Ok(())
}

fn without_databases(vm: &Vm) -> Result<Containerd<'_>> {
    let mut containerd = Containerd::serving(vm)?;
    containerd.prepare("lost", None)?.ok()?;
    containerd.prepare("lost-too", None)?.ok()?;
    containerd.kill(Signal::KILL)?;
    vm.sh("dmsetup remove tp-snap-1; dmsetup remove tp-snap-2; rm -r /persist/containerd/*; mkdir -p /persist/containerd/devmapper")?;
    containerd.start()?;
    Ok(containerd)
}

fn databases_gone(stage: &mut Stage<'_, '_>) -> Result<()> {
    let refused = stage.containerd.prepare("new", None)?;
    ensure!(
        refused.stderr.to_lowercase().contains("file exists"),
        "{}",
        refused.stderr
    );
    stage.told.until("FOUND foreign-thin: thin device 2")?;
    stage.told.until("left to a person")
}

fn data_device_fails(stage: &mut Stage<'_, '_>) -> Result<()> {
    stage.containerd.prepare("in-use", None)?.ok()?;
    let table = break_disk(stage.vm, "tdata")?;
    stage
        .vm
        .sh("! dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null")?;
    let failed = stage.containerd.prepare("new", None)?;
    ensure!(!failed.status.success(), "nothing can be written");
    stage.told.until("FOUND block-errors")?;
    stage.told.until("left to a person")?;
    swap_table(stage.vm, "tdata", &table)
}

fn metadata_device_fails(stage: &mut Stage<'_, '_>) -> Result<()> {
    stage.containerd.prepare("in-use", None)?.ok()?;
    break_disk(stage.vm, "tmeta")?;
    let failed = stage.containerd.prepare("new", None)?;
    ensure!(!failed.status.success(), "nothing can be made");
    stage.told.until("FOUND pool-failed")?;
    stage.told.until("left to a person")
}

fn on_a_bad_disk(vm: &Vm) -> Result<Containerd<'_>> {
    let disk = disk_with_a_bad_spot(vm)?;
    let containerd = Containerd::with_data_on(vm, &disk, 2048)?;
    containerd.prepare("in-use", None)?.ok()?;
    vm.sh("dd if=/dev/zero of=/dev/mapper/tp-snap-1 bs=1M count=64 oflag=direct 2>/dev/null")?;
    Ok(containerd)
}

fn bad_spot(stage: &mut Stage<'_, '_>) -> Result<()> {
    stage.vm.sh(
        "dd if=/dev/mapper/tp-snap-1 of=/dev/null bs=64k iflag=direct conv=noerror 2>/dev/null || true",
    )?;
    stage.told.until("FOUND block-errors")?;
    stage.told.until("left to a person")
}
