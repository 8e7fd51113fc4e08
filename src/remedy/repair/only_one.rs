//! One repair at a time on a node.

use std::{fs::File, path::Path};

use super::RepairError;
use crate::files::{NotLocked, beside, lock, private_folder};

/// Held while a repair is made; it goes with the process, however that ends.
#[derive(Debug)]
pub struct OnlyOne {
    _file: File,
}

impl OnlyOne {
    /// Takes the lock beside the ledger, or says at once that another repair has it.
    pub fn take(ledger: &Path) -> Result<Self, RepairError> {
        let path = beside(ledger, ".repair.lock");
        let made = path.parent().map_or(Ok(()), private_folder);
        match made.map_err(NotLocked::Failed).and_then(|()| lock(&path)) {
            Ok(file) => Ok(Self { _file: file }),
            Err(NotLocked::Held) => Err(RepairError::AnotherRepair { path }),
            Err(NotLocked::Failed(source)) => Err(RepairError::OnlyOne { path, source }),
        }
    }
}
