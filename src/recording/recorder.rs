//! The files of a running suture: FILE, and older ones as FILE.1, FILE.2 and so on. Each stands alone.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Header, MAGIC, WriteError, Writer};
use crate::{
    brain::{Brain, Input},
    model::{Timestamp, World},
    observe::pages::DatabasePages,
};

/// What is written is in the operating system's hands after this time at the latest.
const FLUSH: Duration = Duration::from_secs(1);
/// Who else can read a recording: nobody. It names what runs on the node.
const MODE: u32 = 0o600;

/// Where to record, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingOptions {
    /// The file that is written to.
    pub file: PathBuf,
    /// When a file is as large as this, the next one is begun.
    pub max_bytes: u64,
    /// How many files are kept, the one that is written to included.
    pub keep: u32,
}

/// Why recording could not begin, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is something else at the place.
    #[error(
        "{path} exists and is no recording of suture's; name another file, nothing is overwritten that suture did not write"
    )]
    InTheWay {
        /// The path.
        path: PathBuf,
    },
    /// The file that is recorded to was taken away, or another one put in its place.
    #[error("{path} was removed or replaced: what is recorded would be nowhere")]
    Gone {
        /// The path.
        path: PathBuf,
    },
    /// Another suture records to that file.
    #[error("another suture records to {path}; name another file")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A file could not be made, moved or looked at.
    #[error("{doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// An entry could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Records everything that a brain takes in.
#[derive(Debug)]
pub struct Recorder {
    options: RecordingOptions,
    header: Header,
    writer: Writer<File>,
    flushed: Instant,
    turned: u64,
    /// A world was recorded, and not its judgement.
    world_waits: bool,
    /// Device and inode of the file.
    identity: (u64, u64),
}

impl Recorder {
    /// Begins a recording. One that is there already is kept as an older one.
    pub fn start(options: RecordingOptions, header: Header, brain: &Brain) -> Result<Self, RecordError> {
        make_room(&options, false)?;
        let (file, identity) = create(&options.file)?;
        let writer = Writer::begin(file, &header, brain)?;
        Ok(Self {
            options,
            header,
            writer,
            flushed: Instant::now(),
            turned: 0,
            world_waits: false,
            identity,
        })
    }

    /// Where it records to.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.options.file
    }

    /// Bytes of a file at which the next one is begun.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// Bytes of the file so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.writer.size()
    }

    /// How often the next file was begun.
    #[must_use]
    pub fn turned(&self) -> u64 {
        self.turned
    }

    /// Something is about to be taken in by the brain, at this time.
    pub fn input(&mut self, brain: &Brain, now: Timestamp, input: &Input) -> Result<(), RecordError> {
        // A judgement belongs to the world before it, and a file stands alone.
        let whole = !self.world_waits || matches!(input, Input::Unreadable { .. });
        if whole && self.writer.size() >= self.options.max_bytes {
            self.next_file(brain, now)?;
        }
        self.world_waits &= !whole;
        self.writer.input(input)?;
        self.flush_if_due()
    }

    /// The world was read, and is about to be taken in.
    pub fn world(&mut self, world: &World, pages: DatabasePages) -> Result<(), RecordError> {
        self.world_waits = true;
        self.writer.world(world, pages)?;
        self.flush_if_due()
    }

    /// The last world is about to be judged.
    pub fn judged(&mut self, at: Timestamp) -> Result<(), RecordError> {
        self.world_waits = false;
        self.writer.judged(at)?;
        self.flush_if_due()
    }

    /// When to call [`Recorder::flush`]; nothing when nothing waits for it.
    #[must_use]
    pub fn flush_at(&self) -> Option<Instant> {
        self.writer.waits().then(|| self.flushed + FLUSH)
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        self.flushed = Instant::now();
        self.writer.flush()?;
        let there = fs::metadata(&self.options.file).ok();
        if there.map(|file| (file.dev(), file.ino())) == Some(self.identity) {
            Ok(())
        } else {
            Err(RecordError::Gone {
                path: self.options.file.clone(),
            })
        }
    }

    /// Ends in order.
    pub fn end(self) -> Result<(), RecordError> {
        self.writer.end(false)?;
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), RecordError> {
        if self.flush_at().is_some_and(|at| at <= Instant::now()) {
            self.flush()?;
        }
        Ok(())
    }

    fn next_file(&mut self, brain: &Brain, now: Timestamp) -> Result<(), RecordError> {
        make_room(&self.options, true)?;
        self.header.began = now;
        self.turned = self.turned.saturating_add(1);
        let (file, identity) = create(&self.options.file)?;
        self.identity = identity;
        let next = Writer::begin(file, &self.header, brain)?;
        // The file moved away under its open handle, and gets its end mark there.
        std::mem::replace(&mut self.writer, next).end(true)?;
        Ok(())
    }
}

/// A new file, locked for as long as it is recorded to, and what tells it from another one of its name.
fn create(path: &Path) -> Result<(File, (u64, u64)), RecordError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .and_then(|file| {
            let is = file.metadata()?;
            file.lock_shared()?;
            Ok((file, (is.dev(), is.ino())))
        });
    made.map_err(|source| RecordError::File {
        doing: "making the recording",
        path: path.to_owned(),
        source,
    })
}

pub(super) fn numbered(file: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Moves every recording one number up, the oldest away.
fn make_room(options: &RecordingOptions, ours: bool) -> Result<(), RecordError> {
    let last = options.keep.max(1) - 1;
    // Nothing is moved or removed before all of it is known to be ours.
    let there = (0..=last)
        .map(|number| numbered(&options.file, number))
        .map(|path| Ok((is_recording(&path, ours)?, path)))
        .collect::<Result<Vec<_>, RecordError>>()?;
    // A gap in the numbers is filled; what is behind it stays.
    let moved: Vec<PathBuf> = there
        .into_iter()
        .map_while(|(is_there, path)| is_there.then_some(path))
        .collect();
    for (index, path) in moved.iter().enumerate().rev() {
        let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        let (doing, result) = if number > last {
            ("removing the oldest recording", fs::remove_file(path))
        } else {
            (
                "moving away the recording",
                fs::rename(path, numbered(&options.file, number)),
            )
        };
        result.map_err(|source| RecordError::File {
            doing,
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Whether a recording is there; false where nothing is. `ours` says that this suture records to it.
fn is_recording(path: &Path, ours: bool) -> Result<bool, RecordError> {
    let failed = |source| RecordError::File {
        doing: "looking at",
        path: path.to_owned(),
        source,
    };
    let in_the_way = || RecordError::InTheWay {
        path: path.to_owned(),
    };
    match fs::symlink_metadata(path) {
        Ok(file) if file.is_file() => {}
        Ok(_) => return Err(in_the_way()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(failed(source)),
    }
    let mut beginning = Vec::new();
    let file = File::open(path).map_err(failed)?;
    if !ours && matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(RecordError::InUse {
            path: path.to_owned(),
        });
    }
    let most = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut beginning).map_err(failed)?;
    if beginning == MAGIC {
        Ok(true)
    } else {
        Err(in_the_way())
    }
}
