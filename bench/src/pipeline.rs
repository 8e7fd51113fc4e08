//! Events as the kernel hands them over, into observations, into operations: in this process, on one core.

use std::time::Instant;

use anyhow::Result;
use suture::{
    correlate::Correlator,
    model::{Incarnation, Observation, PoolName, Timestamp},
    observe::probes::{decode::Clock, wire::event},
};

use crate::{Setting, calls::stay_on_core, report::Row, sample::Sample, wire};

const SNAPSHOTS: u32 = 10_000;
const ROUNDS: usize = 5;
const CLOCK: Clock = Clock {
    boot_ns: 1_700_000_000_000_000_000,
};

pub(crate) fn run(_: &Setting) -> Result<Vec<Row>> {
    let events: Vec<Vec<u8>> = (1..=SNAPSHOTS)
        .flat_map(|id| wire::snapshot_of_containerd(id, (id > 1).then(|| id - 1)))
        .collect();
    let (mut decoded, mut both) = (Sample::default(), Sample::default());
    let mut operations = 0;
    let work = || {
        stay_on_core(0);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let some = events.iter().filter_map(|bytes| event(bytes, CLOCK));
            std::hint::black_box(some.filter(|one| one.caller().is_some()).count());
            decoded.add(per_second(events.len(), begun));

            let mut correlator = correlator();
            let begun = Instant::now();
            for bytes in &events {
                if let Some(observation) = event(bytes, CLOCK) {
                    std::hint::black_box(correlator.observe(&observation));
                }
            }
            both.add(per_second(events.len(), begun));
            operations = correlator.operations().count();
        }
    };
    std::thread::scope(|scope| scope.spawn(work).join().is_ok());
    let what = format!(
        "decode and correlate, events/s on one core ({operations} snapshots as containerd makes them, {} calls)",
        events.len()
    );
    Ok(vec![
        Row::new(what, millions(&both)).target(">= 1 M/s", both.median() >= 1e6),
        Row::new("decode alone, events/s", millions(&decoded)),
    ])
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
fn per_second(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
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
