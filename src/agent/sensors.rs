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
    model::{Incarnation, Observation, sense::Sense},
    observe::{
        containerd::{ProcessError, holder_of, wait_for_end},
        databases::DatabaseWatch,
        world::Places,
    },
    words::explain,
};

/// How often to look for a containerd while there is none.
const LOOK: Duration = Duration::from_millis(500);

/// What the sensor tells.
#[derive(Debug)]
pub(super) enum Sensed {
    /// A containerd started or ended.
    Containerd(Observation),
    /// It can be told again, and none runs.
    Nobody,
    /// It can not be told which process is containerd; said once until it can.
    Blind(String),
}

/// How many containerds are remembered as told.
const MAX_KNOWN: usize = 256;

/// Commits to containerd's databases, as they are noticed.
pub(super) struct Commits {
    // Dropped first: the thread that would send ends when nobody listens.
    commits: mpsc::Receiver<Observation>,
    watch: DatabaseWatch,
}

impl Commits {
    pub(super) fn start(places: &Places, core: Option<PathBuf>) -> io::Result<Self> {
        let (watch, commits) = DatabaseWatch::start(places, core)?;
        Ok(Self { commits, watch })
    }

    /// How well they are seen.
    pub(super) fn senses(&self) -> Sense {
        self.watch.senses()
    }

    /// The next commit, or what could not be seen of them.
    pub(super) async fn next(&mut self) -> Observation {
        match self.commits.recv().await {
            Some(observation) => observation,
            // The thread only ends when it is told to.
            None => std::future::pending().await,
        }
    }
}

/// The sensor.
pub(super) struct ContainerdWatch {
    events: mpsc::Receiver<Sensed>,
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

    /// The next start or end of a containerd, or that none can be seen.
    pub(super) async fn next(&mut self) -> Sensed {
        match self.events.recv().await {
            Some(sensed) => sensed,
            // The thread only ends when it is told to.
            None => std::future::pending().await,
        }
    }

    /// The containerd that runs, as far as it is known.
    pub(super) fn up(&self) -> Option<&Incarnation> {
        self.up.as_ref()
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
                while self.known.len() >= MAX_KNOWN {
                    self.known.pop_first();
                }
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

fn watch(database: &Path, to: &mpsc::Sender<Sensed>, looked: &AtomicBool, stop: &OwnedFd) {
    let mut blind = false;
    loop {
        match holder_of(database) {
            Ok(Some(who)) => {
                blind = false;
                let up = Observation::ContainerdUp {
                    at: now(),
                    who: who.clone(),
                };
                if to.blocking_send(Sensed::Containerd(up)).is_err() {
                    return;
                }
                looked.store(true, Ordering::SeqCst);
                match wait_for_end(&who, stop) {
                    Ok(true) => {
                        let gone = Observation::ContainerdGone { at: now(), who };
                        if to.blocking_send(Sensed::Containerd(gone)).is_err() {
                            return;
                        }
                        continue;
                    }
                    Ok(false) => return,
                    Err(error) => {
                        if !tell_blind(&mut blind, to, &error) {
                            return;
                        }
                    }
                }
            }
            Ok(None) => {
                if std::mem::take(&mut blind) && to.blocking_send(Sensed::Nobody).is_err() {
                    return;
                }
                looked.store(true, Ordering::SeqCst);
            }
            Err(error) => {
                if !tell_blind(&mut blind, to, &error) {
                    return;
                }
            }
        }
        if stopped(stop) {
            return;
        }
    }
}

/// Tells once; says whether anybody listens.
fn tell_blind(blind: &mut bool, to: &mpsc::Sender<Sensed>, error: &ProcessError) -> bool {
    let first = !std::mem::replace(blind, true);
    !first || to.blocking_send(Sensed::Blind(explain(error))).is_ok()
}

/// Waits a moment; says whether to stop.
fn stopped(stop: &OwnedFd) -> bool {
    let mut sources = [PollFd::new(stop, PollFlags::IN)];
    let pause = Timespec::try_from(LOOK).ok();
    poll(&mut sources, pause.as_ref()).is_ok_and(|ready| ready > 0)
}
