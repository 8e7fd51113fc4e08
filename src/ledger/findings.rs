//! Findings: when each was first and last seen, what was decided about it, and when it was gone.

use rusqlite::params;
use serde::de::DeserializeOwned;

use super::{Ledger, LedgerError};
use crate::{brain::Standing, model::Timestamp};

/// A stored finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingRow {
    /// The finding and its history.
    pub standing: Standing,
    /// The span that tells of it.
    pub traceparent: Option<String>,
}

impl Ledger {
    /// Stores a finding, or what became of it.
    pub fn save_finding(&self, row: &FindingRow) -> Result<(), LedgerError> {
        const WHAT: &str = "storing a finding";
        let Standing {
            finding,
            first_seen,
            last_seen,
            resolved,
            decision,
        } = &row.standing;
        let json = serde_json::to_string(finding).map_err(LedgerError::value(WHAT))?;
        self.connection
            .prepare_cached(
                "INSERT INTO findings (id, first_seen, last_seen, resolved, finding, decision, traceparent)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (id) DO UPDATE SET last_seen = ?3, resolved = ?4, finding = ?5, decision = ?6,
                 traceparent = coalesce(?7, traceparent)",
            )
            .and_then(|mut sql| {
                sql.execute(params![
                    finding.id.0,
                    text(*first_seen),
                    text(*last_seen),
                    resolved.map(text),
                    json,
                    decision,
                    row.traceparent
                ])
            })
            .map_err(LedgerError::sql(WHAT))?;
        Ok(())
    }

    /// Findings that were not resolved when they were stored.
    pub fn open_findings(&self) -> Result<Vec<FindingRow>, LedgerError> {
        self.findings("SELECT finding, first_seen, last_seen, resolved, decision, traceparent FROM findings WHERE resolved IS NULL ORDER BY first_seen")
    }

    /// The newest findings, oldest of them first.
    pub fn newest_findings(&self, limit: u32) -> Result<Vec<FindingRow>, LedgerError> {
        self.findings(&format!(
            "SELECT * FROM (SELECT finding, first_seen, last_seen, resolved, decision, traceparent FROM findings ORDER BY first_seen DESC LIMIT {limit}) ORDER BY first_seen"
        ))
    }

    fn findings(&self, query: &str) -> Result<Vec<FindingRow>, LedgerError> {
        const WHAT: &str = "reading findings";
        type Columns = (String, String, String, Option<String>, String, Option<String>);
        let decode = |(finding, first_seen, last_seen, resolved, decision, traceparent): Columns| {
            Ok(FindingRow {
                standing: Standing {
                    finding: serde_json::from_str(&finding)?,
                    first_seen: parse(first_seen)?,
                    last_seen: parse(last_seen)?,
                    resolved: resolved.map(parse).transpose()?,
                    decision,
                },
                traceparent,
            })
        };
        self.rows(WHAT, query, None, decode)
    }
}

/// A time as it is stored.
pub(super) fn text(time: Timestamp) -> String {
    jiff::Timestamp::from(time).to_string()
}

/// A stored outcome; nothing where there is none yet.
pub(super) fn outcome<T: DeserializeOwned>(json: Option<String>) -> Result<Option<T>, serde_json::Error> {
    json.map(|json| serde_json::from_str(&json)).transpose()
}

/// A stored time.
pub(super) fn parse(text: String) -> Result<Timestamp, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text))
}
