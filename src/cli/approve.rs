//! `suture approve`: lets a running suture carry out one plan, after showing exactly what that is.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
};

use clap::Args;

use super::{CliError, Output, paper::safe, status::SocketArgument};
use crate::{
    control::{self, AskError, Request},
    model::{Condition, Effect, healing::PlanStatus},
    words::date_time,
};

/// Acts that are shown one by one; a repair may pass over thousands of numbers.
const ACTS: usize = 20;
/// Characters of a name that is passed on.
const LONGEST_NAME: usize = 100;

/// Let the running suture carry out a plan, once.
///
/// It shows what would be done and under which conditions, and asks. The approval is for exactly that plan: when what was
/// found changes, it has another plan, and that needs another approval.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  it is approved\n  1  suture could not be asked, or has no such plan\n  2  a wrong word on the command line\n  4  none runs; `suture repair --finding ID` heals by hand\n  5  not approved: suture refuses, or you did not say yes\n\nExample:\n  suture findings\n  suture approve wedge-3f9a1c2b4d5e\n  suture approve wedge-3f9a1c2b4d5e --yes"
)]
pub(super) struct ApproveArguments {
    /// The plan's name, or that of its finding, or the beginning of one where only one begins so.
    #[arg(value_name = "ID")]
    id: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    how: HowArguments,
}

/// How suture is told, and how what it says is printed.
#[derive(Debug, Args)]
pub(super) struct HowArguments {
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    socket: SocketArgument,
}

impl HowArguments {
    pub(super) fn socket(&self) -> &Path {
        &self.socket.socket
    }

    /// Tells suture, and prints what came of it.
    pub(super) fn tell(&self, request: &Request) -> Result<(), CliError> {
        let effect = control::command(self.socket(), request)?;
        self.print(&effect)
    }

    fn print(&self, effect: &Effect) -> Result<(), CliError> {
        let line = match self.output {
            Output::Json => serde_json::to_string(effect)?,
            Output::Text => words(effect),
        };
        writeln!(io::stdout(), "{line}").map_err(CliError::Print)
    }

    /// The plan of a name; an error where there is none, or several.
    pub(super) fn plan(&self, id: &str) -> Result<PlanStatus, CliError> {
        let plans = control::ask_plans(self.socket(), id).map_err(|error| match error {
            AskError::NotRunning { .. } => {
                eprintln!(
                    "suture: nothing can be approved or rejected while none runs; `suture repair --finding ID` heals by hand"
                );
                error
            }
            other => other,
        })?;
        choose(plans, id)
    }
}

pub(super) fn run(arguments: &ApproveArguments) -> Result<(), CliError> {
    let plan = arguments.how.plan(&arguments.id)?;
    // What is asked is no result.
    eprint!("{}", shown(&plan));
    if !arguments.yes {
        agree()?;
    }
    arguments.how.tell(&Request::Approve {
        plan: plan.id,
        by: by(),
    })
}

/// Whom the person says to be who became root with sudo.
pub(super) fn by() -> Option<String> {
    let name = std::env::var("SUDO_USER").ok()?;
    let name: String = name.chars().take(LONGEST_NAME).collect();
    (!name.is_empty()).then_some(name)
}

fn agree() -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::NotAgreed(
            "there is no terminal to ask on; say --yes to approve without being asked",
        ));
    }
    eprint!("Approve exactly this plan, once? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(CliError::NotAgreed("you did not say yes")),
    }
}

fn choose(plans: Vec<PlanStatus>, id: &str) -> Result<PlanStatus, CliError> {
    let whole = plans
        .iter()
        .position(|plan| plan.id.as_str() == id || plan.finding.0 == id);
    let mut plans = plans;
    match (whole, plans.len()) {
        (Some(place), _) => Ok(plans.swap_remove(place)),
        (None, 1) => Ok(plans.swap_remove(0)),
        (None, 0) => Err(CliError::Named(format!(
            "no finding has a plan of which the name, or the finding's name, begins with {}; `suture findings` lists those there are",
            safe(id)
        ))),
        (None, _) => {
            let names: Vec<_> = plans.iter().map(|plan| plan.id.as_str()).collect();
            Err(CliError::Named(format!(
                "{} plans begin with {}; name one of {}",
                names.len(),
                safe(id),
                safe(&names.join(", "))
            )))
        }
    }
}

