//! Findings: when each was first and last seen, what was decided about it, and when it was gone.

use rusqlite::{Connection, Row, params};

use super::{Ledger, LedgerError, late::Late};
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
        self.write_or_keep("storing a finding", vec![Late::Finding(Box::new(row.clone()))])
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
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(WHAT))?;
        let columns = |row: &Row<'_>| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Option<String>>(3)?,
                row.get::<_, String>(4)?,
                row.get::<_, Option<String>>(5)?,
            ))
        };
        let rows = sql.query_map([], columns).map_err(LedgerError::sql(WHAT))?;
        rows.map(|row| {
            let (finding, first_seen, last_seen, resolved, decision, traceparent) =
                row.map_err(LedgerError::sql(WHAT))?;
            let time = |text: String| parse(text).map_err(LedgerError::value(WHAT));
            Ok(FindingRow {
                standing: Standing {
                    finding: serde_json::from_str(&finding).map_err(LedgerError::value(WHAT))?,
                    first_seen: time(first_seen)?,
                    last_seen: time(last_seen)?,
                    resolved: resolved.map(time).transpose()?,
                    decision,
                },
                traceparent,
            })
        })
        .collect()
    }
}

/// Stores a finding in the transaction of the caller.
pub(super) fn store(connection: &Connection, row: &FindingRow) -> Result<(), LedgerError> {
    const WHAT: &str = "storing a finding";
    let Standing {
        finding,
        first_seen,
        last_seen,
        resolved,
        decision,
    } = &row.standing;
    let json = serde_json::to_string(finding).map_err(LedgerError::value(WHAT))?;
    connection
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

/// A time as it is stored.
pub(super) fn text(time: Timestamp) -> String {
    jiff::Timestamp::from(time).to_string()
}

/// A stored time.
pub(super) fn parse(text: String) -> Result<Timestamp, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text))
}
