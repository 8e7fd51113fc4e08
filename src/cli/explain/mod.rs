//! `suture explain`: why a finding is one, and all that follows from it. `classes` has what is true of every finding of a
//! class, `live` tells of one that stands, `past` of one that only the ledger knows.

mod classes;
mod guards;
mod live;
mod past;

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;

use super::{
    CliError,
    look::{self, Look, LookArguments},
    paper::{Paper, counted, safe},
};
use crate::{
    ledger::{FindingRow, Ledger},
    model::{Diagnosis, FindingClass},
};

/// Findings that are named where the id was not enough.
const NAMED: usize = 20;
/// Findings of the past that are looked through.
const PAST: u32 = 10_000;

/// Show why a finding is one: what was read, what follows, what a repair would do and whether it may now.
///
/// Knows the findings that stand now, and those of the past that the ledger has.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0   it was explained\n  8   there is no such finding, or it could not be looked\n  16  a wrong word on the command line\n\nExample:\n  suture explain wedge                     # the only one of its class\n  suture explain orphan-record/tp/12\n  suture explain orphan-record/tp/1        # a beginning that only one has"
)]
pub(super) struct ExplainArguments {
    /// The finding: its id, a beginning of it that no other has, or its class.
    finding: String,
    #[command(flatten)]
    look: LookArguments,
}

/// What goes by a name.
enum Found<'a> {
    Live(&'a Diagnosis, bool),
    Past(Box<FindingRow>),
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    look::ended(explain(arguments))
}

fn explain(arguments: &ExplainArguments) -> Result<ExitCode, CliError> {
    let ledger = look::readable_ledger(&arguments.look.ledger.ledger);
    let name = arguments.finding.as_str();
    let look = match look::look(&arguments.look, look::Names::Always) {
        Ok(look) => look,
        // The past can be told of without the present.
        Err(error) => {
            let Some((ledger, row)) = exactly(ledger.as_ref(), name)? else {
                return Err(error);
            };
            eprintln!("suture: only from the ledger: {}", crate::words::explain(&error));
            return print(&past::text(&row, ledger, Paper::stdout())?);
        }
    };
    let text = match find(&look, ledger.as_ref(), name)? {
        Found::Live(one, in_flight) => {
            let mut text = live::text(one, in_flight, &look, Paper::stdout());
            if let Some((ledger, row)) = exactly(ledger.as_ref(), &one.finding.id.0)? {
                text.push_str(&past::history(&row, ledger, Paper::stdout())?);
            }
            text
        }
        Found::Past(row) => match &ledger {
            Some(ledger) => past::text(&row, ledger, Paper::stdout())?,
            None => String::new(),
        },
    };
    print(&text)
}

fn print(text: &str) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(CliError::Print)?;
    Ok(ExitCode::SUCCESS)
}

/// A finding of the past by its whole id.
fn exactly<'l>(ledger: Option<&'l Ledger>, name: &str) -> Result<Option<(&'l Ledger, FindingRow)>, CliError> {
    let Some(ledger) = ledger else {
        return Ok(None);
    };
    let mut rows = ledger.newest_findings(PAST)?.into_iter();
    Ok(rows
        .rfind(|row| row.standing.finding.id.0 == name)
        .map(|row| (ledger, row)))
}

/// The finding that is meant: one that stands before one of the past, its id before a beginning of it.
fn find<'a>(look: &'a Look, ledger: Option<&Ledger>, name: &str) -> Result<Found<'a>, CliError> {
    let found = look.diagnoses.found.iter().map(|one| (one, false));
    let live: Vec<_> = found
        .chain(look.in_flight.iter().map(|one| (one, true)))
        .collect();
    if let Some((one, in_flight)) = live.iter().find(|(one, _)| one.finding.id.0 == name) {
        return Ok(Found::Live(one, *in_flight));
    }
    let past = match ledger {
        Some(ledger) => ledger.newest_findings(PAST)?,
        None => Vec::new(),
    };
    if let Some(row) = past.iter().rfind(|row| row.standing.finding.id.0 == name) {
        return Ok(Found::Past(Box::new(row.clone())));
    }
    let beginning: Vec<_> = live
        .iter()
        .filter(|(one, _)| is_meant(&one.finding.id.0, name))
        .collect();
    match beginning.as_slice() {
        [(one, in_flight)] => return Ok(Found::Live(one, *in_flight)),
        [] => {}
        several => {
            return Err(ambiguous(
                name,
                several.iter().map(|(one, _)| one.finding.id.0.as_str()),
            ));
        }
    }
    let beginning: Vec<_> = past
        .iter()
        .filter(|row| is_meant(&row.standing.finding.id.0, name))
        .collect();
    match beginning.as_slice() {
        [row] => Ok(Found::Past(Box::new((*row).clone()))),
        [] => Err(unknown(name, &live)),
        several => Err(ambiguous(
            name,
            several.iter().map(|row| row.standing.finding.id.0.as_str()),
        )),
    }
}

