//! One look at the snapshotter, shared by `check`, `inspect` and `explain`: surveys are read until what may be in flight has
//! either ended or stood still.

mod knowledge;
mod names;
mod places;

use std::{
    collections::BTreeSet,
    fs,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;

pub(super) use knowledge::{Sources, readable_ledger};
pub(super) use names::{class_named, list, only_meant};
use places::{ledger_word, told_by_running};
pub(super) use places::{quoted, spelled};

use super::{
    CliError,
    exit::{LEFT, OPERATIONAL},
    places::SurveyArguments,
    run::LedgerArgument,
    seconds,
    status::SocketArgument,
};
use crate::{
    control,
    diagnose::{Settled, Settling},
    model::{Diagnoses, Diagnosis, Knowledge, Severity, Survey, ThinId, survey::Unread},
    observe::{
        survey::{SurveyPlaces, Surveys},
        thin_metadata::{Reserve, Reserving},
        world::WorldError,
    },
    remedy::{ReservedSnapshots, repair::claims_left},
    words::explain,
};

/// Errors after which the state of things is read once more: containerd was in the middle of something.
const TRIES: u32 = 3;

/// What is looked at, and for how long.
#[derive(Debug, Args)]
pub(super) struct LookArguments {
    /// How long something that may be in flight must have stood still before it counts as left behind, in seconds. Without
    /// such a thing, or with containerd stopped, there is no wait.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    patience: f64,
    #[command(flatten)]
    pub(super) survey: SurveyArguments,
    #[command(flatten)]
    pub(super) ledger: LedgerArgument,
    #[command(flatten)]
    socket: SocketArgument,
    /// Whether a snapshot of the pool's metadata is reserved for a moment, to read them from: never, if-busy (where the pool
    /// commits too often to be read as it is) or always.
    #[arg(long, default_value_t, value_name = "WHEN")]
    reserve: Reserve,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Look {
    /// The last survey, which the diagnoses are of.
    pub(super) survey: Survey,
    /// What stands.
    pub(super) diagnoses: Diagnoses,
    /// What an operation in flight may be the cause of.
    pub(super) in_flight: Vec<Diagnosis>,
    /// What the ledger and a running sidecar knew.
    pub(super) knowledge: Knowledge,
    /// How long the last survey and its diagnosis took.
    pub(super) took: Duration,
    /// Where it was looked.
    pub(super) at: SurveyPlaces,
    /// The words of the command line that say where to look, for the next command.
    pub(super) places: String,
    /// The same for `suture repair`, which reads the pool itself and not a copy of its metadata.
    pub(super) repair_places: String,
    /// The same where containerd is stopped first.
    pub(super) offline_places: String,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Nothing worse than a notice is there.
    Clean,
    /// Something is.
    Findings,
    /// Nothing was found, and not everything that matters could be read.
    Incomplete,
}

impl Verdict {
    /// The exit code of fsck(8).
    pub(super) fn code(self) -> ExitCode {
        match self {
            Self::Clean => ExitCode::SUCCESS,
            Self::Findings => LEFT.into(),
            Self::Incomplete => OPERATIONAL.into(),
        }
    }
}

impl Look {
    pub(super) fn verdict(&self) -> Verdict {
        let mut found = self.diagnoses.found.iter();
        if found.any(|one| one.severity < Severity::Notice) {
            return Verdict::Findings;
        }
        let unread = self.survey.unread.iter().any(|one| one.matters);
        if unread || !self.diagnoses.not_understood.is_empty() {
            Verdict::Incomplete
        } else {
            Verdict::Clean
        }
    }

    /// The findings that are no more than notices come last, and apart.
    pub(super) fn serious(&self) -> impl Iterator<Item = &Diagnosis> {
        let found = self.diagnoses.found.iter();
        found.filter(|one| one.severity < Severity::Notice)
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = &Diagnosis> {
        let found = self.diagnoses.found.iter();
        found.filter(|one| one.severity == Severity::Notice)
    }
}

/// When the names of users are read, which is half of all the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// With the rest.
    Always,
    /// Once there is something of which they would be told.
    WhenFound,
}

/// Looks until everything is settled.
pub(super) fn look(arguments: &LookArguments, mut names: Names) -> Result<Look, CliError> {
    let places = arguments.survey.survey_places()?;
    let pool = &places.places.pool;
    let mut sources = Sources::new(
        &arguments.ledger.ledger,
        &arguments.socket.socket,
        control::PATIENCE,
    );
    let mut settling = Settling::new(Duration::from_secs_f64(arguments.patience));
    let hand = ReservedSnapshots::default();
    let surveys = Surveys::new(places.clone());
    loop {
        let begun = Instant::now();
        // What is known of is asked for first: the survey is to be no older than it.
        let mut knowledge = sources.read(pool);
        let left_open = sources.left_open(pool);
        let mut roots: BTreeSet<ThinId> = knowledge.claims.keys().copied().collect();
        roots.extend(left_open.iter().flat_map(|row| row.intent.deletes()));
        let reserving = Some(arguments.reserving(&hand));
        let mut survey = patiently(|| match names {
            Names::Always => surveys.read(&roots, reserving),
            Names::WhenFound => surveys.read_without_names(&roots, reserving),
        })?;
        // As the next repair will see it: what a killed one can still prove is no stranger's.
        knowledge.claims.extend(claims_left(&left_open, &survey));
        say_what_is_missing(&mut survey, &places);
        let now = SystemTime::now().into();
        let mut settled = settling.look(&survey, &knowledge, now);
        if names == Names::WhenFound && settled.tells_of_users() {
            if !surveys.add_names(&mut survey)? {
                // From here on they are read with the rest, so that containerd can not be in between for ever.
                names = Names::Always;
                continue;
            }
            settled = settling.look(&survey, &knowledge, now);
        }
        match settled {
            Settled::LookAgain { after } => sleep(after),
            Settled::Done(diagnoses, in_flight) => {
                let repair_places = format!(
                    "{}{}",
                    spelled(&arguments.survey, false),
                    ledger_word(&arguments.ledger.ledger)
                );
                return Ok(Look {
                    survey,
                    diagnoses,
                    in_flight,
                    knowledge,
                    took: begun.elapsed(),
                    places: spelled(&arguments.survey, true),
                    offline_places: format!(
                        "{}{repair_places}",
                        told_by_running(&arguments.survey, &places.places)
                    ),
                    repair_places,
                    at: places,
                });
            }
        }
    }
}

/// Reads once more where containerd was in the middle of something, a few times.
pub(super) fn patiently(mut read: impl FnMut() -> Result<Survey, WorldError>) -> Result<Survey, WorldError> {
    let mut tries = 0;
    loop {
        match read() {
            Err(WorldError::Busy) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

impl LookArguments {
    /// When the metadata are read from a reserved snapshot, and by what hand.
    pub(super) fn reserving<'h>(&self, hand: &'h ReservedSnapshots) -> Reserving<'h> {
        Reserving {
            when: self.reserve,
            hand,
        }
    }
}

/// What a survey says elsewhere, and what does not matter after all.
fn say_what_is_missing(survey: &mut Survey, places: &SurveyPlaces) {
    if let Some(why) = &survey.mounts.incomplete {
        survey.unread.push(Unread {
            what: "mounts of some processes".to_owned(),
            why: why.clone(),
            matters: false,
        });
    }
    // A kernel without device-mapper has no dm devices that could be missed: with the metadata in a file, the check is
    // whole.
    if places.metadata_device.is_some() && survey.thin.is_some() && !has_device_mapper() {
        for one in survey.unread.iter_mut().filter(|one| one.what == "device-mapper") {
            one.matters = false;
        }
    }
}

/// Whether the kernel has device-mapper; what can not be told counts as yes.
fn has_device_mapper() -> bool {
    fs::read_to_string("/proc/misc").map_or(true, |misc| misc.contains("device-mapper"))
}

/// How a command ends: whatever keeps it from its work is told, and ends it with the code of fsck(8) for that.
pub(super) fn ended(result: Result<ExitCode, CliError>) -> ExitCode {
    match result {
        Ok(code) => code,
        // The reader went away (`suture check | head -1`): nobody is left to tell.
        Err(CliError::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suture: {}", explain(&error));
            OPERATIONAL.into()
        }
    }
}
