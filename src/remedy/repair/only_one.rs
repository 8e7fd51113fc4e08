//! One repair at a time of a snapshotter's databases.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::RepairError;
use crate::observe::world::Places;

/// Held while a repair is made; it goes with the process, however that ends.
#[derive(Debug)]
pub struct OnlyOne {
    _folder: Option<File>,
}

impl OnlyOne {
    /// Takes the lock, or says at once that another repair has it, whatever ledger that one keeps.
    ///
    /// It is on the folder of the databases, so that all who may change them see the same one, from any mount namespace.
    /// containerd locks the databases' files and never their folder (`bolt.Open`, plugins/snapshots/devmapper/metadata.go), so
    /// it does not wait for this. Where there is no folder there is nothing to repair.
    pub fn take(places: &Places) -> Result<Self, RepairError> {
        match locked(&places.root) {
            Ok(folder) => Ok(Self { _folder: folder }),
            Err(TryLockError::WouldBlock) => Err(RepairError::AnotherRepair {
                path: places.root.clone(),
            }),
            Err(TryLockError::Error(source)) => Err(RepairError::OnlyOne {
                path: places.root.clone(),
                source,
            }),
        }
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
