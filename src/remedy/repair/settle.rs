//! What an earlier repair left open is settled by looking, never by doing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{RepairError, Repairer, acts::is_done};
use crate::{
    ledger::RepairRow,
    model::{DeviceMark, OperationId, PoolDb, RepairIntent, RepairOutcome, Survey, ThinId, survey::Claim},
};

/// How an earlier repair was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// What it had set out to do.
    pub intent: RepairIntent,
    /// What had come of it.
    pub outcome: RepairOutcome,
}

impl Repairer<'_> {
    /// Settles what earlier repairs left open, and takes up what only their intents can still prove. Without `store` the
    /// ledger keeps them open: whoever only plans changes nothing.
    pub fn settle(&mut self, store: bool) -> Result<Vec<Settlement>, RepairError> {
        let rows = self.ledger.unfinished_repairs().map_err(RepairError::Ledger)?;
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| row.intent.pool == self.places.pool)
            .collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let roots: BTreeSet<ThinId> = rows.iter().flat_map(|row| row.intent.deletes()).collect();
        let survey = self.look(&roots).map_err(RepairError::Look)?;
        let mut outcomes = Vec::new();
        let mut settled = Vec::new();
        for row in rows {
            let Some(outcome) = outcome(&row.intent, &survey) else {
                continue;
            };
            let claims = claims(&row, &outcome, &survey);
            let unfinished = !claims.is_empty();
            self.knowledge.claims.extend(claims);
            if row.outcome.is_none() || !unfinished {
                let outcome = row.outcome.clone().unwrap_or_else(|| outcome.clone());
                outcomes.push((row.id, outcome, unfinished));
            }
            if row.outcome.is_none() {
                settled.push(Settlement {
                    intent: row.intent,
                    outcome,
                });
            }
        }
        if store && !outcomes.is_empty() {
            (self.tell)("storing how earlier repairs ended");
            self.ledger
                .conclude_repairs(&outcomes, self.sight.now())
                .map_err(RepairError::Outcome)?;
        }
        Ok(settled)
    }
}

/// Claims on thin devices that only these rows of the ledger can still prove to be containerd's, as a repair that settles them
/// has them. Their marks are asked of the survey's mapping roots.
#[must_use]
pub fn claims_left(rows: &[RepairRow], survey: &Survey) -> Vec<(ThinId, Claim)> {
    let deletes = rows.iter().filter(|row| row.intent.undoes.is_none());
    let left = deletes.filter_map(|row| Some(claims(row, &outcome(&row.intent, survey)?, survey)));
    left.flatten().collect()
}

/// What a survey shows to have come of an intent; nothing where it can not tell.
fn outcome(intent: &RepairIntent, survey: &Survey) -> Option<RepairOutcome> {
    if let Some(undone) = intent.undoes {
        return Some(of_undo(intent, undone, survey));
    }
    let done = intent
        .acts
        .iter()
        .map(|act| is_done(act, survey))
        .collect::<Option<Vec<_>>>()?;
    Some(match done.iter().filter(|done| **done).count() {
        count if count == done.len() => RepairOutcome::SettledDone,
        0 => RepairOutcome::SettledNotDone,
        done => RepairOutcome::SettledPartly { done },
    })
}

fn of_undo(intent: &RepairIntent, undone: crate::model::TxId, survey: &Survey) -> RepairOutcome {
    let now = survey.pool_db.txid;
    if now == undone {
        return RepairOutcome::SettledNotDone;
    }
    let copy = intent
        .backup
        .as_deref()
        .map(|folder| std::path::Path::new(folder).join(format!("{}.db", intent.pool)));
    let same = copy
        .and_then(|copy| PoolDb::read(copy).ok())
        .is_some_and(|copy| same_contents(&copy, &survey.pool_db));
    if same {
        RepairOutcome::SettledDone
    } else {
        RepairOutcome::Failed {
            why: "suture died, and containerd has written since: whether it was undone can not be seen any more"
                .to_owned(),
        }
    }
}

/// Whether two databases hold the same, whatever their transactions.
pub(super) fn same_contents(one: &PoolDb, other: &PoolDb) -> bool {
    one.devices == other.devices && one.device_ids == other.device_ids && one.id_sequence == other.id_sequence
}

/// Claims on thin devices that a repair was to delete and did not: the repair had proven whose they are, and has itself
/// overwritten the record that said so.
fn claims(row: &RepairRow, outcome: &RepairOutcome, survey: &Survey) -> Vec<(ThinId, Claim)> {
    // What had no effect is found again by a new diagnosis, without help.
    if row.outcome.is_none() && !outcome.is_partial() {
        return Vec::new();
    }
    let intent = &row.intent;
    // With the databases as the repair left them nobody can have used the pool, so the device is the same one also in another
    // life of the pool.
    let (pool, snapshots) = survey.transactions();
    let own_edits = pool.0.saturating_sub(intent.pool_txid.0);
    let untouched = snapshots == intent.snapshot_txid && own_edits <= 1;
    let same = |then: &DeviceMark, now: &DeviceMark| {
        then == now || (untouched && then.mapping_root == now.mapping_root && then.details == now.details)
    };
    let left = intent.deletes().filter_map(|id| {
        let then = intent.marks.get(&id)?;
        let now = survey.mark_of(id).filter(|now| same(then, now))?;
        let claim = Claim {
            operation: OperationId::new(row.intended, id),
            mark: now,
        };
        Some((id, claim))
    });
    left.collect()
}
