//! Intents and outcomes. An intent without an outcome means that suture died in between: then it is settled by looking.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::{
    Ledger, LedgerError,
    findings::{parse, text},
    late::Late,
};
use crate::model::{FindingId, GuardReading, Outcome, Plan, Timestamp};

/// Names one remedy in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RemedyId(i64);

/// An intent whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// Its name.
    pub id: RemedyId,
    /// What was intended.
    pub plan: Plan,
    /// When.
    pub intended: Timestamp,
}

/// A stored remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemedyRow {
    /// Its name.
    pub id: RemedyId,
    /// What was intended.
    pub plan: Plan,
    /// The guards as they were read.
    pub guards: Vec<GuardReading>,
    /// When it was intended, or refused.
    pub intended: Timestamp,
    /// What came of it; nothing while it is under way, or suture died.
    pub outcome: Option<Outcome>,
    /// When that was known.
    pub ended: Option<Timestamp>,
}

impl Ledger {
    /// Stores the intent to carry out a plan. It is on disk when this returns.
    pub fn intend(
        &mut self,
        plan: &Plan,
        guards: &[GuardReading],
        at: Timestamp,
    ) -> Result<RemedyId, LedgerError> {
        self.insert("storing an intent", plan, guards, at, None)
    }

    /// Stores that a guard refused a plan: nothing was intended, nothing was done.
    pub fn refused(
        &mut self,
        plan: &Plan,
        guards: &[GuardReading],
        outcome: &Outcome,
        at: Timestamp,
    ) -> Result<RemedyId, LedgerError> {
        self.insert("storing a refusal", plan, guards, at, Some(outcome))
    }

    fn insert(
        &mut self,
        what: &'static str,
        plan: &Plan,
        guards: &[GuardReading],
        at: Timestamp,
        outcome: Option<&Outcome>,
    ) -> Result<RemedyId, LedgerError> {
        let json = |value: serde_json::Result<String>| value.map_err(LedgerError::value(what));
        let plan_json = json(serde_json::to_string(plan))?;
        let guards_json = json(serde_json::to_string(guards))?;
        let outcome_json = outcome
            .map(|outcome| json(serde_json::to_string(outcome)))
            .transpose()?;
        let ended = outcome.map(|_| text(at));
        self.write(what, |connection| {
            connection
                .execute(
                    "INSERT INTO remedies (finding, plan, guards, intended, outcome, ended)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        plan.finding.0,
                        plan_json,
                        guards_json,
                        text(at),
                        outcome_json,
                        ended
                    ],
                )
                .map_err(LedgerError::sql(what))?;
            Ok(RemedyId(connection.last_insert_rowid()))
        })
    }

    /// Stores what came of an intent. Where that does not work now it is stored as soon as it does; should suture end
    /// before, the next one settles the intent by looking.
    pub fn conclude(&mut self, id: RemedyId, outcome: &Outcome, at: Timestamp) -> Result<(), LedgerError> {
        self.write_or_keep("storing an outcome", vec![Late::Outcome(id, outcome.clone(), at)])
    }

    /// Intents whose outcome is not known, oldest first.
    pub fn open_intents(&self) -> Result<Vec<OpenIntent>, LedgerError> {
        let rows = self.remedies("SELECT id, plan, guards, intended, outcome, ended FROM remedies WHERE outcome IS NULL ORDER BY id", None)?;
        Ok(rows
            .into_iter()
            .map(|row| OpenIntent {
                id: row.id,
                plan: row.plan,
                intended: row.intended,
            })
            .collect())
    }

    /// Remedies of a finding, oldest first.
    pub fn remedies_of(&self, finding: &FindingId) -> Result<Vec<RemedyRow>, LedgerError> {
        self.remedies(
            "SELECT id, plan, guards, intended, outcome, ended FROM remedies WHERE finding = ?1 ORDER BY id",
            Some(&finding.0),
        )
    }

    /// What came last of a finding's remedies.
    pub fn last_outcome(&self, finding: &FindingId) -> Result<Option<Outcome>, LedgerError> {
        const WHAT: &str = "reading an outcome";
        let json: Option<Option<String>> = self
            .connection
            .query_row(
                "SELECT outcome FROM remedies WHERE finding = ?1 ORDER BY id DESC LIMIT 1",
                params![finding.0],
                |row| row.get(0),
            )
            .optional()
            .map_err(LedgerError::sql(WHAT))?;
        json.flatten()
            .map(|json| serde_json::from_str(&json).map_err(LedgerError::value(WHAT)))
            .transpose()
    }

    fn remedies(&self, query: &str, finding: Option<&str>) -> Result<Vec<RemedyRow>, LedgerError> {
        const WHAT: &str = "reading remedies";
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(WHAT))?;
        let rows = sql
            .query_map(rusqlite::params_from_iter(finding), |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, Option<String>>(4)?,
                    row.get::<_, Option<String>>(5)?,
                ))
            })
            .map_err(LedgerError::sql(WHAT))?;
        rows.map(|row| {
            let (id, plan, guards, intended, outcome, ended) = row.map_err(LedgerError::sql(WHAT))?;
            let value = LedgerError::value(WHAT);
            Ok(RemedyRow {
                id: RemedyId(id),
                plan: serde_json::from_str(&plan).map_err(&value)?,
                guards: serde_json::from_str(&guards).map_err(&value)?,
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
    id: RemedyId,
    outcome: &Outcome,
    at: Timestamp,
) -> Result<(), LedgerError> {
    const WHAT: &str = "storing an outcome";
    let json = serde_json::to_string(outcome).map_err(LedgerError::value(WHAT))?;
    connection
        .execute(
            "UPDATE remedies SET outcome = ?2, ended = ?3 WHERE id = ?1 AND outcome IS NULL",
            params![id.0, json, text(at)],
        )
        .map_err(LedgerError::sql(WHAT))?;
    Ok(())
}
