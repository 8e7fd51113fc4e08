//! The durable history: operations, findings, intents and outcomes, in one SQLite file that only suture writes.
//! A sidecar has it for itself, but for a repair that is made beside it and has a table of its own (`repairs`).
//! An intent is on disk before its effect, an outcome after it (`remedies`); what an earlier suture knew is taken up
//! from here after a restart (`operations`, `findings`).

mod error;
mod findings;
mod operations;
mod remedies;
mod repairs;
mod schema;
#[cfg(test)]
mod tests;
mod watching;

use std::{fs::File, path::Path, time::Duration};

pub use error::LedgerError;
pub use findings::FindingRow;
pub use operations::OperationRow;
pub use remedies::{OpenIntent, RemedyId, RemedyRow};
pub use repairs::{RepairId, RepairRow};
use rusqlite::{Connection, OpenFlags, Row};

use crate::{
    files::{NotLocked, beside, lock, make_private, private_folder, tighten},
    model::FindingId,
};

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    connection: Connection,
    /// Held as long as the ledger is open for writing: another suture would settle this one's live intents.
    _only_writer: Option<File>,
}

impl Ledger {
    /// Opens the ledger for writing, creating it and its folder where they are missing, for their owner alone.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        make_folder(path)?;
        let only_writer = only_writer(path)?;
        Self::open_to_write(path, Some(only_writer))
    }

    /// Opens the ledger for a repair, which may be made while a sidecar writes to it: SQLite lets one wait for the other,
    /// at most for two seconds. Creates it where it is missing.
    pub fn open_beside(path: &Path) -> Result<Self, LedgerError> {
        make_folder(path)?;
        Self::open_to_write(path, None)
    }

    fn open_to_write(path: &Path, only_writer: Option<File>) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Open {
            path: path.to_owned(),
            source,
        };
        make_file(path)?;
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
        // FULL: a commit is on disk when it returns, also through a power cut. An intent must be.
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(failed)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(failed)?;
        let mut ledger = Self {
            connection,
            _only_writer: only_writer,
        };
        schema::migrate(&mut ledger.connection, path)?;
        Ok(ledger)
    }

    /// Opens an existing ledger to read it, beside a running suture.
    pub fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Open {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            return Err(LedgerError::Missing {
                path: path.to_owned(),
            });
        }
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
        schema::expect_current(&connection, path)?;
        Ok(Self {
            connection,
            _only_writer: None,
        })
    }
}

impl Ledger {
    /// Runs a query, with the finding where it asks for one's, and makes a value of each row.
    fn rows<C, T>(
        &self,
        what: &'static str,
        query: &str,
        finding: Option<&FindingId>,
        decode: impl Fn(C) -> Result<T, serde_json::Error>,
    ) -> Result<Vec<T>, LedgerError>
    where
        C: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error>,
    {
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(what))?;
        let finding = finding.map(|finding| &finding.0);
        let rows = sql
            .query_map(rusqlite::params_from_iter(finding), |row| C::try_from(row))
            .map_err(LedgerError::sql(what))?;
        rows.map(|row| decode(row.map_err(LedgerError::sql(what))?).map_err(LedgerError::value(what)))
            .collect()
    }
}

fn make_folder(path: &Path) -> Result<(), LedgerError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    private_folder(folder).map_err(|source| LedgerError::Folder {
        path: folder.to_owned(),
        source,
    })
}

/// The file is there before SQLite opens it, for its owner alone: it names pods. The files that SQLite makes beside it are
/// as open as it is then.
fn make_file(path: &Path) -> Result<(), LedgerError> {
    make_private(path)
        .and_then(|()| tighten(&beside(path, "-wal")))
        .and_then(|()| tighten(&beside(path, "-shm")))
        .map_err(|source| LedgerError::Folder {
            path: path.to_owned(),
            source,
        })
}

/// Takes the lock beside the ledger, or says that another suture has it.
fn only_writer(ledger: &Path) -> Result<File, LedgerError> {
    let path = beside(ledger, ".lock");
    lock(&path).map_err(|why| match why {
        NotLocked::Held => LedgerError::InUse {
            path: ledger.to_owned(),
        },
        NotLocked::Failed(source) => LedgerError::Folder { path, source },
    })
}
