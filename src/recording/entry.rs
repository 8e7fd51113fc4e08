//! What is in a recording, one record after the other.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::world::WorldRecord;
use crate::{
    brain::{Brain, Input},
    model::{PoolName, Timestamp},
};

/// What a recording is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the suture that made it.
    pub suture: String,
    /// The pool.
    pub pool: PoolName,
    /// Which boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// When this file was begun.
    pub began: Timestamp,
}

/// A record in JSON, but for the header. Borrowed where it is written, owned where it is read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry<'w> {
    /// What suture knew when the file was begun: the first entry, and only that.
    Brain(Box<Cow<'w, Brain>>),
    /// Something that happened.
    Input(Box<Cow<'w, Input>>),
    /// The world was read; it is what the world before it was, but for this and for the pages just before it.
    World(Box<WorldRecord>),
    /// The last world was judged.
    Judge {
        /// When.
        at: Timestamp,
    },
    /// Nothing comes after this.
    End {
        /// Whether another file goes on from here.
        continued: bool,
    },
}

/// What a record is, its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// JSON: the header or an [`Entry`].
    Json,
    /// A run of pages of a database.
    Pages,
}

impl RecordKind {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Json => b'J',
            Self::Pages => b'P',
        }
    }

    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Json, Self::Pages]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// Bytes before a record: its kind, and its length as a little-endian u32.
pub(super) const RECORD_HEADER: usize = 5;
/// Bytes before the pages in a record of pages: the database, and the number of the first page as a little-endian u64.
pub(super) const PAGES_HEADER: usize = 9;
