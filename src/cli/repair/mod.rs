//! `suture repair`: heals what a check finds. The work is done by a process of its own (`work`), because a thread that hangs
//! in the kernel can not be ended: this one waits for it, at most until the deadline, and says what it was doing.

mod report;
mod watchman;
mod work;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde::Deserialize as _;

use super::{Output, places::PlaceArguments, run::LedgerArgument, seconds};
use crate::{
    config,
    decide::Selection,
    model::{FindingClass, FindingId, RepairMode, ThinId},
    remedy::repair::BACKUPS,
};

/// Nothing was to be done, and nothing worse than a notice is left.
const CLEAN: u8 = 0;
/// Everything was corrected.
const CORRECTED: u8 = 1;
/// Something worse than a notice is left.
const LEFT: u8 = 4;
/// It could not do its work.
const OPERATIONAL: u8 = 8;
/// How long it may take unless told otherwise.
const ONLINE_DEADLINE: Duration = Duration::from_mins(2);
const OFFLINE_DEADLINE: Duration = Duration::from_secs(10);

/// Heal what a check finds, where that is proven safe.
///
/// While containerd runs only the kernel is asked to do anything: dm devices are resumed or removed, thin devices that are
/// proven to be containerd's and abandoned are deleted. With --offline, while containerd is stopped, its pool database is
/// edited too, after a backup. Each condition is read anew just before; one that does not hold stops the repair of that
/// finding and is named.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  nothing was to be done, and nothing worse than a notice is there\n  1  everything was corrected\n  4  something worse than a notice is left\n  8  the work could not be done, or not in time\n  16 a wrong word on the command line\n\nExample:\n  suture repair --plan\n  systemctl stop containerd && suture repair --offline; systemctl start containerd"
)]
pub(super) struct RepairArguments {
    /// Print what would be done, and change nothing.
    #[arg(long, conflicts_with = "undo")]
    plan: bool,
    /// containerd is stopped: edit its pool database where that is needed. Refused while containerd runs.
    #[arg(long)]
    offline: bool,
    /// What may be done by class, instead of /etc/suture/suture.toml.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Look after findings of these classes only.
    #[arg(long, value_name = "CLASS", value_parser = class, num_args = 1..)]
    only: Vec<FindingClass>,
    /// Look after these findings only, also where the policy says to observe them.
    #[arg(long, value_name = "ID", num_args = 1..)]
    finding: Vec<String>,
    /// Delete these thin devices, although nobody can prove that containerd made them.
    #[arg(long, value_name = "ID", value_parser = thin_id, num_args = 1..)]
    delete_thin: Vec<ThinId>,
    /// Take the last offline repair's edit back, while nothing has happened since: that of the newest backup, or of this one.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1,
        conflicts_with_all = ["only", "finding", "delete_thin", "policy"])]
    undo: Option<Vec<PathBuf>>,
    /// How long it may take, in seconds [default: 120, or 10 with --offline].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    deadline: Option<f64>,
    /// How long something must stand still before it counts as left behind, in seconds [default: 10, or 3 with --offline].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    patience: Option<f64>,
    /// Where backups are kept.
    #[arg(long, value_name = "FOLDER", default_value = BACKUPS)]
    backups: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    ledger: LedgerArgument,
    #[command(flatten)]
    places: PlaceArguments,
    /// This is the process that does the work.
    #[arg(long, hide = true)]
    as_worker: bool,
}

pub(super) fn class(text: &str) -> Result<FindingClass, String> {
    let known: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        serde::de::IntoDeserializer::into_deserializer(text);
    FindingClass::deserialize(known).map_err(|_| {
        let names: Vec<_> = FindingClass::ALL.iter().map(|class| class.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn thin_id(text: &str) -> Result<ThinId, String> {
    match text.parse().map(ThinId) {
        Ok(id) if id <= ThinId::MAX => Ok(id),
        _ => Err(format!(
            "expected the id of a thin device, a number up to {}",
            ThinId::MAX
        )),
    }
}

impl RepairArguments {
    fn mode(&self) -> RepairMode {
        if self.offline || self.undo.is_some() {
            RepairMode::Offline
        } else {
            RepairMode::Online
        }
    }

    fn deadline(&self) -> Duration {
        self.deadline.map_or(
            match self.mode() {
                RepairMode::Online => ONLINE_DEADLINE,
                RepairMode::Offline => OFFLINE_DEADLINE,
            },
            Duration::from_secs_f64,
        )
    }

    fn patience(&self) -> Duration {
        let seconds = match self.mode() {
            RepairMode::Online => 10.0,
            RepairMode::Offline => 3.0,
        };
        Duration::from_secs_f64(self.patience.unwrap_or(seconds))
    }

    fn selection(&self) -> Result<Selection, config::ConfigFileError> {
        let config = match &self.policy {
            Some(path) => config::Config::read(path)?,
            None => config::Config::read_default()?,
        };
        Ok(Selection {
            mode: self.mode(),
            policy: config.repair,
            classes: self.only.iter().copied().collect(),
            findings: self.finding.iter().cloned().map(FindingId).collect(),
            delete_thin: self.delete_thin.iter().copied().collect::<BTreeSet<_>>(),
        })
    }
}

/// Runs it; whatever goes wrong has an exit code of its own.
pub(super) fn run(arguments: &RepairArguments) -> ExitCode {
    let code = if arguments.as_worker {
        work::run(arguments)
    } else {
        watchman::run(arguments.deadline())
    };
    ExitCode::from(code)
}
