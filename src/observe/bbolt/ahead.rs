//! Buckets in the order in which they lie in the file, neighbours read in one go. A bucket that holds another one has a page
//! of its own, so a hundred thousand rows with labels are as many pages, and a call for each costs more than its bytes.

use super::error::BboltError;
use super::source::PageSource;
use super::walk::{Bucket, Snapshot, Tree};

/// Pages that were read before they were asked for.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    offset: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// The bytes at a place of the file, where they were read.
    pub(super) fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let begin = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(begin..begin.checked_add(length)?)
    }

    /// Reads the bytes there; nothing where that fails. Then each page is read by itself, and the error names it.
    fn fill(&mut self, source: &impl PageSource, offset: u64, length: usize) {
        self.offset = offset;
        self.bytes.resize(length, 0);
        if source.read_at(offset, &mut self.bytes).is_err() {
            self.bytes.clear();
        }
    }
}

impl<S: PageSource> Snapshot<'_, S> {
    /// Calls `visit` for each of the buckets with its place among them, in the order in which their first pages lie in the
    /// file; stops at the first error.
    pub fn in_file_order<E: From<BboltError>>(
        &self,
        buckets: &[Bucket<'_, S>],
        mut visit: impl FnMut(usize, &Bucket<'_, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        let first_page = |bucket: &Bucket<'_, S>| match bucket.tree {
            Tree::Pages { root, .. } => root,
            // It is read already, with the page that it is on.
            Tree::Inline { .. } => 0,
        };
        let places = buckets.iter().enumerate();
        let mut order: Vec<_> = places
            .map(|(place, bucket)| (first_page(bucket), place))
            .collect();
        order.sort_unstable();
        let mut read_to = 0;
        for (at, (page, place)) in order.iter().enumerate() {
            if *page >= read_to {
                let rest = order.get(at..).unwrap_or_default();
                read_to = self.read_ahead(rest.iter().map(|(page, _)| *page));
            }
            if let Some(bucket) = buckets.get(*place) {
                visit(*place, bucket)?;
            }
        }
        self.ahead.borrow_mut().bytes = Vec::new();
        Ok(())
    }

    /// Reads the pages ahead, the first and those that follow it without a gap, as many as the source has read in one go.
    /// Tells which page is the first that was not. A page that can not be there is left to [`Snapshot::load`], which says so.
    fn read_ahead(&self, mut pages: impl Iterator<Item = u64>) -> u64 {
        let first = pages.next().unwrap_or_default();
        let page_size = u64::from(self.meta.page_size);
        let most = (self.source.read_ahead() / page_size).min(self.meta.high_water.saturating_sub(first));
        let mut end = first.saturating_add(1);
        for page in pages {
            if page > end || end.saturating_sub(first) >= most {
                break;
            }
            end = page.saturating_add(1);
        }
        let bytes = |pages: u64| pages.checked_mul(page_size);
        let place = bytes(first).zip(bytes(end - first));
        let place = place.filter(|(offset, length)| {
            end - first > 1 && offset.checked_add(*length).is_some_and(|end| end <= self.size)
        });
        if let Some((offset, length)) = place
            && let Ok(length) = usize::try_from(length)
        {
            self.ahead.borrow_mut().fill(self.source, offset, length);
        }
        end
    }
}
