//! What a check says to people: the verdict, then each finding with what to do now. Notices come last and are short.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::{
    cli::{
        look::{Look, Verdict, quoted},
        paper::{Ink, Paper, counted, ink_of, mark_of, safe, short, thousands},
    },
    decide::{Handling, RepairPolicy},
    model::{
        ContainerdState, Diagnosis, FindingClass, Severity, Users, When,
        survey::{Container, Unread},
    },
};

/// Findings of one class that are printed in full; a wiped database makes one for each device of the pool.
const IN_FULL: usize = 5;
/// Notices that are printed.
const NOTICES: usize = 8;
/// Containers and images that are named for a finding.
const NAMED: usize = 4;
/// Where a label's text begins.
const INDENT: usize = 12;

/// All of it; ends with a line end.
pub(super) fn text(look: &Look, paper: Paper, all: bool) -> String {
    let mut out = verdict(look, paper);
    out.push('\n');
    for explanation in &look.diagnoses.explanations {
        let _ = writeln!(out, "\n{}", paper.wrap(explanation, 0));
    }
    let mut shown: BTreeMap<FindingClass, usize> = BTreeMap::new();
    for one in look.serious() {
        let number = shown.entry(one.finding.class).or_default();
        *number += 1;
        if all || *number <= IN_FULL {
            out.push('\n');
            out.push_str(&finding(one, look, paper));
        }
    }
    let hidden = shown.iter().filter(|(_, number)| !all && **number > IN_FULL);
    for (class, number) in hidden {
        let _ = writeln!(
            out,
            "\nand {} more of {class}; `suture check --all` prints them",
            thousands((number - IN_FULL) as u64)
        );
    }
    out.push_str(&last(look, paper));
    out
}

/// What is no finding: what is in flight, what was not read, notices.
fn last(look: &Look, paper: Paper) -> String {
    let mut out = String::new();
    if !look.in_flight.is_empty() {
        let subjects = look
            .in_flight
            .iter()
            .take(NAMED)
            .map(|one| one.finding.subject.to_string());
        let mut line = format!("in flight: {}", subjects.collect::<Vec<_>>().join(", "));
        if look.in_flight.len() > NAMED {
            let _ = write!(
                line,
                " and {}",
                counted(look.in_flight.len() - NAMED, "more thing")
            );
        }
        line.push_str(": somebody is at work, so this is no finding; check again later if it stays");
        let _ = writeln!(out, "\n{}", paper.wrap(&line, 2));
    }
    let (matters, names): (Vec<&Unread>, Vec<&Unread>) =
        look.survey.unread.iter().partition(|one| one.matters);
    for one in matters {
        let line = format!("not checked: {}: {}", safe(&one.what), safe(&one.why));
        let _ = writeln!(out, "\n{}", paper.ink(Ink::Yellow, paper.wrap(&line, 2)));
    }
    for sentence in &look.diagnoses.not_understood {
        let line = format!("not understood: {}", safe(sentence));
        let _ = writeln!(out, "\n{}", paper.ink(Ink::Yellow, paper.wrap(&line, 2)));
    }
    for one in names {
        let line = format!("also not read: {}: {}", safe(&one.what), safe(&one.why));
        let _ = writeln!(out, "\n{}", paper.wrap(&line, 2));
    }
    let notices: Vec<_> = look.notices().collect();
    if !notices.is_empty() {
        out.push('\n');
    }
    for one in notices.iter().take(NOTICES) {
        let line = format!("notice: {}: {}", one.finding.id, one.summary);
        let _ = writeln!(out, "{}", paper.ink(Ink::Cyan, paper.wrap(&line, 2)));
    }
    let mut more: BTreeMap<FindingClass, usize> = BTreeMap::new();
    for one in notices.iter().skip(NOTICES) {
        *more.entry(one.finding.class).or_default() += 1;
    }
    for (class, number) in more {
        let line = format!("notice: {} more of {class}", thousands(number as u64));
        let _ = writeln!(out, "{}", paper.ink(Ink::Cyan, line));
    }
    out
}

/// The first line.
fn verdict(look: &Look, paper: Paper) -> String {
    let name = safe(look.survey.pool_name.as_str());
    let serious: Vec<&Diagnosis> = look.serious().collect();
    let notices = look.notices().count();
    match look.verdict() {
        Verdict::Findings => {
            let mut line = format!("{name}: {}", counted(serious.len(), "finding"));
            let worst = [
                Severity::Outage,
                Severity::Damage,
                Severity::Stuck,
                Severity::Space,
            ];
            for severity in worst {
                let number = serious.iter().filter(|one| one.severity == severity).count();
                if number > 0 {
                    let _ = write!(line, ", {} {}", thousands(number as u64), does(severity, number));
                }
            }
            let ink = serious.first().map_or(Ink::Red, |one| ink_of(one.severity));
            paper.ink(ink, line)
        }
        Verdict::Incomplete => paper.ink(
            Ink::Yellow,
            format!(
                "{name}: not all of it could be checked; nothing wrong in what could ({})",
                size_of_it(look)
            ),
        ),
        Verdict::Clean => {
            let notices = match notices {
                0 => String::new(),
                number => format!(", {}", counted(number, "notice")),
            };
            paper.ink(
                Ink::Green,
                format!("{name}: clean{notices} ({})", size_of_it(look)),
            )
        }
    }
}

