//! A damaged ledger is kept, under another name, and a new one is begun. Open intents and what the engine and people had
//! said are taken over as far as they can be read whole; who made which thin device is not: a claim from a damaged file
//! gives no leave to delete.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    Ledger, LedgerError,
    salvage::{Salvaged, salvage},
};
use crate::{files::beside, model::Timestamp};

/// So many damaged ledgers are kept.
const KEEP: usize = 3;
/// Files of a ledger.
const FILES: [&str; 3] = ["", "-wal", "-shm"];

/// What became of a damaged ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now.
    pub to: PathBuf,
    /// What was found.
    pub why: String,
    /// What was taken over.
    pub salvaged: Salvaged,
    /// Older damaged ledgers that were deleted for it.
    pub deleted: Vec<PathBuf>,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            to,
            why,
            salvaged,
            deleted,
        } = self;
        write!(
            f,
            "the ledger was damaged ({why}); it is kept as {}, and a new one is begun. Who made which thin device is not \
             known any more, so those are only told of; {} from it",
            to.display(),
            match salvaged.intents {
                0 => "no open intent was taken over".to_owned(),
                1 => "one open intent was taken over".to_owned(),
                many => format!("{many} open intents were taken over"),
            }
        )?;
        for unreadable in &salvaged.unreadable {
            write!(f, "; {unreadable}")?;
        }
        if !deleted.is_empty() {
            let names: Vec<_> = deleted.iter().map(|path| path.display().to_string()).collect();
            write!(f, "; older damaged ones were deleted: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Sets the damaged ledger aside and opens a new one. Whoever calls keeps others out.
pub(super) fn begin_anew(
    path: &Path,
    why: &LedgerError,
    begin: impl FnOnce() -> Result<Ledger, LedgerError>,
) -> Result<(Ledger, SetAside), LedgerError> {
    let failed = |source| LedgerError::SetAside {
        path: path.to_owned(),
        source,
    };
    let to = rename(path).map_err(failed)?;
    let ledger = begin()?;
    let salvaged = salvage(&to, &ledger)?;
    let deleted = delete_old(path, &to).map_err(failed)?;
    let why = match why {
        LedgerError::Damaged { why } => why.clone(),
        other => crate::words::explain(other),
    };
    Ok((
        ledger,
        SetAside {
            to,
            why,
            salvaged,
            deleted,
        },
    ))
}

fn rename(path: &Path) -> io::Result<PathBuf> {
    let time = jiff::Timestamp::from(Timestamp::from(SystemTime::now()))
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let name = |number: u32| match number {
        1 => beside(path, &format!(".damaged-{time}")),
        number => beside(path, &format!(".damaged-{time}-{number}")),
    };
    let is_free = |to: &PathBuf| FILES.iter().all(|file| !beside(to, file).exists());
    let to = (1..=1000).map(name).find(is_free);
    let to = to.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    // The log after the file: cut off in between, a log without its file is found at the next start.
    for file in FILES {
        match fs::rename(beside(path, file), beside(&to, file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(to)
}

/// Deletes the oldest of too many, never the newest; a disk that fails damages one ledger after the other.
fn delete_old(path: &Path, newest: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let begin = format!("{}.damaged-", name.to_string_lossy());
    let mut others = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&begin) {
            // A log may be there alone.
            let base = ["-wal", "-shm"]
                .iter()
                .fold(&*name, |name, ending| name.strip_suffix(ending).unwrap_or(name));
            others.insert(folder.join(base));
        }
    }
    others.remove(newest);
    let too_many = (others.len() + 1).saturating_sub(KEEP);
    let oldest: Vec<PathBuf> = others.into_iter().take(too_many).collect();
    for base in &oldest {
        for file in FILES {
            match fs::remove_file(beside(base, file)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(oldest)
}
