//! A finding as the ledger has it: its evidence, what was decided, and what was done about it, by a sidecar or by
//! `suture repair`. One that only a repair found has no evidence there.

use std::fmt::Write as _;

use super::classes;
use crate::{
    cli::{
        CliError,
        check::hits,
        paper::{Ink, Paper, safe},
    },
    ledger::{FindingRow, Ledger, RemedyRow, RepairRow},
    model::{FindingId, Subject, Survey, Timestamp, UserIndex, Window},
    words::date_time,
};

/// All that the ledger has of a finding.
pub(super) struct Past {
    id: FindingId,
    found: Option<FindingRow>,
    remedies: Vec<RemedyRow>,
    repairs: Vec<RepairRow>,
}

/// The ids of all that is known, each once: what a sidecar found, and what was repaired.
pub(super) fn ids(ledger: &Ledger, most: u32) -> Result<Vec<String>, CliError> {
    let found = ledger.newest_findings(most)?.into_iter();
    let repaired = ledger.newest_repairs(most)?.into_iter();
    let mut ids: Vec<String> = found
        .map(|row| row.standing.finding.id.0)
        .chain(repaired.map(|row| row.intent.finding.0))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

impl Past {
    /// Of this whole id; nothing where the ledger never heard of it.
    pub(super) fn of(ledger: &Ledger, id: &str) -> Result<Option<Self>, CliError> {
        let id = FindingId(id.to_owned());
        let mut rows = ledger.newest_findings(super::PAST)?.into_iter();
        let found = rows.rfind(|row| row.standing.finding.id == id);
        let (remedies, repairs) = (ledger.remedies_of(&id)?, ledger.repairs_of(&id)?);
        Ok((found.is_some() || !repairs.is_empty()).then_some(Self {
            id,
            found,
            remedies,
            repairs,
        }))
    }

    /// Whom it hits, where it is of what fails at this moment: a check does not find that, but sees who uses the device.
    pub(super) fn whom_it_hits(&self, survey: &Survey) -> Option<String> {
        let standing = &self.found.as_ref()?.standing;
        if !standing.finding.class.is_live() || standing.resolved.is_some() {
            return None;
        }
        let records = &survey.pool_db.devices;
        let name = match &standing.finding.subject {
            Subject::Device { name } => name,
            Subject::ThinId { thin_id } => {
                let (name, _) = records.iter().find(|(_, one)| one.device_id == *thin_id)?;
                name
            }
            _ => return None,
        };
        let snapshot = survey.pool_name.snapshot_of(name)?;
        let mut rows = survey.snapshots.snapshots.iter();
        let (key, _) = rows.find(|(_, row)| row.id == snapshot)?;
        let users = UserIndex::new(survey.core.as_deref()?).users_of(key);
        Some(format!("It hits {}.", hits(&users)?))
    }

    /// All of it, and whom it hits where that is known; ends with a line end.
    pub(super) fn text(&self, whom: Option<&str>, paper: Paper) -> String {
        let mut out = String::new();
        let head = match &self.found {
            Some(row) => row.standing.finding.to_string(),
            None => safe(&self.id.0),
        };
        let _ = writeln!(out, "{}", paper.ink(Ink::Bold, head));
        let _ = writeln!(out, "{}", paper.wrap(self.origin(), 0));
        let of_repair = self.repairs.iter().find_map(|row| row.intent.class);
        let class = self.found.as_ref().map(|row| row.standing.finding.class);
        if let Some(class) = class.or(of_repair) {
            let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "What it is"));
            let _ = writeln!(out, "  {}", paper.wrap(classes::of(class).definition, 2));
        }
        if let Some(row) = &self.found {
            let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "What was read"));
            for sentence in &row.standing.finding.evidence {
                let _ = writeln!(out, "  - {}", paper.wrap(&safe(sentence), 4));
            }
        }
        if let Some(whom) = whom {
            let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "Whom it hits"));
            let _ = writeln!(out, "  {}", paper.wrap(whom, 2));
        }
        out.push_str(&self.history(paper));
        let _ = writeln!(out, "\nMore: docs/findings.md");
        out
    }

    /// Where it comes from.
    fn origin(&self) -> &'static str {
        let found = self.found.as_ref().map(|row| &row.standing);
        match found.filter(|standing| standing.finding.class.is_live()) {
            Some(standing) if standing.resolved.is_none() => {
                "Only a running suture sees it; this is what it has put down."
            }
            _ => "A check does not find it now; this is what the ledger has.",
        }
    }

    /// When it was seen, and what was done.
    pub(super) fn history(&self, paper: Paper) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "What the ledger has of it"));
        let mut line = |text: &str| {
            let _ = writeln!(out, "  - {}", paper.wrap(text, 4));
        };
        if let Some(standing) = self.found.as_ref().map(|row| &row.standing) {
            line(&format!("first seen {}", date_time(standing.first_seen)));
            if let Some(death) = &standing.finding.died_in {
                line(&safe(&death.to_string()));
                if let Some(forecast) = death.windows.only().map(Window::forecast) {
                    line(&format!("what that leaves: {}", forecast.remains));
                    line(&format!("what containerd does about it: {}", forecast.containerd));
                }
            }
            match standing.resolved {
                Some(at) => line(&format!("gone since {}", date_time(at))),
                None => line(&format!("last seen {}", date_time(standing.last_seen))),
            }
            if !standing.decision.is_empty() {
                line(&format!("decided: {}", safe(&standing.decision)));
            }
        }
        let by_sidecar = self.remedies.iter().map(|row| (row.intended, remedy(row)));
        let by_hand = self.repairs.iter().map(|row| (row.intended, repair(row)));
        let mut done: Vec<(Timestamp, String)> = by_sidecar.chain(by_hand).collect();
        done.sort_by_key(|(at, _)| *at);
        for (at, what) in done {
            line(&format!("{} {what}", date_time(at)));
        }
        out
    }
}

fn remedy(row: &RemedyRow) -> String {
    let outcome = row.outcome.as_ref().map(ToString::to_string);
    format!("{}: {}", row.plan.action, came_of(outcome))
}

fn repair(row: &RepairRow) -> String {
    let intent = &row.intent;
    let acts: Vec<String> = intent.acts.iter().map(ToString::to_string).collect();
    let what = match intent.undoes {
        Some(txid) => format!("take back transaction {txid} of an earlier repair"),
        None => acts.join(", "),
    };
    let outcome = row.outcome.as_ref().map(ToString::to_string);
    format!("{} repair: {}: {}", intent.mode, safe(&what), came_of(outcome))
}

fn came_of(outcome: Option<String>) -> String {
    outcome.map_or_else(
        || "under way, or suture died".to_owned(),
        |outcome| safe(&outcome),
    )
}
