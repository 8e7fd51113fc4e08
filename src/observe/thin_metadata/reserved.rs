//! The way that needs a reserved snapshot of the metadata, for a pool that commits too often to be read directly. To
//! reserve is to change the pool, so the hand that does it is `remedy`'s and is passed in.

use std::{collections::BTreeSet, fmt, io, str::FromStr};

use super::{
    BlockSource, DeviceSource, From as Walked, ThinMetadata, ThinMetadataError, block, read, space,
    space::space_and_whether_crossed, walk,
};
use crate::{
    model::{Pool, PoolName, Space, ThinId},
    observe::device_mapper::DeviceMapperError,
    words::explain,
};

/// Whether a snapshot of the pool's metadata is reserved to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// Never: a pool that commits too often is not read.
    Never,
    /// When reading directly met a commit each time.
    #[default]
    IfBusy,
    /// Always.
    Always,
}

impl Reserve {
    const ALL: [Self; 3] = [Self::Never, Self::IfBusy, Self::Always];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::IfBusy => "if-busy",
            Self::Always => "always",
        }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word is none of [`Reserve`]'s.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is none of never, if-busy and always")]
pub struct UnknownReserve(String);

impl FromStr for Reserve {
    type Err = UnknownReserve;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| UnknownReserve(text.to_owned()))
    }
}

/// Why there is no reserved snapshot, or why it is still there.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Somebody holds one, and there can be only one.
    #[error(
        "somebody else holds a snapshot of the metadata of pool {pool}{root}: a monitoring tool that runs at this moment, or \
         one that was killed; suture leaves it alone. When nobody uses it: \
         dmsetup message {pool} 0 release_metadata_snap"
    )]
    HeldByAnother {
        /// The pool.
        pool: PoolName,
        /// Where it begins, beginning with a space; may be empty.
        root: String,
    },
    /// Another suture is at it.
    #[error(
        "another suture reserves a snapshot of the metadata of pool {pool} at this moment; try again later"
    )]
    AnotherSuture {
        /// The pool.
        pool: PoolName,
    },
    /// The pool takes no messages now, or should not.
    #[error("pool {pool} is {why}: nothing is reserved in it")]
    NotWritable {
        /// The pool.
        pool: PoolName,
        /// What it is.
        why: String,
    },
    /// It can not be noted whose the snapshot is, so there must be none.
    #[error("{doing} {path}")]
    Note {
        /// What was being done.
        doing: &'static str,
        /// The note.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The signals that end a program could not be caught, so none must be reserved.
    #[error("preparing to release it also when suture is ended by a signal")]
    Signals(#[source] io::Error),
    /// Device-mapper could not be asked.
    #[error(transparent)]
    Ask(#[from] DeviceMapperError),
    /// The kernel refused the message.
    #[error("sending {message} to pool {pool}: {why}")]
    Message {
        /// The pool.
        pool: PoolName,
        /// The message.
        message: &'static str,
        /// How it answered.
        why: String,
    },
    /// It was to be released, and another one is there now, or none.
    #[error(
        "the snapshot of the metadata of pool {pool} that suture had reserved at block {root} was released by somebody else; \
         what was read from it is not used"
    )]
    TakenAway {
        /// The pool.
        pool: PoolName,
        /// Where it began.
        root: u64,
    },
    /// It is still held.
    #[error(
        "the snapshot of the metadata of pool {pool} that suture reserved at block {root} could not be released: {why}; \
         the next suture releases it, or: dmsetup message {pool} 0 release_metadata_snap"
    )]
    NotReleased {
        /// The pool.
        pool: PoolName,
        /// Where it begins.
        root: u64,
        /// Why.
        why: String,
    },
    /// A signal came, and what was reserved was released at once.
    #[error("suture was told to end")]
    Ended,
}

/// A hand that reserves snapshots of a pool's metadata.
pub trait MetadataSnapshots: Sync {
    /// Reserves one, calls `read` with the block where it begins, and releases it again, whatever `read` does. What was
    /// read counts only if the answer is `Ok` or [`ReserveError::NotReleased`].
    fn with(&self, pool: &Pool, read: &mut dyn FnMut(u64)) -> Result<(), ReserveError>;

