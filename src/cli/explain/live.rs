//! One finding that stands: its class, its evidence, what follows, and what a repair would do now, guard by guard.

use std::fmt::Write as _;

use super::{
    classes,
    guards::{self, Reading},
};
use crate::{
    cli::{
        check::{command, hits},
        look::Look,
        paper::{Ink, Paper, ink_of, mark_of, safe},
    },
    model::{Diagnosis, Provenance, Subject, When},
};

/// Acts that are told; a repair may pass over thousands of numbers.
const ACTS: usize = 20;

/// All of it; ends with a line end.
pub(super) fn text(one: &Diagnosis, in_flight: bool, look: &Look, paper: Paper) -> String {
    let class = classes::of(one.finding.class);
    let mut out = String::new();
    let head = format!(
        "{} {} {}: {}",
        mark_of(one.severity).trim_end(),
        one.severity.name().to_uppercase(),
        one.finding.class,
        one.finding.subject
    );
    let _ = writeln!(out, "{}", paper.ink(ink_of(one.severity), paper.wrap(&head, 3)));
    let _ = writeln!(out, "{}", paper.wrap(&one.summary, 0));
    if in_flight {
        let _ = writeln!(
            out,
            "{}",
            paper.wrap(
                "It is no finding yet: somebody may be at work on it. Check again later.",
                0
            )
        );
    }

    title(&mut out, "What it is", paper);
    let _ = writeln!(out, "  {}", paper.wrap(class.definition, 2));
    let _ = writeln!(out, "  It is one when all of these hold:");
    for predicate in class.predicates {
        item(&mut out, predicate, paper);
    }

    title(&mut out, "What was read", paper);
    for sentence in &one.finding.evidence {
        item(&mut out, sentence, paper);
    }
    let (pool, snapshots) = look.survey.transactions();
    let snapshots = snapshots.map_or_else(|| "none".to_owned(), |txid| txid.to_string());
    item(
        &mut out,
        &format!(
            "all of it at transaction {pool} of the pool database and {snapshots} of the snapshot database"
        ),
        paper,
    );

    title(&mut out, "Who made it", paper);
    let _ = writeln!(out, "  {}", paper.wrap(&provenance(one), 2));

    title(&mut out, "If nothing is done", paper);
    let _ = writeln!(out, "  {}", paper.wrap(&one.consequence, 2));
    if let Some(hits) = hits(&one.users) {
        let _ = writeln!(out, "  {}", paper.wrap(&format!("It hits {hits}."), 2));
    }

    title(&mut out, "What a repair would do", paper);
    out.push_str(&remedy(one, look, paper));

    title(&mut out, "By hand", paper);
    let _ = writeln!(out, "  {}", paper.wrap(class.by_hand, 2));
    let _ = writeln!(out, "\nMore: docs/findings.md");
    out
}

fn title(out: &mut String, text: &str, paper: Paper) {
    let _ = writeln!(out, "\n{}", paper.ink(Ink::Bold, text));
}

fn item(out: &mut String, text: &str, paper: Paper) {
    let _ = writeln!(out, "  - {}", paper.wrap(text, 4));
}

fn provenance(one: &Diagnosis) -> String {
    match (&one.finding.provenance, &one.finding.subject) {
        (Provenance::SeenByProbe { operation }, _) => format!(
            "containerd: suture's probes saw it being made, and saw that operation abandoned ({operation})."
        ),
        (Provenance::ToldByRecord { name }, _) => format!(
            "containerd: its record {} got past Created, which is written only after the kernel made the device for it.",
            safe(name)
        ),
        (Provenance::Unknown, Subject::Pool | Subject::BlockDevice { .. } | Subject::ThinId { .. }) => {
            "That does not matter here: nothing is to be deleted.".to_owned()
        }
        (Provenance::Unknown, _) => {
            "Nobody can prove it, so suture deletes nothing of it by itself.".to_owned()
        }
    }
}

fn remedy(one: &Diagnosis, look: &Look, paper: Paper) -> String {
    let remedy = &one.remedy;
    let mut out = String::new();
    let when = match remedy.when {
        When::Online => "while containerd runs, or while it is stopped",
        When::Offline => "only while containerd is stopped",
        When::Never => "never",
    };
    let _ = writeln!(
        out,
        "  {}",
        paper.wrap(&format!("{} ({when}). {}", remedy.action.name(), remedy.why), 2)
    );
    for (number, act) in remedy.acts.iter().take(ACTS).enumerate() {
        let who = if act.is_edit() {
            "containerd's pool database"
        } else {
            "the kernel"
        };
        let _ = writeln!(
            out,
            "  {}. {}",
            number + 1,
            paper.wrap(&format!("{act} ({who})"), 5)
        );
    }
    if remedy.acts.len() > ACTS {
        let more = remedy.acts.len() - ACTS;
        let _ = writeln!(out, "  and {more} more of the same");
    }
    let readings = guards::read(one, look);
    if !readings.is_empty() {
        let _ = writeln!(out, "  Each of these is read anew just before; at this moment:");
    }
    for reading in readings {
        let (word, ink, condition, detail) = match reading {
            Reading::Now(now) if now.holds => ("holds", Ink::Green, now.condition, safe(&now.detail)),
            Reading::Now(now) => ("not now", Ink::Yellow, now.condition, safe(&now.detail)),
            Reading::Later(condition, why) => ("later", Ink::Dim, condition, why.to_owned()),
        };
        let line = format!("{condition}: {detail}");
        let word = format!("{word:<7}");
        let _ = writeln!(out, "    {}  {}", paper.ink(ink, word), paper.wrap(&line, 13));
    }
    if let Some(command) = command(one, look) {
        let _ = writeln!(out, "  {}", paper.ink(Ink::Bold, command));
    }
    out
}
