//! The work itself, in a process of its own.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::PathBuf,
    time::Instant,
};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::{CLEAN, CORRECTED, LEFT, OPERATIONAL, RepairArguments, report::Report, sight::NodeSight};
use crate::{
    cli::{
        CliError, Output,
        look::{Names, only_meant},
    },
    decide::{self, Selection},
    diagnose::{self, Settled, Settling},
    ledger::{Ledger, LedgerError, PlanFilter, PlanState},
    model::{
        Diagnoses, Diagnosis, FindingId, Knowledge, PlanId, RepairMode, RepairPlan, Severity, Survey,
        survey::Unread,
    },
    observe::{
        pool_db::PoolDbError,
        survey::{SurveyPlaces, lacking, was_denied},
        world::WorldError,
    },
    remedy::{
        KernelHands,
        repair::{Found, OnlyOne, RealSight, Repairer, Results, Settlement, Sight as _, life_of},
    },
    words::explain,
};

/// Does the work; gives the exit code.
pub(super) fn run(arguments: &RepairArguments) -> u8 {
    // Where it is left behind, `ps` is to say what it is; it would be called `exe`, after the file that it was started from.
    let _ = rustix::thread::set_name(c"suture-repair");
    // A repair must not go on unseen when the process that waits for it is killed.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    match work(arguments) {
        Ok(code) => code,
        Err(error) => {
            let told = explain(error.as_ref());
            eprintln!("suture: {told}");
            let lacking = was_denied(error.as_ref()).then(lacking).flatten();
            if let Some(lacking) = lacking.filter(|lacking| !told.contains(lacking)) {
                eprintln!("suture: {lacking}");
            }
            OPERATIONAL
        }
    }
}

type Failure = Box<dyn std::error::Error>;

#[expect(
    clippy::too_many_lines,
    reason = "it is the list of what is done, in its order"
)]
fn work(arguments: &RepairArguments) -> Result<u8, Failure> {
    let started = Instant::now();
    let whole = arguments.deadline();
    // It ends by itself a moment before it would be stopped.
    let until = started + whole.saturating_sub((whole / 10).min(std::time::Duration::from_secs(1)));
    let channel = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from)?;
    let tell = |what: &str| {
        // Nobody listens where it was started by hand.
        drop(writeln!(&channel, "{}", what.replace('\n', " ")));
    };
    tell("reading the policy");
    let selection = arguments.selection()?;
    if let Some(why) = arguments.switched_off()?
        && !arguments.plan
    {
        eprintln!("suture: nothing is changed: {why}");
        return Ok(OPERATIONAL);
    }
    tell("finding containerd's configuration");
    let places = arguments.places.survey_places()?;
    let path = &arguments.ledger.ledger;
    let _only_one = (!arguments.plan)
        .then(|| OnlyOne::take(&places.places, path))
        .transpose()?;

    if arguments.mode() == RepairMode::Offline {
        stopped(&RealSight::new(places.clone()))?;
    }
    tell("opening the ledger");
    // What was never there holds no claims, and is made only where something is to be stored.
    let mut ledger = match (path.exists(), arguments.plan) {
        (false, _) => None,
        // What is wrong with it is told below, where it is read for a look.
        (true, true) => Ledger::open_to_read(path).ok(),
        (true, false) => Some(for_repair(path)?),
    };
    let socket = &arguments.socket.socket;
    let sight = NodeSight::new(&places, path, socket, arguments.asking(), arguments.reserve);
    if let Some(folder) = &arguments.undo {
        let ledger = ledger.get_or_insert(for_repair(path)?);
        let none = Knowledge::default();
        let mut repairer = repairer(&sight, &places, ledger, none, arguments, &tell, until);
        let undone = repairer.undo(folder.first().map(PathBuf::as_path))?;
        super::report::undone(&undone, arguments.output)?;
        return Ok(CORRECTED);
    }
    let mut settled = Vec::new();
    if let Some(ledger) = &mut ledger {
        let none = Knowledge::default();
        let mut repairer = repairer(&sight, &places, ledger, none, arguments, &tell, until);
        settled = repairer.settle(!arguments.plan)?;
    }
    // Most starts of containerd find nothing to repair, and that shows at a glance.
    let glance = match arguments.mode() {
        RepairMode::Offline => glance(&sight, &tell),
        RepairMode::Online => Err(Names::WhenFound),
    };
    let looked = glance.or_else(|names| look(&sight, arguments, names, &tell, until));
    let looked = match looked {
        Err(WorldError::PoolDb(
            error @ (PoolDbError::Missing { .. } | PoolDbError::NotInitialised { .. }),
        )) if arguments.mode() == RepairMode::Offline => {
            eprintln!("suture: nothing to repair: {error}");
            return Ok(CLEAN);
        }
        other => other?,
    };
    let approved = approved(ledger.as_ref());
    let selection = Selection {
        findings: named(&arguments.finding, &looked)?,
        approved: decide::still_approved(&looked.diagnoses, arguments.mode(), &approved),
        ..selection
    };
    let plans = decide::plan(&looked.diagnoses, &selection);
    let not_found = selection.not_found(&looked.diagnoses);
    let mut gaps = Gaps::default();
    gaps.add(&looked.survey, &looked.diagnoses);
    let mut results = Results::default();
    let acts = plans.iter().any(|plan| !plan.acts.is_empty());
    let mut left: Vec<Diagnosis> = looked.diagnoses.found.clone();
    if acts && !arguments.plan {
        let ledger = match &mut ledger {
            Some(ledger) => ledger,
            none => none.insert(for_repair(path)?),
        };
        let knowledge = looked.knowledge.clone();
        let mut repairer = repairer(&sight, &places, ledger, knowledge, arguments, &tell, until);
        results = match arguments.mode() {
            RepairMode::Online => repairer.online(plans, life_of(&looked.survey).as_ref())?,
            RepairMode::Offline => repairer.offline(
                plans,
                &Found {
                    survey: &looked.survey,
                    knowledge: &looked.knowledge,
                    diagnoses: &looked.diagnoses,
                },
            )?,
        };
        tell("looking at what is left");
        let knowledge = repairer.knowledge;
        // The repair's own last look is as good as a new one.
        let after = results.after.take().map(|survey| (survey, knowledge));
        left = still_there(&sight, &looked.diagnoses, arguments.mode(), after, &mut gaps)?;
    } else {
        results.plans = plans.into_iter().map(planned).collect();
    }
    let code = exit_code(&results, &left, &gaps, &not_found, arguments.plan);
    let report = Report {
        mode: arguments.mode(),
        planned_only: arguments.plan,
        pool: &looked.survey.pool_name,
        settled: &settled,
        results: &results,
        left: &left,
        in_flight: &looked.in_flight,
        not_found: &not_found,
        explanations: &looked.diagnoses.explanations,
        gaps: &gaps,
        took: started.elapsed(),
        code,
    };
    print(&report, arguments.output)?;
    // The process ends now: what it holds need not be given back piece by piece.
    std::mem::forget(looked);
    Ok(code)
}

