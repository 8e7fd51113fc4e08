//! What lies on what: the block devices that a pool stands on, as one read of sysfs and of the dm tables has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    DeviceNumber, Pool, Untrusted,
    ranges::{Range, Ranges},
};

/// How a device lies on a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lies", rename_all = "snake_case")]
pub enum Layer {
    /// Its sectors from `start` on, `length` of them, are those of `lower` from `lower_start` on.
    Linear {
        /// First sector of the upper device.
        start: u64,
        /// How many sectors.
        length: u64,
        /// The lower device.
        lower: DeviceNumber,
        /// First sector of the lower device.
        lower_start: u64,
    },
    /// Somewhere on `lower`: striped, mirrored, encrypted, or a file in a file system there.
    Somewhere {
        /// The lower device.
        lower: DeviceNumber,
    },
}

impl Layer {
    /// The lower device.
    #[must_use]
    pub fn lower(&self) -> DeviceNumber {
        match self {
            Self::Linear { lower, .. } | Self::Somewhere { lower } => *lower,
        }
    }
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockDevice {
    /// Its dm name, or the kernel's name of it.
    pub name: Untrusted,
    /// What it lies on; nothing for a disk.
    pub on: Vec<Layer>,
    /// Kinds of the targets in its live table, for a dm device of which they were read.
    pub targets: Vec<Untrusted>,
    /// Set for a partition. The kernel tells of its failed bios with the sectors of the whole disk
    /// (`blk_partition_remap`, block/blk-core.c, changes the sector and keeps the device).
    pub is_partition: bool,
}

/// Where sectors of a lower device are found on an upper one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// At none of its sectors.
    Nowhere,
    /// At exactly these.
    At(Ranges),
    /// Somewhere on it.
    Somewhere,
}

impl Placed {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nowhere, other) | (other, Self::Nowhere) => other,
            (Self::At(mut one), Self::At(other)) => {
                one.extend(&other);
                Self::At(one)
            }
            _ => Self::Somewhere,
        }
    }
}

/// The block devices that a pool stands on, and those of its own nodes that bear no thin device's table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Topology {
    /// By number.
    pub devices: BTreeMap<DeviceNumber, BlockDevice>,
    /// What could not be read, a sentence each.
    pub unread: Vec<String>,
}

impl Topology {
    /// More devices are not looked at.
    pub const MAX_DEVICES: usize = 256;
    /// More sentences about what could not be read are left out.
    pub const MAX_UNREAD: usize = 8;
    /// Devices that lie on each other deeper than this are not followed.
    const MAX_DEPTH: usize = 16;

    /// What the pool's own table tells: the pool lies on its data device, sector by sector (`pool_map`,
    /// drivers/md/dm-thin.c).
    #[must_use]
    pub fn of_pool(pool: &Pool) -> Self {
        let mut topology = Self::default();
        let name = Untrusted::from_bytes(pool.name.as_str().as_bytes());
        let on = pool.data_device().map(|lower| Layer::Linear {
            start: 0,
            length: u64::MAX,
            lower,
            lower_start: 0,
        });
        topology.devices.insert(
            pool.device,
            BlockDevice {
                name,
                on: on.into_iter().collect(),
                ..BlockDevice::default()
            },
        );
        topology
    }

    /// Notes something that could not be read.
    pub fn note_unread(&mut self, what: String) {
        if self.unread.len() < Self::MAX_UNREAD && !self.unread.contains(&what) {
            self.unread.push(what);
        }
    }

    /// `253:1 (tdata)`, or the bare number of a device whose name is not known.
    #[must_use]
    pub fn call(&self, device: DeviceNumber) -> String {
        match self.devices.get(&device) {
            Some(known) if !known.name.is_empty() => format!("{device} ({})", known.name),
            _ => device.to_string(),
        }
    }

    /// Whether the live table of a dm device is nothing but the `error` target.
    #[must_use]
    pub fn is_error_table(&self, device: DeviceNumber) -> bool {
        self.devices.get(&device).is_some_and(|known| {
            !known.targets.is_empty() && known.targets.iter().all(|kind| kind.as_str() == "error")
        })
    }

    /// Everything that a device lies on, however deep; not the device itself.
    #[must_use]
    pub fn below(&self, device: DeviceNumber) -> BTreeSet<DeviceNumber> {
        let mut found = BTreeSet::new();
        let mut open = vec![device];
        while let Some(upper) = open.pop() {
            for layer in self.devices.get(&upper).map_or(&[][..], |known| &known.on) {
                if layer.lower() != device && found.insert(layer.lower()) {
                    open.push(layer.lower());
                }
            }
        }
        found
    }

