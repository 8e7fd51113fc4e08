//! One suture for each pool: a lock that goes with its holder's death, also by SIGKILL, and a file that says who has it.

use std::{
    fmt::{self, Write as _},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use rustix::fs::OFlags;

use crate::model::PoolName;

/// Where the locks are.
pub const FOLDER: &str = "/run/suture";
/// More of a lock's file is not read: a number and its line end.
const LONGEST: usize = 32;
/// How often, and how long between, who has just taken a lock is given time to write who it is.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// The right to watch a pool with leave to write: to its ledger, to its socket and, with `--act`, to the pool. It lasts as
/// long as this value; the file stays, since to remove it would let two hold a lock of that name.
#[derive(Debug)]
pub struct OnlyOne {
    _lock: File,
}

/// Why this suture may not watch the pool.
#[derive(Debug, thiserror::Error)]
pub enum OnlyOneError {
    /// Another one does.
    #[error("{who}, so this one ends; nothing was changed")]
    Taken {
        /// Who.
        who: Holder,
    },
    /// The folder of the locks could not be made.
    #[error("making the folder {path} for the lock that only one suture for a pool has; run suture as root")]
    Folder {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock could not be asked for.
    #[error("taking the lock {path}, which only one suture for a pool has; run suture as root")]
    Lock {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The suture that has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Of which pool.
    pub pool: PoolName,
    /// The lock's file.
    pub path: PathBuf,
    /// Its process id, as it wrote it; nothing where it can not be told.
    pub pid: Option<u32>,
    /// Whether it has ended but for a thread that hangs in the kernel.
    pub hangs: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, path, .. } = self;
        let path = path.display();
        match (self.pid, self.hangs) {
            (Some(pid), true) => write!(
                out,
                "an earlier suture [{pid}] of the pool {pool} was ended and hangs in the kernel; it keeps {path} locked \
                 until the disk that it waits for answers"
            ),
            (Some(pid), false) => write!(
                out,
                "suture [{pid}] watches the pool {pool} already and has {path} locked (`suture status` asks it how it is)"
            ),
            (None, _) => write!(
                out,
                "another suture watches the pool {pool} already and has {path} locked"
            ),
        }
    }
}

impl OnlyOne {
    /// Takes the lock, without waiting, and writes its own process id into the file.
    pub fn of(pool: &PoolName) -> Result<Self, OnlyOneError> {
        Self::in_folder(Path::new(FOLDER), pool)
    }

    fn in_folder(folder: &Path, pool: &PoolName) -> Result<Self, OnlyOneError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(|source| OnlyOneError::Folder {
                path: folder.to_owned(),
                source,
            })?;
        let path = folder.join(file_name(pool));
        let failed = |source| OnlyOneError::Lock {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = pid_of_holder(&file);
                let who = Holder {
                    pool: pool.clone(),
                    path,
                    pid,
                    hangs: pid.is_some_and(has_ended),
                };
                return Err(OnlyOneError::Taken { who });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // An id of a dead one must not stay. Where ours can not be written, the lock holds all the same.
        file.set_len(0).map_err(failed)?;
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _lock: file })
    }
}

/// A pool's lock; bytes that a file name may not have, or that could be read as something else, are written `%2f`.
fn file_name(pool: &PoolName) -> String {
    let mut name = String::new();
    for byte in pool.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'.') {
            name.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name + ".lock"
}

/// Who has the lock. One that took it a moment ago may not have written its id yet, over that of a dead one.
fn pid_of_holder(file: &File) -> Option<u32> {
    for _ in 0..TRIES {
        let pid = written_pid(file);
        if pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            return pid;
        }
        sleep(PAUSE);
    }
    written_pid(file)
}

fn written_pid(file: &File) -> Option<u32> {
    let mut bytes = [0; LONGEST];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Whether of a process only threads are left: its leader is a zombie until the last of them has ended (`exit_notify`,
/// kernel/exit.c), and one that waits uninterruptibly for a disk does not.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, parentheses too.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_has_it_and_after_the_first_it_is_free() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("suture");
        let pool = PoolName::new("tp");
        let first = OnlyOne::in_folder(&folder, &pool).unwrap();
        let Err(OnlyOneError::Taken { who }) = OnlyOne::in_folder(&folder, &pool) else {
            panic!("two have it");
        };
        assert_eq!((who.pid, who.hangs), (Some(std::process::id()), false));
        let told = OnlyOneError::Taken { who }.to_string();
        let pid = format!("suture [{}] watches the pool tp already", std::process::id());
        assert!(told.contains(&pid) && told.contains("tp.lock"), "{told}");
        // Another pool is none of its business.
        let _other = OnlyOne::in_folder(&folder, &PoolName::new("tp2")).unwrap();
        drop(first);
        OnlyOne::in_folder(&folder, &pool).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("tp.lock"))), (0o755, 0o600));
    }

    #[test]
    fn a_longer_id_of_a_dead_one_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tp.lock"), "4294967295 and more\n").unwrap();
        let _held = OnlyOne::in_folder(folder.path(), &PoolName::new("tp")).unwrap();
        let text = fs::read_to_string(folder.path().join("tp.lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_lock_file_that_says_nothing_useful_still_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let pool = PoolName::new("tp");
        let _held = OnlyOne::in_folder(folder.path(), &pool).unwrap();
        for text in [
            "",
            "0\n",
            "-7\n",
            "mine",
            "99999999999999999999999999999999999999999",
        ] {
            fs::write(folder.path().join("tp.lock"), text).unwrap();
            let Err(OnlyOneError::Taken { who }) = OnlyOne::in_folder(folder.path(), &pool) else {
                panic!("two have it");
            };
            assert_eq!(who.pid, None);
            assert!(who.to_string().starts_with("another suture"), "{who}");
        }
    }

    #[test]
    fn no_name_leaves_the_folder_and_no_two_share_a_lock() {
        let names = ["a/b", "a%2fb", "..", "../a", "vg0-pool0", "ä", "a b", "A+b_c"];
        let files: Vec<_> = names.map(|name| file_name(&PoolName::new(name))).into();
        assert_eq!(
            files,
            [
                "a%2fb.lock",
                "a%252fb.lock",
                "...lock",
                "..%2fa.lock",
                "vg0-pool0.lock",
                "%c3%a4.lock",
                "a%20b.lock",
                "A+b_c.lock"
            ]
        );
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.path().join("tp.lock")).unwrap();
        let refused = OnlyOne::in_folder(folder.path(), &PoolName::new("tp"));
        assert!(matches!(refused, Err(OnlyOneError::Lock { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "kept");
    }

    #[test]
    fn one_that_has_ended_but_for_a_thread_is_told_from_one_that_runs() {
        assert!(!has_ended(std::process::id()));
        // A child that nobody has waited for is a zombie too.
        let mut child = Command::new("true").spawn().unwrap();
        let begun = std::time::Instant::now();
        while !has_ended(child.id()) {
            assert!(begun.elapsed().as_secs() < 20, "it does not end");
            std::thread::yield_now();
        }
        let who = Holder {
            pool: PoolName::new("tp"),
            path: "/run/suture/tp.lock".into(),
            pid: Some(child.id()),
            hangs: has_ended(child.id()),
        };
        assert!(who.to_string().contains("hangs in the kernel"), "{who}");
        child.wait().unwrap();
    }
}
