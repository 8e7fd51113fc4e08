//! Block errors, folded: of a dying disk's million failures a person needs what failed, how often, since when and where.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    DataOwners, DeviceNumber, Sectors, Timestamp, World,
    observation::{BlockError, BlockSource, Direction},
    ranges::{Range, Ranges},
};

/// At most one line in this time for each kind.
const PAUSE: Duration = Duration::from_secs(10);
/// Kinds told apart; the errors of more are only counted.
const MAX_KINDS: usize = 256;
/// So long without an error ends a tally.
const QUIET: Duration = Duration::from_hours(1);
/// New failed sectors are attributed at most this often: it costs a walk of the pool's metadata.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What makes two errors of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// On which device.
    pub device: DeviceNumber,
    /// Errno, positive.
    pub errno: i32,
    /// What was attempted.
    pub direction: Direction,
}

/// All errors of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// When the first completed.
    pub first: Timestamp,
    /// When the last completed.
    pub last: Timestamp,
    /// Which sectors, as the kernel tells them for that device. An error without sectors, of a flush say, adds none.
    pub sectors: Ranges,
    /// Where they were seen.
    pub sources: Vec<BlockSource>,
    told: Told,
}

/// What was told of a kind line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    at: Timestamp,
    untold: u64,
}

impl Tally {
    fn of(error: &BlockError) -> Self {
        let mut tally = Self {
            count: 0,
            first: error.at,
            last: error.at,
            sectors: Ranges::default(),
            sources: Vec::new(),
            told: Told {
                at: error.at,
                untold: 0,
            },
        };
        tally.add(error);
        tally
    }

    fn add(&mut self, error: &BlockError) {
        self.count = self.count.saturating_add(1);
        self.first = self.first.min(error.at);
        self.last = self.last.max(error.at);
        let (Sectors(start), Sectors(length)) = (error.sector, error.length);
        self.sectors.insert(Range {
            start,
            end: start.saturating_add(length),
        });
        if !self.sources.contains(&error.source) {
            self.sources.push(error.source);
        }
    }

    /// How many a line stands for, if it is time for one.
    fn tell(&mut self, at: Timestamp) -> Option<u64> {
        self.told.untold = self.told.untold.saturating_add(1);
        (at.since(self.told.at) >= PAUSE).then(|| {
            let told = Told { at, untold: 0 };
            std::mem::replace(&mut self.told, told).untold
        })
    }
}

/// Block events that were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostErrors {
    /// How many that can be counted.
    pub count: u64,
    /// When the last loss was noticed.
    pub last: Timestamp,
}

/// Tallies of block errors, of all devices of the machine. What has nothing to do with the pool is sorted out by whoever
/// knows what lies on what.
#[derive(Debug, Clone, Default)]
pub struct BlockErrors {
    kinds: BTreeMap<Kind, Tally>,
    others: Option<Tally>,
    lost: Option<LostErrors>,
    asked: Option<(Timestamp, BTreeMap<DeviceNumber, Ranges>)>,
    owners: Option<DataOwners>,
}

impl BlockErrors {
    /// Takes in one error. Gives how many of its kind it stands for when it is to be told: itself, and those that were
    /// not told since the last one that was.
    pub fn take_in(&mut self, error: &BlockError) -> Option<u64> {
        let kind = Kind {
            device: error.device,
            errno: error.errno,
            direction: error.direction,
        };
        let room = self.kinds.len() < MAX_KINDS;
        let known = match self.kinds.get_mut(&kind) {
            Some(tally) => Some(tally),
            None if room => {
                self.kinds.insert(kind, Tally::of(error));
                return Some(1);
            }
            None => self.others.as_mut(),
        };
        if let Some(tally) = known {
            tally.add(error);
            tally.tell(error.at)
        } else {
            self.others = Some(Tally::of(error));
            Some(1)
        }
    }

