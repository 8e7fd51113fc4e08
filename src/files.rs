//! Files and folders that suture alone is to read: what it keeps names pods, images and containers.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Of a file: its owner reads and writes.
const FILE: u32 = 0o600;
/// Of a folder: its owner alone sees what is in it.
const FOLDER: u32 = 0o700;

/// Makes a folder, and those above it that are missing, for their owner alone. One that is there stays as it is: it may be
/// anybody's.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    // Of a file in the working folder the folder has no name.
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

/// Opens a file of suture's to write to it, and makes it where it is missing. An older suture may have let others read it:
/// that ends here.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE)
        .open(path)?;
    tighten(path)?;
    Ok(file)
}

/// Makes a file where it is missing, and tightens one that is there without opening it: to close a file lets go of the locks
/// that this process has on it elsewhere (fcntl(2)), and SQLite's are such.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.create_new(true).write(true).mode(FILE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => tighten(path),
        Err(error) => Err(error),
    }
}

/// Takes a file or folder of suture's away from all but its owner; one that is not there is left so.
pub(crate) fn tighten(path: &Path) -> io::Result<()> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mode = metadata.permissions().mode();
    let owners = mode & 0o700;
    if mode & 0o777 == owners {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(owners)) {
        // Another user's, who let this one write to it: that is for them to say.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// The path with more at the end of its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Why a lock could not be taken.
#[derive(Debug)]
pub(crate) enum NotLocked {
    /// Another process has it.
    Held,
    /// The operating system said no.
    Failed(io::Error),
}

/// Makes a file and locks it, without waiting. The lock goes with the file handle, also when the process is killed.
pub(crate) fn lock(path: &Path) -> Result<File, NotLocked> {
    let file = private_file(path).map_err(NotLocked::Failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NotLocked::Held),
        Err(TryLockError::Error(source)) => Err(NotLocked::Failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_its_owners_alone_and_what_was_open_to_all_is_tightened() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("a/b");
        private_folder(&folder).unwrap();
        assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));
        let file = folder.join("file");
        drop(private_file(&file).unwrap());
        assert_eq!(mode(&file), 0o600);
        fs::write(&file, "kept").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        drop(private_file(&file).unwrap());
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
        tighten(&folder.join("missing")).unwrap();
        assert!(!folder.join("missing").exists());
    }

    #[test]
    fn a_folder_that_was_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        private_folder(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
        private_folder(Path::new("")).unwrap();
    }

    #[test]
    fn one_has_the_lock_until_it_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside(&folder.path().join("x.db"), ".lock");
        assert!(path.ends_with("x.db.lock"));
        let held = lock(&path).unwrap();
        assert!(matches!(lock(&path), Err(NotLocked::Held)));
        drop(held);
        assert!(lock(&path).is_ok());
        assert!(matches!(lock(folder.path()), Err(NotLocked::Failed(_))));
    }
}
