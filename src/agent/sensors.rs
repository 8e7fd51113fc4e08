//! Watches which containerd holds the pool's database, from its start to its end, on a thread of its own: its death is
//! known at once, by its pidfd.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;

use super::now;
use crate::{
    model::{Incarnation, Observation},
    observe::containerd::{holder_of, wait_for_end},
};

/// How often to look for a containerd while there is none.
const LOOK: Duration = Duration::from_millis(500);

/// The sensor.
pub(super) struct ContainerdWatch {
    events: mpsc::Receiver<Observation>,
    known: BTreeSet<Incarnation>,
    up: Option<Incarnation>,
    looked: Arc<AtomicBool>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl ContainerdWatch {
    pub(super) fn start(database: PathBuf) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let looked = Arc::new(AtomicBool::new(false));
        let (sender, events) = mpsc::channel(64);
        let (their_stop, their_looked) = (Arc::clone(&stop), Arc::clone(&looked));
        let thread = std::thread::Builder::new()
            .name("suture-containerd".to_owned())
            .spawn(move || watch(&database, &sender, &their_looked, &their_stop))?;
        Ok(Self {
            events,
            known: BTreeSet::new(),
            up: None,
            looked,
            stop,
            thread: Some(thread),
        })
    }

    /// The next start or end of a containerd.
    pub(super) async fn next(&mut self) -> Observation {
        match self.events.recv().await {
            Some(observation) => observation,
            // The thread only ends when it is told to.
            None => std::future::pending().await,
        }
    }

    /// Whether the containerd that runs has this pid.
    pub(super) fn is_up(&self, pid: u32) -> bool {
        self.up.as_ref().is_some_and(|who| who.pid == pid)
    }

    /// Whether this containerd was not told of yet.
    pub(super) fn is_new(&self, who: &Incarnation) -> bool {
        !self.known.contains(who)
    }

    /// Remembers what was told.
    pub(super) fn note(&mut self, observation: &Observation) {
        match observation {
            Observation::ContainerdUp { who, .. } => {
                self.known.insert(who.clone());
                self.up = Some(who.clone());
            }
            Observation::ContainerdGone { who, .. } => {
                self.up.take_if(|up| up == who);
            }
            _ => {}
        }
    }

    /// Whether the thread has looked at least once, and what it saw was taken in: only then does "not known" mean "not
    /// running".
    pub(super) fn has_looked(&self) -> bool {
        self.looked.load(Ordering::SeqCst) && self.events.is_empty()
    }
}

impl Drop for ContainerdWatch {
    fn drop(&mut self) {
        self.events.close();
        // The counter can only be full when a wake-up is pending already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(database: &Path, to: &mpsc::Sender<Observation>, looked: &AtomicBool, stop: &OwnedFd) {
    loop {
        // Unreadable now is nobody there now: the world's reader tells what is wrong with the database.
        let holder = holder_of(database).ok().flatten();
        if let Some(who) = holder {
            if to
                .blocking_send(Observation::ContainerdUp {
                    at: now(),
                    who: who.clone(),
                })
                .is_err()
            {
                return;
            }
            looked.store(true, Ordering::SeqCst);
            match wait_for_end(&who, stop) {
                Ok(true) => {
                    if to
                        .blocking_send(Observation::ContainerdGone { at: now(), who })
                        .is_err()
                    {
                        return;
                    }
                    continue;
                }
                Ok(false) => return,
                // It can not be watched: look again, as if it had not been there.
                Err(_) => {}
            }
        } else {
            looked.store(true, Ordering::SeqCst);
        }
        if stopped(stop) {
            return;
        }
    }
}

/// Waits a moment; says whether to stop.
fn stopped(stop: &OwnedFd) -> bool {
    let mut sources = [PollFd::new(stop, PollFlags::IN)];
    let pause = Timespec::try_from(LOOK).ok();
    poll(&mut sources, pause.as_ref()).is_ok_and(|ready| ready > 0)
}
