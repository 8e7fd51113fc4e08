//! The durable history: operations, findings, intents and outcomes, in one SQLite file that only suture writes.
//! A sidecar has it for itself, but for a repair that is made beside it and has a table of its own (`repairs`).
//! An intent is on disk before its effect, an outcome after it (`remedies`); what an earlier suture knew is taken up
//! from here after a restart (`operations`, `findings`). `opening` looks whether the file is whole, `writing` goes on where
//! it can not be written, `retention` bounds it.

mod devices;
mod engine;
mod error;
mod findings;
mod late;
mod observations;
mod opening;
mod operations;
mod plans;
mod remedies;
mod repairs;
mod retention;
mod salvage;
mod schema;
mod seal;
mod set_aside;
#[cfg(test)]
mod tests;
mod watching;
mod writing;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

pub use devices::{DeviceRow, Making};
pub use error::{LedgerError, Trouble};
pub use findings::FindingRow;
pub use observations::{Batch, ObservationRow};
pub use opening::Opened;
pub use operations::OperationRow;
pub use plans::{PlanFilter, PlanRow, PlanState, Said};
pub use remedies::{OpenIntent, RemedyId, RemedyRow};
pub use repairs::{RepairId, RepairRow};
pub use retention::{Pruned, Retention};
use rusqlite::Connection;
pub use salvage::Salvaged;
pub use set_aside::SetAside;
pub use writing::{Health, Recovered};

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    connection: Connection,
    path: PathBuf,
    /// Held as long as the ledger is open for writing: another suture would settle this one's live intents.
    only_writer: Option<File>,
    backlog: writing::Waiting,
    /// Whether it was opened for reading only because it could not be written, and is to be opened again.
    reopen: bool,
}

impl Ledger {
    fn new(connection: Connection, path: &Path, only_writer: Option<File>) -> Self {
        Self {
            connection,
            path: path.to_owned(),
            only_writer,
            backlog: writing::Waiting::default(),
            reopen: false,
        }
    }
}
