//! From the kernel's ring to the correlated operation: what arrives and what is lost, at a steady flood of calls.

use std::time::Duration;

use anyhow::Result;
use suture::observe::probes::ProbeOptions;

use crate::{
    Setting,
    calls::Target,
    peer::Peer,
    pipeline::correlator,
    report::Row,
    sample::Sample,
    watching::{Outcome, drained, paced},
};

const LASTING: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
/// Calls of 464 bytes and their head, and a ring that has room for them.
const FILL: u64 = 100_000;
const FILLED_RING: u32 = 64 << 20;
/// More than what a core can make.
const AS_FAST_AS_IT_GOES: u32 = 10_000_000;

pub(crate) fn run(_: &Setting) -> Result<Vec<Row>> {
    let default = ProbeOptions::default().dm_ring_bytes;
    let mut rows = vec![through()?];
    for (rate, ring) in [
        (100_000, default),
        (100_000, 16 << 20),
        (1_000_000, default),
        (1_000_000, 16 << 20),
        (AS_FAST_AS_IT_GOES, default),
    ] {
        let measuring = std::thread::spawn(move || {
            (0..ROUNDS)
                .map(|_| {
                    let mut correlator = correlator();
                    paced(rate, LASTING, ring, |observation| {
                        std::hint::black_box(correlator.observe(observation));
                    })
                })
                .collect::<Result<Vec<Outcome>>>()
        });
        let rounds = measuring
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that reads ended"))??;
        let mut row = describe(rate, ring, &rounds);
        if rate == 100_000 {
            let lost: u64 = rounds.iter().map(|one| one.lost).sum();
            row = row.target("no loss", lost == 0);
            if ring == default {
                row = row.peer(by_peer(rate)?);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// How fast the reading side is when it never waits for the calling one.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn through() -> Result<Row> {
    let measuring = std::thread::spawn(|| {
        let mut sample = Sample::default();
        for _ in 0..=2 * ROUNDS {
            let mut correlator = correlator();
            let (outcome, took) = drained(FILL, FILLED_RING, |observation| {
                std::hint::black_box(correlator.observe(observation));
            })?;
            sample.add(outcome.received as f64 / took.as_secs_f64() / 1e6);
        }
        anyhow::Ok(sample)
    });
    let sample = measuring
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that reads ended"))??;
    let row = Row::new(
        "from a filled ring through decoding and queue to the correlator, on one core",
        format!("{sample} M/s"),
    );
    Ok(row.target(">= 1 M/s", sample.median() >= 1.0))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn describe(rate: u32, ring: u32, rounds: &[Outcome]) -> Row {
    let seconds = LASTING.as_secs_f64();
    let of = |value: fn(&Outcome) -> u64| Sample::from_rounds(rounds.iter().map(|one| value(one) as f64));
    let rate = if rate == AS_FAST_AS_IT_GOES {
        "as fast as one core calls".to_owned()
    } else {
        format!("{} k/s", rate / 1000)
    };
    let lost = Sample::from_rounds(
        rounds
            .iter()
            .map(|one| one.lost as f64 / one.made.max(1) as f64 * 100.0),
    );
    Row::new(
        format!(
            "ring of {} MiB to operation, calls at {rate} on one core, read on another",
            ring >> 20
        ),
        format!(
            "called {:.0} k/s, received {:.0} k/s, lost {:.2} % ({:.2} to {:.2}), counted as lost or received: {}",
            of(|one| one.made).median() / seconds / 1000.0,
            of(|one| one.received).median() / seconds / 1000.0,
            lost.median(),
            lost.range().0,
            lost.range().1,
            if rounds.iter().all(|one| one.received + one.lost == one.made) {
                "all"
            } else {
                "NOT ALL"
            }
        ),
    )
}

/// How many of its two lines a call are printed. It has no barrier: when nothing more comes, that was all.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn by_peer(rate: u32) -> Result<String> {
    let peer = Peer::start()?;
    let before = peer.lines();
    let made = Target::open("/dev/null")?.pace(rate, LASTING);
    let mut printed = peer.lines();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = peer.lines();
        if now == printed {
            break;
        }
        printed = now;
    }
    let share = (printed.saturating_sub(before)) as f64 / (2.0 * made as f64) * 100.0;
    Ok(format!("lost {:.0} %", 100.0 - share.min(100.0)))
}
