//! Block errors come in storms: of a dying disk's million failures a person needs the first, and how many there are.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{
    DeviceNumber, Timestamp,
    observation::{BlockError, Direction},
    pairs,
};

/// At most one line in this time for each device, direction and cause.
const PAUSE: Duration = Duration::from_secs(10);
/// Kinds told apart; more share one line.
const MAX_KINDS: usize = 256;

/// What makes two errors of a kind.
type Kind = Option<(DeviceNumber, i32, Direction)>;

/// How much of a kind was seen and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    told: Timestamp,
    untold: u64,
}

/// Folds block errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Storm {
    #[serde(with = "pairs")]
    kinds: BTreeMap<Kind, Tally>,
}

impl Storm {
    /// Takes in one error. Gives how many of its kind it stands for when it is to be told: itself, and those that were
    /// not told since the last one that was.
    pub(super) fn take_in(&mut self, error: &BlockError) -> Option<u64> {
        let kind = Some((error.device, error.errno, error.direction));
        let kind = if self.kinds.len() < MAX_KINDS || self.kinds.contains_key(&kind) {
            kind
        } else {
            None
        };
        match self.kinds.get_mut(&kind) {
            None => {
                self.kinds.insert(
                    kind,
                    Tally {
                        told: error.at,
                        untold: 0,
                    },
                );
                Some(1)
            }
            Some(tally) if error.at.since(tally.told) >= PAUSE => {
                let count = tally.untold.saturating_add(1);
                *tally = Tally {
                    told: error.at,
                    untold: 0,
                };
                Some(count)
            }
            Some(tally) => {
                tally.untold = tally.untold.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Sectors, Untrusted, observation::BlockSource};

    fn error(millisecond: u64, minor: u32) -> BlockError {
        BlockError {
            at: Timestamp::from_nanoseconds(millisecond * 1_000_000),
            device: DeviceNumber { major: 253, minor },
            sector: Sectors(millisecond),
            length: Sectors(8),
            errno: 5,
            direction: Direction::Read,
            operation: Untrusted::default(),
            source: BlockSource::Bio,
        }
    }

    #[test]
    fn a_storm_is_a_few_lines_that_count_everything() {
        let mut storm = Storm::default();
        let told: Vec<u64> = (0..25_000)
            .filter_map(|at| storm.take_in(&error(at, 1)))
            .collect();
        assert_eq!(told, [1, 10_000, 10_000]);
        assert_eq!(
            storm.take_in(&error(25_000, 2)),
            Some(1),
            "another device has a line of its own"
        );
    }

    #[test]
    fn a_storm_of_kinds_costs_bounded_memory() {
        let mut storm = Storm::default();
        for minor in 0..100_000 {
            storm.take_in(&error(0, minor));
        }
        assert!(storm.kinds.len() <= MAX_KINDS + 1);
    }
}