    /// Takes in that events were lost; a count of 0 where nobody can tell how many.
    pub fn lost(&mut self, at: Timestamp, count: u64) {
        let before = self.lost.map_or(0, |lost| lost.count);
        self.lost = Some(LostErrors {
            count: before.saturating_add(count),
            last: at,
        });
    }

    /// Takes in what a world answered to [`BlockErrors::questions`], and lets go of what is over.
    pub fn world(&mut self, world: &World) {
        if let Some(owners) = &world.data_owners {
            self.owners = Some(owners.clone());
        }
        self.forget(world.begun);
    }

    /// Lets go of what is over.
    fn forget(&mut self, now: Timestamp) {
        self.kinds.retain(|_, tally| stands(tally.last, now));
        self.others.take_if(|tally| !stands(tally.last, now));
        self.lost.take_if(|lost| !stands(lost.last, now));
        if self.kinds.is_empty() {
            (self.asked, self.owners) = (None, None);
        }
    }

    /// Failed sectors by device of which the next world is to tell whose they are; nothing where that was asked already.
    pub fn questions(&mut self, now: Timestamp) -> BTreeMap<DeviceNumber, Ranges> {
        self.forget(now);
        let mut failed: BTreeMap<DeviceNumber, Ranges> = BTreeMap::new();
        for (kind, tally) in &self.kinds {
            if !tally.sectors.is_empty() {
                failed.entry(kind.device).or_default().extend(&tally.sectors);
            }
        }
        let answered = self
            .owners
            .as_ref()
            .is_some_and(|owners| owners.incomplete.is_none());
        let waits = self
            .asked
            .as_ref()
            .is_some_and(|(at, asked)| (*asked == failed && answered) || now.since(*at) < ASK_AGAIN);
        if waits || failed.is_empty() {
            return BTreeMap::new();
        }
        self.asked = Some((now, failed.clone()));
        failed
    }

    /// The tallies that stand: those with an error in the last hour.
    pub fn standing(&self, now: Timestamp) -> impl Iterator<Item = (&Kind, &Tally)> {
        self.kinds
            .iter()
            .filter(move |(_, tally)| stands(tally.last, now))
    }

    /// The errors of which only the number is known: there were too many kinds.
    #[must_use]
    pub fn others(&self) -> Option<&Tally> {
        self.others.as_ref()
    }

    /// Events lost in the last hour: every count is a least one.
    #[must_use]
    pub fn losses(&self) -> Option<LostErrors> {
        self.lost
    }

    /// Whose the failed sectors are, as it was answered last.
    #[must_use]
    pub fn owners(&self) -> Option<&DataOwners> {
        self.owners.as_ref()
    }
}

