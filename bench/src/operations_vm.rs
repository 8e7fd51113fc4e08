//! How much longer snapshot operations of a real containerd take because a suture that may heal runs beside it. The VM's
//! processor is emulated, and there is one of it: whatever suture does there takes its time from containerd.

use std::time::Duration;

use anyhow::Result;
use xtask::vm::{Process, Signal, Vm, containerd::Containerd};

use crate::{Setting, report::Row, sample::Sample};

/// Rounds of each kind; those of one kind together are 200 operations.
const ROUNDS: usize = 8;
const OPERATIONS: u32 = 25;
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let vm = Vm::builder()
        .time_limit(Duration::from_mins(20))
        .file(&setting.suture, "suture")
        .boot()?;
    let containerd = Containerd::serving(&vm)?;
    containerd.prepare_for_operations()?;
    // What is read for the first time takes longest.
    containerd.operations(OPERATIONS)?;
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        // Taking turns, and each of them first as often as the other: what drifts hits both.
        let (without, with) = if round % 2 == 0 {
            let without = containerd.operations(OPERATIONS)?;
            (without, beside(&vm, &containerd)?)
        } else {
            let with = beside(&vm, &containerd)?;
            (containerd.operations(OPERATIONS)?, with)
        };
        rounds.push((without.as_secs_f64(), with.as_secs_f64()));
    }
    let without = Sample::from_rounds(rounds.iter().map(|(without, _)| *without));
    let with = Sample::from_rounds(rounds.iter().map(|(_, with)| *with));
    let of_median = |seconds: f64| seconds / without.median();
    // How far rounds without it lie apart, in the measure in which both are compared.
    let alone = Sample::from_rounds(rounds.iter().map(|(without, _)| of_median(*without)));
    let beside = Sample::from_rounds(rounds.iter().map(|(_, with)| of_median(*with)));
    let (_, slowest) = alone.range();
    let all = ROUNDS * usize::try_from(OPERATIONS)?;
    Ok(vec![
        Row::new(
            format!(
                "{all} snapshot operations beside `suture run --act` in the VM: times as long as without it, in rounds of {OPERATIONS}"
            ),
            format!("x {beside}; rounds without it x {alone}"),
        )
        .target("less than the noise", beside.median() <= slowest),
        Row::new(
            format!("{OPERATIONS} snapshot operations in the VM, seconds"),
            format!("with {with}, without {without}"),
        ),
    ])
}

/// The same operations while suture runs, which is started before them and ended after them.
fn beside(vm: &Vm, containerd: &Containerd<'_>) -> Result<Duration> {
    let mut suture = start(vm)?;
    let took = containerd.operations(OPERATIONS)?;
    suture.kill(Signal::TERM)?;
    suture.wait(PATIENCE)?;
    Ok(took)
}

/// A suture that has made its first healing round: what it does once is no part of what it costs.
fn start(vm: &Vm) -> Result<Process> {
    let mut suture = vm.spawn(["suture", "run", "--act"], &[])?;
    suture.wait_for_line(|line| line.contains("gap closed"), PATIENCE)?;
    std::thread::sleep(FIRST_ROUND);
    Ok(suture)
}

/// A round begins two seconds after suture sees containerd, and reads everything.
const FIRST_ROUND: Duration = Duration::from_secs(6);
