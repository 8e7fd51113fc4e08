//! One look at the world: catch up with the kernel's events, read everything, judge.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, AgentError, LONGEST_REST, PERIOD, REST, now};
use crate::{
    brain::{Input, Look, Output},
    model::{Pool, World, kernel::PoolStatus},
    observe::{
        pages::DatabasePages,
        probes::Seen,
        world::{self, WorldError},
    },
    words::explain,
};

/// A world that takes longer to read than this is given up: some device hangs, and waiting would blind suture.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// How long to wait for the probes' thread to catch up.
const BARRIER_DEADLINE: Duration = Duration::from_secs(5);

/// What came of one reading.
pub(super) struct Reading {
    world: Result<(World, Option<DatabasePages>), WorldError>,
    pool: Option<Pool>,
}

impl Agent {
    /// Reads the world and does what follows from it.
    pub(super) async fn look(&mut self) -> Result<(), AgentError> {
        self.read_at = Instant::now() + PERIOD;
        self.tell_delivery();
        self.save_steps();
        if let Some(world) = self.read_world().await? {
            self.settle_intents(&world);
            self.judge(&world).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, world: &World) -> Result<(), AgentError> {
        let at = now();
        self.record_judgement(at);
        let outputs = self.brain.judge(world, at);
        if let Some(plan) = self.follow(outputs) {
            self.heal(&plan).await?;
            self.follow(vec![Output::Look(Look::Soon)]);
        }
        Ok(())
    }

    /// Catches up with the kernel's events, then reads the world; nothing when it could not be read, which is told.
    pub(super) async fn read_world(&mut self) -> Result<Option<World>, AgentError> {
        self.catch_up().await?;
        // What an earlier suture left in flight under a containerd that is gone; asked only once the sensor had its say
        // about who is up, and before the read, so that this world can already question it.
        if self.containerd.has_looked() {
            self.take(&Input::HoldersKnown { at: now() });
        }
        // Nothing is flushed while the read goes on, and it may hang.
        self.flush_recording();
        // A read that hangs is waited for again, not started again: hung threads must not pile up.
        let mut reading = self.reading.take().unwrap_or_else(|| {
            let (places, suspects) = (self.options.places.clone(), self.brain.suspects());
            let keep_pages = self.recorder.is_some();
            tokio::task::spawn_blocking(move || {
                let mut pool = None;
                let world = world::read_with_pages(&places, &suspects, keep_pages, &mut pool);
                Reading { world, pool }
            })
        });
        let begun = Instant::now();
        let waited = tokio::time::timeout(READ_DEADLINE, &mut reading).await;
        self.rested_at = Instant::now() + begun.elapsed().saturating_mul(REST).min(LONGEST_REST);
        let Reading { world, pool } = match waited {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => {
                self.unreadable(Some(format!("reading the world broke off: {panicked}")), None);
                return Ok(None);
            }
            Err(_) => {
                self.reading = Some(reading);
                let what = format!(
                    "reading the world took more than {} s; a device hangs",
                    READ_DEADLINE.as_secs()
                );
                self.unreadable(Some(what), None);
                return Ok(None);
            }
        };
        match world {
            Ok((world, pages)) => {
                self.record_world(&world, pages);
                let outputs = self.brain.world(&world);
                self.follow(outputs);
                Ok(Some(world))
            }
            Err(error) => {
                // Busy is not trouble: the next look comes soon enough.
                let why = (!matches!(error, WorldError::Busy)).then(|| explain(&error));
                self.unreadable(why, pool);
                Ok(None)
            }
        }
    }

    fn unreadable(&mut self, why: Option<String>, pool: Option<Pool>) {
        let at = now();
        let pool = pool.map(|pool| PoolStatus {
            at,
            pool: pool.name,
            mode: pool.mode,
            needs_check: pool.needs_check,
        });
        self.take(&Input::Unreadable { at, why, pool });
    }

    /// Takes in everything that the kernel had to say until now. A probe thread that does not answer is a gap.
    async fn catch_up(&mut self) -> Result<(), AgentError> {
        let wanted = self.probes.request_barrier();
        let deadline = Instant::now() + BARRIER_DEADLINE;
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(Seen::Barrier(number))) if number >= wanted => return Ok(()),
                Ok(seen) => self.seen(seen)?,
                Err(_) => {
                    self.take(&Input::Behind { at: now() });
                    return Ok(());
                }
            }
        }
    }
}
