//! What can go wrong with a bbolt file, in words for the person who has to act.

use std::io;

/// Why a bbolt database could not be read.
///
/// Every variant names the file. Damage also names the page, so that `bbolt page <file> <page>` shows the same place.
#[derive(Debug, thiserror::Error)]
pub enum BboltError {
    /// No file at that path.
    #[error(
        "{file} does not exist: containerd has not started with this root path and pool name yet, \
         or the path is wrong"
    )]
    Missing {
        /// The path that was opened.
        file: String,
    },
    /// The file has no byte. bbolt creates the file, takes its lock, and only then writes the first pages (`db.go`, `Open`).
    #[error(
        "{file} is empty: bbolt has created it and not yet written its first pages; \
         if containerd is running, try again, otherwise its start was interrupted and the next start fills the file"
    )]
    Empty {
        /// The file.
        file: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {file}: {source}")]
    Io {
        /// What was being done, as a verb phrase that the file's name completes.
        doing: String,
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory, a pipe, a device: never something that bbolt wrote.
    #[error("{file} is not a regular file, so it is no bbolt database; check the path")]
    NotAFile {
        /// The path.
        file: String,
    },
    /// Neither meta page can be used.
    #[error(
        "{file} ({size} bytes) is not a readable bbolt database: {problem}; if the path is right, the file is damaged: \
         stop containerd, keep a copy, and look at it with `bbolt check` before anything else"
    )]
    NoMeta {
        /// The file.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// What was found where the meta pages should be.
        problem: String,
    },
    /// A page that the newest transaction uses does not hold what it should.
    #[error(
        "{file} is damaged: page {page}, while reading {reading}: {problem}; \
         stop containerd, keep a copy, and look at it with `bbolt check` before anything else"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Page number, as bbolt counts (byte offset = page × page size).
        page: u64,
        /// What the reader was after.
        reading: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The path names another file now, or none; what was read belongs to the past.
    #[error("{file} was replaced or removed while it was read; open it again")]
    Replaced {
        /// The path.
        file: String,
    },
    /// Every try met a commit in its middle. Nothing is wrong with the file.
    #[error(
        "{file} changed during each of {tries} reads (transaction {first} to {last}): containerd is writing steadily; \
         try again later"
    )]
    Busy {
        /// The file.
        file: String,
        /// How many reads were thrown away.
        tries: usize,
        /// Newest transaction at the first try.
        first: u64,
        /// Newest transaction at the last try.
        last: u64,
    },
}
