//! Events as the kernel hands them over, into observations, into operations: in this process, on one core.

use std::time::{Duration, Instant};

use anyhow::Result;
use suture::{
    correlate::Correlator,
    model::{Incarnation, Observation, PoolName, Timestamp},
    observe::probes::{decode::Clock, wire::event},
};

use crate::{Setting, calls::stay_on_core, report::Row, sample::Sample, wire};

const SNAPSHOTS: u32 = 10_000;
/// Snapshots whose calls are handed over at once.
const AT_ONCE: usize = 50;
/// Each is removed when this many have been made after it.
const KEPT: u32 = 200;
const ROUNDS: usize = 5;
const CLOCK: Clock = Clock {
    boot_ns: 1_700_000_000_000_000_000,
};

pub(crate) fn run(_: &Setting) -> Result<Vec<Row>> {
    let (mut decoded, mut both) = (Sample::default(), Sample::default());
    let (mut events, mut operations) = (0, 0);
    let work = || {
        stay_on_core(0);
        for _ in 0..ROUNDS {
            let (mut decoding, mut all) = (Duration::ZERO, Duration::ZERO);
            let mut correlator = correlator();
            events = 0;
            for first in (1..SNAPSHOTS).step_by(AT_ONCE) {
                let ring = some_calls(first);
                events += ring.len();
                let begun = Instant::now();
                let some = ring.iter().filter_map(|bytes| event(bytes, CLOCK));
                std::hint::black_box(some.filter(|one| one.caller().is_some()).count());
                decoding += begun.elapsed();

                let begun = Instant::now();
                for bytes in &ring {
                    if let Some(observation) = event(bytes, CLOCK) {
                        std::hint::black_box(correlator.observe(&observation));
                    }
                }
                all += begun.elapsed();
            }
            decoded.add(per_second(events, decoding));
            both.add(per_second(events, all));
            operations = correlator.operations().count();
        }
    };
    let measured = std::thread::scope(|scope| scope.spawn(work).join());
    measured.map_err(|_| anyhow::anyhow!("the thread that measures ended"))?;
    let what = format!(
        "decode and correlate, events/s on one core ({SNAPSHOTS} snapshots made and removed as containerd does it, \
         {events} calls, {operations} operations remembered)"
    );
    Ok(vec![
        Row::new(what, millions(&both)).target(">= 1 M/s", both.median() >= 1e6),
        Row::new("decode alone, events/s", millions(&decoded)),
    ])
}

/// As much as fits into the ring: what the kernel has just written is still in the processor's cache.
fn some_calls(first: u32) -> Vec<Vec<u8>> {
    let snapshots = (first..).take(AT_ONCE);
    snapshots
        .flat_map(|id| {
            let made = wire::snapshot_of_containerd(id, (id > 1).then(|| id - 1));
            let removed = id.checked_sub(KEPT).filter(|id| *id > 0);
            let removed = removed.map(wire::removal_by_containerd);
            made.into_iter().chain(removed.into_iter().flatten())
        })
        .collect()
}

/// One that knows the containerd of the events.
pub(crate) fn correlator() -> Correlator {
    let mut correlator = Correlator::new(PoolName::new("tp"), Timestamp::default());
    correlator.observe(&Observation::ContainerdUp {
        at: Timestamp::default(),
        who: Incarnation {
            pid: wire::CONTAINERD,
            start_ticks: 1,
            boot: "boot".to_owned(),
        },
    });
    correlator
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn millions(sample: &Sample) -> String {
    let (least, most) = sample.range();
    format!(
        "{:.2} M/s ({:.2} to {:.2})",
        sample.median() / 1e6,
        least / 1e6,
        most / 1e6
    )
}
