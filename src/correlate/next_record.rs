//! The record that bears the name of the next snapshot: as long as containerd is at work on it that is how a snapshot is
//! made, and when nobody is, no further one can be made.

use crate::model::{DeviceRecord, Timestamp, TxId, World};

/// The record of the next snapshot, as it has stood in one world after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The record.
    pub record: DeviceRecord,
    /// Since when it was found just so.
    pub since: Timestamp,
    /// Since when containerd's pool database was found without a further transaction, too.
    pub unmoved: Timestamp,
    txid: TxId,
}

/// Follows it.
#[derive(Debug, Clone, Default)]
pub(super) struct NextRecord {
    standing: Option<Standing>,
}

impl NextRecord {
    pub(super) fn world(&mut self, world: &World) {
        let (at, txid) = (world.begun, world.pool_db.txid);
        let before = self.standing.take();
        self.standing = world.next_record().map(|record| {
            let same = before.filter(|before| before.record == *record);
            let unmoved = same.as_ref().filter(|before| before.txid == txid);
            Standing {
                record: record.clone(),
                since: same.as_ref().map_or(at, |before| before.since),
                unmoved: unmoved.map_or(at, |before| before.unmoved),
                txid,
            }
        });
    }

    pub(super) fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{DeviceState, TxId},
        testing::{self, Fill as _},
    };

    #[test]
    fn it_is_the_same_record_only_as_long_as_nothing_in_it_changes() {
        let mut next = NextRecord::default();
        let world = |second, txid, state| {
            let mut world = testing::world(second).record("tp-snap-1", 1, state);
            world.pool_db.txid = TxId(txid);
            world
        };
        next.world(&world(10, 5, DeviceState::Activated));
        next.world(&world(20, 5, DeviceState::Activated));
        let times = |next: &NextRecord| next.standing().map(|one| (one.since, one.unmoved));
        assert_eq!(times(&next), Some((testing::at(10), testing::at(10))));
        next.world(&world(30, 6, DeviceState::Activated));
        assert_eq!(times(&next), Some((testing::at(10), testing::at(30))));
        next.world(&world(40, 6, DeviceState::Deactivating));
        assert_eq!(times(&next), Some((testing::at(40), testing::at(40))));
        next.world(&world(50, 6, DeviceState::Deactivating).snapshot(1));
        assert_eq!(times(&next), None, "it has its snapshot");
    }
}
