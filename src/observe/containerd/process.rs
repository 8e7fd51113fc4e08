//! Which process is containerd: the one that holds the lock on its pool database. A name proves nothing; the lock does,
//! because bbolt takes it when it opens the file and keeps it for containerd's whole life (bbolt `db.go`, `Open`).

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::{Lock, LockKind, LockType, Locks, ProcError, prelude::FromBufRead as _, process::Process};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::model::Incarnation;

/// Why it is not known which process holds the database.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The database could not be looked at.
    #[error("looking at {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `/proc` could not be read.
    #[error("reading /proc/locks and the boot's id")]
    Locks(#[source] ProcError),
    /// A process could not be watched.
    #[error("watching process {pid}")]
    Watch {
        /// Which.
        pid: u32,
        /// Why.
        source: Errno,
    },
}

/// The process that holds the lock on a bbolt database; none when nobody does, or there is no database.
pub fn holder_of(database: &Path) -> Result<Option<Incarnation>, ProcessError> {
    let file = match fs::metadata(database) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ProcessError::Database {
                path: database.to_owned(),
                source,
            });
        }
    };
    let boot = procfs::sys::kernel::random::boot_id().map_err(ProcessError::Locks)?;
    // The inode's number alone may also be another file system's: the open file itself tells.
    let holder = lock_holders(file.ino())?
        .into_iter()
        .filter_map(|pid| Process::new(pid).ok())
        .find(|process| has_locked(process, &file));
    Ok(holder.and_then(|process| {
        let start_ticks = process.stat().ok()?.starttime;
        Some(Incarnation {
            pid: u32::try_from(process.pid()).ok()?,
            start_ticks,
            boot,
        })
    }))
}

/// Processes that hold an exclusive flock on a file with this inode number.
fn lock_holders(inode: u64) -> Result<Vec<i32>, ProcessError> {
    let locks = exclusive_locks()?.into_iter();
    Ok(locks
        .filter(|(_, locked)| *locked == inode)
        .map(|(pid, _)| pid)
        .collect())
}

/// Every exclusive flock: who holds it, on a file with which inode number. Lines with an arrow are processes that wait
/// for one: they hold nothing (`show_lock`, fs/locks.c), and the library that parses the lines does not tell them apart.
pub(super) fn exclusive_locks() -> Result<Vec<(i32, u64)>, ProcessError> {
    let text = fs::read_to_string("/proc/locks").map_err(|error| ProcessError::Locks(error.into()))?;
    let held: Vec<&str> = text.lines().filter(|line| !line.contains("->")).collect();
    let held = held.join("\n");
    let locks = Locks::from_buf_read(held.as_bytes()).map_err(ProcessError::Locks)?;
    let exclusive = |lock: &Lock| matches!((&lock.lock_type, &lock.kind), (LockType::FLock, LockKind::Write));
    Ok(locks
        .0
        .into_iter()
        .filter(exclusive)
        .filter_map(|lock| Some((lock.pid?, lock.inode)))
        .collect())
}

/// Processes whose name is one of these. The kernel takes the name from the program's file, or from the script's, and
/// cuts it to 15 bytes (`TASK_COMM_LEN`).
pub(super) fn named(names: &[&str]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| {
                let comm = comm.trim_ascii_end();
                names.iter().any(|name| name.as_bytes() == comm)
            })
        })
        .collect()
}

/// Whether a process has this very file open, and an exclusive flock by that. To have it open is not enough: suture reads it
/// too, and holds locks on files of other file systems, one of which may have the same inode number.
fn has_locked(process: &Process, file: &fs::Metadata) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", process.pid())) else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let is_it =
            fs::metadata(entry.path()).is_ok_and(|open| open.ino() == file.ino() && open.dev() == file.dev());
        let name = entry.file_name();
        let info = || format!("/proc/{}/fdinfo/{}", process.pid(), name.to_string_lossy());
        is_it && fs::read_to_string(info()).is_ok_and(|info| info.lines().any(is_exclusive_flock))
    })
}

