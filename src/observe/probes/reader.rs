//! The thread that empties the rings. It does nothing else, so that a slow database or collector never costs events:
//! while the agent is busy the queue fills, then the rings, and then the kernel counts what was lost.

use std::time::{Duration, Instant, SystemTime};

use aya::maps::{MapData, RingBuf};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};
use tokio::sync::mpsc::Sender;

use super::{
    super::{
        cgroups::Cgroups,
        watch_thread::{Orders, WatchThread},
    },
    ProbeError, Probes,
    decode::Clock,
    wire,
};
use crate::{
    model::{
        Observation, Timestamp,
        observation::LossKind,
        sense::{Quality, Sense},
    },
    words::explain,
};

/// How often losses are looked for when nobody asks for a barrier.
const IDLE: Duration = Duration::from_millis(250);
/// How long to let a burst of events gather before it is handed over: a part of the 5 ms that an observation may take.
const GATHER: Duration = Duration::from_millis(3);
/// How often to look whether the probes still hang where they should, and for calls that never returned.
const INSPECTION: Duration = Duration::from_secs(1);
/// How many events are taken from one ring before the other one and the losses get their turn.
const BATCH: usize = 1024;

/// What the thread hands over.
#[derive(Debug)]
pub enum Seen {
    /// A fact.
    Observation(Observation),
    /// Everything that the kernel had put into the rings when barrier N was asked for, and every loss until then, has
    /// been handed over before this.
    Barrier(u64),
    /// What can be seen from now on: it is another than before.
    Senses(Vec<Sense>),
    /// The probes can not be read any more; nothing follows.
    Broken(String),
}

/// Starts reading; what is seen goes to `to`, in the order of each ring. Drop the receiver before the handle.
pub fn start(probes: Probes, to: Sender<Seen>) -> Result<WatchThread, ProbeError> {
    WatchThread::start("suture-probes", move |orders| {
        let now = SystemTime::now().into();
        let mut reader = Reader {
            probes,
            to,
            orders,
            given_barrier: 0,
            looked_at: now,
            looked: Instant::now(),
            inspected: Instant::now(),
            whole_at: now,
            cgroups: Cgroups::default(),
        };
        if let Err(error) = reader.run() {
            let _ = reader.to.blocking_send(Seen::Broken(error.to_string()));
        }
    })
    .map_err(ProbeError::Thread)
}

struct Reader<'o> {
    probes: Probes,
    to: Sender<Seen>,
    orders: &'o Orders,
    given_barrier: u64,
    /// When losses were looked for last, as wall time and on a clock that is never set.
    looked_at: Timestamp,
    looked: Instant,
    inspected: Instant,
    /// When the probes were last known to hang where they should.
    whole_at: Timestamp,
    cgroups: Cgroups,
}

/// The agent no longer listens.
struct Deaf;