/// The findings that were named, by whatever is enough to name one. What names none stays as it is, to be told of.
fn named(names: &[String], looked: &Looked) -> Result<BTreeSet<FindingId>, CliError> {
    let found = looked.diagnoses.found.iter().chain(&looked.in_flight);
    let ids: Vec<&str> = found.map(|one| one.finding.id.0.as_str()).collect();
    names
        .iter()
        .map(|name| {
            let id = only_meant(&ids, name)?;
            Ok(FindingId(id.unwrap_or(name).to_owned()))
        })
        .collect()
}

fn repairer<'a>(
    sight: &'a NodeSight<'_>,
    places: &'a SurveyPlaces,
    ledger: &'a mut Ledger,
    knowledge: Knowledge,
    arguments: &'a RepairArguments,
    tell: &'a dyn Fn(&str),
    until: Instant,
) -> Repairer<'a> {
    Repairer {
        sight,
        hands: &KernelHands,
        places: &places.places,
        ledger,
        knowledge,
        backups: &arguments.backups,
        tell,
        until: Some(until),
    }
}

/// Plans that a person told the running sidecar to carry out, and that only a repair like this one can.
fn approved(ledger: Option<&Ledger>) -> BTreeSet<PlanId> {
    let plans = match ledger.map(|ledger| ledger.plans(&PlanFilter::Live)) {
        None => Vec::new(),
        Some(Ok(plans)) => plans,
        Some(Err(error)) => {
            eprintln!("suture: without what was approved: {}", explain(&error));
            Vec::new()
        }
    };
    let approved = plans.iter().filter(|row| row.state == PlanState::Approved);
    approved.map(|row| PlanId::typed(&row.id)).collect()
}