fn stands(last: Timestamp, now: Timestamp) -> bool {
    now.since(last) < QUIET
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{model::Untrusted, testing};

    fn error(millisecond: u64, minor: u32, sector: u64, length: u64) -> BlockError {
        BlockError {
            at: Timestamp::from_nanoseconds(millisecond * 1_000_000),
            device: DeviceNumber { major: 253, minor },
            sector: Sectors(sector),
            length: Sectors(length),
            errno: 5,
            direction: Direction::Read,
            operation: Untrusted::default(),
            source: BlockSource::Bio,
        }
    }

    fn only(errors: &BlockErrors) -> &Tally {
        errors.kinds.values().next().unwrap()
    }

    #[test]
    fn a_storm_is_a_few_lines_that_count_everything() {
        let mut errors = BlockErrors::default();
        let told: Vec<u64> = (0..25_000)
            .filter_map(|at| errors.take_in(&error(at, 1, at, 8)))
            .collect();
        assert_eq!(told, [1, 10_000, 10_000]);
        assert_eq!(
            errors.take_in(&error(25_000, 2, 0, 8)),
            Some(1),
            "another device has a line of its own"
        );
    }

    #[test]
    fn a_million_errors_are_one_tally_that_counts_and_covers_them_all() {
        let mut errors = BlockErrors::default();
        let sector = |nth: u64| nth.wrapping_mul(2_654_435_761) % (1 << 40);
        for nth in 0..1_000_000 {
            errors.take_in(&error(nth, 1, sector(nth), 8));
        }
        let tally = only(&errors);
        assert_eq!((errors.kinds.len(), tally.count), (1, 1_000_000));
        assert_eq!(
            (tally.first, tally.last),
            (error(0, 1, 0, 0).at, error(999_999, 1, 0, 0).at)
        );
        assert!(tally.sectors.iter().count() <= Ranges::MAX && tally.sectors.is_rough());
        assert!(
            (0..1_000_000)
                .all(|nth| tally.sectors.contains(sector(nth)) && tally.sectors.contains(sector(nth) + 7))
        );
    }

    #[test]
    fn a_storm_of_kinds_costs_bounded_memory_and_loses_no_count() {
        let mut errors = BlockErrors::default();
        for minor in 0..100_000 {
            errors.take_in(&error(0, minor, 0, 8));
        }
        assert_eq!(errors.kinds.len(), MAX_KINDS);
        assert_eq!(errors.others().unwrap().count, 100_000 - 256);
    }

    #[test]
    fn an_hour_without_errors_ends_a_tally_and_what_was_lost_with_it() {
        let mut errors = BlockErrors::default();
        errors.take_in(&error(10_000, 1, 0, 8));
        errors.lost(testing::at(11), 7);
        errors.lost(testing::at(12), 0);
        errors.world(&testing::world(3_600));
        assert_eq!(errors.standing(testing::at(3_600)).count(), 1);
        assert_eq!(errors.losses().unwrap().count, 7);
        assert_eq!(errors.standing(testing::at(3_610)).count(), 0);
        errors.world(&testing::world(3_620));
        assert!(errors.kinds.is_empty() && errors.losses().is_none());
    }

    #[test]
    fn failed_sectors_are_asked_about_once_and_new_ones_not_at_once() {
        let mut errors = BlockErrors::default();
        assert!(errors.questions(testing::at(1)).is_empty());
        errors.take_in(&error(1_000, 1, 0, 8));
        errors.take_in(&error(1_000, 2, 0, 0));
        let device = DeviceNumber { major: 253, minor: 1 };
        assert_eq!(
            errors.questions(testing::at(2)).keys().collect::<Vec<_>>(),
            [&device]
        );
        let mut world = testing::world(2);
        world.data_owners = Some(DataOwners::default());
        errors.world(&world);
        assert!(errors.questions(testing::at(100)).is_empty(), "it was answered");
        errors.take_in(&error(100_000, 1, 64, 8));
        assert_eq!(errors.questions(testing::at(101)).len(), 1);
        errors.take_in(&error(102_000, 1, 640, 8));
        assert!(errors.questions(testing::at(103)).is_empty(), "not at once");
        assert_eq!(errors.questions(testing::at(131)).len(), 1);
    }

    proptest! {
        #[test]
        fn counts_are_exact_and_every_failed_sector_is_covered(
            all in proptest::collection::vec((any::<u32>(), 0..400_u32, any::<u64>(), 0..10_000_u64), 0..600)
        ) {
            let mut errors = BlockErrors::default();
            for (at, minor, sector, length) in &all {
                errors.take_in(&error(u64::from(*at), *minor, *sector, *length));
            }
            let counted: u64 = errors.kinds.values().chain(&errors.others).map(|tally| tally.count).sum();
            prop_assert_eq!(counted, u64::try_from(all.len()).unwrap());
            for (at, minor, sector, length) in &all {
                let one = error(u64::from(*at), *minor, *sector, *length);
                let tally = errors.kinds.iter().find(|(kind, _)| kind.device == one.device);
                let tally = tally.map(|(_, tally)| tally).or(errors.others()).unwrap();
                prop_assert!(tally.first <= one.at && one.at <= tally.last);
                let end = sector.saturating_add(*length);
                prop_assert!(*sector == end || (tally.sectors.contains(*sector) && tally.sectors.contains(end - 1)));
            }
        }
    }
}
