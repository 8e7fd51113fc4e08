//! A machine: what is on its disks, in its kernel, and in the memory of a containerd; and what an onlooker sees of it.
//! Programs are futures: each waits before every durable step, so that it can be dropped there, as a kill drops it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use suture::model::{CoreDb, PoolDb, SnapshotDb, TxId, databases::Presence};

use crate::kernel::{Call, Errno, Kernel};

/// A call, and how the kernel answered it.
type Went = (Call, Result<(), Errno>);

/// A program that containerd started, with what it still has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    number: u32,
    pub(crate) what: String,
    todo: VecDeque<Call>,
}

/// A thin device that the probes saw being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) root: u64,
    /// Which containerd made it.
    pub(crate) by: u32,
    /// Set by a reboot, until containerd's own record has named it once more.
    pub(crate) asleep: bool,
}

/// All that there is, but for the memory of containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) kernel: Kernel,
    pub(crate) pool: PoolDb,
    pub(crate) rows: SnapshotDb,
    pub(crate) core: CoreDb,
    /// Counts the backend keys.
    pub(crate) keys: u64,
    /// The number of the containerd that runs.
    pub(crate) containerd: Option<u32>,
    pub(crate) starts: u32,
    pub(crate) children: Vec<Child>,
    children_made: u32,
    /// Milliseconds.
    pub(crate) clock: u64,
    pub(crate) async_remove: bool,
    /// Whether a sidecar with probes watches.
    pub(crate) watched: bool,
    pub(crate) seen: BTreeMap<u32, Seen>,
    /// What lay on the device of each snapshot that was handed out, by the snapshot's number. It must not change by itself.
    pub(crate) handed_out: BTreeMap<u64, String>,
}

/// What a containerd has in its memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Whether the devmapper snapshotter is loaded.
    pub(crate) loaded: Cell<bool>,
    /// The write transaction of metadata.db.
    writing: Cell<bool>,
    /// Who holds core's lock on the snapshotter: so many readers, or the collector.
    readers: Cell<u32>,
    collecting: Cell<bool>,
}

/// How a containerd ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Crash {
    /// It is killed, and its children with it.
    Kill,
    /// It is killed, and its children end their work.
    KillChildrenEnd,
    /// It is killed, and its children go on, and end later.
    KillChildrenLate,
    /// The power is cut.
    Power,
}

impl Crash {
    pub(crate) const ALL: [Self; 4] = [
        Self::Kill,
        Self::KillChildrenEnd,
        Self::KillChildrenLate,
        Self::Power,
    ];
}

pub(crate) struct Machine {
    pub(crate) state: RefCell<State>,
    memory: RefCell<Rc<Memory>>,
    /// The durable steps since it was last emptied.
    pub(crate) trace: RefCell<Vec<String>>,
}

/// Something that runs.
pub(crate) type Program<'m, T> = Pin<Box<dyn Future<Output = T> + 'm>>;

/// Waits once: somebody else may do something, or it may all end here.
pub(crate) fn moment() -> impl Future<Output = ()> {
    let mut waited = false;
    std::future::poll_fn(move |_| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        Poll::Pending
    })
}

/// Lets a program go on to its next wait.
pub(crate) fn poll<F: Future + ?Sized>(program: &mut Pin<Box<F>>) -> Option<F::Output> {
    match program.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Runs a program to its end, with nobody else at work.
pub(crate) fn run<T>(program: impl Future<Output = T>) -> T {
    let mut program = pin!(program);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = program.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("a program waits for something that never comes")
}

/// A lock in containerd's memory, let go when dropped.
pub(crate) struct Held(Rc<Memory>, Lock);

#[derive(Clone, Copy)]
pub(crate) enum Lock {
    /// metadata.db's write transaction.
    Write,
    /// Core's lock, as everybody takes it who makes or commits a snapshot.
    Share,
    /// Core's lock, as the garbage collection takes it.
    Collect,
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.1 {
            Lock::Write => self.0.writing.set(false),
            Lock::Share => self.0.readers.set(self.0.readers.get() - 1),
            Lock::Collect => self.0.collecting.set(false),
        }
    }
}

impl Machine {
    /// An empty pool, and a containerd that was never started.
    pub(crate) fn new(async_remove: bool, watched: bool) -> Self {
        Self::of(State {
            kernel: Kernel::new(),
            pool: PoolDb {
                devices: BTreeMap::new(),
                device_ids: BTreeMap::new(),
                id_sequence: 0,
                txid: TxId(50),
            },
            rows: SnapshotDb {
                snapshots: BTreeMap::new(),
                sequence: 0,
                txid: Some(TxId(50)),
                presence: Presence::Complete,
                contradiction: None,
            },
            core: CoreDb::default(),
            keys: 0,
            containerd: None,
            starts: 0,
            children: Vec::new(),
            children_made: 0,
            clock: 1_000_000,
            async_remove,
            watched,
            seen: BTreeMap::new(),
            handed_out: BTreeMap::new(),
        })
    }

    pub(crate) fn of(state: State) -> Self {
        Self {
            state: RefCell::new(state),
            memory: RefCell::default(),
            trace: RefCell::default(),
        }
    }

    pub(crate) fn get<T>(&self, of: impl FnOnce(&State) -> T) -> T {
        of(&self.state.borrow())
    }