/// Exactly what is approved.
pub(super) fn shown(status: &PlanStatus) -> String {
    let plan = &status.plan;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "plan {}\n  about {}: {} ({}; {})",
        safe(status.id.as_str()),
        plan.class,
        safe(&plan.subject.to_string()),
        plan.severity,
        safe(&plan.finding.0)
    );
    let _ = writeln!(text, "  what is done:");
    for act in plan.acts.iter().take(ACTS) {
        let _ = writeln!(text, "    - {}", safe(&act.to_string()));
    }
    let more = plan.acts.len().saturating_sub(ACTS);
    if more > 0 {
        let _ = writeln!(
            text,
            "    - and {more} more; `suture explain {}` has the finding",
            safe(&plan.finding.0)
        );
    }
    if let Some(left_out) = &plan.left_out {
        let _ = writeln!(text, "  what is left out: {}", safe(left_out));
    }
    if status.verdict == "restart-and-repair" {
        let _ = writeln!(
            text,
            "  containerd is stopped for it and started again; running containers go on"
        );
    }
    let _ = writeln!(text, "  only if, just before:");
    for condition in &plan.conditions {
        let _ = writeln!(text, "    - {}: {}", condition.name(), meaning(*condition));
    }
    if !plan.remedy.why.is_empty() {
        let _ = writeln!(text, "  why: {}", safe(&plan.remedy.why));
    }
    text
}

/// What a condition asks, for people.
fn meaning(condition: Condition) -> &'static str {
    match condition {
        Condition::StillFound => "everything is read anew, and shows the same finding with the same remedy",
        Condition::PoolWritable => "the pool is the same, takes writes, and needs no check",
        Condition::NotOpen => "nobody has the device open or mounted",
        Condition::Provenance => "it is proven that containerd made the thin device",
        Condition::NoRow => "no snapshot has the record's number",
        Condition::NoRecord => "no record carries the id",
        Condition::ThinThere => "the thin device is in the pool",
        Condition::ThinGone => "the thin device is not in the pool",
        Condition::NobodyAtWork => "nobody is at work on it",
        Condition::DatabasesWhole => "neither database was lost or replaced by an older one",
        Condition::ContainerdStopped => "no containerd runs, and suture has the lock on its pool database",
        Condition::BackedUp => "a backup of each database that is edited is on disk",
        Condition::SameTransaction => "containerd's databases have not moved since they were read",
        Condition::Named => "a person named it on the command line",
    }
}

/// What came of a command, for people.
fn words(effect: &Effect) -> String {
    match effect {
        Effect::Approved { id, finding } => format!(
            "approved: {} about {}; it is carried out once, as soon as nothing else keeps it",
            safe(id.as_str()),
            safe(&finding.0)
        ),
        Effect::Rejected { id, finding } => format!(
            "rejected: {} about {}; it is not carried out, whatever the policy says, until somebody approves it",
            safe(id.as_str()),
            safe(&finding.0)
        ),
        Effect::Paused { until: Some(until) } => {
            format!(
                "paused until {}; `suture resume` ends it sooner",
                date_time(*until)
            )
        }
        Effect::Paused { until: None } => "paused until `suture resume`".to_owned(),
        Effect::Resumed { was_paused, breakers } => {
            let pause = if *was_paused {
                "it goes on"
            } else {
                "it was not paused"
            };
            match breakers {
                0 => pause.to_owned(),
                1 => format!("{pause}; one kind of remedy that was given up is taken up again"),
                several => {
                    format!("{pause}; {several} kinds of remedies that were given up are taken up again")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan_status;

    #[test]
    fn a_plan_is_named_by_itself_or_its_finding_or_the_beginning_of_one_alone() {
        let plans = || {
            vec![
                plan_status("wedge-1", "wedge/tp/1"),
                plan_status("wedge-12", "wedge/tp/12"),
            ]
        };
        for (id, chosen) in [
            ("wedge-1", Some("wedge-1")),
            ("wedge-12", Some("wedge-12")),
            ("wedge/tp/1", Some("wedge-1")),
            ("wedge", None),
        ] {
            let plan = choose(plans(), id);
            assert_eq!(plan.as_ref().ok().map(|plan| plan.id.as_str()), chosen, "{id}");
        }
        let several = choose(plans(), "wedge").unwrap_err().to_string();
        assert!(
            several.contains("2 plans") && several.contains("wedge-1, wedge-12"),
            "{several}"
        );
        assert_eq!(
            choose(vec![plan_status("wedge-1", "w")], "we")
                .unwrap()
                .id
                .as_str(),
            "wedge-1"
        );
        assert!(
            choose(Vec::new(), "we")
                .unwrap_err()
                .to_string()
                .contains("suture findings")
        );
    }

    #[test]
    fn every_act_and_every_condition_of_a_plan_is_shown() {
        let mut status = plan_status("wedge-1", "wedge/tp/1");
        let text = shown(&status);
        for act in &status.plan.acts {
            assert!(text.contains(&act.to_string()), "{text}");
        }
        for condition in &status.plan.conditions {
            assert!(text.contains(meaning(*condition)), "{text}");
        }
        assert!(!text.contains("containerd is stopped"), "{text}");
        status.verdict = "restart-and-repair".to_owned();
        let act = status.plan.acts[0].clone();
        status.plan.acts = vec![act; ACTS + 7];
        let text = shown(&status);
        assert!(
            text.contains("and 7 more") && text.contains("containerd is stopped"),
            "{text}"
        );
    }
}
