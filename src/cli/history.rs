//! `suture history`: what was found and done.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{CliError, Output, paper::safe, repair::class, run::LedgerArgument};
use crate::{
    config,
    ledger::{FindingRow, Ledger, PlanFilter, PlanRow, RemedyRow, RepairRow},
    model::{Finding, FindingClass, Timestamp},
    words::{date_time, trace_id},
};

/// Show what was found and done, from the ledger.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  suture history --since 24h --class leaked-thin\n  suture history --output json | jq '.remedies[].outcome'"
)]
pub(super) struct HistoryArguments {
    /// How many findings, the newest.
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
    /// Only what stood, or was done, since then: a time ago such as 90m, 24h or 7d, or a date such as 2026-11-20 or
    /// 2026-11-20T12:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<When>,
    /// Of these classes only.
    #[arg(long, value_name = "CLASS", value_parser = class, num_args = 1..)]
    class: Vec<FindingClass>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    ledger: LedgerArgument,
}

/// A time that a person named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Ago(Duration),
    At(Timestamp),
}

impl When {
    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
                Timestamp::from_nanoseconds(now.nanoseconds().saturating_sub(ago))
            }
        }
    }
}

fn when(text: &str) -> Result<When, String> {
    if let Ok(ago) = config::parse_time(text) {
        return Ok(When::Ago(ago));
    }
    let local = |date: jiff::civil::DateTime| date.to_zoned(jiff::tz::TimeZone::system());
    let at = text
        .parse::<jiff::Timestamp>()
        .or_else(|_| text.parse().and_then(local).map(|zoned| zoned.timestamp()));
    at.map(|at| When::At(SystemTime::from(at).into()))
        .map_err(|_| "expected a time ago such as 90m, 24h or 7d, or a date such as 2026-11-20".to_owned())
}

/// What is asked for.
struct Wanted<'a> {
    since: Option<Timestamp>,
    classes: &'a [FindingClass],
}

impl Wanted<'_> {
    /// Something of this class, which last happened then; nothing where it goes on.
    fn has(&self, class: Option<FindingClass>, last: Option<Timestamp>) -> bool {
        let of_class = self.classes.is_empty() || class.is_some_and(|class| self.classes.contains(&class));
        let late = match (self.since, last) {
            (Some(since), Some(last)) => last >= since,
            _ => true,
        };
        of_class && late
    }
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

/// What a person said of a plan.
#[derive(Debug, Serialize)]
struct SaidOfPlan {
    said: PlanRow,
    /// What a finding's line has too.
    remedies: [(); 0],
}

pub(super) fn run(arguments: &HistoryArguments) -> Result<(), CliError> {
    let ledger = Ledger::open_to_read(&arguments.ledger.ledger)?;
    let wanted = Wanted {
        since: arguments.since.map(|when| when.before(SystemTime::now().into())),
        classes: &arguments.class,
    };
    // Of what is wanted the newest, however much else came after it.
    let some = wanted.since.is_some() || !wanted.classes.is_empty();
    let read = if some { u32::MAX } else { arguments.limit };
    let rows = newest(arguments.limit, ledger.newest_findings(read)?, |row| {
        let standing = &row.standing;
        wanted.has(Some(standing.finding.class), standing.resolved)
    });
    let entries = rows
        .into_iter()
        .map(|row| entry(&ledger, row))
        .collect::<Result<Vec<_>, CliError>>()?;
    let repairs = newest(arguments.limit, ledger.newest_repairs(read)?, |row| {
        let last = row.outcome.as_ref().map(|_| row.ended.unwrap_or(row.intended));
        wanted.has(row.intent.class, last)
    });
    let plans = ledger.plans(&PlanFilter::Newest(read))?;
    let plans = newest(arguments.limit, plans, |row| {
        row.who.is_some() && wanted.has(Some(row.plan.class), row.decided)
    });
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
            for said in plans {
                let line = serde_json::to_string(&SaidOfPlan { said, remedies: [] })?;
                writeln!(out, "{line}").map_err(CliError::Print)?;
            }
        }
        Output::Text if entries.is_empty() && repairs.is_empty() && plans.is_empty() => {
            let nothing = if some {
                "nothing of that was found"
            } else {
                "nothing was found so far"
            };
            writeln!(out, "{nothing}").map_err(CliError::Print)?;
        }
        Output::Text => {
            if !entries.is_empty() {
                writeln!(out, "{}", table(&entries)).map_err(CliError::Print)?;
            }
            if !repairs.is_empty() {
                writeln!(out, "{}", repairs_table(&repairs)).map_err(CliError::Print)?;
            }
            if !plans.is_empty() {
                writeln!(out, "{}", plans_table(&plans)).map_err(CliError::Print)?;
            }
        }
    }
    out.flush().map_err(CliError::Print)
}

