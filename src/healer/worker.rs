//! The worker's side: it looks and acts, one thing at a time, until nobody asks any more.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read as _, Write},
    os::unix::net::UnixStream,
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::{
    about::about,
    message::{self, Answer, Ask, Begin, Looked},
};
use crate::{
    diagnose::{Settled, Settling},
    ledger::Ledger,
    model::{Knowledge, PoolActivation, RepairPlan},
    observe::world::WorldError,
    remedy::{
        Hands, KernelHands,
        repair::{OnlyOne, RealSight, RepairError, Repairer, Sight},
    },
    words::explain,
};

/// Errors after which everything is read once more: containerd was in the middle of something.
const TRIES: u32 = 3;
/// Findings that are told at once: what a round can heal is far less, and the next round tells of others.
const MOST: usize = 1000;

/// Why a worker ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The socket to the agent broke.
    #[error("talking to the suture that started this worker")]
    Channel(#[from] io::Error),
    /// The agent says what it does not understand: another version of suture started it.
    #[error("understanding the suture that started this worker")]
    Message(#[from] serde_json::Error),
}

/// Works for whoever is at the other end, until that end is closed.
pub fn work(channel: UnixStream) -> Result<(), WorkerError> {
    // What is begun is whole at every instant; it must not go on unseen.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let mut lines = BufReader::new(channel.try_clone()?);
    let Some(begin) = next::<Begin>(&mut lines)? else {
        return Ok(());
    };
    let sight = RealSight::new(begin.places.clone());
    let out = Mutex::new(channel);
    let tell = |what: &str| {
        let doing = Answer::Doing {
            what: what.to_owned(),
        };
        // Where nobody listens any more, the next answer finds that out.
        let _ = say(&out, &doing);
    };
    let worker = Worker {
        begin: &begin,
        sight: &sight,
        hands: &KernelHands,
        tell: &tell,
    };
    while let Some(ask) = next::<Ask>(&mut lines)? {
        say(&out, &worker.answer(ask))?;
    }
    Ok(())
}

fn next<T: serde::de::DeserializeOwned>(lines: &mut impl BufRead) -> Result<Option<T>, WorkerError> {
    let mut line = Vec::new();
    let limit = u64::try_from(message::LONGEST).unwrap_or(u64::MAX);
    lines.by_ref().take(limit).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(message::parse(&line)?))
}

fn say(out: &Mutex<UnixStream>, answer: &Answer) -> Result<(), WorkerError> {
    let line = message::line(answer)?;
    let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    out.write_all(&line)?;
    Ok(out.flush()?)
}

/// What it works with.
pub(super) struct Worker<'a> {
    pub(super) begin: &'a Begin,
    pub(super) sight: &'a dyn Sight,
    pub(super) hands: &'a dyn Hands,
    pub(super) tell: &'a dyn Fn(&str),
}

impl Worker<'_> {
    /// Does what is asked. Whatever goes wrong is an answer.
    pub(super) fn answer(&self, ask: Ask) -> Answer {
        let done = match ask {
            Ask::Settle => self.settle(),
            Ask::Look { knowledge, patience } => self.look(&knowledge, patience),
            Ask::Act {
                knowledge,
                plans,
                life,
                within,
            } => self.act(knowledge, plans, life.as_ref(), within),
        };
        done.unwrap_or_else(|failed| failed)
    }

    fn settle(&self) -> Result<Answer, Answer> {
        // What a repair that goes on has begun is no intent of a dead one.
        let _only_one = self.only_one()?;
        let mut ledger = self.ledger()?;
        let mut repairer = self.repairer(&mut ledger, Knowledge::default(), None);
        let settled = repairer.settle(true).map_err(|error| failed(&error))?;
        Ok(Answer::Settled {
            settled,
            knowledge: repairer.knowledge,
        })
    }

    fn look(&self, knowledge: &Knowledge, patience: Duration) -> Result<Answer, Answer> {
        let roots: BTreeSet<_> = knowledge.claims.keys().copied().collect();
        let mut settling = Settling::new(patience);
        let mut busy = 0;
        loop {
            (self.tell)("reading containerd's databases, the pool and the dm devices");
            let survey = match self.sight.survey(&roots) {
                Err(WorldError::Busy) if busy < TRIES => {
                    busy += 1;
                    continue;
                }
                Err(error) => {
                    return Err(Answer::Failed {
                        busy: matches!(error, WorldError::Busy),
                        why: explain(&error),
                    });
                }
                Ok(survey) => survey,
            };
            match settling.look(&survey, knowledge, self.sight.now()) {
                Settled::LookAgain { after } => {
                    (self.tell)("waiting for what may be in flight");
                    sleep(after);
                }
                Settled::Done(mut diagnoses, _) => {
                    let all = diagnoses.found.len();
                    // The worst come first.
                    diagnoses.found.truncate(MOST);
                    return Ok(Answer::Looked(Box::new(Looked {
                        more: all.saturating_sub(MOST),
                        survey: about(&survey, &diagnoses.found),
                        diagnoses,
                    })));
                }
            }
        }
    }

    fn act(
        &self,
        knowledge: Knowledge,
        plans: Vec<RepairPlan>,
        life: Option<&PoolActivation>,
        within: Duration,
    ) -> Result<Answer, Answer> {
        let until = Instant::now() + within;
        let _only_one = self.only_one()?;
        let mut ledger = self.ledger()?;
        let mut repairer = self.repairer(&mut ledger, knowledge, Some(until));
        let results = repairer.online(plans, life).map_err(|error| failed(&error))?;
        Ok(Answer::Acted {
            results: results.plans,
        })
    }

    fn only_one(&self) -> Result<OnlyOne, Answer> {
        (self.tell)("taking the lock for one repair at a time");
        OnlyOne::take(&self.begin.places.places, &self.begin.ledger).map_err(|error| Answer::Failed {
            busy: matches!(error, RepairError::AnotherRepair { .. }),
            why: explain(&error),
        })
    }

    fn ledger(&self) -> Result<Ledger, Answer> {
        (self.tell)("opening the ledger");
        Ledger::open_beside(&self.begin.ledger).map_err(|error| failed(&error))
    }

    fn repairer<'r>(
        &'r self,
        ledger: &'r mut Ledger,
        knowledge: Knowledge,
        until: Option<Instant>,
    ) -> Repairer<'r> {
        Repairer {
            sight: self.sight,
            hands: self.hands,
            places: &self.begin.places.places,
            ledger,
            knowledge,
            backups: &self.begin.backups,
            tell: self.tell,
            until,
        }
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Answer {
    Answer::Failed {
        why: explain(error),
        busy: false,
    }
}