    /// Where failed sectors of `device`, as the kernel told them, are found on `upper`. No ranges mean all of the device:
    /// the kernel tells no sectors of a failed flush.
    #[must_use]
    pub fn place(&self, device: DeviceNumber, failed: &Ranges, upper: DeviceNumber) -> Placed {
        let all = match self.of_partition(device) {
            _ if failed.is_empty() => Placed::Somewhere,
            None => Placed::At(failed.clone()),
            Some(window) => match failed.moved(window, 0) {
                none if none.is_empty() => Placed::Nowhere,
                some => Placed::At(some),
            },
        };
        let mut places = BTreeMap::from([(device, all)]);
        // From layer to layer, all devices at once: tangled tables cost no more than straight ones.
        for _ in 0..Self::MAX_DEPTH {
            let mut changed = false;
            for (number, above) in self.devices.iter().filter(|(number, _)| **number != device) {
                let here = above.on.iter().fold(Placed::Nowhere, |here, layer| {
                    let below = places.get(&layer.lower()).unwrap_or(&Placed::Nowhere);
                    here.and(through(layer, below))
                });
                if here != Placed::Nowhere && places.get(number) != Some(&here) {
                    places.insert(*number, here);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        places.remove(&upper).unwrap_or(Placed::Nowhere)
    }

    /// Where a partition lies on its disk.
    fn of_partition(&self, device: DeviceNumber) -> Option<Range> {
        let known = self.devices.get(&device).filter(|known| known.is_partition)?;
        match known.on.first()? {
            Layer::Linear {
                length, lower_start, ..
            } => Some(Range {
                start: *lower_start,
                end: lower_start.saturating_add(*length),
            }),
            Layer::Somewhere { .. } => None,
        }
    }
}

/// Sectors of a lower device, as sectors of the upper one.
fn through(layer: &Layer, at: &Placed) -> Placed {
    match (layer, at) {
        (_, Placed::Nowhere) => Placed::Nowhere,
        (
            Layer::Linear {
                start,
                length,
                lower_start,
                ..
            },
            Placed::At(ranges),
        ) => {
            let window = Range {
                start: *lower_start,
                end: lower_start.saturating_add(*length),
            };
            let moved = ranges.moved(window, *start);
            if moved.is_empty() {
                Placed::Nowhere
            } else {
                Placed::At(moved)
            }
        }
        (Layer::Somewhere { .. }, Placed::At(_)) | (_, Placed::Somewhere) => Placed::Somewhere,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    const DISK: DeviceNumber = DeviceNumber { major: 8, minor: 0 };
    const PARTITION: DeviceNumber = DeviceNumber { major: 8, minor: 2 };
    const STRIPED: DeviceNumber = DeviceNumber { major: 253, minor: 8 };

    fn ranges(all: &[(u64, u64)]) -> Ranges {
        all.iter().copied().collect()
    }

    fn linear(start: u64, length: u64, lower: DeviceNumber, lower_start: u64) -> Layer {
        Layer::Linear {
            start,
            length,
            lower,
            lower_start,
        }
    }

    /// The pool's data device is two pieces of a partition, in the other order.
    fn stack() -> (Topology, DeviceNumber) {
        let pool = testing::world(1).pool;
        let mut topology = Topology::of_pool(&pool);
        let data = pool.data_device().unwrap();
        let device = |on: Vec<Layer>, is_partition| BlockDevice {
            on,
            is_partition,
            ..BlockDevice::default()
        };
        let pieces = vec![linear(0, 100, PARTITION, 500), linear(100, 100, PARTITION, 0)];
        topology.devices.insert(data, device(pieces, false));
        let partition = vec![linear(0, 1000, DISK, 2048)];
        topology.devices.insert(PARTITION, device(partition, true));
        topology.devices.insert(DISK, device(Vec::new(), false));
        (topology, pool.device)
    }

    #[test]
    fn sectors_rise_exactly_through_partitions_and_linear_targets() {
        let (topology, pool) = stack();
        let at = |device, start, end| topology.place(device, &ranges(&[(start, end)]), pool);
        assert_eq!(at(DISK, 2048, 2056), Placed::At(ranges(&[(100, 108)])));
        assert_eq!(at(DISK, 2548, 2556), Placed::At(ranges(&[(0, 8)])));
        assert_eq!(at(DISK, 0, 2048), Placed::Nowhere, "another partition's");
        assert_eq!(
            at(DISK, 2248, 2256),
            Placed::Nowhere,
            "a part that no target uses"
        );
        // The kernel tells a partition's bios with the disk's sectors.
        assert_eq!(at(PARTITION, 2048, 2056), Placed::At(ranges(&[(100, 108)])));
        assert_eq!(
            at(DeviceNumber { major: 9, minor: 9 }, 0, 8),
            Placed::Nowhere,
            "not below the pool"
        );
        assert_eq!(topology.place(DISK, &Ranges::default(), pool), Placed::Somewhere);
        assert!(topology.below(pool).contains(&DISK));
    }

    #[test]
    fn what_is_striped_is_somewhere() {
        let (mut topology, pool) = stack();
        if let Some(disk) = topology.devices.get_mut(&DISK) {
            disk.on.push(Layer::Somewhere { lower: STRIPED });
        }
        assert_eq!(
            topology.place(STRIPED, &ranges(&[(0, 8)]), pool),
            Placed::Somewhere
        );
    }

    proptest! {
        #[test]
        fn loops_and_tangles_come_to_an_end(edges in proptest::collection::vec((0..8_u32, 0..8_u32, any::<(u64, u64, u64, bool)>()), 0..20)) {
            let number = |minor| DeviceNumber { major: 1, minor };
            let mut topology = Topology::default();
            for (upper, lower, (start, length, lower_start, exact)) in edges {
                let lower = number(lower);
                topology.devices.entry(number(upper)).or_default().on.push(if exact {
                    linear(start, length, lower, lower_start)
                } else {
                    Layer::Somewhere { lower }
                });
            }
            let _ = topology.place(number(0), &ranges(&[(0, u64::MAX)]), number(7));
        }
    }
}