fn planned(plan: RepairPlan) -> crate::remedy::repair::PlanResult {
    crate::remedy::repair::PlanResult {
        plan,
        readings: Vec::new(),
        outcome: None,
    }
}

/// The ledger to write to. A damaged one must not keep a node from being repaired before containerd starts.
fn for_repair(path: &std::path::Path) -> Result<Ledger, LedgerError> {
    let opened = Ledger::open_beside_or_begin_anew(path)?;
    if let Some(set_aside) = opened.set_aside {
        eprintln!("suture: {set_aside}");
    }
    Ok(opened.ledger)
}

fn stopped(sight: &RealSight) -> Result<(), Failure> {
    use crate::remedy::repair::RepairError;
    match sight.holder() {
        Ok(None) => Ok(()),
        Ok(Some(who)) => Err(RepairError::ContainerdRuns { who }.into()),
        Err(why) => Err(RepairError::Unproven(why).into()),
    }
}

/// What was found.
struct Looked {
    survey: Survey,
    knowledge: Knowledge,
    diagnoses: Diagnoses,
    in_flight: Vec<Diagnosis>,
}

/// What a glance sees, where that is nothing: neither a finding nor what could not be read or understood. Whatever else there is,
/// errors too, is told by a look, with the names read when this says.
fn glance(sight: &NodeSight<'_>, tell: &dyn Fn(&str)) -> Result<Looked, Names> {
    tell("looking whether there is anything to repair");
    let seen = sight.outline().ok().flatten();
    let (outline, knowledge) = seen.ok_or(Names::WhenFound)?;
    let nothing = diagnose::glance(&outline, &knowledge);
    let survey = nothing.filter(|survey| !survey.unread.iter().any(|one| one.matters));
    // Something will be told of. Beside all else the names take less time than after it.
    let survey = survey.ok_or(Names::Always)?;
    Ok(Looked {
        survey,
        knowledge,
        diagnoses: Diagnoses::default(),
        in_flight: Vec::new(),
    })
}

/// Looks until everything that may be in flight has stood still. Offline it is enough that nothing is at work any more, and
/// what still is keeps no record from being marked faulty.
fn look(
    sight: &NodeSight<'_>,
    arguments: &RepairArguments,
    mut names: Names,
    tell: &dyn Fn(&str),
    until: Instant,
) -> Result<Looked, WorldError> {
    let mut settling = Settling::new(arguments.patience());
    loop {
        tell("reading containerd's databases, the pool and the dm devices");
        let (mut survey, knowledge) = sight.look(names)?;
        let now = sight.now();
        let mut settled = settling.look(&survey, &knowledge, now);
        let is_last = match &settled {
            Settled::LookAgain { after } => Instant::now() + *after >= until,
            Settled::Done(..) => settled.tells_of_users(),
        };
        if names == Names::WhenFound && is_last {
            tell("reading who uses what was found");
            if !sight.add_names(&mut survey)? {
                // From here on they are read with the rest, so that containerd can not be in between for ever.
                names = Names::Always;
                continue;
            }
            settled = settling.look(&survey, &knowledge, now);
        }
        let (diagnoses, in_flight) = match settled {
            // Offline what is in flight counts too.
            Settled::Done(_, in_flight)
                if arguments.mode() == RepairMode::Offline && !in_flight.is_empty() =>
            {
                (diagnose::survey(&survey, &knowledge), Vec::new())
            }
            Settled::Done(diagnoses, in_flight) => (diagnoses, in_flight),
            Settled::LookAgain { .. } if is_last => {
                let mut all = diagnose::survey(&survey, &knowledge);
                let (in_flight, rest) = all.found.into_iter().partition(|one| one.may_be_in_flight);
                all.found = rest;
                (all, in_flight)
            }
            Settled::LookAgain { after } => {
                tell("waiting for what may be in flight");
                std::thread::sleep(after);
                continue;
            }
        };
        return Ok(Looked {
            survey,
            knowledge,
            diagnoses,
            in_flight,
        });
    }
}

/// What a new look finds of what was found, and offline of everything; the repair's own last look is as good.
fn still_there(
    sight: &NodeSight<'_>,
    before: &Diagnoses,
    mode: RepairMode,
    after: Option<(Survey, Knowledge)>,
    gaps: &mut Gaps,
) -> Result<Vec<Diagnosis>, WorldError> {
    let (survey, knowledge) = after.map_or_else(|| sight.look(Names::Always), Ok)?;
    let now = diagnose::survey(&survey, &knowledge);
    gaps.add(&survey, &now);
    let known: BTreeSet<_> = before.found.iter().map(|one| &one.finding.id).collect();
    // Beside a running containerd something new may be in flight.
    let counts = |one: &Diagnosis| {
        mode == RepairMode::Offline || !one.may_be_in_flight || known.contains(&one.finding.id)
    };
    Ok(now.found.into_iter().filter(counts).collect())
}

