//! Carrying out what `suture repair` plans. The order is the same as for every remedy: look anew, read the conditions, store
//! the intent, look at the transaction once more, act, verify, store the outcome.
//!
//! Offline there are three parts: edits that go first in one transaction, what the kernel does, edits that go last in one more.
//! The lock on the pool database is held for writing the transactions only, and nothing else than files is touched meanwhile:
//! a process that hangs in an ioctl can not be killed, and would keep the lock from containerd.
//!
//! Killed anywhere, nothing is worse than before. `MarkFaulty` comes first because it heals the outage by itself, and
//! because containerd never hands out a faulty id or uses a faulty record again, whatever becomes of the thin device. From
//! then on only the stored intent tells that the thin device is containerd's: `settle` makes that a claim on the very same
//! device, and the next repair deletes it. `ForgetRecord`, which frees the id, comes last: with the device still there a free
//! id would be drawn and refused by the kernel.

mod acts;
mod backup;
mod book;
mod edits;
mod kernel;
mod offline;
mod online;
mod only_one;
mod record_text;
mod settle;
mod sight;
#[cfg(test)]
mod tests;
mod undo;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use backup::{Backup, BackupError, Manifest};
pub use kernel::life_of;
pub use offline::Found;
pub use only_one::OnlyOne;
pub use settle::{Settlement, claims_left};
pub use sight::{RealSight, Sight};
pub use undo::Undone;

use crate::{
    ledger::{Ledger, LedgerError, RepairId},
    model::{
        ConditionReading, DeviceMark, Incarnation, Knowledge, PoolActivation, RepairIntent, RepairMode,
        RepairOutcome, RepairPlan, Survey, ThinId,
    },
    observe::world::{Places, WorldError},
    remedy::{Hands, bbolt_editor::EditError},
};

/// Where backups are unless told otherwise.
pub const BACKUPS: &str = "/var/lib/suture/backups";
/// How long after a look something may be done that rests on it.
const FRESH: Duration = Duration::from_millis(250);
/// Intents that are stored together.
const GROUP: usize = 64;

