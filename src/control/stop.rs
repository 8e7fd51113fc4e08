//! The kill switch as `suture pause` makes it while no suture runs: a file that keeps one that is started from healing.
//! `suture resume` removes what `suture pause` made, and nothing else: whoever made one by hand had a reason.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// How the file begins.
const MARK: &str = "made by `suture pause`; `suture resume` removes it\n";

/// What became of a kill switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillSwitch {
    /// It was made.
    Made,
    /// It was there already.
    Stays,
    /// It was removed.
    Removed,
    /// It is there and was made by somebody else, so it stays.
    NotOurs,
    /// There is none.
    NotThere,
}

/// Why a kill switch could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("{what} the kill switch {path}")]
pub struct KillSwitchError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes it, on disk when this returns. One that is there stays as it is.
pub fn make(path: &Path, why: &str, who: &str) -> Result<KillSwitch, KillSwitchError> {
    let failed = |source| KillSwitchError {
        what: "making",
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(failed)?;
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    let mut file = match made {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(KillSwitch::Stays),
        Err(error) => return Err(failed(error)),
    };
    let text = format!("{MARK}who: {}\nwhy: {}\n", who.escape_debug(), why.escape_debug());
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    if let Some(folder) = folder {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
    }
    Ok(KillSwitch::Made)
}

/// Removes it, where `suture pause` made it.
pub fn remove(path: &Path) -> Result<KillSwitch, KillSwitchError> {
    let failed = |source| KillSwitchError {
        what: "removing",
        path: path.to_owned(),
        source,
    };
    // It may be anything, so it is not waited for and no link is followed.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KillSwitch::NotThere),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(KillSwitch::NotOurs),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(KillSwitch::NotOurs);
    }
    let mut beginning = Vec::new();
    let longest = u64::try_from(MARK.len()).unwrap_or(u64::MAX);
    file.take(longest).read_to_end(&mut beginning).map_err(failed)?;
    if beginning != MARK.as_bytes() {
        return Ok(KillSwitch::NotOurs);
    }
    fs::remove_file(path).map_err(failed)?;
    Ok(KillSwitch::Removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_removed_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/stop");
        assert_eq!(remove(&path).unwrap(), KillSwitch::NotThere);
        assert_eq!(make(&path, "a\nwhy", "root").unwrap(), KillSwitch::Made);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("who: root\nwhy: a\\nwhy\n"), "{text}");
        assert_eq!(make(&path, "another", "root").unwrap(), KillSwitch::Stays);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(remove(&path).unwrap(), KillSwitch::Removed);
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_else_made_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stop");
        for text in ["", "hands off", &MARK[1..]] {
            fs::write(&path, text).unwrap();
            assert_eq!(remove(&path).unwrap(), KillSwitch::NotOurs);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        let ours = folder.path().join("ours");
        make(&ours, "", "").unwrap();
        std::os::unix::fs::symlink(&ours, &path).unwrap();
        assert_eq!(remove(&path).unwrap(), KillSwitch::NotOurs);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(remove(&path).unwrap(), KillSwitch::NotOurs);
        assert!(path.exists() && ours.exists());
    }
}
