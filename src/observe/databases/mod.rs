//! Watches containerd's databases, on a thread of its own: each commit is told as soon as it is in the page cache.
//! `notify` wakes (inotify, or a clock where that is not to be had), `follower` looks at one file and says what became
//! of it. No lock is taken, and while nothing is written nothing is read but a few numbers each second.

mod follower;
mod notify;

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc::{self, error::TrySendError};

use self::{
    follower::Follower,
    notify::{Notify, Woken},
};
use super::world::Places;
use crate::model::{
    Observation, Timestamp,
    commit::DatabaseKind,
    sense::{Sense, SenseKind},
};

/// How often to look where every change wakes: what inotify does not tell (a network file system, a full queue) is
/// seen then.
const SAFETY_NET: Duration = Duration::from_secs(1);
/// How often to look where not every change wakes.
const POLL: Duration = Duration::from_millis(100);
/// Observations that may wait for their reader; while more wait, commits add up in the file.
const QUEUE: usize = 4096;
/// How long to wait for a reader that is behind before asking again whether to stop.
const BEHIND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// What is known of the sense, for [`DatabaseWatch::senses`].
#[derive(Debug, Default)]
struct Status {
    /// Why not every change wakes.
    blind: Vec<String>,
    /// Which databases can not be read at the moment, and why.
    unread: Vec<String>,
}

/// The watch. It ends when dropped.
#[derive(Debug)]
pub struct DatabaseWatch {
    status: Arc<Mutex<Status>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl DatabaseWatch {
    /// Reads the databases as they are, which is where the story begins, and watches them from then on. `core` is
    /// containerd's meta.db. None of the files need be there yet.
    ///
    /// What is received are [`Observation::Commit`] and [`Observation::Lost`]. A commit that changed nothing that
    /// suture follows is not told; it counts in the transaction ids of the next one.
    pub fn start(places: &Places, core: Option<PathBuf>) -> io::Result<(Self, mpsc::Receiver<Observation>)> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let status = Arc::new(Mutex::new(Status::default()));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut followers = vec![
            Follower::new(DatabaseKind::Pool, places.pool_db()),
            Follower::new(DatabaseKind::Snapshots, places.snapshot_db()),
        ];
        followers.extend(core.map(|path| Follower::new(DatabaseKind::Core, path)));
        let mut thread = Thread {
            notify: Notify::new(followers.iter().filter_map(Follower::folder)),
            followers,
            looked_at_all: Instant::now(),
            to: sender,
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
        };
        thread.look(&Woken::all());
        let thread = std::thread::Builder::new()
            .name("suture-database".to_owned())
            .spawn(move || thread.run())?;
        let watch = Self {
            status,
            stop,
            thread: Some(thread),
        };
        Ok((watch, receiver))
    }

    /// How well commits are seen, as of now.
    #[must_use]
    pub fn senses(&self) -> Sense {
        let status = lock(&self.status);
        let mut why = status.blind.clone();
        why.extend(status.unread.iter().cloned());
        let means = if status.blind.is_empty() {
            "inotify and transaction ids".to_owned()
        } else {
            format!("transaction ids, each {} ms", POLL.as_millis())
        };
        Sense::new(SenseKind::Databases, means, why)
    }
}

impl Drop for DatabaseWatch {
    fn drop(&mut self) {
        // The counter can only be full when a wake-up is pending already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// What the thread works with.
struct Thread {
    notify: Notify,
    followers: Vec<Follower>,
    looked_at_all: Instant,
    to: mpsc::Sender<Observation>,
    status: Arc<Mutex<Status>>,
    stop: Arc<OwnedFd>,
}

impl Thread {
    fn run(mut self) {
        while let Some(woken) = self.wait() {
            if !self.look(&woken) {
                return;
            }
        }
    }

    /// Looks; says whether anybody listens.
    fn look(&mut self, woken: &Woken) -> bool {
        let followers = self.followers.iter_mut();
        for follower in followers.filter(|follower| woken.has(follower.path())) {
            for observation in follower.look(&mut self.notify) {
                if !send(&self.to, &self.stop, observation) {
                    return false;
                }
            }
        }
        let mut status = lock(&self.status);
        status.blind = self.notify.blind();
        status.unread = self.followers.iter().filter_map(Follower::trouble).collect();
        true
    }

    /// Waits until something may have changed; nothing when it is time to end.
    fn wait(&mut self) -> Option<Woken> {
        let pause = if self.notify.sees_all() { SAFETY_NET } else { POLL };
        // Counted from the last look at everything: a database that is always written does not keep the others waiting.
        let left = Timespec::try_from(pause.saturating_sub(self.looked_at_all.elapsed())).ok();
        let mut sources = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        sources.extend(
            self.notify
                .handle()
                .map(|handle| PollFd::new(handle, PollFlags::IN)),
        );
        // An error is a signal; then there is nothing to look at yet.
        let _ = poll(&mut sources, left.as_ref());
        if sources.first().is_some_and(|stop| !stop.revents().is_empty()) {
            return None;
        }
        // What wakes is taken before the look: a change after it wakes again.
        let woken = self.notify.drain();
        if self.looked_at_all.elapsed() < pause {
            return Some(woken);
        }
        self.notify.renew();
        self.looked_at_all = Instant::now();
        Some(Woken::all())
    }
}

/// Hands an observation over; says whether to go on. A reader that is behind is waited for, but not when told to stop.
fn send(to: &mpsc::Sender<Observation>, stop: &OwnedFd, mut observation: Observation) -> bool {
    loop {
        observation = match to.try_send(observation) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => back,
        };
        let mut sources = [PollFd::new(stop, PollFlags::IN)];
        if poll(&mut sources, Some(&BEHIND)).is_ok_and(|ready| ready > 0) {
            return false;
        }
    }
}
