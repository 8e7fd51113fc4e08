//! The thread that looks: as soon as device-mapper or the kernel's log have something new, when it is asked to, and each
//! second in any case.

use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::Sender;

use super::{WithoutBpfError, devices::Devices, kernel_log::KernelLog};
use crate::{
    model::{Observation, PoolName, Timestamp, observation::LossKind},
    observe::{
        probes::{self, Seen},
        watch_thread::{Orders, WatchThread},
    },
};

/// How often to look when nothing happens.
const PERIOD: Duration = Duration::from_secs(1);
/// A busy machine has events all the time: between two looks that nobody asked for lie at least this,
const SHORTEST_REST: Duration = Duration::from_millis(20);
/// and so many times as long as a look takes, up to [`PERIOD`].
const REST: u32 = 9;

/// Starts looking; what is seen goes to `to`. Drop the receiver before the handle.
///
/// Before this returns, [`LossKind::Polling`] waits in `to`, before everything else: whoever takes it in first can not
/// act on what can not be known. One of device-mapper and the log is enough; with neither this is an error.
pub fn start(pool: Option<PoolName>, to: Sender<Seen>) -> Result<WatchThread, WithoutBpfError> {
    let devices = Devices::open();
    let log = KernelLog::open();
    let (devices, log) = match (devices, log) {
        (Err(devices), Err(log)) => {
            return Err(WithoutBpfError::Nothing {
                devices,
                log: crate::words::explain(&log),
            });
        }
        (devices, log) => (devices.ok(), log.ok()),
    };
    let at = now();
    let polling = Observation::Lost {
        since: at,
        at,
        what: LossKind::Polling,
        count: 0,
    };
    to.try_send(Seen::Observation(polling))
        .map_err(|_| WithoutBpfError::NobodyListens)?;
    WatchThread::start("suture-watch", move |orders| {
        let mut watcher = Watcher {
            devices,
            log,
            pool,
            to,
            orders,
            given_barrier: 0,
            blind_since: None,
        };
        // It ends when it is told to, or when nobody listens any more.
        let _: Result<(), Deaf> = watcher.run();
    })
    .map_err(WithoutBpfError::Thread)
}

struct Watcher<'o> {
    devices: Option<Devices>,
    log: Option<KernelLog>,
    pool: Option<PoolName>,
    to: Sender<Seen>,
    orders: &'o Orders,
    given_barrier: u64,
    /// Since when the list can not be read.
    blind_since: Option<Timestamp>,
}

/// Nobody listens any more.
struct Deaf;

impl Watcher<'_> {
    fn run(&mut self) -> Result<(), Deaf> {
        while !self.orders.stopped() {
            let barrier = self.orders.wanted_barrier();
            let begun = Instant::now();
            let more = self.look()?;
            let took = begun.elapsed();
            if more {
                continue;
            }
            if barrier > self.given_barrier {
                self.given_barrier = barrier;
                self.hand_over(Seen::Barrier(barrier))?;
            }
            let rest = took.saturating_mul(REST).clamp(SHORTEST_REST, PERIOD);
            if !self.wait(rest, false) {
                self.wait(PERIOD, true);
            }
        }
        Ok(())
    }

    /// Looks at everything once; says whether the log may have more already.
    fn look(&mut self) -> Result<bool, Deaf> {
        let mut seen = Vec::new();
        // suture may have been started before device-mapper's module was loaded.
        if self.devices.is_none() {
            self.devices = Devices::open().ok();
        }
        if let Some(devices) = &mut self.devices {
            match devices.look(self.pool.as_ref(), now) {
                Ok(changes) => {
                    self.blind_since = None;
                    seen.extend(changes);
                }
                // Told once: the next list is compared with the last one that could be read.
                Err(_) if self.blind_since.is_none() => {
                    let at = now();
                    self.blind_since = Some(at);
                    seen.push(Observation::Lost {
                        since: at,
                        at,
                        what: LossKind::Polling,
                        count: 0,
                    });
                }
                Err(_) => {}
            }
        }
        let mut more = false;
        if let Some(log) = &mut self.log {
            let read = log.read(probes::clock(), now());
            more = read.more;
            seen.extend(read.observations);
        }
        for observation in seen {
            self.hand_over(Seen::Observation(observation))?;
        }
        Ok(more)
    }

    fn hand_over(&self, seen: Seen) -> Result<(), Deaf> {
        self.to.blocking_send(seen).map_err(|_| Deaf)
    }

    /// Waits to be woken, or for something new where `for_events` says so; says whether it was woken.
    fn wait(&self, longest: Duration, for_events: bool) -> bool {
        let mut sources = vec![PollFd::new(self.orders.wake(), PollFlags::IN)];
        if for_events {
            let events = self.devices.as_ref().and_then(Devices::events);
            sources.extend(events.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let log = self.log.as_ref().filter(|log| log.can_be_waited_for());
            sources.extend(log.map(|log| PollFd::new(log, PollFlags::IN)));
        }
        let longest = Timespec::try_from(longest).ok();
        // An interrupted or failed wait is a short one.
        let _ = poll(&mut sources, longest.as_ref());
        self.orders.take_wake()
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
