//! `suture history`: what was found and done.

use std::io::{self, Write as _};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{CliError, Output, run::LedgerArgument};
use crate::{
    ledger::{FindingRow, Ledger, RemedyRow, RepairRow},
    model::{Finding, Timestamp},
    words::{date_time, trace_id},
};

/// Show what was found and done, from the ledger.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  suture history --output json | jq '.remedies[].outcome'")]
pub(super) struct HistoryArguments {
    /// How many findings, the newest.
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    ledger: LedgerArgument,
}

/// One finding with everything done about it.
#[derive(Debug, Serialize)]
struct Entry {
    first_seen: Timestamp,
    last_seen: Timestamp,
    resolved: Option<Timestamp>,
    finding: Finding,
    decision: String,
    trace: Option<String>,
    remedies: Vec<RemedyRow>,
}

/// One repair by `suture repair`, which needs no finding of the sidecar's.
#[derive(Debug, Serialize)]
struct Repaired {
    repair: RepairRow,
    /// What a finding's line has too.
    remedies: [(); 0],
}

pub(super) fn run(arguments: &HistoryArguments) -> Result<(), CliError> {
    let ledger = Ledger::open_to_read(&arguments.ledger.ledger)?;
    let rows = ledger.newest_findings(arguments.limit)?;
    let entries = rows
        .into_iter()
        .map(|row| entry(&ledger, row))
        .collect::<Result<Vec<_>, CliError>>()?;
    let repairs = ledger.newest_repairs(arguments.limit)?;
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Json => {
            for entry in &entries {
                let line = serde_json::to_string(entry)?;
                writeln!(out, "{line}").map_err(CliError::Print)?;
            }
            for repair in repairs {
                let line = serde_json::to_string(&Repaired { repair, remedies: [] })?;
                writeln!(out, "{line}").map_err(CliError::Print)?;
            }
        }
        Output::Text if entries.is_empty() && repairs.is_empty() => {
            writeln!(out, "nothing was found so far").map_err(CliError::Print)?;
        }
        Output::Text => {
            if !entries.is_empty() {
                writeln!(out, "{}", table(&entries)).map_err(CliError::Print)?;
            }
            if !repairs.is_empty() {
                writeln!(out, "{}", repairs_table(&repairs)).map_err(CliError::Print)?;
            }
        }
    }
    out.flush().map_err(CliError::Print)
}

fn entry(ledger: &Ledger, row: FindingRow) -> Result<Entry, CliError> {
    let standing = row.standing;
    Ok(Entry {
        remedies: ledger.remedies_of(&standing.finding.id)?,
        first_seen: standing.first_seen,
        last_seen: standing.last_seen,
        resolved: standing.resolved,
        trace: row
            .traceparent
            .as_deref()
            .map(|traceparent| trace_id(traceparent).to_owned()),
        decision: standing.decision,
        finding: standing.finding,
    })
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["found", "what", "done about it", "resolved", "trace"]);
    for entry in entries {
        let done = if entry.remedies.is_empty() {
            entry.decision.clone()
        } else {
            let lines = entry.remedies.iter().map(|remedy| match &remedy.outcome {
                Some(outcome) => format!("{}: {outcome}", remedy.plan.action),
                None => format!("{}: under way, or suture died", remedy.plan.action),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let resolved = entry.resolved.map_or_else(|| "no".to_owned(), date_time);
        let trace = entry.trace.clone().unwrap_or_default();
        table.add_row([
            date_time(entry.first_seen),
            entry.finding.to_string(),
            done,
            resolved,
            trace,
        ]);
    }
    table
}

fn repairs_table(repairs: &[RepairRow]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["repaired", "what", "how", "came of it"]);
    for row in repairs {
        let intent = &row.intent;
        let how = if let Some(txid) = intent.undoes {
            format!("take back transaction {txid} of an earlier repair")
        } else {
            let acts: Vec<_> = intent.acts.iter().map(ToString::to_string).collect();
            acts.join("\n")
        };
        let outcome = row
            .outcome
            .as_ref()
            .map_or_else(|| "under way, or suture died".to_owned(), ToString::to_string);
        table.add_row([
            date_time(row.intended),
            intent.finding.to_string(),
            format!("{how} ({})", intent.mode),
            outcome,
        ]);
    }
    table
}
