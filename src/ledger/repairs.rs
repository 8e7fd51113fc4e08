//! What `suture repair` set out to do and what came of it. As with the sidecar's remedies an intent is on disk before its
//! effect; those without an outcome are settled by the next repair, by looking.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::{
    Ledger, LedgerError,
    findings::{outcome, parse, text},
};
use crate::model::{
    FindingId, OperationState, RepairIntent, RepairOutcome, ThinId, Timestamp, survey::Claim,
};

/// So many of the newest repairs are kept for the history, and what is unfinished of older ones. One offline repair may be
/// of 10,000 records.
const KEEP: u32 = 50_000;

/// Names one repair in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RepairId(i64);

/// A stored repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairRow {
    /// Its name.
    pub id: RepairId,
    /// What was intended.
    #[serde(flatten)]
    pub intent: RepairIntent,
    /// When.
    pub intended: Timestamp,
    /// What came of it; nothing while it is under way, or suture died.
    #[serde(flatten)]
    pub outcome: Option<RepairOutcome>,
    /// When that was known.
    pub ended: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT id, intent, intended, outcome, ended FROM repairs";

impl Ledger {
    /// Stores intents, all or none. They are on disk when this returns.
    pub fn intend_repairs(
        &mut self,
        intents: &[RepairIntent],
        at: Timestamp,
    ) -> Result<Vec<RepairId>, LedgerError> {
        const WHAT: &str = "storing the intent of a repair";
        self.together(WHAT, |connection| {
            let insert = "INSERT INTO repairs (finding, intent, intended, unfinished) VALUES (?1, ?2, ?3, 1)";
            let mut sql = connection.prepare(insert).map_err(LedgerError::sql(WHAT))?;
            intents
                .iter()
                .map(|intent| {
                    let json = serde_json::to_string(intent).map_err(LedgerError::value(WHAT))?;
                    let id = sql.insert(params![intent.finding.0, json, text(at)]);
                    id.map(RepairId).map_err(LedgerError::sql(WHAT))
                })
                .collect()
        })
    }

    /// Stores what came of intents, all or none. Set for each is whether something of it may be left that only the intent can
    /// still tell the maker of.
    pub fn conclude_repairs(
        &mut self,
        outcomes: &[(RepairId, RepairOutcome, bool)],
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        const WHAT: &str = "storing the outcome of a repair";
        if outcomes.is_empty() {
            return Ok(());
        }
        self.together(WHAT, |connection| {
            let update = "UPDATE repairs SET outcome = ?2, ended = ?3, unfinished = ?4 WHERE id = ?1";
            let mut sql = connection.prepare(update).map_err(LedgerError::sql(WHAT))?;
            for (id, outcome, unfinished) in outcomes {
                let json = serde_json::to_string(outcome).map_err(LedgerError::value(WHAT))?;
                sql.execute(params![id.0, json, text(at), unfinished])
                    .map_err(LedgerError::sql(WHAT))?;
            }
            prune(connection, KEEP)
        })
    }

    /// Repairs without an outcome, and those of which something may be left, oldest first.
    pub fn unfinished_repairs(&self) -> Result<Vec<RepairRow>, LedgerError> {
        self.repairs(&format!("{COLUMNS} WHERE unfinished ORDER BY id"), None)
    }

    /// Repairs of a finding, oldest first.
    pub fn repairs_of(&self, finding: &FindingId) -> Result<Vec<RepairRow>, LedgerError> {
        self.repairs(
            &format!("{COLUMNS} WHERE finding = ?1 ORDER BY id"),
            Some(finding),
        )
    }

    /// The newest repairs, oldest of them first.
    pub fn newest_repairs(&self, limit: u32) -> Result<Vec<RepairRow>, LedgerError> {
        let newest = format!("SELECT * FROM ({COLUMNS} ORDER BY id DESC LIMIT {limit}) ORDER BY id");
        self.repairs(&newest, None)
    }

    /// Thin devices of a pool that a sidecar saw containerd make and abandon.
    pub fn abandoned(&self, pool: &crate::model::PoolName) -> Result<Vec<(ThinId, Claim)>, LedgerError> {
        let rows = self.open_operations()?.into_iter();
        let claims = rows.filter_map(|row| match row.operation.state {
            OperationState::Abandoned { mark, .. } if row.operation.pool == *pool => {
                let claim = Claim {
                    operation: row.operation.id,
                    mark,
                };
                Some((row.operation.thin_id, claim))
            }
            _ => None,
        });
        Ok(claims.collect())
    }

    /// Several statements as one transaction.
    fn together<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(LedgerError::sql(what))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(LedgerError::sql(what))?;
        Ok(done)
    }

    fn repairs(&self, query: &str, finding: Option<&FindingId>) -> Result<Vec<RepairRow>, LedgerError> {
        type Columns = (i64, String, String, Option<String>, Option<String>);
        let decode = |(id, intent, intended, ended_so, ended): Columns| {
            Ok(RepairRow {
                id: RepairId(id),
                intent: serde_json::from_str(&intent)?,
                intended: parse(intended)?,
                outcome: outcome(ended_so)?,
                ended: ended.map(parse).transpose()?,
            })
        };
        self.rows("reading repairs", query, finding, decode)
    }
}

/// Drops all but the newest, and what is unfinished. SQLite gives out one number after the other, so only what goes is read:
/// a scan of them all would take as long as the repair.
fn prune(connection: &Connection, keep: u32) -> Result<(), LedgerError> {
    let sql = "DELETE FROM repairs WHERE NOT unfinished AND id <= (SELECT max(id) FROM repairs) - ?1";
    let done = connection.execute(sql, params![keep]);
    done.map(drop).map_err(LedgerError::sql("dropping old repairs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{PoolName, RepairMode, Subject, TxId},
        testing::at,
    };

    #[test]
    fn the_newest_are_kept_and_what_is_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open_beside(&folder.path().join("ledger.db")).unwrap();
        let intent = RepairIntent {
            pool: PoolName::new("pool"),
            mode: RepairMode::Offline,
            finding: FindingId("pool/pool".to_owned()),
            class: None,
            subject: Subject::Pool,
            action: None,
            acts: Vec::new(),
            undoes: None,
            pool_txid: TxId(1),
            snapshot_txid: None,
            backup: None,
            marks: std::collections::BTreeMap::new(),
        };
        let ids = ledger.intend_repairs(&vec![intent; 6], at(1)).unwrap();
        let ended = ids.iter().skip(1);
        let outcomes: Vec<_> = ended.map(|id| (*id, RepairOutcome::Done, false)).collect();
        ledger.conclude_repairs(&outcomes, at(2)).unwrap();
        let kept = |ledger: &Ledger| {
            let rows = ledger.newest_repairs(10).unwrap();
            rows.into_iter().map(|row| row.id.0).collect::<Vec<_>>()
        };
        assert_eq!(kept(&ledger), [1, 2, 3, 4, 5, 6]);
        prune(&ledger.connection, 2).unwrap();
        assert_eq!(kept(&ledger), [1, 5, 6]);
        prune(&ledger.connection, 2).unwrap();
        assert_eq!(kept(&ledger), [1, 5, 6]);
    }
}
