//! What is reserved is released before a signal ends the program.
//!
//! The handlers are put up once, before the first reservation, and stay: a thread gets the signals, ends what is reserved,
//! and then lets each do what it always does. A signal that is ignored (`nohup`) or that the program handles itself is not
//! taken from it; of the latter, the handler still runs, and the program decides when it ends.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use procfs::process::Process;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level,
};

use super::Reservation;

const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Reservations that are there or about to be.
static WATCHED: Mutex<Vec<Arc<Reservation>>> = Mutex::new(Vec::new());
/// Whether the handlers are up.
static INSTALLED: Mutex<bool> = Mutex::new(false);

/// Ends the watch when it is dropped.
pub(super) struct Watched(Arc<Reservation>);

/// From now on the reservation is ended by a signal that ends the program.
pub(super) fn watch(reservation: &Arc<Reservation>) -> io::Result<Watched> {
    install()?;
    lock(&WATCHED).push(Arc::clone(reservation));
    Ok(Watched(Arc::clone(reservation)))
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&WATCHED).retain(|one| !Arc::ptr_eq(one, &self.0));
    }
}

fn install() -> io::Result<()> {
    let mut installed = lock(&INSTALLED);
    if *installed {
        return Ok(());
    }
    let status = Process::myself()
        .and_then(|process| process.status())
        .map_err(io::Error::other)?;
    let among = |mask: u64, signal: i32| {
        let bit = u32::try_from(signal)
            .ok()
            .and_then(|signal| signal.checked_sub(1));
        bit.is_some_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
    };
    let wanted = ENDING.into_iter().filter(|signal| !among(status.sigign, *signal));
    let handled: Vec<i32> = wanted
        .clone()
        .filter(|signal| among(status.sigcgt, *signal))
        .collect();
    let mut signals = Signals::new(wanted)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            end_all();
            if !handled.contains(&signal) {
                // Comes back only if the signal could not be sent to ourselves.
                let _ = low_level::emulate_default_handler(signal);
            }
        }
    })?;
    *installed = true;
    Ok(())
}

/// Releases everything, and waits for a message that is under way.
pub(super) fn end_all() {
    let watched: Vec<_> = lock(&WATCHED).clone();
    for one in watched {
        if let Err(error @ crate::observe::thin_metadata::ReserveError::NotReleased { .. }) = one.release() {
            eprintln!("suture: {error}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