/// What could not be read or understood, in any of the looks.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pub(super) unread: Vec<Unread>,
    pub(super) not_understood: Vec<String>,
}

impl Gaps {
    fn add(&mut self, survey: &Survey, diagnoses: &Diagnoses) {
        for one in &survey.unread {
            if !self.unread.contains(one) {
                self.unread.push(one.clone());
            }
        }
        for one in &diagnoses.not_understood {
            if !self.not_understood.contains(one) {
                self.not_understood.push(one.clone());
            }
        }
    }

    /// Whether findings may be missing.
    fn matter(&self) -> bool {
        !self.not_understood.is_empty() || self.unread.iter().any(|one| one.matters)
    }
}

fn exit_code(
    results: &Results,
    left: &[Diagnosis],
    gaps: &Gaps,
    not_found: &[String],
    planned_only: bool,
) -> u8 {
    let done = results.plans.iter().any(|result| {
        result
            .outcome
            .as_ref()
            .is_some_and(|outcome| outcome.is_done() || outcome.is_partial())
    });
    if left.iter().any(|one| one.severity < Severity::Notice) {
        LEFT
    } else if !not_found.is_empty() || gaps.matter() {
        OPERATIONAL
    } else if done && !planned_only {
        CORRECTED
    } else {
        CLEAN
    }
}

fn print(report: &Report<'_>, output: Output) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let text = match output {
        Output::Json => serde_json::to_string(&report.json())? + "\n",
        Output::Text => report.text(),
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// For the report.
pub(super) type Settlements = [Settlement];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::{look_with_everything, quiet_look};

    fn of(look: crate::cli::look::Look) -> Looked {
        Looked {
            survey: look.survey,
            knowledge: look.knowledge,
            diagnoses: look.diagnoses,
            in_flight: look.in_flight,
        }
    }

    fn code(looked: &Looked, left: &[Diagnosis]) -> u8 {
        let mut gaps = Gaps::default();
        gaps.add(&looked.survey, &looked.diagnoses);
        exit_code(&Results::default(), left, &gaps, &[], false)
    }

    #[test]
    fn what_could_not_be_read_or_understood_is_no_clean_node() {
        let mut looked = of(quiet_look());
        assert_eq!(code(&looked, &[]), CLEAN);
        looked.diagnoses.not_understood.push("a state of 99".to_owned());
        assert_eq!(code(&looked, &[]), OPERATIONAL);
        looked.diagnoses.not_understood.clear();
        let unread = |matters| Unread {
            what: "the pool's metadata".to_owned(),
            why: "it is busy".to_owned(),
            matters,
        };
        looked.survey.unread = vec![unread(false)];
        assert_eq!(code(&looked, &[]), CLEAN);
        looked.survey.unread.push(unread(true));
        assert_eq!(code(&looked, &[]), OPERATIONAL);
        // What is known to be left says more.
        let found = of(look_with_everything()).diagnoses.found;
        assert_eq!(code(&looked, &found), LEFT);
    }

    #[test]
    fn what_both_looks_lack_is_told_once() {
        let mut looked = of(quiet_look());
        looked.diagnoses.not_understood.push("a state of 99".to_owned());
        let mut gaps = Gaps::default();
        gaps.add(&looked.survey, &looked.diagnoses);
        gaps.add(&looked.survey, &looked.diagnoses);
        assert_eq!(gaps.not_understood, ["a state of 99"]);
    }

    #[test]
    fn a_finding_is_named_as_explain_takes_it() {
        let looked = of(look_with_everything());
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            named(&names, &looked)
        };
        let whole = BTreeSet::from([FindingId("wedge/tp/7".to_owned())]);
        for name in ["wedge", "wed", "wedge/tp/7"] {
            assert_eq!(names(&[name]).unwrap(), whole);
        }
        // What names nothing stays, and is told of; what names several is nobody's to choose.
        assert_eq!(names(&["nothing"]).unwrap().len(), 1);
        assert!(names(&["wedge", "pool-"]).is_err());
    }
}
