//! A thread that watches the kernel, and the orders that it takes: to end, and to say when it has caught up.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use rustix::event::{EventfdFlags, eventfd};

/// A handle on the running thread; it ends when this is dropped.
pub struct WatchThread {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl WatchThread {
    /// Starts a thread that does as its orders say.
    pub(super) fn start(name: &str, run: impl FnOnce(&Orders) + Send + 'static) -> io::Result<Self> {
        let orders = Arc::new(Orders {
            stop: AtomicBool::new(false),
            wanted_barrier: AtomicU64::new(0),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let theirs = Arc::clone(&orders);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&theirs))?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }

    /// Asks for [`Seen::Barrier`](super::probes::Seen::Barrier) with the number that is returned.
    #[must_use]
    pub fn request_barrier(&self) -> u64 {
        let number = self
            .orders
            .wanted_barrier
            .fetch_add(1, Ordering::SeqCst)
            .saturating_add(1);
        self.wake();
        number
    }

    fn wake(&self) {
        // The counter can only be full when a wake-up is pending already.
        let _ = rustix::io::write(&self.orders.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for WatchThread {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread is told.
pub(super) struct Orders {
    stop: AtomicBool,
    wanted_barrier: AtomicU64,
    wake: OwnedFd,
}

impl Orders {
    /// Whether to end.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The newest barrier that was asked for.
    pub(super) fn wanted_barrier(&self) -> u64 {
        self.wanted_barrier.load(Ordering::SeqCst)
    }

    /// Becomes readable with each new order.
    pub(super) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// Takes the wake-up back, before the orders are read; says whether there was one.
    pub(super) fn take_wake(&self) -> bool {
        let mut drained = [0_u8; 8];
        rustix::io::read(&self.wake, &mut drained).is_ok()
    }
}
