//! The containerds that run on this machine.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{DEFAULT_CONFIG, View};
use crate::observe::containerd::{arguments::Arguments, process};

/// What containerd's own database is called below its root; it is open, and locked, for all of containerd's life.
const CORE_DB: &str = "io.containerd.metadata.v1.bolt/meta.db";
/// The longest command line that is read.
const LONGEST_COMMAND_LINE: u64 = 64 << 10;

/// A containerd that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: u32,
    pub(super) arguments: Arguments,
    /// How its paths are seen from here; none where it sees another file system than this process and the machine's
    /// first process.
    pub(super) view: Option<View>,
    /// Set when it is seen to have its database open.
    proven: bool,
}

impl Running {
    /// Its configuration, as it has it.
    pub(super) fn config(&self) -> PathBuf {
        self.arguments
            .config
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
    }
}

/// Every containerd that runs: a process that has the lock on a `meta.db`, by whatever name, and while the open files of
/// others can not be looked at, one that is called so.
pub(super) fn find() -> Vec<Running> {
    let locks = process::exclusive_locks().unwrap_or_default();
    let mut pids: BTreeSet<u32> = locks
        .iter()
        .filter_map(|(pid, _)| u32::try_from(*pid).ok())
        .collect();
    pids.extend(process::named(&["containerd"]));
    let mut running: Vec<Running> = pids.into_iter().filter_map(look).collect();
    if running.iter().any(|one| one.proven) {
        running.retain(|one| one.proven);
    }
    running
}

fn look(pid: u32) -> Option<Running> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let proven = match has_core_db_open(&folder) {
        Ok(true) => true,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if fs::read(folder.join("comm")).ok()?.trim_ascii_end() != b"containerd" {
                return None;
            }
            false
        }
        Ok(false) | Err(_) => return None,
    };
    let mut line = Vec::new();
    let file = File::open(folder.join("cmdline")).ok()?;
    file.take(LONGEST_COMMAND_LINE).read_to_end(&mut line).ok()?;
    let arguments = Arguments::parse(&line)?;
    // Relative paths are rare; without the right to know what they are relative to, the root is a guess.
    let works_in = fs::read_link(folder.join("cwd")).unwrap_or_else(|_| PathBuf::from("/"));
    // The snapshotter needs root; whoever else calls itself containerd is not taken for one.
    let by_root = fs::metadata(&folder).is_ok_and(|folder| folder.uid() == 0);
    Some(Running {
        pid,
        arguments: arguments.below(&works_in),
        view: View::of_process(pid).filter(|_| by_root),
        proven,
    })
}

fn has_core_db_open(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder.join("fd"))? {
        match fs::read_link(entry?.path()) {
            Ok(path) if path.ends_with(CORE_DB) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
impl Running {
    /// One for a test.
    pub(super) fn of(pid: u32, arguments: Arguments, view: Option<View>) -> Self {
        Self {
            pid,
            arguments,
            view,
            proven: true,
        }
    }
}
