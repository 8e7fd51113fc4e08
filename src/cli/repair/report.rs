//! What a repair did, in words and as JSON. docs/repair.md describes the JSON.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    CLEAN, CORRECTED, LEFT,
    work::{Gaps, Settlements},
};
use crate::{
    cli::Output,
    model::{Diagnosis, FindingClass, PoolName, RepairMode, RepairOutcome, Severity, Treatment},
    remedy::repair::{PlanResult, Results, Undone},
};

/// Everything there is to say.
pub(super) struct Report<'a> {
    pub(super) mode: RepairMode,
    pub(super) planned_only: bool,
    pub(super) pool: &'a PoolName,
    pub(super) settled: &'a Settlements,
    pub(super) results: &'a Results,
    pub(super) left: &'a [Diagnosis],
    pub(super) in_flight: &'a [Diagnosis],
    pub(super) not_found: &'a [String],
    pub(super) explanations: &'a [String],
    pub(super) gaps: &'a Gaps,
    pub(super) took: Duration,
    pub(super) code: u8,
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Report<'_> {
    fn status(&self) -> &'static str {
        match (self.planned_only, self.code) {
            (_, CLEAN) => "clean",
            (true, LEFT) => "findings",
            (_, CORRECTED) => "corrected",
            (_, LEFT) => "left",
            _ => "incomplete",
        }
    }

    /// Whether all that is left are thin devices that are never deleted unless a person names them, and that harm nobody.
    fn stays(&self) -> bool {
        let mut left = self.left.iter().filter(|one| one.severity < Severity::Notice);
        left.all(|one| {
            one.finding.class == FindingClass::ForeignThin && one.remedy.action == Treatment::LeaveAlone
        })
    }

    pub(super) fn json(&self) -> Value {
        let told = |all: &[Diagnosis]| -> Vec<Value> {
            let one = |one: &Diagnosis| {
                json!({
                    "id": one.finding.id,
                    "class": one.finding.class,
                    "severity": one.severity,
                    "summary": one.summary,
                })
            };
            all.iter().map(one).collect()
        };
        let held: Vec<f64> = self.results.lock_held.iter().copied().map(milliseconds).collect();
        let settled: Vec<Value> = self
            .settled
            .iter()
            .map(|one| json!({ "finding": one.intent.finding, "outcome": one.outcome }))
            .collect();
        json!({
            "status": self.status(),
            "mode": self.mode,
            "planned_only": self.planned_only,
            "pool": self.pool,
            "repairs": self.results.plans.iter().map(repair).collect::<Vec<_>>(),
            "settled": settled,
            "left": told(self.left),
            "in_flight": told(self.in_flight),
            "not_found": self.not_found,
            "explanations": self.explanations,
            "unread": self.gaps.unread,
            "not_understood": self.gaps.not_understood,
            "backup": self.results.backup,
            "lock_held_ms": held,
            "took_ms": milliseconds(self.took),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string can not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        for one in self.settled {
            writeln!(
                text,
                "an earlier repair of {}: {}",
                one.intent.finding, one.outcome
            )?;
        }
        for result in &self.results.plans {
            write_result(text, result, self.planned_only)?;
        }
        for one in self.in_flight {
            writeln!(
                text,
                "{} ({}): somebody may be at work on it, so it is left alone",
                one.finding, one.finding.id
            )?;
        }
        for why in self.not_found {
            writeln!(text, "{why}")?;
        }
        for unread in &self.gaps.unread {
            writeln!(text, "not read: {}: {}", unread.what, unread.why)?;
        }
        for what in &self.gaps.not_understood {
            writeln!(text, "not understood, so nothing is done about it: {what}")?;
        }
        for explanation in self.explanations {
            writeln!(text, "{explanation}")?;
        }
        if let Some(backup) = &self.results.backup {
            let held: Duration = self.results.lock_held.iter().sum();
            writeln!(
                text,
                "backup: {} (containerd's lock was held for {:.1} ms)",
                backup.display(),
                milliseconds(held)
            )?;
        }
        let summary = match self.status() {
            "clean" => "nothing to repair",
            "findings" => "nothing was changed; this is what would be done",
            "corrected" => "everything was corrected",
            "left" if self.stays() => {
                "what is left stays on purpose: nobody can prove that containerd made it"
            }
            "left" => "not everything is corrected; `suture check` tells what is left",
            _ => "not everything could be looked at",
        };
        writeln!(text, "pool {}, {}: {summary}", self.pool, self.mode)
    }
}

fn write_result(text: &mut String, result: &PlanResult, planned_only: bool) -> std::fmt::Result {
    let plan = &result.plan;
    writeln!(
        text,
        "{}: {} [{}] ({})",
        plan.class, plan.subject, plan.severity, plan.finding
    )?;
    let done = match &result.outcome {
        Some(RepairOutcome::Done | RepairOutcome::SettledDone) => plan.acts.len(),
        Some(RepairOutcome::Partly { done, .. }) => *done,
        _ => 0,
    };
    for (place, act) in plan.acts.iter().enumerate() {
        let mark = match (planned_only, place < done) {
            (true, _) => "would",
            (false, true) => "done:",
            (false, false) => "not done:",
        };
        writeln!(text, "    {mark} {act}")?;
    }
    match &result.outcome {
        None | Some(RepairOutcome::Done) => {}
        Some(outcome) => writeln!(text, "    {outcome}")?,
    }
    if let Some(why) = &plan.left_out {
        writeln!(text, "    left: {why}")?;
    }
    Ok(())
}

fn repair(result: &PlanResult) -> Value {
    let plan = &result.plan;
    let acts: Vec<Value> = plan
        .acts
        .iter()
        .map(|act| json!({ "act": act, "text": act.to_string() }))
        .collect();
    json!({
        "finding": plan.finding,
        "class": plan.class,
        "severity": plan.severity,
        "subject": plan.subject,
        "action": plan.remedy.action,
        "when": plan.remedy.when,
        "acts": acts,
        "conditions": plan.conditions,
        "readings": result.readings,
        "outcome": result.outcome,
        "left_out": plan.left_out,
    })
}

/// Tells of an undo.
pub(super) fn undone(undone: &Undone, output: Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Json => {
            let value = json!({
                "status": "undone",
                "backup": undone.backup,
                "took_back": undone.took_back,
                "txid": undone.txid,
                "lock_held_ms": [milliseconds(undone.lock_held)],
            });
            writeln!(out, "{value}")
        }
        Output::Text => writeln!(
            out,
            "transaction {} was taken back: the pool database holds what {} holds (containerd's lock was held for {:.1} ms)",
            undone.took_back,
            undone.backup.display(),
            milliseconds(undone.lock_held)
        ),
    }
}
