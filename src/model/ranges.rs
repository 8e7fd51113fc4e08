//! A bounded set of ranges of addresses: sectors of a device, or blocks of a pool.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Addresses from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// One behind the last.
    pub end: u64,
}

impl Range {
    /// What two ranges share; nothing where that is empty.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let shared = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (shared.start < shared.end).then_some(shared)
    }
}

/// Ranges in ascending order, none touching another. Never more than [`Ranges::MAX`]: then the two that lie nearest to
/// each other become one, and the set says that it is rough. It always covers everything that was put in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ranges {
    ranges: Vec<Range>,
    rough: bool,
}

impl Ranges {
    /// More are merged.
    pub const MAX: usize = 32;
    /// More are counted, not shown.
    const SHOWN: usize = 8;

    /// Adds a range; an empty one adds nothing.
    pub fn insert(&mut self, range: Range) {
        if range.start >= range.end {
            return;
        }
        // All that touch it become one with it.
        let from = self.ranges.partition_point(|one| one.end < range.start);
        let to = self.ranges.partition_point(|one| one.start <= range.end);
        let touched = self.ranges.get(from..to).unwrap_or_default();
        let merged = touched.iter().fold(range, |merged, one| Range {
            start: merged.start.min(one.start),
            end: merged.end.max(one.end),
        });
        self.ranges.splice(from..to, [merged]);
        if self.ranges.len() > Self::MAX {
            self.merge_nearest();
        }
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        self.rough |= other.rough;
        for range in other.iter() {
            self.insert(range);
        }
    }

    fn merge_nearest(&mut self) {
        let pairs = self.ranges.iter().zip(self.ranges.iter().skip(1));
        let nearest = pairs
            .enumerate()
            .min_by_key(|(_, (one, next))| next.start.saturating_sub(one.end))
            .map(|(at, (one, next))| (at, one.start, next.end));
        if let Some((at, start, end)) = nearest {
            self.ranges
                .splice(at..at.saturating_add(2), [Range { start, end }]);
            self.rough = true;
        }
    }

    /// The ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().copied()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether addresses may be in it that were never put in.
    #[must_use]
    pub fn is_rough(&self) -> bool {
        self.rough
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        let at = self.ranges.partition_point(|one| one.end <= address);
        self.ranges.get(at).is_some_and(|one| one.start <= address)
    }

    /// Each part that lies in `window`, moved so that the window begins at `to`.
    #[must_use]
    pub fn moved(&self, window: Range, to: u64) -> Self {
        let mut moved = Self {
            ranges: Vec::new(),
            rough: self.rough,
        };
        for shared in self.iter().filter_map(|one| one.intersection(window)) {
            let place = |address: u64| address.saturating_sub(window.start).saturating_add(to);
            moved.insert(Range {
                start: place(shared.start),
                end: place(shared.end),
            });
        }
        moved
    }

    /// The same in units that are `size` times as large; every unit that is touched is in it. Nothing for a size of 0.
    #[must_use]
    pub fn in_units_of(&self, size: u64) -> Self {
        let mut units = Self {
            ranges: Vec::new(),
            rough: self.rough,
        };
        for one in self.iter() {
            if let (Some(start), Some(_)) = (one.start.checked_div(size), one.end.checked_div(size)) {
                units.insert(Range {
                    start,
                    end: one.end.div_ceil(size),
                });
            }
        }
        units
    }
}

/// `0-7, 2048-2055 and 3 more ranges`, last addresses included.
/// From first addresses and those behind the last.
impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(all: I) -> Self {
        let mut ranges = Self::default();
        for (start, end) in all {
            ranges.insert(Range { start, end });
        }
        ranges
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, one) in self.iter().take(Self::SHOWN).enumerate() {
            let sign = if nth == 0 { "" } else { ", " };
            write!(f, "{sign}{}", one.start)?;
            if one.end.saturating_sub(one.start) > 1 {
                write!(f, "-{}", one.end.saturating_sub(1))?;
            }
        }
        match self.ranges.len().saturating_sub(Self::SHOWN) {
            0 => {}
            1 => f.write_str(" and 1 more range")?,
            more => write!(f, " and {more} more ranges")?,
        }
        if self.rough {
            f.write_str(" (roughly: what lies between near ones is in it too)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(all: &[(u64, u64)]) -> Ranges {
        all.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn every_address_put_in_is_in_and_few_put_in_are_exact(
            all in proptest::collection::vec((0..2_000_u64, 0..40_u64), 0..120)
        ) {
            let ranges = of(&all.iter().map(|(start, length)| (*start, start + length)).collect::<Vec<_>>());
            let list: Vec<Range> = ranges.iter().collect();
            prop_assert!(list.len() <= Ranges::MAX);
            prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
            for address in 0..2_100 {
                let put_in = all.iter().any(|(start, length)| (*start..start + length).contains(&address));
                prop_assert!(!put_in || ranges.contains(address), "{address} is lost");
                prop_assert!(put_in || ranges.is_rough() || !ranges.contains(address), "{address} is made up");
            }
        }

        #[test]
        fn extremes_do_no_harm(all in proptest::collection::vec(any::<(u64, u64)>(), 0..80), size in any::<u64>()) {
            let ranges = of(&all);
            let window = Range { start: size / 2, end: size };
            let _ = (ranges.moved(window, u64::MAX - 3), ranges.in_units_of(size), ranges.to_string());
        }
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(of(&[(8, 16), (0, 8), (16, 17), (20, 20)]).to_string(), "0-16");
        assert_eq!(
            of(&[(0, 8), (2048, 2056), (9, 10)]).to_string(),
            "0-7, 9, 2048-2055"
        );
    }

    #[test]
    fn what_lies_in_a_window_is_moved_with_it() {
        let ranges = of(&[(0, 10), (50, 70), (200, 210)]);
        let moved = ranges.moved(Range { start: 5, end: 60 }, 1000);
        assert_eq!(moved, of(&[(1000, 1005), (1045, 1055)]));
        assert_eq!(ranges.in_units_of(64), of(&[(0, 2), (3, 4)]));
        assert!(ranges.in_units_of(0).is_empty());
    }
}
