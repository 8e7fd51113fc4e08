//! suture's own probes on this machine's kernel, read by its own thread.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use suture::{
    model::{Observation, observation::LossKind},
    observe::{
        probes::{self, Means, ProbeOptions, Probes, Seen},
        watch_thread::WatchThread,
    },
};
use tokio::sync::mpsc::{self, Receiver};

use crate::calls::{Kind, Target, stay_on_core};

/// As the agent and `suture watch` have it.
const QUEUE: usize = 4096;

/// Probes by tracepoints: every kernel has those, so every machine measures the same.
pub(crate) fn options(ring_bytes: u32) -> ProbeOptions {
    ProbeOptions {
        dm_ring_bytes: ring_bytes,
        means: Means::Tracepoints,
        ..ProbeOptions::default()
    }
}

/// Attached, and a thread that reads. What is seen waits in the queue.
pub(crate) fn attach(options: ProbeOptions) -> Result<(WatchThread, Receiver<Seen>)> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let probes = Probes::attach(options).context("attaching suture's probes")?;
    let thread = probes::start(probes, sender).context("starting the thread that reads")?;
    Ok((thread, receiver))
}

/// While `work` is done, everything that is seen is thrown away.
pub(crate) fn while_attached<T>(work: impl FnOnce() -> T) -> Result<T> {
    let (thread, mut receiver) = attach(options(ProbeOptions::default().dm_ring_bytes))?;
    let reader = std::thread::spawn(move || while receiver.blocking_recv().is_some() {});
    let result = work();
    drop(thread);
    let _ = reader.join();
    Ok(result)
}

/// What came of calls at a pace.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) made: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
}

/// Makes calls at a pace on the first core, while the second one reads, decodes and gives each call to `consume`.
/// Every call is either received or counted as lost.
pub(crate) fn paced(
    rate: u32,
    lasting: Duration,
    ring_bytes: u32,
    mut consume: impl FnMut(&Observation),
) -> Result<Outcome> {
    stay_on_core(1);
    let (thread, mut receiver) = attach(options(ring_bytes))?;
    let mut target = Target::open("/dev/null")?;
    let mut outcome = Outcome::default();
    let made = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            stay_on_core(0);
            let made = target.pace(rate, lasting);
            // Everything until now is in the rings or counted.
            let _ = thread.request_barrier();
            made
        });
        until_barrier(&mut receiver, &mut outcome, &mut consume)?;
        caller.join().ok().context("the caller's thread")
    })?;
    end(thread, receiver);
    outcome.made = made;
    Ok(outcome)
}

/// Lets the ring fill first, and then reads, decodes and consumes all of it on one core; says how long that took.
pub(crate) fn drained(
    calls: u64,
    ring_bytes: u32,
    mut consume: impl FnMut(&Observation),
) -> Result<(Outcome, Duration)> {
    stay_on_core(1);
    let probes = Probes::attach(options(ring_bytes)).context("attaching suture's probes")?;
    let mut target = Target::open("/dev/null")?;
    (0..calls).for_each(|_| target.call(Kind::DeviceMapper));
    let mut outcome = Outcome {
        made: calls,
        ..Outcome::default()
    };
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let begun = Instant::now();
    let thread = probes::start(probes, sender).context("starting the thread that reads")?;
    let _ = thread.request_barrier();
    until_barrier(&mut receiver, &mut outcome, &mut consume)?;
    let took = begun.elapsed();
    end(thread, receiver);
    Ok((outcome, took))
}

fn until_barrier(
    receiver: &mut Receiver<Seen>,
    outcome: &mut Outcome,
    consume: &mut impl FnMut(&Observation),
) -> Result<()> {
    let own = std::process::id();
    loop {
        match receiver.blocking_recv() {
            Some(Seen::Observation(observation)) => match &observation {
                Observation::Lost {
                    what: LossKind::DmRingFull,
                    count,
                    ..
                } => outcome.lost += count,
                Observation::DmIoctl(call) if call.caller.process.pid == own => {
                    consume(&observation);
                    outcome.received += 1;
                }
                _ => {}
            },
            Some(Seen::Barrier(_)) => return Ok(()),
            Some(Seen::Senses(_)) => {}
            Some(Seen::Broken(why)) => bail!("the probes broke: {why}"),
            None => bail!("the reading thread ended"),
        }
    }
}

/// The thread may be waiting for room in the queue.
fn end(thread: WatchThread, mut receiver: Receiver<Seen>) {
    receiver.close();
    while receiver.try_recv().is_ok() {}
    drop(thread);
}
