//! One look at the world: catch up with the kernel's events, read everything, judge.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, AgentError, LONGEST_REST, PERIOD, REST, now};
use crate::{
    brain::{Input, Look, Output},
    model::{PoolView, Questions, World, status::ReadResult},
    observe::{
        containerd,
        pages::DatabasePages,
        probes::Seen,
        world::{self, WorldError},
    },
    words::explain,
};

/// A world that takes longer to read than this is given up: some device hangs, and waiting would blind suture.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// The same for the pool alone.
const POOL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a containerd that ends may take between letting go of its database and being gone.
const LETTING_GO: Duration = Duration::from_millis(500);
/// How long to wait for the probes' thread to catch up.
const BARRIER_DEADLINE: Duration = Duration::from_secs(5);

/// What came of one reading.
pub(super) type Reading = Result<(World, Option<DatabasePages>), WorldError>;

impl Agent {
    /// Reads the world and does what follows from it.
    pub(super) async fn look(&mut self) -> Result<(), AgentError> {
        self.read_at = Instant::now() + PERIOD;
        self.tell_delivery();
        self.save_steps();
        self.keep_ledger();
        self.say_watching(false);
        let world = self.read_world().await?;
        self.answered_late().await;
        if let Some(world) = world {
            self.settle_intents(&world);
            self.see_devices(&world);
            self.judge(&world).await?;
        } else if let Some(view) = self.read_pool().await {
            self.take(&Input::PoolRead { at: now(), view });
        }
        self.publish();
        Ok(())
    }

    async fn judge(&mut self, world: &World) -> Result<(), AgentError> {
        let at = now();
        self.record_judgement(at);
        let outputs = self.brain.judge(world, at);
        // While suture ends nothing is begun.
        if let Some(plan) = self.follow(outputs).filter(|_| !self.is_ending()) {
            self.heal(&plan).await?;
            self.follow(vec![Output::Look(Look::Soon)]);
        }
        Ok(())
    }

    /// Reads what can be read without databases and metadata; nothing when not even that can be.
    async fn read_pool(&mut self) -> Option<PoolView> {
        let mut reading = self.reading_pool.take().unwrap_or_else(|| {
            let places = self.options.places.clone();
            tokio::task::spawn_blocking(move || world::read_pool(&places))
        });
        if let Ok(read) = tokio::time::timeout(POOL_DEADLINE, &mut reading).await {
            read.ok()?.ok()
        } else {
            self.reading_pool = Some(reading);
            None
        }
    }

    /// Catches up with the kernel's events, then reads the world; nothing when it could not be read, which is told.
    pub(super) async fn read_world(&mut self) -> Result<Option<World>, AgentError> {
        self.catch_up().await?;
        // What an earlier suture left in flight under a containerd that is gone; asked only once the sensor had its say
        // about who is up, and before the read, so that this world can already question it.
        if self.containerd.has_looked() {
            self.take(&Input::HoldersKnown { at: now() });
        }
        if self.pulse.is_due() {
            self.publish();
        }
        if self.database_is_another().await {
            let path = self.options.places.pool_db();
            let why = format!(
                "containerd runs and does not hold {}: that file was put in the place of the one that containerd writes, \
                 so nothing in it is known to be true; restart containerd",
                path.display()
            );
            self.unreadable(ReadResult::Failed, Duration::ZERO, Some(why));
            return Ok(None);
        }
        // Nothing is flushed while the read goes on, and it may hang.
        self.flush_recording();
        // A read that hangs is waited for again, not started again: hung threads must not pile up.
        let mut reading = if let Some(reading) = self.reading.take() {
            reading
        } else {
            let (places, questions) = (self.options.places.clone(), self.questions());
            let keep_pages = self.recorder.is_some();
            tokio::task::spawn_blocking(move || world::read_with_pages(&places, &questions, keep_pages))
        };
        let begun = Instant::now();
        let reading_since = *self.reading_since.get_or_insert(begun);
        let waited = tokio::time::timeout(READ_DEADLINE, &mut reading).await;
        self.rested_at = Instant::now() + begun.elapsed().saturating_mul(REST).min(LONGEST_REST);
        let took = reading_since.elapsed();
        if waited.is_ok() {
            self.reading_since = None;
        }
        let world = match waited {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => {
                let what = format!("reading the world broke off: {panicked}");
                self.unreadable(ReadResult::Failed, took, Some(what));
                return Ok(None);
            }
            Err(_) => {
                self.reading = Some(reading);
                let what = format!(
                    "reading the world took more than {} s; a device hangs",
                    READ_DEADLINE.as_secs()
                );
                self.unreadable(ReadResult::Late, took, Some(what));
                return Ok(None);
            }
        };
        match world {
            Ok((world, pages)) => {
                self.pulse.read(ReadResult::Consistent, took, None);
                self.record_world(&world, pages);
                let outputs = self.brain.world(&world);
                self.follow(outputs);
                Ok(Some(world))
            }
            Err(error) => {
                // Busy is not trouble: the next look comes soon enough.
                if matches!(error, WorldError::Busy) {
                    self.unreadable(ReadResult::Busy, took, None);
                } else {
                    self.unreadable(ReadResult::Failed, took, Some(explain(&error)));
                }
                Ok(None)
            }
        }
    }

    fn unreadable(&mut self, result: ReadResult, took: Duration, why: Option<String>) {
        self.pulse.read(result, took, why.clone());
        self.take(&Input::Unreadable { at: now(), why });
    }

    /// Whether the containerd that is known to run holds another file than the one that bears the database's name. One
    /// that is just ending lets go of its file before it is gone, so it is asked twice.
    async fn database_is_another(&self) -> bool {
        let Some(who) = self.containerd.up().cloned() else {
            return false;
        };
        let database = self.options.places.pool_db();
        let nobody_holds_it = || matches!(containerd::holder_of(&database), Ok(None));
        if !nobody_holds_it() || !containerd::is_running(&who) {
            return false;
        }
        tokio::time::sleep(LETTING_GO).await;
        nobody_holds_it() && containerd::is_running(&who)
    }

    /// What this read of the world is to answer.
    fn questions(&mut self) -> Questions {
        let asked = Input::Asked { at: now() };
        self.record_input(&asked);
        self.brain.questions(asked.at())
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
