//! Whose the pool's data blocks are, in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, ThinId};

/// Data blocks of a pool by thin device, as of one transaction of its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Space {
    /// Every thin device.
    pub devices: BTreeMap<ThinId, DeviceSpace>,
    /// Data blocks that any device maps, each counted once.
    pub mapped: u64,
    /// Of those, the ones that several devices map.
    pub shared: u64,
    /// Size of a data block.
    pub data_block: Bytes,
    /// Why these numbers are not the whole truth; nothing where they are. Then what devices map may be more, and what is
    /// theirs alone may be less.
    pub incomplete: Option<String>,
}

/// Data blocks of one thin device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceSpace {
    /// Data blocks that it maps.
    pub mapped: u64,
    /// Of those, the ones that no other device maps: what deleting it frees.
    pub exclusive: u64,
}

impl DeviceSpace {
    /// Data blocks that it shares with other devices.
    #[must_use]
    pub fn shared(self) -> u64 {
        self.mapped.saturating_sub(self.exclusive)
    }
}

/// What deleting several thin devices together would free.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reclaimable {
    /// Data blocks that none but they map.
    pub blocks: u64,
    /// Size of a data block.
    pub data_block: Bytes,
    /// Why it may be less; nothing where it is exact.
    pub incomplete: Option<String>,
}

impl Reclaimable {
    /// The same in bytes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes(self.blocks.saturating_mul(self.data_block.0))
    }
}

impl Space {
    /// What deleting one thin device would free; nothing where the pool does not have it. Of several devices the answer
    /// is not the sum: what only they share is freed too, and takes a walk of its own.
    #[must_use]
    pub fn reclaimable(&self, id: ThinId) -> Option<Reclaimable> {
        Some(Reclaimable {
            blocks: self.devices.get(&id)?.exclusive,
            data_block: self.data_block,
            incomplete: self.incomplete.clone(),
        })
    }
}
