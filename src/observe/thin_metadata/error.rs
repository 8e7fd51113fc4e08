//! What can go wrong with thin-pool metadata, in words for the person who has to act.

use std::io;

#[cfg(feature = "node")]
use super::ReserveError;
use crate::model::DeviceNumber;

/// Why the metadata of a thin pool could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ThinMetadataError {
    /// The kernel knows no block device of that number.
    #[error(
        "there is no block device {number} ({path} does not exist): the pool was removed or moved meanwhile"
    )]
    NoDevice {
        /// The number asked for.
        number: DeviceNumber,
        /// Where sysfs would describe it.
        path: String,
    },
    /// The node in /dev is missing or belongs to something else.
    #[error(
        "{node} is not block device {number}{detail}; suture needs the host's /dev (in a container: mount it, \
         or run `dmsetup mknodes` on the host)"
    )]
    WrongNode {
        /// The number asked for.
        number: DeviceNumber,
        /// The node that should lead to it.
        node: String,
        /// What was found, beginning with a separator; may be empty.
        detail: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {file}: {source}")]
    Io {
        /// What was being done, as a verb phrase that the file's name completes.
        doing: String,
        /// Device or file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Block 0 is all zeros: the kernel formats such a device when the pool is first activated (`__open_or_format_metadata`).
    #[error(
        "{file} holds no thin-pool metadata yet (its first block is all zeros): the pool was never activated"
    )]
    Unformatted {
        /// Device or file.
        file: String,
    },
    /// Block 0 is no superblock of a thin pool.
    #[error(
        "{file} is not the metadata of a thin pool: {problem}; check that this is the pool's metadata device"
    )]
    NotThinMetadata {
        /// Device or file.
        file: String,
        /// What was found.
        problem: String,
    },
    /// A block that the superblock leads to does not hold what it should.
    #[error(
        "the thin-pool metadata on {file} is damaged: block {block}, while reading {reading}: {problem}; \
         deactivate the pool and run thin_check on the metadata device before anything else"
    )]
    Damaged {
        /// Device or file.
        file: String,
        /// Block number, in blocks of 4096 bytes.
        block: u64,
        /// What the reader was after.
        reading: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Every try met a commit in its middle. Nothing is wrong with the metadata.
    #[error(
        "the thin-pool metadata on {file} changed during each of {tries} reads: the pool is busy; try again later"
    )]
    Busy {
        /// Device or file.
        file: String,
        /// How many reads were thrown away.
        tries: usize,
    },
    /// The path is neither a device nor a file.
    #[error(
        "{path} is {what}, and thin-pool metadata are on a block device or in a copy of one, a regular file; check the path"
    )]
    NotADevice {
        /// The path.
        path: String,
        /// What is there.
        what: &'static str,
    },
    /// No snapshot of the metadata could be reserved, where one was asked for or the direct way was barred.
    #[cfg(feature = "node")]
    #[error("reserving a snapshot of the pool's metadata{because}")]
    Reserve {
        /// Why one was wanted, beginning with a separator; may be empty.
        because: String,
        /// Why there is none.
        source: ReserveError,
    },
}
