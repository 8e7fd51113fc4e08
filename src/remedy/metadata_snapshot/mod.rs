//! The hand that reserves a snapshot of a pool's metadata, and always releases it: when reading is over, when it panics,
//! when a signal ends the program; and after a SIGKILL the next suture does.
//!
//! There is one such snapshot for a pool, and the kernel does not say whose it is. So a lock keeps sutures apart; a note is
//! on disk before the message is sent, and names the block as soon as the kernel tells it. Released is only what begins at
//! the block that this suture, or the note of a dead one in this same life of the pool, knows as its own. A suture that
//! is killed in the moment between the message and the note leaves a snapshot that nobody can prove to be its own: it
//! stays, and is told as somebody's.

mod note;
mod signals;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::Duration,
};

use devicemapper::{DM, DevId, DmName};
use nix::errno::Errno;

use self::note::{Note, NoteFile};
use super::HandsError;
use crate::{
    model::{Pool, PoolMode, PoolName},
    observe::{
        device_mapper::{DeviceMapper, DeviceMapperError},
        thin_metadata::{MetadataSnapshots, ReserveError},
    },
};

/// Where the notes are: they mean nothing after a restart of the machine, and are gone with it.
const FOLDER: &str = "/run/suture";
/// `pool_message`, drivers/md/dm-thin.c.
const RESERVE: &str = "reserve_metadata_snap";
const RELEASE: &str = "release_metadata_snap";
/// Pauses before each try to release, in milliseconds.
const PAUSES: [u64; 4] = [0, 1, 10, 50];

/// What a pool says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// Where the reserved snapshot begins.
    held_root: Option<u64>,
    mode: PoolMode,
    needs_check: bool,
}

/// What is asked of the kernel.
trait PoolMessages: Send + Sync {
    /// The pool as it is; of another one, or another life of it, an error.
    fn state(&self, pool: &Pool) -> Result<State, ReserveError>;
    /// Sends a message.
    fn send(&self, pool: &PoolName, message: &'static str) -> Result<(), HandsError>;
}

/// The real kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Kernel;

impl PoolMessages for Kernel {
    fn state(&self, pool: &Pool) -> Result<State, ReserveError> {
        let dm = DeviceMapper::open()?;
        let now = dm.pool(&pool.name)?;
        if (now.device, &now.activation) != (pool.device, &pool.activation) {
            return Err(DeviceMapperError::NoPool(pool.name.clone()).into());
        }
        Ok(State {
            held_root: dm.usage(&now)?.and_then(|usage| usage.held_root),
            mode: now.mode,
            needs_check: now.needs_check,
        })
    }

    fn send(&self, pool: &PoolName, message: &'static str) -> Result<(), HandsError> {
        let name = DmName::new(pool.as_str()).map_err(|error| HandsError::Call(error.to_string()))?;
        DM::new()?.target_msg(&DevId::Name(name), None, message)?;
        Ok(())
    }
}

/// The hand.
#[derive(Clone)]
pub struct ReservedSnapshots {
    folder: PathBuf,
    kernel: Arc<dyn PoolMessages>,
}

impl Default for ReservedSnapshots {
    fn default() -> Self {
        Self {
            folder: PathBuf::from(FOLDER),
            kernel: Arc::new(Kernel),
        }
    }
}

impl MetadataSnapshots for ReservedSnapshots {
    fn with(&self, pool: &Pool, read: &mut dyn FnMut(u64)) -> Result<(), ReserveError> {
        let reservation = Arc::new(Reservation {
            kernel: Arc::clone(&self.kernel),
            pool: pool.clone(),
            stage: Mutex::new(Stage::Before),
        });
        // From here on a signal finds it: it waits while the message is under way, and releases what that brought.
        let _watched = signals::watch(&reservation).map_err(ReserveError::Signals)?;
        let guard = Guard(&reservation);
        let root = reservation.reserve(NoteFile::lock(&self.folder, &pool.name)?)?;
        read(root);
        let released = guard.0.release();
        std::mem::forget(guard);
        released
    }

