//! The list of free pages (bbolt `internal/freelist/shared.go`, `Read` and `Write`; `freelist.go` before 1.4).
//!
//! No answer depends on it, but bbolt opens no file whose list it can not read, and gives away every page that is on it.

use super::error::BboltError;
use super::page::{FREELIST, HEADER, Header, NO_FREELIST};
use super::source::PageSource;
use super::walk::{Origin, Snapshot};

/// How errors call it.
const LIST: &str = "the list of free pages";
/// Bytes of a page number in the list.
pub(crate) const ENTRY: usize = 8;
/// A count that says: the real one stands in place of the first page number. It is so large or larger.
pub(crate) const COUNT_INSIDE: u16 = u16::MAX;

impl<S: PageSource> Snapshot<'_, S> {
    /// Looks at the list as bbolt's own check does (`tx_check.go`, `check`): its pages belong to nobody else; it names pages
    /// from 2 to below the high water mark, each once, and none that was reached. Gives how many pages it takes itself;
    /// nothing where the transaction has no list (`NoFreelistSync`).
    ///
    /// It is for the end of a read: pages that were not reached before count as not in use.
    pub(crate) fn check_free_list(&self) -> Result<Option<u64>, BboltError> {
        let meta = self.meta;
        if meta.freelist == NO_FREELIST {
            return Ok(None);
        }
        // The meta page points here; its slot 0 is the root bucket.
        let origin = Origin {
            page: meta.txid % 2,
            slot: 1,
        };
        let bytes = self.load_as(LIST, meta.freelist, origin)?;
        let damaged = |problem: String| self.damaged(meta.freelist, LIST, problem);
        let header = Header::decode(&bytes).ok_or_else(|| damaged("shorter than a header".to_owned()))?;
        let listed = decode(&bytes).map_err(damaged)?;
        // They ascend, so none is outside where these two are not.
        let ends = [listed.first(), listed.last()];
        let mut ends = ends.into_iter().flatten();
        if let Some(page) = ends.find(|page| **page < 2 || **page >= meta.high_water) {
            return Err(damaged(format!(
                "page {page} stands there and lies outside of the data pages"
            )));
        }
        if let Some(page) = self.claims.borrow().first_owned(&listed) {
            return Err(damaged(format!("page {page} stands there and is in use")));
        }
        Ok(Some(u64::from(header.overflow) + 1))
    }
}

/// The page numbers on a page of the list, its overflow included. bbolt writes them ascending, and each page in fresh or
/// cleared memory, so data behind the last number are numbers that a smaller count leaves out.
pub(crate) fn decode(page: &[u8]) -> Result<Vec<u64>, String> {
    let header = Header::decode(page).ok_or("shorter than a page header")?;
    if header.flags != FREELIST {
        return Err(format!(
            "page flags {:#06x} where a freelist (0x10) belongs",
            header.flags
        ));
    }
    let (numbers, odd) = page.get(HEADER..).unwrap_or_default().as_chunks::<ENTRY>();
    let (count, numbers) = match (header.count, numbers.split_first()) {
        (COUNT_INSIDE, Some((count, numbers))) => (u64::from_le_bytes(*count), numbers),
        (count, _) => (u64::from(count), numbers),
    };
    if header.count == COUNT_INSIDE && count < u64::from(COUNT_INSIDE) {
        return Err(format!(
            "a count of {count} behind its header, where bbolt writes only those from {COUNT_INSIDE} on"
        ));
    }
    let (numbers, rest) = usize::try_from(count)
        .ok()
        .and_then(|count| numbers.split_at_checked(count))
        .ok_or_else(|| format!("{count} page numbers do not fit in {} bytes", page.len()))?;
    let list: Vec<u64> = numbers.iter().copied().map(u64::from_le_bytes).collect();
    if !list.is_sorted_by(|one, next| one < next) {
        return Err("its page numbers are not ascending".to_owned());
    }
    if rest.as_flattened().iter().chain(odd).any(|byte| *byte != 0) {
        return Err("there are data behind its last page number".to_owned());
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: u16, numbers: &[u64]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[8..10].copy_from_slice(&FREELIST.to_le_bytes());
        page[10..12].copy_from_slice(&count.to_le_bytes());
        for (slot, number) in numbers.iter().enumerate() {
            page[HEADER + slot * ENTRY..][..ENTRY].copy_from_slice(&number.to_le_bytes());
        }
        page
    }

    #[test]
    fn what_bbolt_never_writes_is_no_list() {
        assert_eq!(decode(&list(0, &[])), Ok(vec![]));
        assert_eq!(decode(&list(3, &[4, 5, 9])), Ok(vec![4, 5, 9]));
        assert_eq!(
            decode(&list(510, &(2..512).collect::<Vec<_>>())).unwrap().len(),
            510
        );
        for (page, problem) in [
            (list(3, &[4, 4, 9]), "ascending"),
            (list(3, &[4, 9, 5]), "ascending"),
            (list(2, &[4, 5, 9]), "behind its last"),
            (list(0, &[4]), "behind its last"),
            (list(511, &[4]), "511 page numbers do not fit"),
            (list(u16::MAX, &[3, 4, 5, 9]), "a count of 3"),
            (list(u16::MAX, &[65535, 4]), "65535 page numbers do not fit"),
            (list(u16::MAX, &[u64::MAX]), "do not fit"),
            (vec![0; 4096], "page flags 0x0000"),
            (vec![0; 9], "shorter"),
        ] {
            assert!(decode(&page).unwrap_err().contains(problem), "{problem}");
        }
    }
}
