//! Plans that were proposed, and what people said of them. A plan's name is derived from its finding and its remedy, so an
//! approval is for exactly that plan. None of this waits: whoever approves is told when it could not be stored.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::{
    Ledger, LedgerError,
    findings::{parse, text},
};
use crate::model::{FindingId, RepairPlan, Timestamp};

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Nobody said anything yet.
    Proposed,
    /// It may be carried out, once.
    Approved,
    /// It is not to be carried out.
    Rejected,
    /// Nobody said anything in time.
    Expired,
    /// It was carried out.
    Done,
    /// What it was about is gone, or it failed.
    Void,
}

impl PlanState {
    const ALL: [Self; 6] = [
        Self::Proposed,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Done,
        Self::Void,
    ];

    /// As it is stored, and as people type it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Done => "done",
            Self::Void => "void",
        }
    }

    /// Whether something may still be done by it.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Proposed | Self::Approved)
    }
}

/// A stored plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanRow {
    /// Its name.
    pub id: String,
    /// About what.
    pub finding: FindingId,
    /// What would be done.
    pub plan: RepairPlan,
    /// When it was proposed.
    pub proposed: Timestamp,
    /// Where it stands.
    pub state: PlanState,
    /// Who decided that; nobody where suture did.
    pub who: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// When that was.
    pub decided: Option<Timestamp>,
}

/// Which plans are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanFilter {
    /// Those that something may still be done by.
    Live,
    /// Those of one finding.
    Finding(FindingId),
    /// The newest, so many.
    Newest(u32),
}

/// What came of an approval or a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is stored.
    Stored,
    /// There is no such plan.
    Unknown,
    /// It stands where nothing more can be said of it.
    TooLate(PlanState),
}

const COLUMNS: &str = "SELECT id, finding, plan, proposed, state, who, why, decided FROM plans";

impl Ledger {
    /// Stores a proposed plan, and says where it stands: one that was approved or rejected before stays so, and one that
    /// expired, was done or void is proposed anew; an approval is good for one time.
    pub fn propose_plan(&self, id: &str, plan: &RepairPlan, at: Timestamp) -> Result<PlanState, LedgerError> {
        const WHAT: &str = "storing a proposed plan";
        let json = serde_json::to_string(plan).map_err(LedgerError::value(WHAT))?;
        if let Some(state) = state_of(&self.connection, id)?
            && (state.is_live() || state == PlanState::Rejected)
        {
            return Ok(state);
        }
        self.write(WHAT, |connection| {
            connection
                .execute(
                    "INSERT INTO plans (id, finding, plan, proposed, state) VALUES (?1, ?2, ?3, ?4, 'proposed')
                     ON CONFLICT (id) DO UPDATE SET finding = ?2, plan = ?3, proposed = ?4, state = 'proposed',
                     who = NULL, why = NULL, decided = NULL",
                    params![id, plan.finding.0, json, text(at)],
                )
                .map_err(LedgerError::sql(WHAT))?;
            Ok(PlanState::Proposed)
        })
    }

    /// Stores that somebody approved a plan. It is on disk when this returns.
    pub fn approve(&self, id: &str, who: &str, at: Timestamp) -> Result<Said, LedgerError> {
        self.say(id, PlanState::Approved, who, None, at)
    }

    /// Stores that somebody rejected a plan, also one that was approved and not carried out yet.
    pub fn reject(&self, id: &str, who: &str, why: Option<&str>, at: Timestamp) -> Result<Said, LedgerError> {
        self.say(id, PlanState::Rejected, who, why, at)
    }

