//! Failed reads and writes, folded up the stack: the lowest device that fails, what of the pool lies there, which thin
//! devices and which snapshots. Devices above it that show the same are its evidence; `words` has the sentences.

#[cfg(test)]
mod tests;
mod words;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    correlate::{BlockErrors, Kind, Tally},
    model::{
        DeviceNumber, Finding, FindingClass, FindingId, Node, Pool, PoolMode, Provenance, Subject, Timestamp,
        Topology, World, topology::Placed,
    },
};

/// An error shows on all levels within this time, retries and time-outs of disks included.
const SAME_TIME: Duration = Duration::from_mins(1);

/// What errors are judged against.
pub(super) struct Scene<'w> {
    pub(super) pool: &'w Pool,
    pub(super) nodes: &'w [Node],
    pub(super) topology: &'w Topology,
    /// Nothing where it could not be read.
    pub(super) world: Option<&'w World>,
}

/// What a failing device is to the pool.
enum Part<'w> {
    /// The pool stands on it.
    Below {
        /// Where on the pool's data device.
        data: Placed,
        /// Where on its metadata device.
        metadata: Placed,
    },
    /// It is a thin device's node.
    Node(&'w Node),
}

/// A device of the pool's that fails.
struct Failing<'w> {
    device: DeviceNumber,
    part: Part<'w>,
    kinds: Vec<(&'w Kind, &'w Tally)>,
}

/// A finding for each device that fails with nothing failing below it.
pub(super) fn findings(scene: &Scene<'_>, errors: &BlockErrors, now: Timestamp) -> Vec<Finding> {
    let failing = failing(scene, errors, now);
    let lowest = failing
        .iter()
        .filter(|one| !failing.iter().any(|other| other.explains(one, scene)));
    let lowest: Vec<&Failing<'_>> = lowest.collect();
    let on_data = lowest.iter().filter(|one| one.is_on_data()).count();
    lowest
        .iter()
        .map(|one| {
            let above: Vec<&Failing<'_>> = failing
                .iter()
                .filter(|other| one.explains(other, scene))
                .collect();
            Finding {
                id: FindingId::new(FindingClass::BlockErrors, &scene.pool.name, one.device),
                class: FindingClass::BlockErrors,
                pool: scene.pool.name.clone(),
                subject: Subject::BlockDevice { device: one.device },
                provenance: Provenance::Unknown,
                evidence: words::evidence(scene, errors, one, &above, on_data > 1),
                died_in: None,
            }
        })
        .collect()
}

/// The devices with errors that have to do with the pool.
fn failing<'w>(scene: &Scene<'w>, errors: &'w BlockErrors, now: Timestamp) -> Vec<Failing<'w>> {
    let mut by_device: BTreeMap<DeviceNumber, Failing<'w>> = BTreeMap::new();
    for (kind, tally) in errors.standing(now) {
        let Some(part) = part(scene, kind.device, tally) else {
            continue;
        };
        if let Some(known) = by_device.get_mut(&kind.device) {
            known.join(part, (kind, tally));
        } else {
            let one = Failing {
                device: kind.device,
                part,
                kinds: vec![(kind, tally)],
            };
            by_device.insert(kind.device, one);
        }
    }
    by_device.into_values().collect()
}

fn part<'w>(scene: &Scene<'w>, device: DeviceNumber, tally: &Tally) -> Option<Part<'w>> {
    let place = |on| scene.topology.place(device, &tally.sectors, on);
    let (data, metadata) = (place(scene.pool.device), place(scene.pool.metadata_device));
    if data != Placed::Nowhere || metadata != Placed::Nowhere {
        return Some(Part::Below { data, metadata });
    }
    let node = scene.nodes.iter().find(|node| node.device == device)?;
    // A failed pool answers every thin device with EIO: that is the pool's finding, not one of each device.
    let is_the_pools = scene.pool.mode == PoolMode::Failed && !scene.topology.is_error_table(device);
    (!is_the_pools).then_some(Part::Node(node))
}

impl<'w> Failing<'w> {
    fn join(&mut self, part: Part<'w>, kind: (&'w Kind, &'w Tally)) {
        self.kinds.push(kind);
        if let (Part::Below { data, metadata }, Part::Below { data: d, metadata: m }) = (&mut self.part, part)
        {
            *data = std::mem::replace(data, Placed::Nowhere).and(d);
            *metadata = std::mem::replace(metadata, Placed::Nowhere).and(m);
        }
    }

    fn is_on_data(&self) -> bool {
        matches!(&self.part, Part::Below { data, .. } if *data != Placed::Nowhere)
    }

    /// Whether `other` lies above this one, and failed at the same time.
    fn explains(&self, other: &Self, scene: &Scene<'_>) -> bool {
        let pool = scene.pool;
        let below_it = match other.part {
            Part::Below { .. } => scene.topology.below(other.device).contains(&self.device),
            // All that the pool stands on lies below a thin device.
            Part::Node(_) => {
                let lies_below = |top| self.device == top || scene.topology.below(top).contains(&self.device);
                lies_below(pool.device) || lies_below(pool.metadata_device)
            }
        };
        below_it && self.device != other.device && self.overlaps(other)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (first, last) = self.span();
        let (its_first, its_last) = other.span();
        first <= its_last.plus(SAME_TIME) && its_first <= last.plus(SAME_TIME)
    }

    fn span(&self) -> (Timestamp, Timestamp) {
        let tallies = || self.kinds.iter().map(|(_, tally)| tally);
        (
            tallies().map(|tally| tally.first).min().unwrap_or_default(),
            tallies().map(|tally| tally.last).max().unwrap_or_default(),
        )
    }
}
