//! One repair at a time on a node.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::RepairError;

/// Held while a repair is made; it goes with the process, however that ends.
#[derive(Debug)]
pub struct OnlyOne {
    _file: File,
}

impl OnlyOne {
    /// Takes the lock beside the ledger, or says at once that another repair has it.
    pub fn take(ledger: &Path) -> Result<Self, RepairError> {
        let mut name = ledger.as_os_str().to_owned();
        name.push(".repair.lock");
        let path = PathBuf::from(name);
        let failed = |source| RepairError::OnlyOne {
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(RepairError::AnotherRepair { path }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}
