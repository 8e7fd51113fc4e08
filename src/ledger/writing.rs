//! How the ledger is written: each write is one transaction, on disk when it returns. What can not be written, because the
//! disk is full or fails, waits in memory, bounded, and goes before the next write that works; an intent never waits, so
//! nothing is done then.

use std::{
    cell::RefCell,
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Ledger, LedgerError, Trouble, late::Late, opening::Look};
use crate::model::Timestamp;

/// At most so much waits; an operation or a finding is one each, however often it changed.
pub(super) const MOST_LATE: usize = 512;
/// After a write that failed, how long what may wait is not tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the ledger can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It could, the last time.
    Well,
    /// It could not. Reading goes on; no intent is taken, so nothing is healed.
    Degraded {
        /// When that began.
        since: Timestamp,
        /// Why.
        why: Trouble,
        /// How much waits to be written.
        waiting: usize,
        /// How much was given up because too much waited.
        lost: u64,
    },
}

/// The ledger can be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Since when it could not.
    pub since: Timestamp,
    /// Why it could not.
    pub why: Trouble,
    /// How much had waited and is stored now.
    pub stored: usize,
    /// How much was given up because too much waited.
    pub lost: u64,
}

/// What waits, and since when.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    late: VecDeque<Late>,
    lost: u64,
    trouble: Option<Failing>,
    recovered: Option<Recovered>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Timestamp,
    why: Trouble,
    tried: Instant,
}

impl Backlog {
    fn keep(&mut self, late: Late) {
        let key = late.key();
        if key.is_some() {
            self.late.retain(|one| one.key() != key);
        }
        if self.late.len() >= MOST_LATE {
            // Observations are for the history only; the others are what a restarted suture goes on from.
            let least = self.late.iter().position(Late::is_observations).unwrap_or(0);
            let given_up = self.late.remove(least).map_or(0, |one| one.count());
            self.lost = self.lost.saturating_add(given_up);
        }
        self.late.push_back(late);
    }

    fn failed(&mut self, why: Trouble) {
        let now = Instant::now();
        let since = self
            .trouble
            .map_or_else(|| SystemTime::now().into(), |known| known.since);
        self.trouble = Some(Failing {
            since,
            why,
            tried: now,
        });
    }

    fn worked(&mut self, stored: usize) {
        if let Some(Failing { since, why, .. }) = self.trouble.take() {
            let lost = std::mem::take(&mut self.lost);
            self.recovered = Some(Recovered {
                since,
                why,
                stored,
                lost,
            });
        }
    }
}

impl Ledger {
    /// Whether the ledger can be written.
    #[must_use]
    pub fn health(&self) -> Health {
        let backlog = self.backlog.borrow();
        backlog.trouble.map_or(Health::Well, |trouble| Health::Degraded {
            since: trouble.since,
            why: trouble.why,
            waiting: backlog.late.len(),
            lost: backlog.lost,
        })
    }

    /// That it can be written again, once for each time that it could not.
    pub fn take_recovered(&self) -> Option<Recovered> {
        self.backlog.borrow_mut().recovered.take()
    }

    /// Tries to write again where it could not be written the last time, and stores what waits. Does nothing else.
    pub fn catch_up(&mut self) -> Result<(), LedgerError> {
        const WHAT: &str = "trying whether it can be written";
        if self.backlog.borrow().trouble.is_none() {
            return Ok(());
        }
        if self.reopen {
            let only_writer = self.only_writer.as_ref().and_then(|file| file.try_clone().ok());
            let opened = Self::open_to_write(&self.path, only_writer, Look::Thorough)?;
            self.connection = opened.connection;
            self.reopen = false;
        }
        // A write of its own: what waits may be nothing, and a transaction without a change writes nothing.
        self.write(WHAT, |connection| {
            connection
                .execute("UPDATE about SET version = version", [])
                .map_err(LedgerError::sql(WHAT))?;
            Ok(())
        })
    }

    /// Notes that it was opened for reading only, and why.
    pub(super) fn reopen_later(&mut self, why: &LedgerError) {
        self.reopen = true;
        self.backlog.get_mut().failed(why.trouble());
    }

    /// One transaction that is on disk when this returns, after everything that waited.
    pub(super) fn write<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut backlog = self.backlog.borrow_mut();
        match transact(&self.connection, what, &mut backlog, work) {
            Ok((done, stored)) => {
                backlog.late.clear();
                backlog.worked(stored);
                Ok(done)
            }
            // A value that is none of SQLite's, or a row that is not there, says nothing about the disk.
            Err(error) if error.trouble() == Trouble::Other => Err(error),
            Err(error) => {
                backlog.failed(error.trouble());
                Err(error)
            }
        }
    }

    /// The same for what may wait: where it fails it is kept, and stored with the next write that works.
    pub(super) fn write_or_keep(&self, what: &'static str, late: Vec<Late>) -> Result<(), LedgerError> {
        if late.is_empty() {
            return Ok(());
        }
        let resting = self
            .backlog
            .borrow()
            .trouble
            .filter(|trouble| trouble.tried.elapsed() < PAUSE);
        let written = match resting {
            Some(Failing { since, why, .. }) => Err(LedgerError::NotWritable { since, why }),
            None => self.write(what, |connection| {
                late.iter().try_for_each(|one| one.store(connection))
            }),
        };
        if written
            .as_ref()
            .is_err_and(|error| error.trouble() != Trouble::Other)
        {
            let mut backlog = self.backlog.borrow_mut();
            for one in late {
                backlog.keep(one);
            }
        }
        written
    }
}

fn transact<T>(
    connection: &Connection,
    what: &'static str,
    backlog: &mut Backlog,
    work: impl FnOnce(&Connection) -> Result<T, LedgerError>,
) -> Result<(T, usize), LedgerError> {
    // Immediate: the lock is waited for here and not in the middle. What is not committed is rolled back when it is dropped.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        .map_err(LedgerError::sql(what))?;
    let mut stored = 0;
    for one in &backlog.late {
        match one.store(&transaction) {
            Ok(()) => stored += 1,
            // One that SQLite refuses for what it is would be in the way of all others for ever.
            Err(error) if error.trouble() == Trouble::Other => {
                backlog.lost = backlog.lost.saturating_add(one.count());
            }
            Err(error) => return Err(error),
        }
    }
    let done = work(&transaction)?;
    transaction.commit().map_err(LedgerError::sql(what))?;
    Ok((done, stored))
}

/// Kept in the ledger; a cell because the ledger's connection is one, too.
pub(super) type Waiting = RefCell<Backlog>;