/// Whether a beginning means this id. A class means its findings, and not those of a class whose name goes on.
fn is_meant(id: &str, beginning: &str) -> bool {
    let is_class = FindingClass::ALL.iter().any(|class| class.name() == beginning);
    let rest = id.strip_prefix(beginning);
    !beginning.is_empty() && rest.is_some_and(|rest| !is_class || rest.starts_with('/'))
}

fn ambiguous<'i>(name: &str, ids: impl Iterator<Item = &'i str>) -> CliError {
    let ids: Vec<_> = ids.map(safe).collect();
    CliError::Named(format!(
        "{} go by {}: {}",
        counted(ids.len(), "finding"),
        safe(name),
        list(&ids)
    ))
}

fn unknown(name: &str, live: &[(&Diagnosis, bool)]) -> CliError {
    let ids: Vec<_> = live.iter().map(|(one, _)| safe(&one.finding.id.0)).collect();
    let there = if ids.is_empty() {
        "there is none at all".to_owned()
    } else {
        format!("there are {}", list(&ids))
    };
    CliError::Named(format!("there is no finding {}; {there}", safe(name)))
}

fn list(ids: &[String]) -> String {
    let mut text = ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > NAMED {
        let more = ids.len() - NAMED;
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::look_with_everything;

    fn live(name: &str) -> Result<String, String> {
        let look = look_with_everything();
        match find(&look, None, name) {
            Ok(Found::Live(one, _)) => Ok(one.finding.id.0.clone()),
            Ok(Found::Past(_)) => Err("past".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn an_id_a_beginning_or_a_class_is_enough_when_it_is_one_findings() {
        assert_eq!(live("wedge").unwrap(), "wedge/tp/7");
        assert_eq!(live("wedge/tp/7").unwrap(), "wedge/tp/7");
        assert_eq!(live("wed").unwrap(), "wedge/tp/7");
        let several = live("pool-").unwrap_err();
        assert!(
            several.contains("pool-failed") && several.contains("pool-needs-check"),
            "{several}"
        );
        let none = live("nothing").unwrap_err();
        assert!(
            none.contains("no finding nothing; there are ") && none.contains("wedge/tp/7"),
            "{none}"
        );
        assert!(live("").is_err());
    }

    #[test]
    fn every_finding_is_explained_with_its_class_its_evidence_and_its_remedy() {
        let look = look_with_everything();
        let paper = Paper {
            width: 80,
            table: None,
            colours: false,
            unicode: true,
        };
        for one in &look.diagnoses.found {
            let text = live::text(one, false, &look, paper);
            for part in [
                "What it is",
                "What was read",
                "Who made it",
                "If nothing is done",
                "What a repair would do",
                "By hand",
            ] {
                assert!(
                    text.contains(part),
                    "{}: `{part}` is not in:\n{text}",
                    one.finding.id
                );
            }
            for act in &one.remedy.acts {
                assert!(
                    text.replace("\n       ", " ").contains(&act.to_string()),
                    "{act}:\n{text}"
                );
            }
            assert!(text.contains("docs/findings.md"), "{text}");
            // Commands stay whole, to be copied.
            let is_command = |line: &&str| {
                ["suture repair", "systemctl"]
                    .iter()
                    .any(|word| line.trim().starts_with(word))
            };
            let lines = text.lines().filter(|line| !is_command(line));
            assert!(lines.map(|line| line.chars().count()).max() <= Some(80), "{text}");
        }
    }
}
