//! A finding as the ledger has it: its evidence, what was decided, and what was done.

use std::fmt::Write as _;

use super::classes;
use crate::{
    cli::{
        CliError,
        paper::{Ink, Paper, safe},
    },
    ledger::{FindingRow, Ledger},
    words::date_time,
};

/// All that the ledger has.
pub(super) fn text(row: &FindingRow, ledger: &Ledger, paper: Paper) -> Result<String, CliError> {
    let finding = &row.standing.finding;
    let class = classes::of(finding.class);
    let mut out = String::new();
    let _ = writeln!(out, "{}", paper.ink(Ink::Bold, finding));
    let _ = writeln!(
        out,
        "{}",
        paper.wrap("A check does not find it now; this is what the ledger has.", 0)
    );
    let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "What it is"));
    let _ = writeln!(out, "  {}", paper.wrap(class.definition, 2));
    let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "What was read"));
    for sentence in &finding.evidence {
        let _ = writeln!(out, "  - {}", paper.wrap(&safe(sentence), 4));
    }
    out.push_str(&history(row, ledger, paper)?);
    let _ = writeln!(out, "\nMore: docs/findings.md");
    Ok(out)
}

/// When it was seen, and what was done.
pub(super) fn history(row: &FindingRow, ledger: &Ledger, paper: Paper) -> Result<String, CliError> {
    let standing = &row.standing;
    let mut out = String::new();
    let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, "What the ledger has of it"));
    let mut line = |text: String| {
        let _ = writeln!(out, "  - {}", paper.wrap(&text, 4));
    };
    line(format!("first seen {}", date_time(standing.first_seen)));
    match standing.resolved {
        Some(at) => line(format!("gone since {}", date_time(at))),
        None => line(format!("last seen {}", date_time(standing.last_seen))),
    }
    if !standing.decision.is_empty() {
        line(format!("decided: {}", safe(&standing.decision)));
    }
    for remedy in ledger.remedies_of(&standing.finding.id)? {
        let outcome = match &remedy.outcome {
            Some(outcome) => outcome.to_string(),
            None => "under way, or suture died".to_owned(),
        };
        line(format!(
            "{} {}: {}",
            date_time(remedy.intended),
            remedy.plan.action,
            safe(&outcome)
        ));
    }
    Ok(out)
}