/// Why a repair was not made. What was begun before has its outcome in the ledger, or is settled by the next one.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Another repair is under way.
    #[error("another repair is under way in {path}; one is made at a time: try again when it has ended")]
    AnotherRepair {
        /// The folder of the databases.
        path: PathBuf,
    },
    /// The folder of the databases can not be locked.
    #[error("locking {path}, so that one repair is made at a time")]
    OnlyOne {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Without a durable intent nothing is done.
    #[error("the intent could not be stored, so nothing was changed")]
    Intent(#[source] LedgerError),
    /// It was done or refused, and the ledger does not know.
    #[error("an outcome could not be stored; the next repair settles it by looking")]
    Outcome(#[source] LedgerError),
    /// The ledger can not be read.
    #[error("reading what earlier repairs left open")]
    Ledger(#[source] LedgerError),
    /// The node could not be read.
    #[error("reading the node anew; nothing was changed")]
    Look(#[source] WorldError),
    /// containerd runs.
    #[error(
        "containerd runs ({who}) and holds its pool database; stop it first, or repair without --offline; nothing was changed"
    )]
    ContainerdRuns {
        /// Which.
        who: Incarnation,
    },
    /// Whether it runs can not be told.
    #[error("whether containerd runs can not be told: {0}; nothing was changed")]
    Unproven(String),
    /// There is no backup that could be put back.
    #[error("finding the backup")]
    Backup(#[from] BackupError),
    /// The database could not be put back.
    #[error("putting the database back")]
    Edit(#[from] EditError),
    /// The undo is not safe, or not possible any more.
    #[error("not undone: {0}")]
    NotUndone(String),
}

/// What became of one plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanResult {
    /// The plan.
    pub plan: RepairPlan,
    /// Its conditions as they were read last.
    pub readings: Vec<ConditionReading>,
    /// What came of it; nothing where nothing was to be done.
    pub outcome: Option<RepairOutcome>,
}

/// What became of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Results {
    /// Plan by plan, in their order.
    pub plans: Vec<PlanResult>,
    /// The backup that was made.
    pub backup: Option<PathBuf>,
    /// How long the lock on the pool database was held, once for each transaction.
    pub lock_held: Vec<Duration>,
    /// How the node was found once everything was done, where it was looked at then.
    pub after: Option<Survey>,
}

/// Carries out repairs, with all that it needs for it.
pub struct Repairer<'a> {
    /// Looks at the node.
    pub sight: &'a dyn Sight,
    /// Changes it.
    pub hands: &'a dyn Hands,
    /// The pool and its databases.
    pub places: &'a Places,
    /// Keeps intents and outcomes.
    pub ledger: &'a mut Ledger,
    /// What is known beside what can be looked at. [`Repairer::settle`] adds to it.
    pub knowledge: Knowledge,
    /// Where backups go.
    pub backups: &'a Path,
    /// Is told each step before it is made: what a hung repair was doing.
    pub tell: &'a dyn Fn(&str),
    /// When nothing more is begun.
    pub until: Option<Instant>,
}

/// A plan on its way.
struct Item {
    plan: RepairPlan,
    readings: Vec<ConditionReading>,
    outcome: Option<RepairOutcome>,
    id: Option<RepairId>,
    /// How many of its acts are done, from the first on.
    done: usize,
    /// Set once its outcome is in the ledger.
    concluded: bool,
    /// How often containerd wrote between its intent and its act.
    crossed: u32,
}

impl Item {
    fn new(plan: RepairPlan) -> Self {
        Self {
            plan,
            readings: Vec::new(),
            outcome: None,
            id: None,
            done: 0,
            concluded: false,
            crossed: 0,
        }
    }

    /// Nothing more is done about it.
    fn end(&mut self, why: String, refused: bool) {
        self.outcome = Some(match (self.done, refused) {
            (0, true) => RepairOutcome::Refused { why },
            (0, false) => RepairOutcome::Failed { why },
            (done, _) => RepairOutcome::Partly { done, why },
        });
    }

    /// The time was over before it was its turn.
    fn not_reached(&mut self) {
        if self.done == 0 {
            self.outcome = Some(RepairOutcome::NotReached);
        } else {
            self.end("the time was over".to_owned(), false);
        }
    }

    fn is_open(&self) -> bool {
        self.outcome.is_none() && !self.plan.acts.is_empty()
    }
}

impl Repairer<'_> {
    fn over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn look(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        (self.tell)("reading containerd's databases, the pool and the dm devices");
        self.sight.survey(roots)
    }

    /// Thin devices whose marks are to be read: those to be deleted, and those that something is known of.
    fn roots(&self, items: &[Item]) -> BTreeSet<ThinId> {
        let deleted = items
            .iter()
            .flat_map(|item| item.plan.deletes().collect::<Vec<_>>());
        deleted.chain(self.knowledge.claims.keys().copied()).collect()
    }

    /// Stores the intents of those items that have none yet.
    fn intend(
        &mut self,
        items: &mut [Item],
        which: &[usize],
        mode: RepairMode,
        survey: &Survey,
        backup: Option<&Path>,
    ) -> Result<(), RepairError> {
        let (pool_txid, snapshot_txid) = survey.transactions();
        let new: Vec<usize> = which
            .iter()
            .copied()
            .filter(|at| items.get(*at).is_some_and(|item| item.id.is_none()))
            .collect();
        let intents: Vec<RepairIntent> = new
            .iter()
            .filter_map(|at| items.get(*at))
            .map(|Item { plan, .. }| RepairIntent {
                pool: self.places.pool.clone(),
                mode,
                finding: plan.finding.clone(),
                class: Some(plan.class),
                subject: plan.subject.clone(),
                action: Some(plan.remedy.action),
                acts: plan.acts.clone(),
                undoes: None,
                pool_txid,
                snapshot_txid,
                backup: backup.map(|folder| folder.display().to_string()),
                marks: marks(plan, survey),
            })
            .collect();
        if intents.is_empty() {
            return Ok(());
        }
        (self.tell)("storing what is to be done in the ledger");
        let stored = self.ledger.intend_repairs(&intents, self.sight.now());
        for (at, id) in new.into_iter().zip(stored.map_err(RepairError::Intent)?) {
            if let Some(item) = items.get_mut(at) {
                item.id = Some(id);
            }
        }
        Ok(())
    }

    /// Stores the outcomes that are not in the ledger yet.
    fn conclude(&mut self, items: &mut [Item]) -> Result<(), RepairError> {
        let mut outcomes = Vec::new();
        for item in items.iter_mut().filter(|item| !item.concluded) {
            if let (Some(id), Some(outcome)) = (item.id, &item.outcome) {
                let unfinished = outcome.is_partial() && item.plan.deletes().next().is_some();
                outcomes.push((id, outcome.clone(), unfinished));
                item.concluded = true;
            }
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        (self.tell)("storing what was done in the ledger");
        self.ledger
            .conclude_repairs(&outcomes, self.sight.now())
            .map_err(RepairError::Outcome)
    }
}

/// What tells the thin devices that a plan deletes from others of their ids.
fn marks(plan: &RepairPlan, survey: &Survey) -> BTreeMap<ThinId, DeviceMark> {
    let marked = plan.deletes().filter_map(|id| Some((id, survey.mark_of(id)?)));
    marked.collect()
}

/// Those items that `which` names.
fn pick<'i>(items: &'i mut [Item], which: &[usize]) -> impl Iterator<Item = &'i mut Item> {
    let which: BTreeSet<usize> = which.iter().copied().collect();
    let named = items.iter_mut().enumerate();
    named
        .filter(move |(at, _)| which.contains(at))
        .map(|(_, item)| item)
}

fn activation(survey: &Survey) -> Option<PoolActivation> {
    survey.pool.as_ref().map(|pool| pool.activation.clone())
}

fn results(items: Vec<Item>) -> Vec<PlanResult> {
    items
        .into_iter()
        .map(|item| PlanResult {
            plan: item.plan,
            readings: item.readings,
            outcome: item.outcome,
        })
        .collect()
}
