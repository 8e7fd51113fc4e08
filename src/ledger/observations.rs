//! What was seen, for the history: written in batches, bounded, and the first to go when the ledger is too large.

use std::time::Duration;

use rusqlite::{Connection, params};
use serde::Serialize;

use super::{
    Ledger, LedgerError,
    findings::{parse, text},
    late::Late,
};
use crate::model::{Observation, Timestamp};

/// The longest detail that is kept, in bytes; a longer one is left out, its text stays.
const LONGEST_DETAIL: usize = 4096;
/// The longest text, in characters.
const LONGEST_TEXT: usize = 512;

/// A stored observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservationRow {
    /// When it happened, or was noticed.
    pub at: Timestamp,
    /// Where it comes from: `kernel`, `databases`, `containerd` or `suture`.
    pub source: String,
    /// What kind it is, as recordings call it.
    pub kind: String,
    /// As people read it.
    pub text: String,
    /// All of it, where it is not too long.
    pub detail: Option<serde_json::Value>,
}

impl ObservationRow {
    /// Of an observation that is worth a line in the history; nothing for a mere question to device-mapper.
    #[must_use]
    pub fn of(observation: &Observation) -> Option<Self> {
        let source = match observation {
            Observation::DmIoctl(call) if call.command.is_query() => return None,
            Observation::DmIoctl(_)
            | Observation::BlockError(_)
            | Observation::PoolCall(_)
            | Observation::DeviceEnded(_)
            | Observation::DeviceChange(_)
            | Observation::PoolStatus(_) => "kernel",
            Observation::Commit(_) => "databases",
            Observation::Process(_)
            | Observation::ContainerdUp { .. }
            | Observation::ContainerdGone { .. } => "containerd",
            Observation::Lost { .. } => "suture",
        };
        let detail = serde_json::to_value(observation).ok();
        let kind = detail.as_ref().and_then(|value| value.get("kind")?.as_str());
        Some(Self {
            at: observation.at(),
            source: source.to_owned(),
            kind: kind.unwrap_or("unknown").to_owned(),
            text: observation.to_string().chars().take(LONGEST_TEXT).collect(),
            detail,
        })
    }
}

/// Observations that are on their way into the ledger. Time is handed in, as elapsed since any fixed moment.
#[derive(Debug)]
pub struct Batch {
    rows: Vec<ObservationRow>,
    most: usize,
    every: Duration,
    begun: Option<Duration>,
    left_out: u64,
}

impl Batch {
    /// Of at most so many, written after so much time at the latest.
    #[must_use]
    pub fn new(most: usize, every: Duration) -> Self {
        Self {
            rows: Vec::new(),
            most,
            every,
            begun: None,
            left_out: 0,
        }
    }

    /// Takes in one, unless there are too many already: then it is counted.
    pub fn push(&mut self, observation: &Observation, now: Duration) {
        if self.rows.len() >= self.most {
            self.left_out = self.left_out.saturating_add(1);
        } else if let Some(row) = ObservationRow::of(observation) {
            self.begun.get_or_insert(now);
            self.rows.push(row);
        }
    }

    /// Whether it is time to write.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.begun
            .is_some_and(|begun| self.rows.len() >= self.most || now.saturating_sub(begun) >= self.every)
    }

    /// What is to be written; of those that were too many there is one row with their number.
    pub fn take(&mut self) -> Vec<ObservationRow> {
        self.begun = None;
        let mut rows = std::mem::take(&mut self.rows);
        let left_out = std::mem::take(&mut self.left_out);
        if let Some(last) = rows.last().filter(|_| left_out > 0) {
            rows.push(ObservationRow {
                at: last.at,
                source: "suture".to_owned(),
                kind: "left_out".to_owned(),
                text: format!("{left_out} more came in a short time and are not in the history"),
                detail: None,
            });
        }
        rows
    }
}

impl Ledger {
    /// Stores a batch in one transaction.
    pub fn save_observations(&self, rows: Vec<ObservationRow>) -> Result<(), LedgerError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.write_or_keep("storing observations", vec![Late::Observations(rows)])
    }

    /// The newest observations, oldest of them first.
    pub fn newest_observations(&self, limit: u32) -> Result<Vec<ObservationRow>, LedgerError> {
        const WHAT: &str = "reading observations";
        let query = "SELECT at, source, kind, text, detail FROM
                     (SELECT * FROM observations ORDER BY id DESC LIMIT ?1) ORDER BY id";
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(WHAT))?;
        let rows = sql
            .query_map(params![limit], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get::<_, Option<String>>(4)?,
                ))
            })
            .map_err(LedgerError::sql(WHAT))?;
        rows.map(|row| {
            let (at, source, kind, text, detail) = row.map_err(LedgerError::sql(WHAT))?;
            let value = LedgerError::value(WHAT);
            Ok(ObservationRow {
                at: parse(at).map_err(&value)?,
                source,
                kind,
                text,
                detail: detail
                    .map(|json| serde_json::from_str(&json))
                    .transpose()
                    .map_err(&value)?,
            })
        })
        .collect()
    }
}

/// Stores them in the transaction of the caller.
pub(super) fn store(connection: &Connection, rows: &[ObservationRow]) -> Result<(), LedgerError> {
    const WHAT: &str = "storing observations";
    let mut sql = connection
        .prepare_cached(
            "INSERT INTO observations (at, source, kind, text, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .map_err(LedgerError::sql(WHAT))?;
    for row in rows {
        let detail = row.detail.as_ref().map(ToString::to_string);
        let detail = detail.filter(|json| json.len() <= LONGEST_DETAIL);
        sql.execute(params![text(row.at), row.source, row.kind, row.text, detail])
            .map_err(LedgerError::sql(WHAT))?;
    }
    Ok(())
}
