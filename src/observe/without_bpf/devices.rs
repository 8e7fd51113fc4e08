//! The list of dm devices, compared with the one before, and what the watched pool says of itself.

use std::{collections::BTreeMap, os::fd::BorrowedFd};

use crate::{
    model::{
        DeviceNumber, Observation, PoolMode, PoolName, Timestamp, Untrusted,
        kernel::{DeviceChange, DeviceChangeKind, PoolStatus},
    },
    observe::device_mapper::{DeviceMapper, DeviceMapperError},
};

/// Devices compared; a machine with more is not watched whole.
const MAX_DEVICES: usize = 65_536;

/// The dm devices at one time: event numbers, where they could be had, by number and name. A device that was renamed is
/// told as gone and come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listing {
    read: Timestamp,
    devices: BTreeMap<(DeviceNumber, Vec<u8>), Option<u32>>,
}

/// Device-mapper's control node, and what was seen through it last.
pub(super) struct Devices {
    dm: DeviceMapper,
    last: Option<Listing>,
    pool: Option<(PoolMode, bool)>,
    armed: bool,
}

impl Devices {
    /// Opens the control node.
    pub(super) fn open() -> Result<Self, DeviceMapperError> {
        Ok(Self {
            dm: DeviceMapper::open()?,
            last: None,
            pool: None,
            armed: false,
        })
    }

    /// Looks once: what changed since the last look, and how the pool is if that is new. The first look gives only the
    /// pool.
    ///
    /// Armed before the list is read, so that what happens in between is seen at once with the next look. Arming stores
    /// a number in this open file and nowhere else (`dev_arm_poll`, drivers/md/dm-ioctl.c).
    pub(super) fn look(
        &mut self,
        pool: Option<&PoolName>,
        clock: impl Fn() -> Timestamp,
    ) -> Result<Vec<Observation>, DeviceMapperError> {
        // Kernels before 4.13 know no such call; there the list is read from time to time.
        self.armed = self.dm.arm_poll().is_ok();
        let read = clock();
        let now = self.list(read)?;
        let mut seen = match self.last.replace(now) {
            Some(before) => changes(&before, self.last.as_ref()),
            None => Vec::new(),
        };
        if let Some(name) = pool {
            seen.extend(self.pool(name, read));
        }
        Ok(seen)
    }

    /// What to wait for; nothing where there is nothing that would tell.
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.armed.then(|| self.dm.events())
    }

    fn list(&self, read: Timestamp) -> Result<Listing, DeviceMapperError> {
        let devices = self.dm.event_numbers()?.into_iter().take(MAX_DEVICES).collect();
        Ok(Listing { read, devices })
    }

    /// The pool's mode, if it is another one than before. A pool that is not there or can not be asked is not this
    /// sense's to tell: whoever reads the world stumbles over it.
    fn pool(&mut self, name: &PoolName, at: Timestamp) -> Option<Observation> {
        let now = self.dm.pool(name).ok().map(|pool| (pool.mode, pool.needs_check));
        let before = std::mem::replace(&mut self.pool, now);
        let (mode, needs_check) = now.filter(|_| now != before)?;
        Some(Observation::PoolStatus(PoolStatus {
            at,
            pool: name.clone(),
            mode,
            needs_check,
        }))
    }
}

