//! What can go wrong with the ledger.

use std::{io, path::PathBuf};

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
}

impl LedgerError {
    /// For `map_err` on a statement.
    pub(super) fn sql(what: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Sql { what, source }
    }

    /// For `map_err` on a value.
    pub(super) fn value(what: &'static str) -> impl Fn(serde_json::Error) -> Self {
        move |source| Self::Value { what, source }
    }
}
