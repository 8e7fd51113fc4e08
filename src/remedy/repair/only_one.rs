//! One repair at a time of a snapshotter's databases.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::RepairError;
use crate::{
    files::{NotLocked, beside, lock, private_folder},
    observe::world::Places,
};

/// Held while a repair is made; it goes with the process, however that ends.
#[derive(Debug)]
pub struct OnlyOne {
    _folder: Option<File>,
    _ledger: File,
}

impl OnlyOne {
    /// Takes the lock, or says at once that another repair has it, whatever ledger that one keeps.
    ///
    /// It is on the folder of the databases, so that all who may change them see the same one, from any mount namespace.
    /// containerd locks the databases' files and never their folder (`bolt.Open`, plugins/snapshots/devmapper/metadata.go), so
    /// it does not wait for this. Where there is no folder there is nothing to repair.
    ///
    /// A second lock is beside the ledger, so that nobody sets a damaged one aside while a repair writes to it.
    pub fn take(places: &Places, ledger: &Path) -> Result<Self, RepairError> {
        let folder = locked(&places.root).map_err(|error| of_lock(&places.root, error))?;
        let path = beside(ledger, ".repair.lock");
        let made = ledger.parent().map_or(Ok(()), private_folder);
        let file = made.map_err(NotLocked::Failed).and_then(|()| lock(&path));
        let ledger = file.map_err(|error| match error {
            NotLocked::Held => RepairError::AnotherRepair { path },
            NotLocked::Failed(source) => RepairError::OnlyOne { path, source },
        })?;
        Ok(Self {
            _folder: folder,
            _ledger: ledger,
        })
    }
}

fn of_lock(path: &Path, error: TryLockError) -> RepairError {
    let path = path.to_owned();
    match error {
        TryLockError::WouldBlock => RepairError::AnotherRepair { path },
        TryLockError::Error(source) => RepairError::OnlyOne { path, source },
    }
}

fn locked(folder: &Path) -> Result<Option<File>, TryLockError> {
    let folder = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(TryLockError::Error)?,
    };
    folder.try_lock()?;
    Ok(Some(folder))
}
