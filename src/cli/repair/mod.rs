//! `suture repair`: heals what a check finds. The work is done by a process of its own (`work`), because a thread that hangs
//! in the kernel can not be ended: this one waits for it, at most until the deadline, and says what it was doing.

mod report;
mod sight;
mod watchman;
mod work;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde::Deserialize as _;

use super::{
    Output,
    exit::{CLEAN, CORRECTED, LEFT, OPERATIONAL},
    places::PlaceArguments,
    run::LedgerArgument,
    seconds,
    status::SocketArgument,
};
use crate::{
    config, control,
    decide::Selection,
    model::{FindingClass, FindingId, RepairMode, ThinId},
    observe::thin_metadata::Reserve,
    remedy::repair::BACKUPS,
};

/// How long it may take unless told otherwise.
const ONLINE_DEADLINE: Duration = Duration::from_mins(2);
const OFFLINE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a running sidecar is waited for offline.
const OFFLINE_ASKING: Duration = Duration::from_millis(500);

/// Heal what a check finds, where that is proven safe.
///
/// While containerd runs only the kernel is asked to do anything: dm devices are resumed or removed, thin devices that are
/// proven to be containerd's and abandoned are deleted. With --offline, while containerd is stopped, its pool database is
/// edited too, after a backup. Each condition is read anew just before; one that does not hold stops the repair of that
/// finding and is named.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  nothing was to be done, and nothing worse than a notice is there\n  1  everything was corrected\n  4  something worse than a notice is left; also a thin device that stays on purpose,\n     because nobody can prove that containerd made it\n  8  the work could not be done, not in time, or not all could be read or understood\n  16 a wrong word on the command line\n\nExample:\n  suture repair --plan\n  systemctl stop containerd && suture repair --offline; systemctl start containerd"
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
    /// Look after these findings only, also where the policy says to observe them: each by its id, by a beginning of it that
    /// no other has, or by its class where it is the only one.
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
    #[command(flatten)]
    socket: SocketArgument,
    /// Whether a snapshot of the pool's metadata is reserved for a moment, to read them from: never, if-busy (where the pool
    /// commits too often to be read as it is) or always.
    #[arg(long, default_value_t, value_name = "WHEN")]
    reserve: Reserve,
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

    /// How long a running sidecar is waited for. What comes before containerd's start is short of time.
    fn asking(&self) -> Duration {
        match self.mode() {
            RepairMode::Online => control::PATIENCE,
            RepairMode::Offline => OFFLINE_ASKING,
        }
    }

    fn config(&self) -> Result<config::Config, config::ConfigFileError> {
        match &self.policy {
            Some(path) => config::Config::read(path),
            None => config::Config::read_default(),
        }
    }

    /// The kill switch, where it is there: it holds for whoever would change something.
    fn switched_off(&self) -> Result<Option<String>, config::ConfigFileError> {
        Ok(config::kill_switch(&self.config()?.policy.kill_switch))
    }

    /// What it is to look after; findings as they were named.
    fn selection(&self) -> Result<Selection, config::ConfigFileError> {
        let config = self.config()?;
        Ok(Selection {
            approved: BTreeSet::new(),
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
