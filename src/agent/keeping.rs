//! What the ledger is given beside operations and findings, and how it is kept: observations in batches, which devices
//! there are, trying again after a full disk, dropping what is old.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, now};
use crate::{
    brain::{Input, Report},
    ledger::{Batch, Recovered, Retention},
    model::{Observation, World},
};

/// Observations are written when there are so many, or after so much time: an fsync each.
const BATCH: usize = 2000;
const BATCH_TIME: Duration = Duration::from_secs(10);
/// How often what is old is dropped, and a ledger too large made smaller.
const PRUNE: Duration = Duration::from_mins(10);
/// How often it is stored which devices there are.
const DEVICES: Duration = Duration::from_mins(1);

pub(super) struct Keeping {
    began: Instant,
    batch: Batch,
    retention: Retention,
    pruned: Option<Instant>,
    devices: Option<Instant>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            batch: Batch::new(BATCH, BATCH_TIME),
            retention: Retention::default(),
            pruned: None,
            devices: None,
        }
    }
}

impl Keeping {
    pub(super) fn note(&mut self, observation: &Observation) {
        self.batch.push(observation, self.began.elapsed());
    }
}

impl Agent {
    /// Keeps what the configuration says from now on.
    pub(super) fn keep_as_configured(&mut self) {
        let Some(healing) = &self.options.healing else {
            return;
        };
        let settings = &healing.config.ledger;
        let retention = Retention {
            age: settings.keep_for,
            bytes: settings.largest.0,
        };
        if self.keeping.retention != retention {
            self.keeping.retention = retention;
            self.keeping.pruned = None;
        }
    }

    /// With every look.
    pub(super) fn keep_ledger(&mut self) {
        let Some(ledger) = self.ledger.as_mut() else {
            return;
        };
        let tried = ledger.catch_up();
        if let Some(Recovered {
            since, stored, lost, ..
        }) = ledger.take_recovered()
        {
            self.ledger_trouble = None;
            self.pulse.ledger(None);
            self.tell(&Report::LedgerWorks { since, stored, lost });
            self.take(&Input::Reconsider { at: now() });
            if let Some(rounds) = self.rounds.as_mut() {
                rounds.soon();
            }
        }
        if let Err(error) = tried {
            self.ledger_failed(&error);
            return;
        }
        self.store_observations(false);
        let due = self.keeping.pruned.is_none_or(|last| last.elapsed() >= PRUNE);
        if let Some(ledger) = self.ledger.as_ref().filter(|_| due) {
            let pruned = ledger.prune(&self.keeping.retention, now());
            // The rest goes on with the next look.
            let more = pruned.as_ref().is_ok_and(|pruned| pruned.more);
            self.keeping.pruned = (!more).then(Instant::now);
            if let Err(error) = pruned {
                self.ledger_failed(&error);
            }
        }
    }

    /// Stores what was seen since the last time, where that is enough or `even_so`.
    pub(super) fn store_observations(&mut self, even_so: bool) {
        let now = self.keeping.began.elapsed();
        let Some(ledger) = self.ledger.as_ref() else {
            return;
        };
        if even_so || self.keeping.batch.is_due(now) {
            let rows = self.keeping.batch.take();
            let stored = (!rows.is_empty()).then(|| ledger.save_observations(rows));
            self.stored(stored);
        }
    }

    /// Stores which devices a world shows, from time to time.
    pub(super) fn see_devices(&mut self, world: &World) {
        let due = self.keeping.devices.is_none_or(|last| last.elapsed() >= DEVICES);
        let Some(ledger) = self.ledger.as_ref().filter(|_| due) else {
            return;
        };
        let seen = ledger.see_devices(world);
        self.keeping.devices = Some(Instant::now());
        if let Err(error) = seen {
            self.ledger_failed(&error);
        }
    }
}
