//! What `suture repair` set out to do and what came of it. As with the sidecar's remedies an intent is on disk before its
//! effect; those without an outcome are settled by the next repair, by looking.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::{
    Ledger, LedgerError,
    findings::{parse, text},
    late::Late,
};
use crate::model::{
    FindingId, OperationState, RepairIntent, RepairOutcome, ThinId, Timestamp, survey::Claim,
};

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
        self.write(WHAT, |connection| {
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
        let late = outcomes
            .iter()
            .map(|(id, outcome, unfinished)| Late::RepairOutcome(*id, outcome.clone(), *unfinished, at));
        self.write_or_keep("storing the outcome of a repair", late.collect())
    }

    /// Repairs without an outcome, and those of which something may be left, oldest first.
    pub fn unfinished_repairs(&self) -> Result<Vec<RepairRow>, LedgerError> {
        self.repairs(&format!("{COLUMNS} WHERE unfinished ORDER BY id"), None)
    }

    /// Repairs of a finding, oldest first.
    pub fn repairs_of(&self, finding: &FindingId) -> Result<Vec<RepairRow>, LedgerError> {
        self.repairs(
            &format!("{COLUMNS} WHERE finding = ?1 ORDER BY id"),
            Some(&finding.0),
        )
    }

    /// What came of the newest repair of a finding, where that was intended since then and has an outcome.
    pub fn came_of(
        &self,
        finding: &FindingId,
        since: Timestamp,
    ) -> Result<Option<RepairOutcome>, LedgerError> {
        let newest = self.repairs_of(finding)?.pop();
        let newest = newest.filter(|row| row.intended >= since);
        Ok(newest.and_then(|row| row.outcome))
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

    fn repairs(&self, query: &str, finding: Option<&str>) -> Result<Vec<RepairRow>, LedgerError> {
        const WHAT: &str = "reading repairs";
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(WHAT))?;
        let rows = sql
            .query_map(rusqlite::params_from_iter(finding), |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, Option<String>>(3)?,
                    row.get::<_, Option<String>>(4)?,
                ))
            })
            .map_err(LedgerError::sql(WHAT))?;
        rows.map(|row| {
            let (id, intent, intended, outcome, ended) = row.map_err(LedgerError::sql(WHAT))?;
            let value = LedgerError::value(WHAT);
            Ok(RepairRow {
                id: RepairId(id),
                intent: serde_json::from_str(&intent).map_err(&value)?,
                intended: parse(intended).map_err(&value)?,
                outcome: outcome
                    .map(|json| serde_json::from_str(&json))
                    .transpose()
                    .map_err(&value)?,
                ended: ended.map(parse).transpose().map_err(&value)?,
            })
        })
        .collect()
    }
}

/// Stores an outcome in the transaction of the caller.
pub(super) fn conclude(
    connection: &Connection,
    id: RepairId,
    outcome: &RepairOutcome,
    unfinished: bool,
    at: Timestamp,
) -> Result<(), LedgerError> {
    const WHAT: &str = "storing the outcome of a repair";
    let json = serde_json::to_string(outcome).map_err(LedgerError::value(WHAT))?;
    connection
        .prepare_cached("UPDATE repairs SET outcome = ?2, ended = ?3, unfinished = ?4 WHERE id = ?1")
        .and_then(|mut sql| sql.execute(params![id.0, json, text(at), unfinished]))
        .map_err(LedgerError::sql(WHAT))?;
    Ok(())
}
