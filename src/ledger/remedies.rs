//! Intents and outcomes. An intent without an outcome means that suture died in between: then it is settled by looking.

use rusqlite::{OptionalExtension as _, params};
use serde::Serialize;

use super::{
    Ledger, LedgerError,
    findings::{outcome, parse, text},
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
        self.connection
            .execute(
                "INSERT INTO remedies (finding, plan, guards, intended, outcome, ended) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![plan.finding.0, plan_json, guards_json, text(at), outcome_json, ended],
            )
            .map_err(LedgerError::sql(what))?;
        Ok(RemedyId(self.connection.last_insert_rowid()))
    }

    /// Stores what came of an intent.
    pub fn conclude(&mut self, id: RemedyId, outcome: &Outcome, at: Timestamp) -> Result<(), LedgerError> {
        const WHAT: &str = "storing an outcome";
        let json = serde_json::to_string(outcome).map_err(LedgerError::value(WHAT))?;
        self.connection
            .execute(
                "UPDATE remedies SET outcome = ?2, ended = ?3 WHERE id = ?1 AND outcome IS NULL",
                params![id.0, json, text(at)],
            )
            .map_err(LedgerError::sql(WHAT))?;
        Ok(())
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
            Some(finding),
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

    fn remedies(&self, query: &str, finding: Option<&FindingId>) -> Result<Vec<RemedyRow>, LedgerError> {
        type Columns = (i64, String, String, String, Option<String>, Option<String>);
        let decode = |(id, plan, guards, intended, ended_so, ended): Columns| {
            Ok(RemedyRow {
                id: RemedyId(id),
                plan: serde_json::from_str(&plan)?,
                guards: serde_json::from_str(&guards)?,
                intended: parse(intended)?,
                outcome: outcome(ended_so)?,
                ended: ended.map(parse).transpose()?,
            })
        };
        self.rows("reading remedies", query, finding, decode)
    }
}
