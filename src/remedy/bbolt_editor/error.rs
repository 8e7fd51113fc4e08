//! Why a database was not written to, or what is not known after a write that failed.

use std::io;

use crate::model::TxId;
use crate::observe::bbolt::BboltError;

/// Why an edit did not happen. Except for [`EditError::Unknown`] the database holds what it held.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Somebody has it open.
    #[error(
        "{file} is locked by another program, most likely containerd: an edit needs containerd stopped; nothing was changed"
    )]
    Locked {
        /// The file.
        file: String,
    },
    /// It could not be read, or is damaged. A damaged file is never written to.
    #[error(transparent)]
    Read(#[from] BboltError),
    /// The operating system refused, before anything was committed.
    #[error("cannot {doing} {file}: {source}; its contents are what they were")]
    Io {
        /// What was being done, as a verb phrase that the file's name completes.
        doing: String,
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The last step of a commit failed. The database is whole, and holds either the old or the new contents.
    #[error(
        "{file}: writing transaction {} failed at its last step ({source}): whether it was committed shows when the file is opened again",
        .txid.0
    )]
    Unknown {
        /// The file.
        file: String,
        /// The transaction that may or may not be there.
        txid: TxId,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier step of this editor ended in [`EditError::Unknown`].
    #[error("{file} has to be opened again: what an earlier write left there is not known")]
    Stale {
        /// The file.
        file: String,
    },
    /// The newest transaction is another one than was expected.
    #[error(
        "{file} is at transaction {}, not at {}: something was committed since, so nothing was changed",
        .found.0, .expected.0
    )]
    Moved {
        /// The file.
        file: String,
        /// The transaction that should be the newest.
        expected: TxId,
        /// The one that is.
        found: TxId,
    },
    /// The transaction before the newest one is not in the file any more.
    #[error(
        "{file} does not hold the contents from before transaction {} any more; put the backup back by hand, with containerd stopped",
        .txid.0
    )]
    NothingBefore {
        /// The file.
        file: String,
        /// The newest transaction.
        txid: TxId,
    },
    /// An edit that bbolt itself would refuse.
    #[error("{file}: {edit} can not be done: {problem}; nothing was changed")]
    Refused {
        /// The file.
        file: String,
        /// What was to be done.
        edit: String,
        /// Why not.
        problem: &'static str,
    },
    /// A backup is never written over.
    #[error("{file} is there already, and a backup never takes the place of another file")]
    BackupExists {
        /// The backup's path.
        file: String,
    },
}
