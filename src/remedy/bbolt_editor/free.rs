//! Free pages: which there are, and the page that lists them (bbolt `internal/freelist`, `Write`).

use std::collections::BTreeMap;

use super::node::header;
use crate::observe::bbolt::{
    free_list::{COUNT_INSIDE, ENTRY},
    page::{FREELIST, HEADER},
};

/// Pages one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) pages: u64,
}

/// A set of pages, kept as runs that do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FreePages {
    /// Length by first page.
    runs: BTreeMap<u64, u64>,
}

impl FreePages {
    /// All pages from 2 to below `high_water` that are not in `used`, which is sorted.
    pub(super) fn complement(used: &[u64], high_water: u64) -> Self {
        let mut free = Self::default();
        let mut next = 2;
        for page in used.iter().copied().chain([high_water]) {
            free.add(Run {
                start: next,
                pages: page.saturating_sub(next),
            });
            next = next.max(page.saturating_add(1));
        }
        free
    }

    /// Adds pages that are not in the set yet.
    pub(super) fn add(&mut self, run: Run) {
        if run.pages == 0 {
            return;
        }
        let (mut start, mut pages) = (run.start, run.pages);
        if let Some((before, length)) = self.runs.range(..start).next_back()
            && before + length == start
        {
            (start, pages) = (*before, length + pages);
        }
        if let Some(length) = self.runs.remove(&(run.start + run.pages)) {
            pages += length;
        }
        self.runs.insert(start, pages);
    }

    /// Takes the first run of `pages` pages out of the set.
    pub(super) fn take(&mut self, pages: u64) -> Option<u64> {
        let (start, length) = self
            .runs
            .iter()
            .find(|(_, length)| **length >= pages)
            .map(|(start, length)| (*start, *length))?;
        self.runs.remove(&start);
        if length > pages {
            self.runs.insert(start + pages, length - pages);
        }
        Some(start)
    }

    /// How many pages there are.
    pub(super) fn count(&self) -> u64 {
        self.runs.values().sum()
    }

    /// Every page, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs
            .iter()
            .flat_map(|(start, length)| *start..*start + *length)
    }
}

/// How many bytes a list of so many pages takes at most.
pub(super) fn size(count: u64) -> Option<usize> {
    // One more than the pages, for a count inside.
    let entries = usize::try_from(count).ok()?.checked_add(1)?;
    entries.checked_mul(ENTRY)?.checked_add(HEADER)
}

/// The freelist page, to be put on page `id` with `overflow` pages behind it; without what fills it up.
pub(super) fn encode(free: &FreePages, id: u64, overflow: u32) -> Vec<u8> {
    let count = free.count();
    let (short, inside) = match u16::try_from(count) {
        Ok(short) if short != COUNT_INSIDE => (short, None),
        _ => (COUNT_INSIDE, Some(count)),
    };
    let mut bytes = header(id, FREELIST, short, overflow);
    for number in inside.into_iter().chain(free.iter()) {
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::bbolt::free_list::decode;

    fn runs(free: &FreePages) -> Vec<(u64, u64)> {
        free.runs.iter().map(|(start, pages)| (*start, *pages)).collect()
    }

    #[test]
    fn what_is_not_used_is_free() {
        assert_eq!(
            runs(&FreePages::complement(&[3, 4, 7], 10)),
            [(2, 1), (5, 2), (8, 2)]
        );
        assert_eq!(runs(&FreePages::complement(&[2, 3], 4)), []);
        assert_eq!(runs(&FreePages::complement(&[], 4)), [(2, 2)]);
    }

    #[test]
    fn runs_grow_together_and_are_taken_from_the_front() {
        let mut free = FreePages::default();
        for start in [5, 9, 7, 6, 8] {
            free.add(Run { start, pages: 1 });
        }
        free.add(Run { start: 2, pages: 2 });
        assert_eq!(runs(&free), [(2, 2), (5, 5)]);
        assert_eq!(free.count(), 7);
        assert_eq!(free.iter().collect::<Vec<_>>(), [2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(free.take(3), Some(5));
        assert_eq!(free.take(1), Some(2));
        assert_eq!(free.take(3), None);
        assert_eq!(runs(&free), [(3, 1), (8, 2)]);
    }

    #[test]
    fn a_list_reads_back_also_when_its_count_is_too_large_for_a_header() {
        for count in [0_u64, 1, 0xFFFE, 0xFFFF, 0x1_0000, 200_000] {
            let mut free = FreePages::default();
            // Every second page, so that there is a run for each.
            for page in 0..count {
                free.add(Run {
                    start: 2 + 2 * page,
                    pages: 1,
                });
            }
            let bytes = encode(&free, 2, 0);
            assert!(bytes.len() <= size(count).unwrap());
            assert_eq!(decode(&bytes).unwrap(), free.iter().collect::<Vec<_>>());
            assert!(decode(&bytes[..bytes.len() - usize::from(count > 0)]).is_err() || count == 0);
        }
    }

    #[test]
    fn a_list_that_repeats_a_page_is_damage() {
        let mut free = FreePages::default();
        free.add(Run { start: 4, pages: 3 });
        let mut bytes = encode(&free, 2, 0);
        bytes[HEADER] = 5;
        assert!(decode(&bytes).unwrap_err().contains("ascending"));
        bytes[8] = 0x02;
        assert!(decode(&bytes).unwrap_err().contains("0x10"));
    }
}
