//! `suture explain`: why a finding is one, and all that follows from it. `classes` has what is true of every finding of a
//! class, `live` tells of one that stands, `past` of one that only the ledger knows.

mod classes;
mod guards;
mod live;
mod past;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;

use super::{
    CliError,
    look::{self, Look, LookArguments, class_named, list, only_meant},
    paper::{Paper, safe},
};
use crate::{
    ledger::Ledger,
    model::{Diagnosis, FindingClass},
};
use past::Past;

/// Findings and repairs of the past that are looked through.
const PAST: u32 = 10_000;

/// Show why a finding is one: what was read, what follows, what a repair would do and whether it may now.
///
/// Knows the findings that stand now, and those of the past that the ledger has, with what was done about them. The name of a
/// class of which there is none tells what the class is.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0   it was explained\n  8   there is no such finding and no such class, or it could not be looked\n  16  a wrong word on the command line\n\nExample:\n  suture explain wedge                     # the only one of its class\n  suture explain orphan-record/tp/12\n  suture explain orphan-record/tp/1        # a beginning that only one has"
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
    Past(Box<Past>),
    Class(FindingClass),
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    look::ended(explain(arguments))
}

fn explain(arguments: &ExplainArguments) -> Result<ExitCode, CliError> {
    let ledger = look::readable_ledger(&arguments.look.ledger.ledger);
    let name = arguments.finding.as_str();
    let paper = Paper::stdout();
    let look = match look::look(&arguments.look, look::Names::Always) {
        Ok(look) => look,
        // The past can be told of without the present, and what a class is without either.
        Err(error) => {
            let past = match &ledger {
                Some(ledger) => Past::of(ledger, name)?,
                None => None,
            };
            let text = match (past, class_named(name)) {
                (Some(past), _) => past.text(None, paper),
                (None, Some(class)) => classes::text(class, paper),
                (None, None) => return Err(error),
            };
            eprintln!(
                "suture: without a look at this node: {}",
                crate::words::explain(&error)
            );
            return print(&text);
        }
    };
    let text = match find(&look, ledger.as_ref(), name)? {
        Found::Live(one, in_flight) => {
            let mut text = live::text(one, in_flight, &look, paper);
            if let Some(ledger) = &ledger
                && let Some(past) = Past::of(ledger, &one.finding.id.0)?
            {
                text.push_str(&past.history(paper));
            }
            text
        }
        Found::Past(past) => past.text(past.whom_it_hits(&look.survey).as_deref(), paper),
        Found::Class(class) => classes::text(class, paper),
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

/// What is meant: a finding that stands before one of the past, its id before a beginning of it, and a finding before a
/// class of which there is none.
fn find<'a>(look: &'a Look, ledger: Option<&Ledger>, name: &str) -> Result<Found<'a>, CliError> {
    let found = look.diagnoses.found.iter().map(|one| (one, false));
    let live: Vec<_> = found
        .chain(look.in_flight.iter().map(|one| (one, true)))
        .collect();
    let the = |id: &str| {
        let mut live = live.iter();
        let (one, in_flight) = live.find(|(one, _)| one.finding.id.0 == id)?;
        Some(Found::Live(one, *in_flight))
    };
    if let Some(found) = the(name) {
        return Ok(found);
    }
    if let Some(ledger) = ledger
        && let Some(past) = Past::of(ledger, name)?
    {
        return Ok(Found::Past(Box::new(past)));
    }
    let ids: Vec<&str> = live.iter().map(|(one, _)| one.finding.id.0.as_str()).collect();
    if let Some(found) = only_meant(&ids, name)?.and_then(the) {
        return Ok(found);
    }
    // A class is a question of its own: it is not answered with whatever was once found of it.
    if let Some(class) = class_named(name) {
        return Ok(Found::Class(class));
    }
    if let Some(ledger) = ledger {
        let known = past::ids(ledger, PAST)?;
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        if let Some(id) = only_meant(&known, name)?
            && let Some(past) = Past::of(ledger, id)?
        {
            return Ok(Found::Past(Box::new(past)));
        }
    }
    let there = if ids.is_empty() {
        "there is none at all".to_owned()
    } else {
        format!("there are {}", list(&ids))
    };
    Err(CliError::Named(format!(
        "there is no finding {}; {there}",
        safe(name)
    )))
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
            Ok(Found::Class(class)) => Err(format!("class {class}")),
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

    const PAPER: Paper = Paper {
        width: 80,
        table: None,
        colours: false,
        unicode: true,
    };

    #[test]
    fn a_class_without_a_finding_is_told_for_what_it_is() {
        let mut look = look_with_everything();
        look.diagnoses.found.clear();
        look.in_flight.clear();
        for class in FindingClass::ALL {
            assert!(matches!(find(&look, None, class.name()), Ok(Found::Class(found)) if found == class));
            let text = classes::text(class, PAPER);
            for part in [
                "What it is",
                "all of these hold",
                "If nothing is done",
                "What suture does",
                "By hand",
            ] {
                assert!(text.contains(part), "{class}: `{part}` is not in:\n{text}");
            }
            assert!(
                text.lines().map(|line| line.chars().count()).max() <= Some(80),
                "{text}"
            );
        }
        assert!(
            find(&look, None, "wed").is_err(),
            "a beginning of a class is none"
        );
    }

    #[test]
    fn what_was_repaired_is_told_also_where_no_sidecar_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open_beside(&folder.path().join("ledger.db")).unwrap();
        let look = look_with_everything();
        let finding = crate::model::FindingId("burned-id/tp/4711".to_owned());
        let intent = crate::model::RepairIntent {
            pool: crate::testing::pool(),
            mode: crate::model::RepairMode::Offline,
            finding: finding.clone(),
            class: Some(FindingClass::BurnedId),
            subject: crate::model::Subject::Pool,
            action: None,
            acts: vec![crate::model::Act::DeleteThin {
                thin_id: crate::model::ThinId(4711),
            }],
            undoes: None,
            pool_txid: crate::model::TxId(1),
            snapshot_txid: None,
            backup: None,
            marks: std::collections::BTreeMap::new(),
        };
        let at = crate::testing::at(1);
        let id = ledger.intend_repairs(&[intent], at).unwrap();
        let told = |ledger: &Ledger, name: &str| match find(&look, Some(ledger), name) {
            Ok(Found::Past(past)) => past.text(None, PAPER),
            other => panic!("{:?}", other.err()),
        };
        let text = told(&ledger, "burned-id/tp/4711");
        assert!(text.contains("under way, or suture died"), "{text}");
        let outcome = crate::model::RepairOutcome::Done;
        ledger.conclude_repairs(&[(id[0], outcome, false)], at).unwrap();
        for name in ["burned-id/tp/4711", "burned-id/tp/47"] {
            let text = told(&ledger, name).replace("\n    ", " ");
            assert!(
                text.contains("offline repair: delete thin device 4711") && text.contains(": done"),
                "{text}"
            );
            assert!(
                text.contains("What it is") && !text.contains("What was read"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_death_that_left_it_is_told_by_its_window_with_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_beside(&folder.path().join("ledger.db")).unwrap();
        let finding = crate::testing::after_a_death();
        let name = finding.id.0.clone();
        let standing = crate::brain::Standing {
            finding,
            first_seen: crate::testing::at(1),
            last_seen: crate::testing::at(2),
            resolved: None,
            decision: String::new(),
        };
        let row = crate::ledger::FindingRow {
            standing,
            traceparent: None,
        };
        ledger.save_finding(&row).unwrap();
        let past = Past::of(&ledger, &name).unwrap().unwrap();
        let text = past.history(PAPER).replace("\n    ", " ");
        for part in [
            "(window B7)",
            "between \"record Activated\" and \"the file system is made\"",
            "what containerd does about it: It never heals that",
        ] {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
    }

    #[test]
    fn what_fails_at_this_moment_is_told_with_whom_it_hits_as_long_as_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_beside(&folder.path().join("ledger.db")).unwrap();
        let look = look_with_everything();
        let rows = &look.survey.snapshots.snapshots;
        let key = rows.iter().find(|(_, row)| row.id.0 == 3).unwrap().0;
        assert!(key.ends_with("c0ffee0123456789"), "the container's own: {key}");
        let id = "failing-remove/tp/in-use/remove/tp-snap-3";
        let finding = |resolved| crate::ledger::FindingRow {
            standing: crate::brain::Standing {
                finding: crate::model::Finding {
                    id: crate::model::FindingId(id.to_owned()),
                    class: FindingClass::FailingRemove,
                    subject: crate::model::Subject::Device {
                        name: "tp-snap-3".to_owned(),
                    },
                    died_in: None,
                    ..crate::testing::after_a_death()
                },
                first_seen: crate::testing::at(1),
                last_seen: crate::testing::at(2),
                resolved,
                decision: String::new(),
            },
            traceparent: None,
        };
        for (resolved, hits) in [(None, true), (Some(crate::testing::at(3)), false)] {
            ledger.save_finding(&finding(resolved)).unwrap();
            let Ok(Found::Past(past)) = find(&look, Some(&ledger), id) else {
                panic!("it is in the ledger")
            };
            let text = past.text(past.whom_it_hits(&look.survey).as_deref(), PAPER);
            assert_eq!(text.contains("Whom it hits"), hits, "{text}");
            assert_eq!(text.contains("this is what it has put down"), hits, "{text}");
            assert_eq!(text.contains("pod shop/web-0"), hits, "{text}");
        }
    }

    #[test]
    fn every_finding_is_explained_with_its_class_its_evidence_and_its_remedy() {
        let look = look_with_everything();
        let paper = PAPER;
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
