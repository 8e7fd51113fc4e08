//! Wakes when a database may have changed: inotify on the files, for their writes, and on their folders, for files that
//! come, go and are replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

/// bbolt writes with `pwrite` (`db.go`, `ops.writeAt`), and each write raises this; so does a truncation.
const OF_FILE: WatchFlags = WatchFlags::MODIFY;
/// Not the writes: the folder may also hold the files that the pool itself lies on.
const OF_FOLDER: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// What there is to look at.
#[derive(Debug, Default)]
pub(super) struct Woken {
    all: bool,
    files: BTreeSet<PathBuf>,
}

impl Woken {
    /// Everything.
    pub(super) fn all() -> Self {
        Self {
            all: true,
            files: BTreeSet::new(),
        }
    }

    pub(super) fn has(&self, file: &Path) -> bool {
        self.all || self.files.contains(file)
    }
}

/// The watches on all databases and their folders.
#[derive(Debug)]
pub(super) struct Notify {
    queue: Result<OwnedFd, Errno>,
    folders: BTreeMap<PathBuf, Result<i32, Errno>>,
    files: BTreeMap<PathBuf, Result<i32, Errno>>,
}

impl Notify {
    pub(super) fn new(folders: impl Iterator<Item = PathBuf>) -> Self {
        let folders = folders.map(|folder| (folder, Err(Errno::NOENT))).collect();
        let mut notify = Self {
            queue: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC),
            folders,
            files: BTreeMap::new(),
        };
        notify.renew();
        notify
    }

    /// What to poll.
    pub(super) fn handle(&self) -> Option<&OwnedFd> {
        self.queue.as_ref().ok()
    }

    /// Watches the folders, also those that came or were replaced since the last time. Watching one again costs nothing.
    pub(super) fn renew(&mut self) {
        let Ok(queue) = &self.queue else { return };
        for (folder, watch) in &mut self.folders {
            *watch = inotify::add_watch(queue, folder, OF_FOLDER);
        }
    }

    /// Watches the file that has this name now. To be called before the file is opened: what is written afterwards wakes.
    pub(super) fn watch(&mut self, file: &Path) {
        let Ok(queue) = &self.queue else { return };
        let watch = inotify::add_watch(queue, file, OF_FILE);
        let before = self.files.insert(file.to_owned(), watch);
        let in_use: BTreeSet<i32> = self.files.values().filter_map(|watch| watch.ok()).collect();
        if let Some(Ok(before)) = before
            && !in_use.contains(&before)
        {
            // The kernel has removed it already when the file is gone.
            let _ = inotify::remove_watch(queue, before);
        }
    }

    /// Takes everything that waits, and says what to look at. Without inotify that is nothing, and the clock must do.
    pub(super) fn drain(&mut self) -> Woken {
        let mut woken = Woken::default();
        let Ok(queue) = &self.queue else { return woken };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(queue, &mut buffer);
        while let Ok(event) = reader.next() {
            // Everything but a write to a known file, a full queue included, may concern every file.
            let written = event.events() == ReadFlags::MODIFY;
            let known = self.files.iter().find(|(_, watch)| **watch == Ok(event.wd()));
            match known.filter(|_| written) {
                Some((file, _)) => drop(woken.files.insert(file.clone())),
                None => woken.all = true,
            }
        }
        woken
    }

    /// Whether every change of a database wakes.
    pub(super) fn sees_all(&self) -> bool {
        // A file that is not there can not be watched; its folder tells when it comes.
        let file = |watch: &Result<i32, Errno>| matches!(watch, Ok(_) | Err(Errno::NOENT));
        self.queue.is_ok() && self.folders.values().all(Result::is_ok) && self.files.values().all(file)
    }

    /// Why not every change wakes.
    pub(super) fn blind(&self) -> Vec<String> {
        if let Err(errno) = &self.queue {
            return vec![format!(
                "inotify is not to be had ({errno}); see fs.inotify.max_user_instances"
            )];
        }
        let refused = |(path, watch): (&PathBuf, &Result<i32, Errno>)| match watch {
            Ok(_) => None,
            Err(Errno::NOENT) => Some(format!("{} does not exist yet", path.display())),
            Err(errno) => Some(format!(
                "{} can not be watched ({errno}); see fs.inotify.max_user_watches",
                path.display()
            )),
        };
        let files = self
            .files
            .iter()
            .filter(|(_, watch)| !matches!(watch, Err(Errno::NOENT)));
        self.folders.iter().chain(files).filter_map(refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn without_inotify_only_the_clock_wakes() {
        let mut notify = Notify {
            queue: Err(Errno::MFILE),
            folders: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        notify.watch(Path::new("/"));
        notify.renew();
        assert!(!notify.sees_all() && notify.handle().is_none());
        assert!(!notify.drain().has(Path::new("/any")), "only the clock wakes");
        assert!(
            notify.blind()[0].contains("max_user_instances"),
            "{:?}",
            notify.blind()
        );
    }

    #[test]
    fn a_write_wakes_for_its_file_and_a_change_of_the_folder_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        fs::write(&one, b"1").unwrap();
        fs::write(&other, b"1").unwrap();
        let mut notify = Notify::new(std::iter::once(folder.path().to_owned()));
        notify.watch(&one);
        notify.watch(&other);
        assert!(notify.sees_all() && notify.blind().is_empty());
        assert!(!notify.drain().has(&one), "nothing happened yet");
        fs::write(&one, b"2").unwrap();
        let woken = notify.drain();
        assert!(woken.has(&one) && !woken.has(&other));
        // Another file of that name: the old one is no longer watched, the new one is.
        fs::rename(&other, &one).unwrap();
        assert!(notify.drain().has(&other));
        notify.watch(&one);
        notify.drain();
        fs::write(&one, b"3").unwrap();
        assert!(notify.drain().has(&one));
    }
}