    pub(crate) fn set<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.state.borrow_mut())
    }

    pub(crate) fn memory(&self) -> Rc<Memory> {
        Rc::clone(&self.memory.borrow())
    }

    pub(crate) fn did(&self, what: impl Into<String>) {
        self.trace.borrow_mut().push(what.into());
    }

    pub(crate) async fn lock(&self, which: Lock) -> Held {
        let memory = self.memory();
        loop {
            let free = match which {
                Lock::Write => !memory.writing.get(),
                Lock::Share => !memory.collecting.get(),
                Lock::Collect => !memory.collecting.get() && memory.readers.get() == 0,
            };
            if free {
                break;
            }
            moment().await;
        }
        match which {
            Lock::Write => memory.writing.set(true),
            Lock::Share => memory.readers.set(memory.readers.get() + 1),
            Lock::Collect => memory.collecting.set(true),
        }
        Held(memory, which)
    }

    /// One transaction of the pool database.
    pub(crate) async fn pool_tx<T, E>(
        &self,
        what: String,
        change: impl FnOnce(&mut PoolDb) -> Result<T, E>,
    ) -> Result<T, E> {
        moment().await;
        let mut new = self.get(|state| state.pool.clone());
        let done = change(&mut new)?;
        new.txid.0 += 1;
        self.set(|state| state.pool = new);
        self.did(format!("tx {what}"));
        Ok(done)
    }

    /// A program of its own does these calls, one after the other.
    pub(crate) async fn child(&self, what: String, calls: Vec<Call>) -> Result<(), Errno> {
        let number = self.set(|state| {
            state.children_made += 1;
            let number = state.children_made;
            state.children.push(Child {
                number,
                what,
                todo: calls.into(),
            });
            number
        });
        loop {
            moment().await;
            let (went, over) = self.set(|state| state.go_on(number));
            if let Some((call, Ok(()))) = &went {
                self.did(format!("{call:?}"));
            }
            match went {
                Some((_, Err(errno))) => return Err(errno),
                _ if over => return Ok(()),
                _ => {}
            }
        }
    }

    /// Children that outlived their containerd end their work.
    pub(crate) fn children_end(&self) {
        self.set(State::children_end);
    }

    /// containerd ends. The caller has dropped its programs.
    pub(crate) fn crash(&self, crash: Crash) {
        self.memory.replace(Rc::default());
        self.set(|state| {
            state.containerd = None;
            match crash {
                Crash::Kill => state.children.clear(),
                Crash::KillChildrenEnd => state.children_end(),
                Crash::KillChildrenLate => {}
                Crash::Power => state.power_cut(),
            }
        });
    }

    /// It is stopped in order, with nobody at work.
    pub(crate) fn stop(&self) {
        self.crash(Crash::KillChildrenEnd);
    }
}

impl State {
    /// The next call of a child. Gives how it went, and whether the child has ended.
    fn go_on(&mut self, number: u32) -> (Option<Went>, bool) {
        let Some(at) = self.children.iter().position(|child| child.number == number) else {
            return (None, true);
        };
        let Some(call) = self.children[at].todo.pop_front() else {
            self.children.remove(at);
            return (None, true);
        };
        let went = self.kernel.call(&call);
        match (&call, went) {
            (Call::CreateThin(id) | Call::CreateSnap(id, _), Ok(())) => {
                let root = self.kernel.thin[id].root;
                let by = self.starts;
                self.seen.insert(
                    *id,
                    Seen {
                        root,
                        by,
                        asleep: false,
                    },
                );
            }
            (Call::Delete(id), Ok(())) => drop(self.seen.remove(id)),
            // `dmsetup create` takes back what it began.
            (Call::Load(name, _) | Call::Resume(name), Err(_)) => {
                let began = self
                    .kernel
                    .nodes
                    .get(name)
                    .is_some_and(|node| node.live.is_none());
                if began {
                    let _ = self.kernel.call(&Call::Remove(name.clone()));
                }
            }
            _ => {}
        }
        let over = went.is_err() || self.children[at].todo.is_empty();
        if over {
            self.children.remove(at);
        }
        (Some((call, went)), over)
    }

    fn children_end(&mut self) {
        while let Some(child) = self.children.first() {
            let number = child.number;
            self.go_on(number);
        }
    }

    fn power_cut(&mut self) {
        self.children.clear();
        self.kernel.power_cut();
        for seen in self.seen.values_mut() {
            seen.asleep = true;
        }
        // What was not on disk is lost, and that is nobody's fault here.
        let now: BTreeMap<_, _> = self
            .handed_out
            .keys()
            .filter_map(|id| Some((*id, self.content_of(*id)?)))
            .collect();
        self.handed_out.extend(now);
    }

    /// What lies on the device of a snapshot; nothing where the record or the device is missing.
    pub(crate) fn content_of(&self, snapshot: u64) -> Option<String> {
        let record = self.pool.devices.get(&device_name(snapshot))?;
        let thin = self.kernel.thin.get(&record.device_id.0)?;
        Some(thin.content.clone())
    }

    /// The numbers of the snapshots that there are.
    pub(crate) fn snapshots(&self) -> BTreeSet<u64> {
        self.rows.snapshots.values().map(|row| row.id.0).collect()
    }

    /// The backend key of a client's key.
    pub(crate) fn backend_key(&self, key: &str) -> Option<String> {
        let mut all = self.core.snapshots.iter();
        all.find(|(_, one)| one.key == key)
            .map(|(backend, _)| backend.clone())
    }
}

/// The pool's name.
pub(crate) const POOL: &str = "pool";

pub(crate) fn device_name(snapshot: u64) -> String {
    format!("{POOL}-snap-{snapshot}")
}
