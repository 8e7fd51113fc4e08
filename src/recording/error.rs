//! What can go wrong with a recording, in words for the person who has it.

use std::io;

use super::VERSION;
use crate::observe::pages::PagesError;

/// Why nothing of a file can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum NotARecording {
    /// Reading failed.
    #[error("reading the beginning of the recording")]
    Read(#[source] io::Error),
    /// It does not begin as a recording does.
    #[error("this is no recording of suture's; `suture record FILE` makes one")]
    Magic,
    /// Another suture wrote it.
    #[error(
        "the recording has format version {found}, and this suture reads version {VERSION}; replay it with the suture that made it"
    )]
    Version {
        /// The version that it has.
        found: u32,
    },
    /// Its header can not be read.
    #[error("the recording is damaged in its header, so nothing of it can be replayed")]
    Header(#[source] Damage),
}

/// Why a recording can not be read any further. What was read before is right.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// There is no end mark.
    #[error(
        "the recording breaks off there without its end mark: suture was killed, still records, or the file was cut"
    )]
    Cut,
    /// Reading failed.
    #[error("damaged: reading block {block} failed")]
    Read {
        /// Which, from 0.
        block: u32,
        /// Why.
        source: io::Error,
    },
    /// A block is not what was written.
    #[error("damaged: block {block} {problem}")]
    Block {
        /// Which, from 0.
        block: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A record is none that this version has.
    #[error("damaged: a record {problem}")]
    Record {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A record's values can not be understood.
    #[error("damaged: a record can not be understood")]
    Json(#[from] serde_json::Error),
    /// The pages of a world are no databases.
    #[error("damaged: the databases of a world can not be read")]
    Pages(#[from] PagesError),
}

/// Why recording stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Writing failed.
    #[error("writing the recording")]
    Write(#[from] io::Error),
    /// A value could not be written as JSON.
    #[error("writing an entry of the recording as JSON")]
    Json(#[from] serde_json::Error),
    /// More than a recording can hold.
    #[error("{what} is larger than a recording can hold ({most} bytes)")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much there may be.
        most: usize,
    },
}
