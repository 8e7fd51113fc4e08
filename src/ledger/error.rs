//! What can go wrong with the ledger.

use std::{fmt, io, path::PathBuf};

use rusqlite::ErrorCode;

use crate::model::Timestamp;

/// Why the ledger can not be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Its folder can not be made, or not be written to.
    #[error("making {path} for the ledger; name another place with --ledger")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can not be opened.
    #[error("opening the ledger {path}; is its folder writable and the file a suture ledger?")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Another suture has it.
    #[error(
        "another suture writes to the ledger {path}; one is enough on a node, a second one needs another --ledger"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A running suture of an older version has it.
    #[error(
        "the ledger {path} is an older suture's, which is running; restart that as this version, then try again"
    )]
    OlderInUse {
        /// The file.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no ledger at {path}: suture has not run here yet, or keeps it elsewhere (--ledger)")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A newer suture wrote it.
    #[error(
        "the ledger {path} has version {found}, and this suture knows {known}; use the suture that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A statement failed.
    #[error("{what} in the ledger")]
    Sql {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// A stored value is not what suture writes.
    #[error("{what} in the ledger: a stored value can not be understood")]
    Value {
        /// What was being done.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The file is damaged.
    #[error(
        "the ledger is damaged: {why}; start suture (`suture run`) anew, and it sets the file aside and begins a new one"
    )]
    Damaged {
        /// What was found.
        why: String,
    },
    /// It was to be set aside, and that did not work.
    #[error("setting aside the damaged ledger {path}; move it away, or name another place with --ledger")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can not be set aside at this moment.
    #[error(
        "the ledger {path} is damaged, and {who} has it open; it is set aside when that has ended and suture starts anew"
    )]
    DamagedInUse {
        /// The file.
        path: PathBuf,
        /// Who has it.
        who: &'static str,
    },
    /// It could not be written a moment ago, and was not tried again yet.
    #[error("the ledger can not be written since {since}: {why}; suture tries again by itself")]
    NotWritable {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: Trouble,
    },
}

/// What keeps the ledger from being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The disk is full.
    Full,
    /// The file or its file system can only be read.
    ReadOnly,
    /// The disk fails.
    Disk,
    /// Another process writes to it, for too long.
    Busy,
    /// The file is damaged.
    Damaged,
    /// Something else.
    Other,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "its disk is full",
            Self::ReadOnly => "its file system can only be read",
            Self::Disk => "its disk fails",
            Self::Busy => "another process writes to it for too long",
            Self::Damaged => "it is damaged, and is set aside when suture starts anew",
            Self::Other => "a write was refused",
        })
    }
}

impl LedgerError {
    /// Of a file that is not as suture wrote it.
    pub(super) fn damaged(why: String) -> Self {
        Self::Damaged { why }
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            // The first look into the file asks nothing that could be wrong: a format that SQLite does not know is damage.
            Self::Open { source, .. } if source.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                Trouble::Damaged
            }
            Self::Sql { source, .. } | Self::Open { source, .. } => of_sqlite(source),
            Self::Folder { source, .. } | Self::SetAside { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Trouble::ReadOnly,
                _ => Trouble::Disk,
            },
            Self::InUse { .. } | Self::OlderInUse { .. } => Trouble::Busy,
            Self::Damaged { .. } | Self::DamagedInUse { .. } => Trouble::Damaged,
            Self::NotWritable { why, .. } => *why,
            Self::Missing { .. } | Self::Version { .. } | Self::Value { .. } => Trouble::Other,
        }
    }

    /// For `map_err` on a statement.
    pub(super) fn sql(what: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Sql { what, source }
    }

    /// For `map_err` on a value.
    pub(super) fn value(what: &'static str) -> impl Fn(serde_json::Error) -> Self {
        move |source| Self::Value { what, source }
    }
}

fn of_sqlite(error: &rusqlite::Error) -> Trouble {
    // A cell that holds another kind of value than its table allows.
    if matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows
    ) {
        return Trouble::Damaged;
    }
    let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Trouble::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Trouble::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Damaged,
        // What can not be read back is lost, whatever can still be written.
        Some(ErrorCode::SystemIoFailure)
            if extended == rusqlite::ffi::SQLITE_IOERR_READ
                || extended == rusqlite::ffi::SQLITE_IOERR_CORRUPTFS =>
        {
            Trouble::Damaged
        }
        Some(ErrorCode::SystemIoFailure) => Trouble::Disk,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            Trouble::Busy
        }
        _ => Trouble::Other,
    }
}
