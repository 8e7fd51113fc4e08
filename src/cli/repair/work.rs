//! The work itself, in a process of its own.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::PathBuf,
    time::{Instant, SystemTime},
};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::{CLEAN, CORRECTED, LEFT, OPERATIONAL, RepairArguments, report::Report};
use crate::{
    cli::Output,
    decide,
    diagnose::{self, Settled, Settling},
    ledger::{Ledger, LedgerError},
    model::{Diagnoses, Diagnosis, Knowledge, RepairMode, RepairPlan, Severity, Survey, Timestamp},
    observe::{pool_db::PoolDbError, survey::SurveyPlaces, world::WorldError},
    remedy::{
        KernelHands,
        repair::{OnlyOne, RealSight, Repairer, Results, Settlement, Sight as _},
    },
    words::explain,
};

/// Does the work; gives the exit code.
pub(super) fn run(arguments: &RepairArguments) -> u8 {
    // A repair must not go on unseen when the process that waits for it is killed.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    match work(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("suture: {}", explain(error.as_ref()));
            OPERATIONAL
        }
    }
}

type Failure = Box<dyn std::error::Error>;

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
    tell("finding containerd's configuration");
    let places = arguments.places.survey_places()?;
    let sight = RealSight(places.clone());
    let path = &arguments.ledger.ledger;
    let _only_one = (!arguments.plan).then(|| OnlyOne::take(path)).transpose()?;

    tell("opening the ledger");
    if arguments.mode() == RepairMode::Offline {
        stopped(&sight)?;
    }
    // What was never there holds no claims, and is made only where something is to be stored.
    let mut ledger = match (path.exists(), arguments.plan) {
        (false, _) => None,
        (true, true) => readable(path),
        (true, false) => Some(for_repair(path)?),
    };
    if let Some(folder) = &arguments.undo {
        let ledger = ledger.get_or_insert(for_repair(path)?);
        let mut repairer = repairer(
            &sight,
            &places,
            ledger,
            Knowledge::default(),
            arguments,
            &tell,
            until,
        );
        let undone = repairer.undo(folder.first().map(PathBuf::as_path))?;
        super::report::undone(&undone, arguments.output)?;
        return Ok(CORRECTED);
    }
    let mut settled = Vec::new();
    let mut knowledge = Knowledge::default();
    if let Some(ledger) = &mut ledger {
        let pool = &places.places.pool;
        knowledge.claims = ledger.abandoned(pool)?.into_iter().collect();
        let known = std::mem::take(&mut knowledge);
        let mut repairer = repairer(&sight, &places, ledger, known, arguments, &tell, until);
        settled = repairer.settle(!arguments.plan)?;
        knowledge = repairer.knowledge;
    }
    let looked = look(&sight, arguments, &knowledge, &tell, until);
    let (found, diagnoses, in_flight) = match looked {
        Err(WorldError::PoolDb(
            error @ (PoolDbError::Missing { .. } | PoolDbError::NotInitialised { .. }),
        )) if arguments.mode() == RepairMode::Offline => {
            eprintln!("suture: nothing to repair: {error}");
            return Ok(CLEAN);
        }
        other => other?,
    };
    let plans = decide::plan(&diagnoses, &selection);
    let not_found = selection.not_found(&diagnoses);
    let mut results = Results::default();
    let acts = plans.iter().any(|plan| !plan.acts.is_empty());
    let mut left: Vec<Diagnosis> = diagnoses.found.clone();
    if acts && !arguments.plan {
        let ledger = match &mut ledger {
            Some(ledger) => ledger,
            none => none.insert(for_repair(path)?),
        };
        let mut repairer = repairer(&sight, &places, ledger, knowledge, arguments, &tell, until);
        results = match arguments.mode() {
            RepairMode::Online => repairer.online(plans, &found)?,
            RepairMode::Offline => repairer.offline(plans, &found)?,
        };
        let knowledge = repairer.knowledge;
        tell("looking at what is left");
        left = still_there(&sight, &knowledge, &diagnoses, arguments.mode())?;
    } else {
        results.plans = plans.into_iter().map(planned).collect();
    }
    let code = exit_code(&results, &left, &found, &not_found, arguments.plan);
    let report = Report {
        mode: arguments.mode(),
        planned_only: arguments.plan,
        found: &found,
        settled: &settled,
        results: &results,
        left: &left,
        in_flight: &in_flight,
        not_found: &not_found,
        explanations: &diagnoses.explanations,
        took: started.elapsed(),
        code,
    };
    print(&report, arguments.output)?;
    Ok(code)
}

