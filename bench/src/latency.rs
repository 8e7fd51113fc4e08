//! From the return of an ioctl to the operation that has it.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use suture::{model::Timestamp, observe::probes::ProbeOptions};

use crate::{Setting, pipeline::correlator, report::Row, sample::quantile, watching::paced};

const RATE: u32 = 1000;
const LASTING: Duration = Duration::from_secs(10);
const TARGET: f64 = 5000.0;

pub(crate) fn run(_: &Setting) -> Result<Vec<Row>> {
    let measuring = std::thread::spawn(|| {
        let mut correlator = correlator();
        let mut microseconds = Vec::new();
        let ring = ProbeOptions::default().dm_ring_bytes;
        paced(RATE, LASTING, ring, |observation| {
            std::hint::black_box(correlator.observe(observation));
            let now = Timestamp::from(SystemTime::now());
            microseconds.push(now.since(observation.at()).as_secs_f64() * 1e6);
        })?;
        anyhow::Ok(microseconds)
    });
    let mut microseconds = measuring
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that reads ended"))??;
    microseconds.sort_by(f64::total_cmp);
    let at = |share| quantile(&microseconds, share);
    Ok(vec![
        Row::new(
            format!("ioctl's return to operation, at {RATE}/s"),
            format!(
                "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs",
                at(0.5),
                at(0.99),
                at(0.999)
            ),
        )
        .target("p99 <= 5 ms", at(0.99) <= TARGET),
    ])
}
