//! Opening the ledger: looking whether the file is whole, setting a damaged one aside, and going on with what can be read
//! where it can not be written.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    Ledger, LedgerError, Trouble, schema, seal,
    set_aside::{self, SetAside},
};
use crate::files::{self, NotLocked, beside, make_private, private_folder, tighten};

/// Up to this size everything is looked at; of a larger file the pages quickly, and of its rows those that count.
const SMALL: u64 = 16 << 20;
/// Looking takes no longer than this.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// How long another process that writes is waited for.
const BUSY: Duration = Duration::from_secs(2);
/// How each of SQLite's files begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// SQLite's log is cut back to this when it was longer.
const LOG: i64 = 4 << 20;

/// An opened ledger, and what became of the one that was there.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// The damaged one that was set aside for it. What that knew of who made which thin device is lost: those are now
    /// anybody's, and are not deleted by suture itself.
    pub set_aside: Option<SetAside>,
}

impl Ledger {
    /// Opens the ledger for writing, creating it and its folder where they are missing. A damaged one is refused.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        make_folder(path)?;
        let only_writer = lock(path, ".lock")?;
        expect_beginning(path)?;
        Self::open_to_write(path, Some(only_writer), Look::Thorough)
    }

    /// The same, but a damaged one is set aside and a new one begun; and one that can not be written, because the disk is
    /// full, fails or can only be read, is opened for reading: its [`health`](Ledger::health) says so.
    pub fn open_or_begin_anew(path: &Path) -> Result<Opened, LedgerError> {
        make_folder(path).or_else(|error| if path.exists() { Ok(()) } else { Err(error) })?;
        let only_writer = match lock(path, ".lock") {
            Ok(file) => Some(file),
            // Where not even a lock can be made nobody else writes either.
            Err(error) if error.trouble() == Trouble::ReadOnly && path.exists() => None,
            Err(error) => return Err(error),
        };
        let opened = expect_beginning(path).and_then(|()| {
            let only_writer = only_writer.as_ref().map(File::try_clone).transpose();
            let only_writer = only_writer.map_err(|source| LedgerError::Folder {
                path: path.to_owned(),
                source,
            })?;
            Self::open_to_write(path, only_writer, Look::Thorough)
        });
        match opened {
            Ok(ledger) => Ok(Opened {
                ledger,
                set_aside: None,
            }),
            Err(error) if error.trouble() == Trouble::Damaged => {
                let _no_repair = lock_out(path, ".repair.lock", "a repair")?;
                let begin = || Self::open_to_write(path, only_writer, Look::Thorough);
                let (ledger, set_aside) = set_aside::begin_anew(path, &error, begin)?;
                Ok(Opened {
                    ledger,
                    set_aside: Some(set_aside),
                })
            }
            Err(error)
                if path.exists()
                    && matches!(error.trouble(), Trouble::Full | Trouble::ReadOnly | Trouble::Disk) =>
            {
                let ledger = Self::open_to_look(path, only_writer, &error)?;
                Ok(Opened {
                    ledger,
                    set_aside: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the ledger for a repair, which may be made while a sidecar writes to it: SQLite lets one wait for the other,
    /// at most for two seconds. Creates it where it is missing. A damaged one is refused.
    pub fn open_beside(path: &Path) -> Result<Self, LedgerError> {
        make_folder(path)?;
        expect_beginning(path)?;
        Self::open_to_write(path, None, Look::Brief)
    }

    /// The same, but a damaged one is set aside and a new one begun, unless a sidecar has it. Whoever calls holds the lock
    /// of repairs.
    pub fn open_beside_or_begin_anew(path: &Path) -> Result<Opened, LedgerError> {
        match Self::open_beside(path) {
            Ok(ledger) => Ok(Opened {
                ledger,
                set_aside: None,
            }),
            Err(error) if error.trouble() == Trouble::Damaged => {
                let _no_sidecar = lock_out(path, ".lock", "a running suture")?;
                let begin = || Self::open_to_write(path, None, Look::Brief);
                let (ledger, set_aside) = set_aside::begin_anew(path, &error, begin)?;
                Ok(Opened {
                    ledger,
                    set_aside: Some(set_aside),
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn open_to_write(
        path: &Path,
        only_writer: Option<File>,
        look: Look,
    ) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Open {
            path: path.to_owned(),
            source,
        };
        make_file(path)?;
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // Only an empty file takes it; others keep what they have.
        connection
            .pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(failed)?;
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
        connection
            .pragma_update(None, "journal_size_limit", LOG)
            .map_err(failed)?;
        // What SQLite wants to put somewhere for a moment must not need a disk that may be full.
        connection
            .pragma_update(None, "temp_store", "MEMORY")
            .map_err(failed)?;
        seal::function(&connection).map_err(failed)?;
        let alone = || match only_writer {
            Some(_) => Ok(None),
            None => lock(path, ".lock").map(Some).map_err(|error| match error {
                LedgerError::InUse { path } => LedgerError::OlderInUse { path },
                other => other,
            }),
        };
        schema::migrate(&mut connection, path, alone)?;
        look_into(&mut connection, look)?;
        seal::every_write(&connection).map_err(failed)?;
        Ok(Self::new(connection, path, only_writer))
    }

    /// Opens a ledger that can not be written at this moment, to read it until it can.
    fn open_to_look(path: &Path, only_writer: Option<File>, why: &LedgerError) -> Result<Self, LedgerError> {
        let mut ledger = Self::open_to_read(path)?;
        ledger.only_writer = only_writer;
        ledger.reopen_later(why);
        Ok(ledger)
    }

    /// Opens an existing ledger to read it, beside a running suture or without one.
    pub fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
        if !path.exists() {
            return Err(LedgerError::Missing {
                path: path.to_owned(),
            });
        }
        match Self::read_beside(path, false) {
            // SQLite shares its log by a file beside the ledger, which can not be made in a folder that can only be read.
            // Without a log nobody writes, and the file alone is the whole ledger.
            Err(error) if is_for_want_of_writing(&error) && !has_log(path) => Self::read_beside(path, true),
            other => other,
        }
    }

    fn read_beside(path: &Path, alone: bool) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Open {
            path: path.to_owned(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = if alone {
            Connection::open_with_flags(unchanging(path), flags | OpenFlags::SQLITE_OPEN_URI)
                .map_err(failed)?
        } else {
            Connection::open_with_flags(path, flags).map_err(failed)?
        };
        connection.busy_timeout(BUSY).map_err(failed)?;
        seal::function(&connection).map_err(failed)?;
        schema::expect_current(&connection, path)?;
        look_into(&mut connection, Look::Brief)?;
        Ok(Self::new(connection, path, None))
    }
}

/// How closely a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All of a small file, as much as time allows of a large one.
    Thorough,
    /// The rows that count.
    Brief,
}

fn look_into(connection: &mut Connection, look: Look) -> Result<(), LedgerError> {
    let failed = LedgerError::sql("looking whether it is whole");
    let damaged = |why: Option<String>| why.map_or(Ok(()), |why| Err(LedgerError::damaged(why)));
    if look == Look::Thorough {
        let pages: i64 = connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .map_err(&failed)?;
        let size: i64 = connection
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(&failed)?;
        let small = u64::try_from(pages.saturating_mul(size)).unwrap_or(u64::MAX) <= SMALL;
        let deadline = Instant::now() + LONGEST_LOOK;
        connection
            .progress_handler(10_000, Some(move || Instant::now() > deadline))
            .map_err(&failed)?;
        let seen = look_at_pages(connection, small);
        connection
            .progress_handler(0, None::<fn() -> bool>)
            .map_err(&failed)?;
        match seen {
            Ok(why) => damaged(why)?,
            // A disk that is so slow is no damage. The rows that count are looked at in any case.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    damaged(seal::broken_open(connection).map_err(&failed)?)
}

fn look_at_pages(connection: &Connection, small: bool) -> rusqlite::Result<Option<String>> {
    let check = if small {
        "PRAGMA integrity_check(1)"
    } else {
        "PRAGMA quick_check(1)"
    };
    let answer: String = connection.query_row(check, [], |row| row.get(0))?;
    if answer != "ok" {
        return Ok(Some(answer));
    }
    if small {
        seal::broken_any(connection)
    } else {
        Ok(None)
    }
}

/// What SQLite would begin anew over without a word: a log without its ledger, or beside an empty one (setting aside was
/// cut off in the middle, or somebody took the file away), and a file of a few bytes.
fn expect_beginning(path: &Path) -> Result<(), LedgerError> {
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut begin));
    let damaged = |why: &str| Err(LedgerError::damaged(why.to_owned()));
    match read {
        Ok(_) if begin == MAGIC => Ok(()),
        Ok(1..) => damaged("its file does not begin as SQLite's do"),
        // One that can not be read fails in words of SQLite's.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Ok(()),
        Ok(0) | Err(_) if has_log(path) => damaged("its file is missing or empty, and its log is there"),
        Ok(0) | Err(_) => Ok(()),
    }
}

pub(super) fn has_log(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn is_for_want_of_writing(error: &LedgerError) -> bool {
    matches!(error.trouble(), Trouble::ReadOnly | Trouble::Full | Trouble::Disk)
}

/// The file as one that nobody changes, in SQLite's way to say so.
pub(super) fn unchanging(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri + "?immutable=1"
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
/// as open as it is then. One that can not be changed is opened as it is: what is wrong with it is told then.
fn make_file(path: &Path) -> Result<(), LedgerError> {
    let made = make_private(path)
        .and_then(|()| tighten(&beside(path, "-wal")))
        .and_then(|()| tighten(&beside(path, "-shm")));
    match made {
        Err(source) if !path.exists() => Err(LedgerError::Folder {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Takes a lock beside the ledger, or says that another suture has it. It goes with the file handle, also when suture is
/// killed.
fn lock(ledger: &Path, ending: &str) -> Result<File, LedgerError> {
    let path = beside(ledger, ending);
    files::lock(&path).map_err(|why| match why {
        NotLocked::Held => LedgerError::InUse {
            path: ledger.to_owned(),
        },
        NotLocked::Failed(source) => LedgerError::Folder { path, source },
    })
}

/// The same, to keep others out while a damaged ledger is set aside: one who had it open would go on writing to that.
fn lock_out(ledger: &Path, ending: &str, who: &'static str) -> Result<File, LedgerError> {
    lock(ledger, ending).map_err(|error| match error {
        LedgerError::InUse { path } => LedgerError::DamagedInUse { path, who },
        other => other,
    })
}