fn repairer<'a>(
    sight: &'a RealSight,
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

/// The ledger for a look at it; without one that can be read a plan knows less.
fn readable(path: &std::path::Path) -> Option<Ledger> {
    match Ledger::open_to_read(path) {
        Ok(ledger) => Some(ledger),
        Err(error) => {
            eprintln!("suture: planning without the ledger: {}", explain(&error));
            None
        }
    }
}

fn stopped(sight: &RealSight) -> Result<(), Failure> {
    use crate::remedy::repair::RepairError;
    match sight.holder() {
        Ok(None) => Ok(()),
        Ok(Some(who)) => Err(RepairError::ContainerdRuns { who }.into()),
        Err(why) => Err(RepairError::Unproven(why).into()),
    }
}

/// Looks until everything that may be in flight has stood still. Offline it is enough that nothing is at work any more, and
/// what still is keeps no record from being marked faulty.
fn look(
    sight: &RealSight,
    arguments: &RepairArguments,
    knowledge: &Knowledge,
    tell: &dyn Fn(&str),
    until: Instant,
) -> Result<(Survey, Diagnoses, Vec<Diagnosis>), WorldError> {
    let roots: BTreeSet<_> = knowledge.claims.keys().copied().collect();
    let mut settling = Settling::new(arguments.patience());
    loop {
        tell("reading containerd's databases, the pool and the dm devices");
        let survey = sight.survey(&roots)?;
        let now: Timestamp = SystemTime::now().into();
        match settling.look(&survey, knowledge, now) {
            Settled::Done(..) if arguments.mode() == RepairMode::Offline => {
                let all = diagnose::survey(&survey, knowledge);
                return Ok((survey, all, Vec::new()));
            }
            Settled::Done(diagnoses, in_flight) => return Ok((survey, diagnoses, in_flight)),
            Settled::LookAgain { after } if Instant::now() + after >= until => {
                let mut all = diagnose::survey(&survey, knowledge);
                let (in_flight, rest) = all.found.into_iter().partition(|one| one.may_be_in_flight);
                all.found = rest;
                return Ok((survey, all, in_flight));
            }
            Settled::LookAgain { after } => {
                tell("waiting for what may be in flight");
                std::thread::sleep(after);
            }
        }
    }
}

/// What a new look finds of what was found, and offline of everything.
fn still_there(
    sight: &RealSight,
    knowledge: &Knowledge,
    before: &Diagnoses,
    mode: RepairMode,
) -> Result<Vec<Diagnosis>, WorldError> {
    let roots: BTreeSet<_> = knowledge.claims.keys().copied().collect();
    let survey = sight.survey(&roots)?;
    let known: BTreeSet<_> = before.found.iter().map(|one| &one.finding.id).collect();
    let now = diagnose::survey(&survey, knowledge).found.into_iter();
    // Beside a running containerd something new may be in flight.
    let counts = |one: &Diagnosis| {
        mode == RepairMode::Offline || !one.may_be_in_flight || known.contains(&one.finding.id)
    };
    Ok(now.filter(counts).collect())
}

fn exit_code(
    results: &Results,
    left: &[Diagnosis],
    found: &Survey,
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
    } else if !not_found.is_empty() || found.unread.iter().any(|unread| unread.matters) {
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
