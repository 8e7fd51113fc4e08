//! The thread that empties the rings. It does nothing else, so that a slow database or collector never costs events:
//! while the agent is busy the queue fills, then the rings, and then the kernel counts what was lost.

use std::{
    io,
    os::fd::OwnedFd,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    time::{ClockId, clock_gettime},
};
use suture_events::{BlockErrorEvent, DmIoctlEvent};
use tokio::sync::mpsc::Sender;

use super::{
    ProbeError, Probes,
    decode::{self, Clock},
};
use crate::model::{Observation, Timestamp};

/// How often losses are looked for when nothing else happens.
const IDLE: Duration = Duration::from_millis(250);
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
    /// The probes can not be read any more; nothing follows.
    Broken(String),
}

/// A handle on the running thread.
pub struct ProbeThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    wanted_barrier: AtomicU64,
    wake: OwnedFd,
}

impl ProbeThread {
    /// Asks for [`Seen::Barrier`] with the number that is returned.
    #[must_use]
    pub fn request_barrier(&self) -> u64 {
        let number = self
            .shared
            .wanted_barrier
            .fetch_add(1, Ordering::SeqCst)
            .saturating_add(1);
        self.wake();
        number
    }

    fn wake(&self) {
        // The counter can only be full when a wake-up is pending already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for ProbeThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts reading; what is seen goes to `to`, in the order of each ring. Drop the receiver before the handle.
pub fn start(probes: Probes, to: Sender<Seen>) -> Result<ProbeThread, ProbeError> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| ProbeError::Thread(io::Error::from(error)))?;
    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        wanted_barrier: AtomicU64::new(0),
        wake,
    });
    let theirs = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("suture-probes".to_owned())
        .spawn(move || {
            let mut reader = Reader {
                probes,
                to,
                shared: theirs,
                given_barrier: 0,
                looked_at: SystemTime::now().into(),
            };
            if let Err(error) = reader.run() {
                let _ = reader.to.blocking_send(Seen::Broken(error.to_string()));
            }
        })
        .map_err(ProbeError::Thread)?;
    Ok(ProbeThread {
        shared,
        thread: Some(thread),
    })
}

struct Reader {
    probes: Probes,
    to: Sender<Seen>,
    shared: Arc<Shared>,
    given_barrier: u64,
    /// When losses were looked for last.
    looked_at: Timestamp,
}

/// The agent no longer listens.
struct Deaf;

impl Reader {
    fn run(&mut self) -> Result<(), ProbeError> {
        while !self.shared.stop.load(Ordering::SeqCst) {
            // Read before the rings: what is in them at this point is what the barrier promises.
            let barrier = self.shared.wanted_barrier.load(Ordering::SeqCst);
            let Ok(more) = self.drain() else { return Ok(()) };
            let (since, at) = (self.looked_at, SystemTime::now().into());
            self.looked_at = at;
            for (what, count) in self.probes.new_losses()? {
                let lost = Observation::Lost {
                    since,
                    at,
                    what,
                    count,
                };
                if self.to.blocking_send(Seen::Observation(lost)).is_err() {
                    return Ok(());
                }
            }
            if more {
                continue;
            }
            if barrier > self.given_barrier {
                self.given_barrier = barrier;
                if self.to.blocking_send(Seen::Barrier(barrier)).is_err() {
                    return Ok(());
                }
            }
            self.wait();
        }
        Ok(())
    }

    /// Hands over at most a batch from each ring; says whether there may be more.
    fn drain(&mut self) -> Result<bool, Deaf> {
        let clock = clock();
        let dm = each::<DmIoctlEvent>(&mut self.probes.dm, &self.to, |event| {
            Observation::DmIoctl(Box::new(decode::dm_ioctl(event, clock)))
        })?;
        let block = each::<BlockErrorEvent>(&mut self.probes.block, &self.to, |event| {
            Observation::BlockError(decode::block_error(event, clock))
        })?;
        Ok(dm == BATCH || block == BATCH)
    }

    fn wait(&self) {
        let mut sources = [
            PollFd::new(&self.probes.dm, PollFlags::IN),
            PollFd::new(&self.probes.block, PollFlags::IN),
            PollFd::new(&self.shared.wake, PollFlags::IN),
        ];
        let idle = Timespec::try_from(IDLE).ok();
        // An interrupted or failed wait is a short one: the loop looks at the rings in any case.
        let _ = poll(&mut sources, idle.as_ref());
        let mut drained = [0_u8; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut drained);
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

/// Wire types that may be read from any bytes of their size.
#[expect(
    unsafe_code,
    reason = "states that the wire types have no invalid bit pattern"
)]
mod wire {
    use suture_events::{BlockErrorEvent, DmIoctlEvent};

    /// # Safety
    ///
    /// Implemented only for `repr(C)` types made of integers, whose every bit pattern is a value.
    pub(super) unsafe trait Wire: Copy {}
    // SAFETY: see suture_events: integers and arrays of them, padding spelled out.
    unsafe impl Wire for DmIoctlEvent {}
    // SAFETY: see suture_events: integers and arrays of them.
    unsafe impl Wire for BlockErrorEvent {}
}

fn each<T: wire::Wire>(
    ring: &mut RingBuf<MapData>,
    to: &Sender<Seen>,
    observe: impl Fn(&T) -> Observation,
) -> Result<usize, Deaf> {
    let mut taken = 0;
    while taken < BATCH {
        let Some(item) = ring.next() else { break };
        taken += 1;
        if let Some(event) = read::<T>(&item) {
            let observation = observe(&event);
            // The slot goes back to the kernel before a send that may wait.
            drop(item);
            to.blocking_send(Seen::Observation(observation))
                .map_err(|_| Deaf)?;
        }
    }
    Ok(taken)
}

#[expect(
    unsafe_code,
    reason = "the ring hands over bytes; the wire type is read from them"
)]
fn read<T: wire::Wire>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the bytes are at least as many as the type has, any bit pattern is a value of it, and the read assumes no
    // alignment.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<T>()) })
}