    fn say(
        &self,
        id: &str,
        state: PlanState,
        who: &str,
        why: Option<&str>,
        at: Timestamp,
    ) -> Result<Said, LedgerError> {
        self.write("storing what was said of a plan", |connection| {
            match state_of(connection, id)? {
                None => Ok(Said::Unknown),
                // Saying it again changes nothing; a rejection can be taken back by an approval.
                Some(before) if before == state => Ok(Said::Stored),
                Some(PlanState::Proposed | PlanState::Approved | PlanState::Rejected) => {
                    put(connection, id, state, Some(who), why, at)?;
                    Ok(Said::Stored)
                }
                Some(before) => Ok(Said::TooLate(before)),
            }
        })
    }

    /// Stores how a plan ended: done, void, expired.
    pub fn end_plan(
        &self,
        id: &str,
        state: PlanState,
        why: Option<&str>,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write("storing how a plan ended", |connection| {
            put(connection, id, state, None, why, at)
        })
    }

    /// A plan by its name.
    pub fn plan(&self, id: &str) -> Result<Option<PlanRow>, LedgerError> {
        Ok(self.rows(&format!("{COLUMNS} WHERE id = ?1"), &[id])?.pop())
    }

    /// Plans, oldest first.
    pub fn plans(&self, filter: &PlanFilter) -> Result<Vec<PlanRow>, LedgerError> {
        match filter {
            PlanFilter::Live => self.rows(
                &format!("{COLUMNS} WHERE state IN ('proposed', 'approved') ORDER BY proposed"),
                &[],
            ),
            PlanFilter::Finding(finding) => self.rows(
                &format!("{COLUMNS} WHERE finding = ?1 ORDER BY proposed"),
                &[&finding.0],
            ),
            PlanFilter::Newest(limit) => self.rows(
                &format!("SELECT * FROM ({COLUMNS} ORDER BY proposed DESC LIMIT {limit}) ORDER BY proposed"),
                &[],
            ),
        }
    }

    fn rows(&self, query: &str, arguments: &[&str]) -> Result<Vec<PlanRow>, LedgerError> {
        const WHAT: &str = "reading plans";
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(WHAT))?;
        let texts = |row: &Row<'_>| {
            let needed = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((needed, row.get(5)?, row.get(6)?, row.get::<_, Option<String>>(7)?))
        };
        let rows = sql
            .query_map(rusqlite::params_from_iter(arguments), texts)
            .map_err(LedgerError::sql(WHAT))?;
        rows.map(|row| {
            let (needed, who, why, decided) = row.map_err(LedgerError::sql(WHAT))?;
            let (id, finding, plan, proposed, state): (String, String, String, String, String) = needed;
            let value = LedgerError::value(WHAT);
            Ok(PlanRow {
                id,
                finding: FindingId(finding),
                plan: serde_json::from_str(&plan).map_err(&value)?,
                proposed: parse(proposed).map_err(&value)?,
                state: known(&state)?,
                who,
                why,
                decided: decided.map(parse).transpose().map_err(&value)?,
            })
        })
        .collect()
    }
}

fn put(
    connection: &Connection,
    id: &str,
    state: PlanState,
    who: Option<&str>,
    why: Option<&str>,
    at: Timestamp,
) -> Result<(), LedgerError> {
    connection
        .execute(
            "UPDATE plans SET state = ?2, who = coalesce(?3, who), why = ?4, decided = ?5 WHERE id = ?1",
            params![id, state.name(), who, why, text(at)],
        )
        .map_err(LedgerError::sql("storing where a plan stands"))?;
    Ok(())
}

fn state_of(connection: &Connection, id: &str) -> Result<Option<PlanState>, LedgerError> {
    let state: Option<String> = connection
        .query_row("SELECT state FROM plans WHERE id = ?1", params![id], |row| {
            row.get(0)
        })
        .optional()
        .map_err(LedgerError::sql("reading where a plan stands"))?;
    state.map(|name| known(&name)).transpose()
}

fn known(name: &str) -> Result<PlanState, LedgerError> {
    let mut all = PlanState::ALL.into_iter();
    all.find(|state| state.name() == name)
        .ok_or_else(|| LedgerError::damaged(format!("a plan has the state `{}`", name.escape_debug())))
}
