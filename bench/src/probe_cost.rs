//! What an ioctl costs more because somebody watches, on this machine's kernel.

use std::time::Duration;

use anyhow::Result;

use crate::{
    Setting,
    calls::{Kind, Target, stay_on_core},
    peer::{ONE_LINER, Peer},
    report::Row,
    sample::Sample,
    watching,
};

const ROUNDS: usize = 7;
const BURSTS: usize = 20;
/// The events of one burst are read in this time.
const PAUSE: Duration = Duration::from_millis(5);
const TARGET_OTHER: f64 = 60.0;
const TARGET_DEVICE_MAPPER: f64 = 1000.0;

/// Nanoseconds of one call, of each kind.
type Costs = [f64; 3];
const KINDS: [Kind; 3] = [Kind::Unrelated, Kind::Other, Kind::DeviceMapper];

pub(crate) fn run(_: &Setting) -> Result<Vec<Row>> {
    let measuring = std::thread::spawn(|| {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let off = measure()?;
            let on = watching::while_attached(measure)??;
            let peer = Peer::start()?;
            let by_peer = measure()?;
            drop(peer);
            rounds.push((off, on, by_peer));
        }
        anyhow::Ok(rounds)
    });
    let rounds = measuring
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that measures ended"))??;
    let off = |kind: usize| Sample::from_rounds(rounds.iter().map(|(off, ..)| at(off, kind)));
    let more =
        |kind: usize| Sample::from_rounds(rounds.iter().map(|(off, on, _)| at(on, kind) - at(off, kind)));
    let more_by_peer =
        |kind: usize| Sample::from_rounds(rounds.iter().map(|(off, _, peer)| at(peer, kind) - at(off, kind)));
    let row = |kind: usize, what: &str| {
        Row::new(
            format!(
                "{what}, by tracepoints (without probes {:.0} ns)",
                off(kind).median()
            ),
            format!("+{} ns", more(kind)),
        )
        .peer(format!("+{} ns", more_by_peer(kind)))
    };
    let met = |kind: usize, target: f64| (format!("<= {target:.0} ns"), more(kind).median() <= target);
    let (other, other_met) = met(1, TARGET_OTHER);
    let (device_mapper, device_mapper_met) = met(2, TARGET_DEVICE_MAPPER);
    Ok(vec![
        row(1, "an ioctl that is not device-mapper's").target(other, other_met),
        row(2, "an ioctl of device-mapper's").target(device_mapper, device_mapper_met),
        row(0, "a syscall that is no ioctl (getppid)"),
        Row::new("the peer", "").peer(format!("bpftrace: `{ONE_LINER}`")),
    ])
}

fn at(costs: &Costs, kind: usize) -> f64 {
    costs.get(kind).copied().unwrap_or_default()
}

fn measure() -> Result<Costs> {
    // What was started from this thread is not kept on its core.
    std::thread::spawn(|| {
        stay_on_core(0);
        let mut target = Target::open("/dev/null")?;
        let mut samples = KINDS.map(|_| Sample::default());
        for _ in 0..BURSTS {
            for (kind, sample) in KINDS.iter().zip(&mut samples) {
                sample.add(target.burst(*kind));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(samples.map(|sample| sample.median()))
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread that calls ended"))?
}
