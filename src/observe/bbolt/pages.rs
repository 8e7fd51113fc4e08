//! The pages that one transaction is made of, without the rest of the file.

use std::{collections::BTreeMap, io};

use super::source::PageSource;

/// What a read of one transaction reached: its meta page and the pages of its buckets. What the file holds beside them
/// (free pages, the freelist, the other meta page) is not here. Read as a [`PageSource`], all of that is zeros, which no
/// walk takes for a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    page_size: u32,
    /// By page number: runs of whole pages (a page with its overflow) and, as page 0 or 1, the first bytes of the meta
    /// page.
    runs: BTreeMap<u64, Vec<u8>>,
}

impl Pages {
    /// Puts pages together again.
    #[must_use]
    pub fn new(page_size: u32, runs: BTreeMap<u64, Vec<u8>>) -> Self {
        Self { page_size, runs }
    }

    /// Bytes per page.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Runs of pages by the number of their first page. Pages 0 and 1 are the meta pages, of which only the beginning
    /// of the newer one is kept.
    #[must_use]
    pub fn runs(&self) -> &BTreeMap<u64, Vec<u8>> {
        &self.runs
    }

    /// The runs themselves.
    #[must_use]
    pub fn into_runs(self) -> BTreeMap<u64, Vec<u8>> {
        self.runs
    }

    fn offset_of(&self, page: u64) -> u64 {
        page.saturating_mul(u64::from(self.page_size))
    }

    /// The run that begins at or before a byte of the file, and how far into it that byte is.
    fn run_at(&self, offset: u64) -> Option<(&[u8], usize)> {
        let page = offset.checked_div(u64::from(self.page_size))?;
        let (first, bytes) = self.runs.range(..=page).next_back()?;
        let inside = usize::try_from(offset - self.offset_of(*first)).ok()?;
        Some((bytes, inside))
    }
}

impl PageSource for Pages {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let kept = self
            .run_at(offset)
            .and_then(|(bytes, inside)| bytes.get(inside..))
            .unwrap_or_default();
        for (to, from) in buf.iter_mut().zip(kept) {
            *to = *from;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let end = |(page, bytes): (&u64, &Vec<u8>)| {
            self.offset_of(*page)
                .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
        };
        // Both meta pages are always there.
        let end_of_runs = self.runs.last_key_value().map_or(0, end);
        Ok(end_of_runs.max(self.offset_of(2)))
    }

    /// The size says nothing here: what a page number claims costs nothing.
    fn holds(&self, offset: u64, length: u64) -> io::Result<bool> {
        let inside = |(bytes, inside): (&[u8], usize)| {
            let end = u64::try_from(inside).ok()?.checked_add(length)?;
            (end <= u64::try_from(bytes.len()).ok()?).then_some(())
        };
        Ok(self.run_at(offset).and_then(inside).is_some())
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "a recorded database".to_owned()
    }
}