fn does(severity: Severity, number: usize) -> &'static str {
    match (severity, number) {
        (Severity::Outage, 1) => "stops every new container",
        (Severity::Outage, _) => "stop every new container",
        (Severity::Damage, 1) => "loses data or gives errors",
        (Severity::Damage, _) => "lose data or give errors",
        (Severity::Stuck, 1) => "is stuck or gets in the way",
        (Severity::Stuck, _) => "are stuck or get in the way",
        (Severity::Space, 1) => "wastes space",
        (Severity::Space, _) => "waste space",
        (Severity::Notice, _) => "to know",
    }
}

fn size_of_it(look: &Look) -> String {
    let survey = &look.survey;
    let mut parts = vec![counted(survey.snapshots.snapshots.len(), "snapshot")];
    parts.extend(
        survey
            .thin
            .as_ref()
            .map(|thin| counted(thin.len(), "thin device")),
    );
    parts.push(milliseconds(look.took));
    parts.join(", ")
}

fn milliseconds(time: Duration) -> String {
    match time.as_millis() {
        0 => "under 1 ms".to_owned(),
        number => format!("{} ms", thousands(u64::try_from(number).unwrap_or(u64::MAX))),
    }
}

fn finding(one: &Diagnosis, look: &Look, paper: Paper) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} {} {}: {}",
        paper.ink(ink_of(one.severity), mark_of(one.severity).trim_end()),
        paper.ink(ink_of(one.severity), one.severity.name().to_uppercase()),
        paper.ink(Ink::Bold, one.finding.class),
        one.finding.subject
    );
    let mut line = |label: &str, text: &str| {
        let label = format!("  {label:<width$}", width = INDENT - 2);
        let _ = writeln!(out, "{}{}", paper.ink(Ink::Dim, label), paper.wrap(text, INDENT));
    };
    line("what", &one.summary);
    line("effect", &one.consequence);
    if let Some(hits) = hits(&one.users) {
        line("hits", &hits);
    }
    match command(one, look) {
        Some(command) => {
            line("to heal", &when(one.remedy.when, look));
            // Whole, to be copied.
            let _ = writeln!(out, "{}{}", " ".repeat(INDENT), paper.ink(Ink::Bold, command));
        }
        None => line("to do", &one.remedy.why),
    }
    let why = format!("suture explain {}{}", quoted(&one.finding.id.0), look.places);
    let _ = writeln!(
        out,
        "  {}{why}",
        paper.ink(Ink::Dim, format!("{:<width$}", "more", width = INDENT - 2))
    );
    out
}

/// Whom it hits; nothing where it is nobody that is known.
pub(in crate::cli) fn hits(users: &Users) -> Option<String> {
    let mut parts: Vec<String> = users.containers.iter().take(NAMED).map(container).collect();
    let more = users.containers.len().saturating_sub(NAMED) + users.more_containers;
    if more > 0 {
        parts.push(counted(more, "more container"));
    }
    parts.extend(
        users
            .images
            .iter()
            .take(NAMED)
            .map(|image| format!("image {}", safe(image))),
    );
    let more = users.images.len().saturating_sub(NAMED) + users.more_images;
    if more > 0 {
        parts.push(counted(more, "more image"));
    }
    if let Some(snapshot) = &users.snapshot {
        parts.push(format!(
            "snapshot {} of {}",
            short(&snapshot.key),
            safe(&snapshot.namespace)
        ));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn container(one: &Container) -> String {
    let mut text = format!("container {}", short(&one.id));
    if let Some(pod) = &one.pod {
        let _ = write!(text, " (pod {}/{})", safe(&pod.namespace), safe(&pod.name));
    }
    text
}

/// When the remedy may be carried out, as a person needs it.
fn when(when: When, look: &Look) -> String {
    let stopped = matches!(look.survey.containerd, ContainerdState::Stopped { .. });
    match when {
        When::Offline if stopped => "now, while containerd is stopped".to_owned(),
        When::Offline => "with containerd stopped for a moment; running containers go on".to_owned(),
        When::Online if stopped => "now".to_owned(),
        When::Online => "now, while containerd runs".to_owned(),
        When::Never => "not by suture".to_owned(),
    }
}

/// The command that heals it; nothing where suture does not. `suture repair` ends with 1 when it corrected something, so
/// that containerd is started whatever it says.
pub(in crate::cli) fn command(one: &Diagnosis, look: &Look) -> Option<String> {
    let mut words = match one.remedy.when {
        When::Offline => look.offline_places.clone(),
        When::Online | When::Never => look.repair_places.clone(),
    };
    // What the policy as shipped only observes is done when it is named.
    if RepairPolicy::default().of(one.finding.class) == Handling::Observe {
        words = format!(" --finding {}{words}", quoted(&one.finding.id.0));
    }
    let stopped = matches!(look.survey.containerd, ContainerdState::Stopped { .. });
    match one.remedy.when {
        When::Never => None,
        When::Offline if stopped => Some(format!("suture repair --offline{words}")),
        When::Offline => Some(format!(
            "systemctl stop containerd && suture repair --offline{words}; systemctl start containerd"
        )),
        When::Online => Some(format!("suture repair{words}")),
    }
}