/// Of rows, oldest first, the newest that are wanted.
fn newest<T>(limit: u32, rows: Vec<T>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    let mut rows: Vec<T> = rows.into_iter().filter(|row| wanted(row)).collect();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    rows.drain(..rows.len().saturating_sub(limit));
    rows
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
            what(&entry.finding),
            done,
            resolved,
            trace,
        ]);
    }
    table
}

/// A finding in a line, with the death that left it.
fn what(finding: &Finding) -> String {
    match &finding.died_in {
        Some(death) => format!("{finding}\n{death}"),
        None => finding.to_string(),
    }
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

fn plans_table(plans: &[PlanRow]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["decided", "plan", "about", "who", "what they said"]);
    for row in plans {
        let said = match &row.why {
            Some(why) if !why.is_empty() => format!("{}: {}", row.state.name(), safe(why)),
            _ => row.state.name().to_owned(),
        };
        table.add_row([
            row.decided.map(date_time).unwrap_or_default(),
            safe(&row.id),
            row.finding.to_string(),
            row.who.as_deref().map(safe).unwrap_or_default(),
            said,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanoseconds(second * 1_000_000_000)
    }

    #[test]
    fn a_time_is_ago_or_a_date() {
        assert_eq!(when("90m").unwrap().before(at(10_000)), at(4_600));
        assert_eq!(when("1970-01-01T01:00:00Z").unwrap(), When::At(at(3_600)));
        assert!(matches!(when("2026-11-20").unwrap(), When::At(_)));
        assert!(when("yesterday").is_err());
        // Longer ago than there are times.
        assert_eq!(when("9000d").unwrap().before(at(5)), at(0));
    }

    #[test]
    fn what_goes_on_is_of_every_time_and_what_ended_before_is_not_wanted() {
        let wanted = Wanted {
            since: Some(at(5)),
            classes: &[FindingClass::Wedge],
        };
        let wedge = Some(FindingClass::Wedge);
        assert!(wanted.has(wedge, None));
        assert!(wanted.has(wedge, Some(at(5))));
        assert!(!wanted.has(wedge, Some(at(4))));
        assert!(!wanted.has(Some(FindingClass::LeakedThin), None));
        // An undo is of no class.
        assert!(!wanted.has(None, None));
    }

    #[test]
    fn a_finding_says_in_which_window_its_containerd_died() {
        let finding = crate::testing::after_a_death();
        let text = what(&finding);
        assert!(
            text.starts_with("wedge: record tp-snap-2")
                && text.contains("\ncontainerd [500] died while it was making a snapshot without a parent, between \"record Activated\" and \"the file system is made\" (window B7)"),
            "{text}"
        );
        let alive = Finding {
            died_in: None,
            ..finding
        };
        assert_eq!(what(&alive), alive.to_string());
    }

    #[test]
    fn of_what_is_wanted_the_newest_are_shown() {
        assert_eq!(newest(2, vec![1, 2, 3, 4, 5, 7], |one| one % 2 == 1), [5, 7]);
        assert_eq!(newest(9, vec![1, 2], |_| true), [1, 2]);
    }
}