/// What is different, gone devices first. A device that was removed and made again between two looks is seen only by a
/// lower event number.
fn changes(before: &Listing, after: Option<&Listing>) -> Vec<Observation> {
    let Some(after) = after else { return Vec::new() };
    let change = |(device, name): &(DeviceNumber, Vec<u8>), what| {
        Observation::DeviceChange(DeviceChange {
            at: after.read,
            since: before.read,
            name: Untrusted::from_bytes(name),
            device: *device,
            what,
        })
    };
    let made_again = |key| matches!((before.devices.get(key), after.devices.get(key)), (Some(Some(was)), Some(Some(is))) if is < was);
    let gone = before
        .devices
        .keys()
        .filter(|key| !after.devices.contains_key(*key) || made_again(*key))
        .map(|key| change(key, DeviceChangeKind::Disappeared));
    let come = after.devices.iter().filter_map(|(key, is)| {
        let what = match (before.devices.get(key), is) {
            (None, _) => DeviceChangeKind::Appeared,
            (Some(Some(was)), Some(is)) if is < was => DeviceChangeKind::Appeared,
            (Some(Some(was)), Some(is)) if is > was => DeviceChangeKind::Event { event_nr: *is },
            _ => return None,
        };
        Some(change(key, what))
    });
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::at;

    fn listing(second: u64, devices: &[(u32, &str, Option<u32>)]) -> Listing {
        let devices = devices
            .iter()
            .map(|(minor, name, event)| ((number(*minor), name.as_bytes().to_vec()), *event))
            .collect();
        Listing {
            read: at(second),
            devices,
        }
    }

    fn number(minor: u32) -> DeviceNumber {
        DeviceNumber { major: 253, minor }
    }

    fn told(before: &Listing, after: &Listing) -> Vec<String> {
        changes(before, Some(after))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_came_went_and_moved_is_told_with_the_span_it_happened_in() {
        let before = listing(
            1,
            &[(0, "tp", Some(3)), (1, "old", Some(0)), (2, "same", Some(9))],
        );
        let after = listing(
            2,
            &[(0, "tp", Some(4)), (2, "same", Some(9)), (3, "new\x1b", None)],
        );
        assert_eq!(
            told(&before, &after),
            [
                "dm device old (253:1) has disappeared",
                "dm device tp (253:0) is at event 4",
                "dm device new\\x1b (253:3) has appeared",
            ]
        );
        let Some(Observation::DeviceChange(first)) = changes(&before, Some(&after)).into_iter().next() else {
            panic!("no change")
        };
        assert_eq!((first.since, first.at), (at(1), at(2)));
    }

    #[test]
    fn a_number_that_bears_another_name_is_another_device() {
        let before = listing(1, &[(1, "one", Some(5))]);
        let after = listing(2, &[(1, "two", Some(5))]);
        assert_eq!(told(&before, &after).len(), 2);
    }

    #[test]
    fn a_device_made_again_has_forgotten_its_events() {
        let before = listing(1, &[(1, "one", Some(5))]);
        let after = listing(2, &[(1, "one", Some(0))]);
        assert_eq!(
            told(&before, &after),
            [
                "dm device one (253:1) has disappeared",
                "dm device one (253:1) has appeared"
            ]
        );
    }

    #[test]
    fn an_event_number_that_could_not_be_had_is_no_event() {
        let known = listing(1, &[(1, "one", Some(5))]);
        let unknown = listing(2, &[(1, "one", None)]);
        assert!(told(&known, &unknown).is_empty() && told(&unknown, &known).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_changes_the_changes_lead_from_one_list_to_the_other(before in lists(), after in lists()) {
            let mut present: std::collections::BTreeSet<_> = before.devices.keys().cloned().collect();
            for one in changes(&before, Some(&after)) {
                let Observation::DeviceChange(change) = one else { panic!("{one:?}") };
                let key = (change.device, change.name.as_str().as_bytes().to_vec());
                match change.what {
                    DeviceChangeKind::Appeared => prop_assert!(present.insert(key)),
                    DeviceChangeKind::Disappeared => prop_assert!(present.remove(&key)),
                    DeviceChangeKind::Event { event_nr } => prop_assert_eq!(after.devices[&key], Some(event_nr)),
                }
            }
            prop_assert!(present.iter().eq(after.devices.keys()));
            prop_assert!(changes(&after, Some(&after)).is_empty());
        }
    }

    fn lists() -> impl Strategy<Value = Listing> {
        let key = (0_u32..4, "[a-c]").prop_map(|(minor, name)| (number(minor), name.into_bytes()));
        proptest::collection::btree_map(key, proptest::option::of(0_u32..4), 0..8)
            .prop_map(|devices| Listing { read: at(1), devices })
    }
}
