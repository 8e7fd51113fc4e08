//! Who points at each page that was read. In a tree each page has one owner, so a second one is damage: this is what makes
//! loops, shared subtrees and overlapping overflow runs end at once.

use std::collections::{HashMap, hash_map::Entry};

/// Who points at a page: the page number of the pointer, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) page: u64,
    pub(crate) slot: usize,
}

/// A page that is owned: the first page of its run, and who points at that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    head: u64,
    origin: Origin,
}

/// Pages whose owners are kept together. Pages are mostly read beside each other; a page that lies far from all others
/// costs room for so many.
const TOGETHER: u64 = 64;

/// The owners of pages.
#[derive(Debug, Default, Clone)]
pub(super) struct Claims {
    blocks: HashMap<u64, Vec<Option<Claim>>>,
}

impl Claims {
    /// Lets `origin` own the `pages` from `head` on. A page that another pointer owns is given back with the page of that
    /// one; the same pointer may be followed again.
    pub(super) fn claim(&mut self, head: u64, pages: u64, origin: Origin) -> Result<(), (u64, u64)> {
        let claim = Claim { head, origin };
        for page in head..head.saturating_add(pages) {
            let block = self.blocks.entry(page / TOGETHER);
            let block = block.or_insert_with(|| vec![None; usize::try_from(TOGETHER).unwrap_or_default()]);
            let owner = usize::try_from(page % TOGETHER)
                .ok()
                .and_then(|place| block.get_mut(place));
            let Some(owner) = owner else { continue };
            let taken = *owner.get_or_insert(claim);
            if taken != claim {
                return Err((page, taken.origin.page));
            }
        }
        Ok(())
    }

    /// Takes in the owners of other pages, or of the same. False where a page has another owner there.
    pub(super) fn merge(&mut self, other: Self) -> bool {
        for (number, theirs) in other.blocks {
            let Entry::Occupied(mut ours) = self.blocks.entry(number) else {
                self.blocks.insert(number, theirs);
                continue;
            };
            for (our, their) in ours.get_mut().iter_mut().zip(theirs) {
                let Some(their) = their else { continue };
                if *our.get_or_insert(their) != their {
                    return false;
                }
            }
        }
        true
    }

    /// The first of these pages, which ascend, that is owned.
    pub(super) fn first_owned(&self, pages: &[u64]) -> Option<u64> {
        let mut blocks = pages.chunk_by(|one, next| one / TOGETHER == next / TOGETHER);
        blocks.find_map(|pages| {
            let block = self.blocks.get(&(pages.first()? / TOGETHER))?;
            let owned = |page: &u64| {
                let place = usize::try_from(page % TOGETHER).ok();
                place
                    .and_then(|place| block.get(place))
                    .is_some_and(Option::is_some)
            };
            pages.iter().copied().find(owned)
        })
    }

    /// The numbers of all pages that are owned.
    pub(super) fn pages(&self) -> Vec<u64> {
        let block = |(block, owners): (&u64, &Vec<Option<Claim>>)| {
            let first = block * TOGETHER;
            let owned = (0..).zip(owners).filter(|(_, owner)| owner.is_some());
            owned.map(|(place, _)| first + place).collect::<Vec<u64>>()
        };
        self.blocks.iter().flat_map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_owner_which_may_come_again() {
        let origin = |page, slot| Origin { page, slot };
        let mut claims = Claims::default();
        assert_eq!(claims.claim(62, 4, origin(2, 0)), Ok(()));
        assert_eq!(claims.claim(62, 4, origin(2, 0)), Ok(()));
        assert_eq!(claims.claim(61, 1, origin(2, 1)), Ok(()));
        // Any page of the run, from another page, from another place there, or as another run's.
        assert_eq!(claims.claim(65, 1, origin(3, 0)), Err((65, 2)));
        assert_eq!(claims.claim(60, 3, origin(3, 0)), Err((61, 2)));
        assert_eq!(claims.claim(62, 4, origin(2, 9)), Err((62, 2)));
        assert_eq!(claims.claim(63, 1, origin(2, 0)), Err((63, 2)));
        assert_eq!(claims.claim(u64::MAX - 1, 1, origin(4, 0)), Ok(()));
        let mut other = Claims::default();
        assert_eq!(other.claim(62, 4, origin(2, 0)), Ok(()));
        assert_eq!(other.claim(70, 1, origin(2, 2)), Ok(()));
        assert!(claims.merge(other.clone()));
        assert_eq!(claims.first_owned(&[2, 59, 66, 71, 200]), None);
        assert_eq!(claims.first_owned(&[2, 59, 66, 70, 71]), Some(70));
        assert_eq!(claims.first_owned(&[200, u64::MAX - 1]), Some(u64::MAX - 1));
        assert_eq!(claims.claim(70, 1, origin(5, 0)), Err((70, 2)));
        assert_eq!(other.claim(61, 1, origin(6, 0)), Ok(()));
        assert!(!claims.merge(other));
        let mut pages = claims.pages();
        pages.sort_unstable();
        assert_eq!(pages, [60, 61, 62, 63, 64, 65, 70, u64::MAX - 1]);
    }
}