fn loss(since: Timestamp, at: Timestamp, what: LossKind, count: u64) -> Seen {
    Seen::Observation(Observation::Lost {
        since,
        at,
        what,
        count,
    })
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), ProbeError> {
        while !self.orders.stopped() {
            // Read before the rings: what is in them at this point is what the barrier promises.
            let barrier = self.orders.wanted_barrier();
            let Ok(most) = self.drain() else { return Ok(()) };
            // Six questions to the kernel: not with each event, but before each promise.
            if (barrier > self.given_barrier || self.looked.elapsed() >= IDLE) && self.tell_losses()?.is_err()
            {
                return Ok(());
            }
            if most == BATCH {
                // There may be more.
                continue;
            }
            if barrier > self.given_barrier {
                self.given_barrier = barrier;
                if self.to.blocking_send(Seen::Barrier(barrier)).is_err() {
                    return Ok(());
                }
            }
            self.wait(most > 0);
        }
        Ok(())
    }

    /// Tells what was lost since the last look, and sees to it that the probes hang where they should.
    fn tell_losses(&mut self) -> Result<Result<(), Deaf>, ProbeError> {
        let (since, at) = (self.looked_at, SystemTime::now().into());
        self.looked_at = at;
        self.looked = Instant::now();
        let mut lost = self.probes.new_losses()?;
        let inspect = self.inspected.elapsed() >= INSPECTION;
        if inspect {
            self.inspected = Instant::now();
            let missed = self.probes.missed_returns();
            if missed > 0 {
                lost.push((LossKind::ReturnMissed, missed));
            }
        }
        let missed =
            lost.iter().any(|(what, _)| *what == LossKind::ReturnMissed) && self.probes.can_miss_returns();
        let mut seen: Vec<Seen> = lost
            .into_iter()
            .map(|(what, count)| loss(since, at, what, count))
            .collect();
        if missed || (inspect && self.probes.modules_changed()) {
            match self.hang_again(missed) {
                Ok(after) => seen.extend(after),
                Err(Deaf) => return Ok(Err(Deaf)),
            }
        } else if inspect {
            self.whole_at = at;
        }
        for one in seen {
            if self.to.blocking_send(one).is_err() {
                return Ok(Err(Deaf));
            }
        }
        Ok(Ok(()))
    }

    /// Hangs the probes anew. What happened since they were last known to hang well may not have been seen. Where they
    /// can not be hung, that is tried again with the next inspection, and until then everything may be missed.
    fn hang_again(&mut self, returns_missed: bool) -> Result<Vec<Seen>, Deaf> {
        while self.drain()? == BATCH {}
        let mut seen = Vec::new();
        match self.probes.attach_again(returns_missed) {
            Ok(probes) => {
                self.probes = probes;
                seen.push(Seen::Senses(self.probes.senses().to_vec()));
            }
            Err(error) => {
                let mut senses = self.probes.senses().to_vec();
                for sense in &mut senses {
                    sense.quality = Quality::Missing;
                    sense.why = vec![format!(
                        "the probes had to be attached anew and could not be: {}",
                        explain(&error)
                    )];
                }
                seen.push(Seen::Senses(senses));
            }
        }
        let now = SystemTime::now().into();
        seen.push(loss(self.whole_at, now, LossKind::NotWatching, 0));
        (self.looked_at, self.whole_at) = (now, now);
        Ok(seen)
    }

    /// Hands over at most a batch from each ring; says how many from the one that had more.
    fn drain(&mut self) -> Result<usize, Deaf> {
        let clock = clock();
        let cgroups = &mut self.cgroups;
        let events = each(&mut self.probes.events, &self.to, |bytes| {
            let mut observation = wire::event(bytes, clock)?;
            say_where(&mut observation, cgroups);
            Some(observation)
        })?;
        let block = each(&mut self.probes.block, &self.to, |bytes| {
            wire::block_error(bytes, clock)
        })?;
        Ok(events.max(block))
    }

    /// Waits for something to do. After events more are likely: then they are let gather for a moment, because each
    /// wake-up of this thread and of the agent costs more than an event itself. Whoever waits for a barrier, or for the
    /// end, does not wait for that.
    fn wait(&self, after_events: bool) {
        let mut sources = [
            PollFd::new(self.orders.wake(), PollFlags::IN),
            PollFd::new(&self.probes.events, PollFlags::IN),
            PollFd::new(&self.probes.block, PollFlags::IN),
        ];
        let (sources, time) = if after_events {
            (&mut sources[..1], GATHER)
        } else {
            (&mut sources[..], IDLE)
        };
        // An interrupted or failed wait is a short one: the loop looks at the rings in any case.
        let _ = poll(sources, Timespec::try_from(time).ok().as_ref());
        if sources.first().is_some_and(|wake| !wake.revents().is_empty()) {
            self.orders.take_wake();
        }
    }
}

/// Wall time and monotonic time, read one after the other; set anew for each batch, so that a corrected clock counts.
pub(in crate::observe) fn clock() -> Clock {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let monotonic = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default());
    Clock {
        boot_ns: Timestamp::from(SystemTime::now())
            .nanoseconds()
            .saturating_sub(monotonic),
    }
}

/// Names the control group of who acted, while somebody who knows it still lives. Calls that only ask are not worth it.
fn say_where(observation: &mut Observation, cgroups: &mut Cgroups) {
    let caller = match observation {
        Observation::DmIoctl(call) if !call.command.is_query() => &mut call.caller,
        Observation::Process(change) => &mut change.who,
        _ => return,
    };
    let processes = std::iter::once(&caller.process).chain(&caller.ancestors);
    caller.cgroup_path = cgroups.path(caller.cgroup, processes.map(|process| process.pid));
}

fn each(
    ring: &mut RingBuf<MapData>,
    to: &Sender<Seen>,
    mut observe: impl FnMut(&[u8]) -> Option<Observation>,
) -> Result<usize, Deaf> {
    let mut taken = 0;
    while taken < BATCH {
        let Some(item) = ring.next() else { break };
        taken += 1;
        let observation = observe(&item);
        // The slot goes back to the kernel before a send that may wait.
        drop(item);
        if let Some(observation) = observation {
            to.blocking_send(Seen::Observation(observation))
                .map_err(|_| Deaf)?;
        }
    }
    Ok(taken)
}