/// A line of fdinfo (`show_fd_locks`, fs/locks.c): `lock: 1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF`.
fn is_exclusive_flock(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next() == Some("lock:") && words.next().is_some() && {
        let mut rest = words;
        rest.next() == Some("FLOCK") && rest.any(|word| word == "WRITE")
    }
}

/// Blocks until the process has ended; returns at once when it has ended already. `stop` is polled beside it: when it
/// becomes readable, the wait is given up and `false` is returned.
pub fn wait_for_end(who: &Incarnation, stop: &impl std::os::fd::AsFd) -> Result<bool, ProcessError> {
    let failed = |source| ProcessError::Watch { pid: who.pid, source };
    let pid = i32::try_from(who.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(failed(Errno::INVAL))?;
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(true),
        Err(error) => return Err(failed(error)),
    };
    // The handle may be of a process that took the pid over meanwhile.
    if !is_running(who) {
        return Ok(true);
    }
    loop {
        let mut sources = [
            PollFd::new(&handle, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
        let [ended, stopped] = sources.map(|source| !source.revents().is_empty());
        if ended {
            return Ok(true);
        }
        if stopped {
            return Ok(false);
        }
    }
}

/// Whether this very process runs still.
#[must_use]
pub fn is_running(who: &Incarnation) -> bool {
    let Ok(pid) = i32::try_from(who.pid) else {
        return false;
    };
    Process::new(pid)
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.starttime == who.start_ticks)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// A process that holds the same kind of lock as bbolt, once this returns.
    fn flock(database: &Path, how: &str) -> Child {
        let mut child = Command::new("flock")
            .args(["--no-fork", how])
            .arg(database)
            .args(["sh", "-c", "echo locked; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 7];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        child
    }

    #[test]
    fn to_have_a_file_open_and_a_lock_on_another_is_not_to_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let (database, other) = (folder.path().join("tp.db"), folder.path().join("other"));
        fs::write(&database, "x").unwrap();
        fs::write(&other, "x").unwrap();
        let open = fs::File::open(&database).unwrap();
        let lock = fs::File::open(&other).unwrap();
        lock.try_lock().unwrap();
        let this = Process::myself().unwrap();
        let of = |file: &fs::File| has_locked(&this, &file.metadata().unwrap());
        assert!(!of(&open) && of(&lock));
        // A shared lock keeps nobody out who only reads, and is none of containerd's.
        open.try_lock_shared().unwrap();
        assert!(!of(&open));
    }

    #[test]
    fn the_holder_of_the_lock_is_found_and_its_end_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("tp.db");
        assert_eq!(holder_of(&database).unwrap(), None);
        fs::write(&database, b"x").unwrap();
        assert_eq!(holder_of(&database).unwrap(), None);

        // A reader's shared lock is not containerd's, and who waits for the lock does not hold it.
        let mut reader = flock(&database, "--shared");
        assert_eq!(holder_of(&database).unwrap(), None);
        reader.kill().unwrap();
        reader.wait().unwrap();
        let mut child = flock(&database, "--exclusive");
        let mut waiter = Command::new("flock").arg(&database).arg("true").spawn().unwrap();
        while !fs::read_to_string("/proc/locks").unwrap().contains("->") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let holder = holder_of(&database).unwrap().expect("somebody holds the lock");
        assert_eq!(holder.pid, child.id());

        let never = eventfd(0, EventfdFlags::empty()).unwrap();
        let stopped = eventfd(1, EventfdFlags::empty()).unwrap();
        assert!(
            !wait_for_end(&holder, &stopped).unwrap(),
            "a running process has not ended"
        );
        let another = Incarnation {
            start_ticks: holder.start_ticks + 1,
            ..holder.clone()
        };
        assert!(
            wait_for_end(&another, &never).unwrap(),
            "an earlier process of the same pid has ended"
        );
        waiter.kill().unwrap();
        waiter.wait().unwrap();
        child.kill().unwrap();
        assert!(wait_for_end(&holder, &never).unwrap());
        child.wait().unwrap();
        assert!(wait_for_end(&holder, &never).unwrap());
    }
}
