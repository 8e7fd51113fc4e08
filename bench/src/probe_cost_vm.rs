//! What an ioctl costs more because suture watches, on the kernels of the test VM, which can probe functions. The VM's
//! processor is emulated: only ratios mean something.

use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::vm::{Kernel, Process, Signal, Vm};

use crate::{Setting, report::Row, sample::Sample};

const ROUNDS: usize = 3;
const BURSTS: &str = "11";
const PATIENCE: Duration = Duration::from_mins(2);

/// How suture watches, as `--probes` has it; nothing: it does not.
const MEANS: [Option<&str>; 3] = [None, Some("tracepoints"), Some("best")];

/// Of each of [`MEANS`]: a call that is not device-mapper's, and one that is.
type Round = [(f64, f64); 3];

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kernel in Kernel::ALL {
        let vm = Vm::builder()
            .kernel(kernel)
            .time_limit(Duration::from_mins(8))
            .file(&setting.suture, "suture")
            .file(&setting.this, "suture-bench")
            .boot()?;
        // Without it there would be no function of its own to probe.
        vm.sh("modprobe dm-thin-pool")?;
        let rounds = (0..ROUNDS).map(|_| round(&vm)).collect::<Result<Vec<Round>>>()?;
        let ratios = |of: fn(&Round) -> f64| Sample::from_rounds(rounds.iter().map(of));
        let row = |what: &str, tracepoints: &Sample, kprobes: &Sample| {
            Row::new(
                format!("{what} in the VM, Linux {kernel}: times as long as without probes"),
                format!("by kprobes x {kprobes}, by tracepoints x {tracepoints}"),
            )
        };
        rows.push(row(
            "an ioctl that is not device-mapper's (TCGETS on /dev/null)",
            &ratios(|[off, tracepoints, _]| tracepoints.0 / off.0),
            &ratios(|[off, _, kprobes]| kprobes.0 / off.0),
        ));
        rows.push(row(
            "DM_VERSION",
            &ratios(|[off, tracepoints, _]| tracepoints.1 / off.1),
            &ratios(|[off, _, kprobes]| kprobes.1 / off.1),
        ));
    }
    Ok(rows)
}

fn round(vm: &Vm) -> Result<Round> {
    let mut costs = [(0.0, 0.0); 3];
    for (means, cost) in MEANS.iter().zip(&mut costs) {
        let watch = means.map(|means| watch(vm, means)).transpose()?;
        *cost = measure(vm)?;
        if let Some(mut watch) = watch {
            watch.kill(Signal::TERM)?;
            watch.wait(PATIENCE)?;
        }
    }
    Ok(costs)
}

fn watch(vm: &Vm, means: &str) -> Result<Process> {
    let command = format!("exec suture watch --all --output json --probes {means} > /dev/null");
    let mut watch = vm.spawn(["sh", "-c", &command], &[])?;
    watch.wait_for_line(|line| line.starts_with("watching"), PATIENCE)?;
    Ok(watch)
}

fn measure(vm: &Vm) -> Result<(f64, f64)> {
    let arguments = ["calls", "--device", CONTROL, "--bursts", BURSTS];
    let output = vm.run(std::iter::once("suture-bench").chain(arguments))?.ok()?;
    let (mut other, mut device_mapper) = (Sample::default(), Sample::default());
    for line in output.stdout.lines() {
        let (one, two) = line.split_once(' ').context("a line without two numbers")?;
        other.add(one.parse()?);
        device_mapper.add(two.parse()?);
    }
    Ok((other.median(), device_mapper.median()))
}

/// device-mapper's control device.
const CONTROL: &str = "/dev/mapper/control";

/// Calls at a pace in the VM; says how many there were.
pub(crate) fn pace(vm: &Vm, rate: u32, lasting: Duration) -> Result<u64> {
    let (rate, seconds) = (rate.to_string(), lasting.as_secs().to_string());
    let arguments = [
        "pace",
        "--device",
        CONTROL,
        "--rate",
        &rate,
        "--seconds",
        &seconds,
    ];
    let output = vm.run(std::iter::once("suture-bench").chain(arguments))?.ok()?;
    Ok(output.stdout.trim().parse()?)
}