    fn clean_up(&self, pool: &Pool) -> Result<bool, ReserveError> {
        if !NoteFile::is_there(&self.folder, &pool.name) {
            return Ok(false);
        }
        let mut note = NoteFile::lock(&self.folder, &pool.name)?;
        let state = self.kernel.state(pool)?;
        adopt(&*self.kernel, pool, &mut note, state.held_root)
    }
}

/// Releases what is held if it is a dead suture's, and says whether it was.
fn adopt(
    kernel: &dyn PoolMessages,
    pool: &Pool,
    note: &mut NoteFile,
    held_root: Option<u64>,
) -> Result<bool, ReserveError> {
    let Some(root) = held_root else {
        // What the note spoke of is gone.
        note.remove()?;
        return Ok(false);
    };
    let ours = note.read().is_some_and(|note| {
        note.pool == pool.name && note.activation == pool.activation && note.root == Some(root)
    });
    if ours {
        let_go(kernel, pool, root)?;
        note.remove()?;
    }
    Ok(ours)
}

/// Releases the snapshot that begins at `root`, and no other.
fn let_go(kernel: &dyn PoolMessages, pool: &Pool, root: u64) -> Result<(), ReserveError> {
    let mut why = String::new();
    for pause in PAUSES {
        sleep(Duration::from_millis(pause));
        match kernel.state(pool) {
            Ok(state) if state.held_root != Some(root) => {
                return Err(ReserveError::TakenAway {
                    pool: pool.name.clone(),
                    root,
                });
            }
            Ok(_) => match kernel.send(&pool.name, RELEASE) {
                Ok(()) => return Ok(()),
                Err(error) => why = error.to_string(),
            },
            Err(error) => why = error.in_words(),
        }
    }
    Err(ReserveError::NotReleased {
        pool: pool.name.clone(),
        root,
        why,
    })
}

/// One reservation, which two may want to end: the thread that reads, and the one that gets the signals.
struct Reservation {
    kernel: Arc<dyn PoolMessages>,
    pool: Pool,
    stage: Mutex<Stage>,
}

enum Stage {
    /// Nothing is reserved yet.
    Before,
    /// The kernel holds the snapshot at this block for us.
    Held(u64, NoteFile),
    /// It is over; set with what a signal's thread brought about.
    Over,
}

impl Reservation {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        // A panic while it was locked left a stage that is right: each is set whole.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, mut note: NoteFile) -> Result<u64, ReserveError> {
        let mut stage = self.stage();
        if !matches!(*stage, Stage::Before) {
            return Err(ReserveError::Ended);
        }
        let pool = &self.pool;
        let before = self.kernel.state(pool)?;
        writable(pool, &before)?;
        let another = |root: Option<u64>| ReserveError::HeldByAnother {
            pool: pool.name.clone(),
            root: root.map(|root| format!(" at block {root}")).unwrap_or_default(),
        };
        if before.held_root.is_some() && !adopt(&*self.kernel, pool, &mut note, before.held_root)? {
            return Err(another(before.held_root));
        }
        let mut words = Note {
            pool: pool.name.clone(),
            activation: pool.activation.clone(),
            root: None,
        };
        note.write(&words)?;
        if let Err(error) = self.kernel.send(&pool.name, RESERVE) {
            note.remove()?;
            return Err(match error {
                // `reserve_metadata_snap`, dm-thin-metadata.c: one is held already.
                HandsError::Busy => another(None),
                HandsError::Kernel(errno) if errno == Errno::EOPNOTSUPP as i32 => ReserveError::NotWritable {
                    pool: pool.name.clone(),
                    why: "in a mode in which it takes no messages".to_owned(),
                },
                error => ReserveError::Message {
                    pool: pool.name.clone(),
                    message: RESERVE,
                    why: error.to_string(),
                },
            });
        }
        // The kernel said yes, so what is held now is ours: nobody else could have reserved before it is released.
        let root = self.root_of_ours()?;
        *stage = Stage::Held(root, note);
        if let Stage::Held(_, note) = &mut *stage {
            words.root = Some(root);
            // Without this only a SIGKILL would leave it behind; reading goes on only with it.
            note.write(&words)?;
        }
        Ok(root)
    }

    fn root_of_ours(&self) -> Result<u64, ReserveError> {
        let mut failed = None;
        for pause in PAUSES {
            sleep(Duration::from_millis(pause));
            match self.kernel.state(&self.pool) {
                Ok(State {
                    held_root: Some(root),
                    ..
                }) => return Ok(root),
                Ok(_) => {
                    return Err(ReserveError::TakenAway {
                        pool: self.pool.name.clone(),
                        root: 0,
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        let why = match self.kernel.send(&self.pool.name, RELEASE) {
            // Made by us a moment ago; that its block can not be asked for is no reason to keep it.
            Ok(()) => failed.map(|error| error.in_words()).unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        Err(ReserveError::Message {
            pool: self.pool.name.clone(),
            message: RESERVE,
            why,
        })
    }

    /// Releases what is held. The second who asks is told that it is over.
    fn release(&self) -> Result<(), ReserveError> {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Held(root, mut note) => {
                match let_go(&*self.kernel, &self.pool, root) {
                    // The note stays: the next suture needs it.
                    Err(left @ ReserveError::NotReleased { .. }) => Err(left),
                    // Taken away, or released: there is nothing more to know of it.
                    over => note.remove().and(over),
                }
            }
            Stage::Before | Stage::Over => Err(ReserveError::Ended),
        }
    }
}

/// Releases on a panic, and on each way out of reserving.
struct Guard<'r>(&'r Reservation);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Err(error @ ReserveError::NotReleased { .. }) = self.0.release() {
            eprintln!("suture: {error}");
        }
    }
}

fn writable(pool: &Pool, state: &State) -> Result<(), ReserveError> {
    let why = match state.mode {
        _ if state.needs_check => "marked as needing a check".to_owned(),
        PoolMode::ReadWrite => return Ok(()),
        // Messages would be taken, but a reservation takes blocks, and how many are left is not known here.
        mode => mode.to_string(),
    };
    Err(ReserveError::NotWritable {
        pool: pool.name.clone(),
        why,
    })
}