    /// Releases what a suture that was killed left reserved: exactly that one. Tells whether there was one.
    fn clean_up(&self, pool: &Pool) -> Result<bool, ReserveError>;
}

/// When to reserve, and with what hand.
#[derive(Clone, Copy)]
pub struct Reserving<'h> {
    /// When.
    pub when: Reserve,
    /// The hand.
    pub hand: &'h dyn MetadataSnapshots,
}

impl fmt::Debug for Reserving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserving")
            .field("when", &self.when)
            .finish_non_exhaustive()
    }
}

/// An answer, and why the snapshot that it was read from is still reserved, where it is.
pub type Answer<T> = (T, Option<ReserveError>);

/// Reads the metadata of a pool that is set up: directly, or from a snapshot that is reserved for it.
pub fn read_pool(
    pool: &Pool,
    with_roots: &BTreeSet<ThinId>,
    reserving: Option<Reserving<'_>>,
) -> Result<Answer<ThinMetadata>, ThinMetadataError> {
    let mut source = DeviceSource::open_device(pool.metadata_device)?;
    either(
        &mut source,
        pool,
        reserving,
        |source| read(source, with_roots).map(|read| (read, false)),
        |source, root| read_held(source, root, with_roots),
    )
}

/// The space of every thin device of a pool that is set up, in the same way.
pub fn space_of_pool(
    pool: &Pool,
    reserving: Option<Reserving<'_>>,
) -> Result<Answer<Space>, ThinMetadataError> {
    let mut source = DeviceSource::open_device(pool.metadata_device)?;
    either(
        &mut source,
        pool,
        reserving,
        |source| space_and_whether_crossed(source, Walked::Committed),
        |source, root| space(source, Walked::Reserved(root)),
    )
}

/// Reads the metadata snapshot that is reserved at block `root`. It stays as it is while it is held, so one walk is enough.
pub fn read_held(
    source: &mut impl BlockSource,
    root: u64,
    with_roots: &BTreeSet<ThinId>,
) -> Result<ThinMetadata, ThinMetadataError> {
    let superblock = block(source, root, "the reserved metadata snapshot")?;
    walk(source, &superblock, root, with_roots)
}

/// Directly first, and from a reserved snapshot where that met a commit each time; or the other way as asked. What the
/// direct way gives comes with whether it is partial: then the snapshot is tried, and if there is none the part will do.
pub(super) fn either<S, T>(
    source: &mut S,
    pool: &Pool,
    reserving: Option<Reserving<'_>>,
    direct: impl FnOnce(&mut S) -> Result<(T, bool), ThinMetadataError>,
    mut held: impl FnMut(&mut S, u64) -> Result<T, ThinMetadataError>,
) -> Result<Answer<T>, ThinMetadataError> {
    let reserving = reserving.filter(|reserving| reserving.when != Reserve::Never);
    let Some(reserving) = reserving else {
        return direct(source).map(|(answer, _)| (answer, None));
    };
    let mut part = None;
    let mut because = String::new();
    if reserving.when == Reserve::IfBusy {
        match direct(source) {
            Ok((answer, false)) => return Ok((answer, None)),
            Ok((answer, true)) => part = Some(answer),
            Err(busy @ ThinMetadataError::Busy { .. }) => because = format!(", because {busy}"),
            Err(error) => return Err(error),
        }
    }
    let mut answer = None;
    let released = reserving
        .hand
        .with(pool, &mut |root| answer = Some(held(source, root)));
    match (released, answer) {
        (Ok(()), Some(answer)) => answer.map(|answer| (answer, None)),
        (Err(left @ ReserveError::NotReleased { .. }), Some(answer)) => {
            answer.map(|answer| (answer, Some(left)))
        }
        (Ok(()), None) => Err(ThinMetadataError::Reserve {
            because,
            source: ReserveError::Ended,
        }),
        (Err(refused), _) => match part {
            Some(part) => Ok((part, None)),
            None => Err(ThinMetadataError::Reserve {
                because,
                source: refused,
            }),
        },
    }
}

impl ReserveError {
    /// It with its reasons, in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        explain(self)
    }
}
