//! `suture findings`: what was found and stands, what was decided about it, and which plan is to be approved; from the running
//! suture, or from the ledger where none runs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{CliError, Output, paper::safe, repair::class, run::LedgerArgument, status::SocketArgument};
use crate::{
    control::{self, AskError, StandingFindings},
    ledger::{FindingRow, Ledger, PlanFilter},
    model::{FindingClass, FindingId, PlanId, Subject, Timestamp, healing::VerdictStatus},
    words::date_time,
};

/// List what was found, what was decided about it, and which plans wait for an approval.
///
/// The running suture tells of the findings that stand. Where none runs the ledger tells what stood when it ended, and it
/// tells of all findings, also those that are gone. The first line says where it comes from.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  listed, from the running suture or from the ledger\n  1  neither could be asked\n  2  a wrong word on the command line\n\nExample:\n  suture findings\n  suture findings all --class leaked-thin\n  suture findings --output json | jq -r 'select(.verdict.asks) | .verdict.plan'"
)]
pub(super) struct FindingsArguments {
    /// Which.
    #[arg(value_enum, default_value_t)]
    which: Which,
    /// Of these classes only.
    #[arg(long, value_name = "CLASS", value_parser = class, num_args = 1..)]
    class: Vec<FindingClass>,
    /// How many of all, the newest.
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    socket: SocketArgument,
    #[command(flatten)]
    ledger: LedgerArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Which {
    /// Those that stand.
    #[default]
    Open,
    /// Those that are gone too, from the ledger.
    All,
}

/// Where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Sidecar,
    Ledger,
}

/// One finding, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    source: Source,
    /// When it was so.
    at: Option<Timestamp>,
    id: FindingId,
    class: FindingClass,
    #[serde(flatten)]
    subject: Subject,
    first_seen: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<Timestamp>,
    decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictStatus>,
    /// The plan that it has, or had last while it could be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanId>,
}

/// What is printed.
struct List {
    head: String,
    rows: Vec<Row>,
}

pub(super) fn run(arguments: &FindingsArguments) -> Result<(), CliError> {
    let list = match arguments.which {
        Which::All => from_ledger(arguments, "all that it has")?,
        Which::Open => match control::ask_findings(&arguments.socket.socket) {
            Ok(standing) => from_sidecar(standing),
            Err(error @ AskError::NotRunning { .. }) => {
                let why = "no suture runs here, so this is what stood when it ended";
                from_ledger(arguments, why).map_err(|no_ledger| {
                    eprintln!("suture: {}", crate::words::explain(&no_ledger));
                    error
                })?
            }
            Err(error) => return Err(error.into()),
        },
    };
    let wanted = |row: &&Row| arguments.class.is_empty() || arguments.class.contains(&row.class);
    let rows: Vec<&Row> = list.rows.iter().filter(wanted).collect();
    let mut out = io::stdout().lock();
    let mut put = |line: &str| writeln!(out, "{line}").map_err(CliError::Print);
    match arguments.output {
        Output::Json => {
            for row in &rows {
                put(&serde_json::to_string(row)?)?;
            }
        }
        Output::Text => {
            put(list.head.trim_end())?;
            if rows.is_empty() {
                put("no findings")?;
            } else {
                put(&table(&rows).to_string())?;
            }
        }
    }
    out.flush().map_err(CliError::Print)
}

fn from_sidecar(standing: StandingFindings) -> List {
    let mut head = format!(
        "source: the running suture [{}], as of {}\n",
        standing.pid,
        date_time(standing.at)
    );
    for obstacle in &standing.obstacles {
        let _ = writeln!(head, "healing: {}", safe(obstacle));
    }
    let listed = u64::try_from(standing.findings.len()).unwrap_or(u64::MAX);
    if standing.total > listed {
        let _ = writeln!(
            head,
            "these are the oldest {listed} of {}; `suture findings all` has the others",
            standing.total
        );
    }
    let row = |one: crate::model::status::FindingStatus| Row {
        source: Source::Sidecar,
        at: Some(standing.at),
        id: one.id,
        class: one.class,
        subject: one.subject,
        first_seen: one.first_seen,
        last_seen: None,
        resolved: None,
        decision: one.decision,
        plan: one.verdict.as_ref().and_then(|verdict| verdict.plan.clone()),
        verdict: one.verdict,
    };
    List {
        head,
        rows: standing.findings.into_iter().map(row).collect(),
    }
}

fn from_ledger(arguments: &FindingsArguments, why: &str) -> Result<List, CliError> {
    let path = &arguments.ledger.ledger;
    let ledger = Ledger::open_to_read(path)?;
    let at = ledger.watched_until()?;
    let mut plans: BTreeMap<FindingId, PlanId> = BTreeMap::new();
    for plan in ledger.plans(&PlanFilter::Live)? {
        plans.insert(plan.finding, PlanId::typed(&plan.id));
    }
    let found = match arguments.which {
        Which::Open => ledger.open_findings()?,
        Which::All => ledger.newest_findings(arguments.limit)?,
    };
    let row = |FindingRow { standing, .. }: FindingRow| Row {
        source: Source::Ledger,
        at,
        plan: plans.get(&standing.finding.id).cloned(),
        id: standing.finding.id,
        class: standing.finding.class,
        subject: standing.finding.subject,
        first_seen: standing.first_seen,
        last_seen: Some(standing.last_seen),
        resolved: standing.resolved,
        decision: standing.decision,
        verdict: None,
    };
    let watched = at.map_or_else(String::new, |at| {
        format!("; suture watched until {}", date_time(at))
    });
    Ok(List {
        head: format!("source: the ledger {}: {why}{watched}", path.display()),
        rows: found.into_iter().map(row).collect(),
    })
}

fn table(rows: &[&Row]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["class", "what", "first seen", "how it stands", "plan"]);
    for row in rows {
        let stands = match row.resolved {
            Some(at) => format!("gone since {}", date_time(at)),
            None => row.decision.clone(),
        };
        let plan = row.plan.as_ref().map(|id| safe(id.as_str())).unwrap_or_default();
        let asks = row.verdict.as_ref().is_some_and(|verdict| verdict.asks);
        table.add_row([
            row.class.to_string(),
            safe(&row.subject.to_string()),
            date_time(row.first_seen),
            safe(&stands),
            if asks {
                format!("{plan}\nwaits for `suture approve`")
            } else {
                plan
            },
        ]);
    }
    table
}
