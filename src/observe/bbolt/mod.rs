//! A reader of bbolt files (containerd's databases) that takes no lock.
//!
//! containerd holds `flock(LOCK_EX)` on its databases for as long as it lives, and would itself wait for ever for
//! anybody else's lock (bbolt `bolt_unix.go`). The lock is advisory, so plain reads go through; what makes them
//! consistent is bbolt's order of writing:
//!
//! - A commit writes new pages only to places that the last committed transaction does not use, then the meta page
//!   of the new transaction (`tx.go`, `Commit`). Transaction N has its meta on page N % 2, so N - 1 stays readable.
//! - The pages that N - 1 used and N does not may be overwritten by N + 1 (`freelist`, `ReleasePendingPages`).
//!
//! Hence the rule, as with a seqlock: find the newest valid meta, read, find it again; what was read is one
//! transaction's truth if and only if the newest meta is still the same. One commit later is already too late.
//! The second look has an order of its own, see `Database::is_newest`: the two metas are not read at one instant.
//!
//! Commits are seen when they reach the page cache, before `fdatasync` returned: a power cut can take back what was
//! read here.

mod ahead;
mod claims;
mod error;
#[cfg(feature = "readers")]
mod file;
pub mod fold;
pub(crate) mod free_list;
pub(crate) mod page;
mod pages;
mod source;
pub(crate) mod walk;

use std::cell::RefCell;
use std::collections::BTreeMap;
#[cfg(feature = "readers")]
use std::path::Path;
use std::time::Duration;

pub use ahead::Visit;
pub use error::BboltError;
#[cfg(feature = "readers")]
pub use file::FileSource;
pub use pages::Pages;
pub use source::PageSource;
pub use walk::{Bucket, Snapshot, Value};

use crate::model::TxId;
use page::{HEADER, META, Meta, NoMeta, PAGE_DOUBLINGS, SMALLEST_PAGE};

/// Pauses before each read of a snapshot, in milliseconds; also how often one is tried.
///
/// A commit of containerd's takes a few milliseconds, and some tens per second is the most that the field shows.
const PAUSES: [u64; 10] = [0, 1, 2, 4, 8, 16, 32, 32, 32, 32];

/// How often in a row a file without any valid meta must show the same bytes there to be called damaged. Both metas
/// look torn when commits fall between the reads, and none is there yet while bbolt writes a new file's first pages.
const META_LOOKS: usize = 3;

/// The newest meta, with the byte offsets of its own page and of the other meta page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newest {
    pub(crate) meta: Meta,
    /// What the other meta page held, where that was a meta.
    pub(crate) older: Option<Meta>,
    pub(crate) own: u64,
    other: u64,
}

/// A bbolt database, open for reading.
#[derive(Debug)]
pub struct Database<S> {
    source: S,
    /// What the last good read reached, where that is to be kept.
    kept: Option<RefCell<Pages>>,
    /// Whether a read ends with a look at the list of free pages.
    free_list: bool,
}

#[cfg(feature = "readers")]
impl Database<FileSource> {
    /// Opens the file at `path`. It is not locked and not changed. An empty file opens; reading it says
    /// [`BboltError::Empty`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BboltError> {
        FileSource::open(path.as_ref()).map(Self::new)
    }
}

impl<S: PageSource> Database<S> {
    /// A database over any source of bytes.
    pub fn new(source: S) -> Self {
        Self {
            source,
            kept: None,
            free_list: false,
        }
    }

    /// The same; the pages that are read are kept for [`Database::into_kept`].
    pub fn keeping(source: S) -> Self {
        Self {
            kept: Some(RefCell::default()),
            ..Self::new(source)
        }
    }

    /// The same; each read ends with a look at the list of free pages, for the sake of containerd: bbolt panics where it can
    /// not read the list, and writes over the pages that are on it. The list itself is not among the pages that are kept.
    #[must_use]
    pub fn with_free_list(self) -> Self {
        Self {
            free_list: true,
            ..self
        }
    }

    /// Where the bytes come from.
    #[cfg(feature = "readers")]
    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// The pages that the last successful read reached; nothing in them where that was not asked for.
    #[must_use]
    pub fn into_kept(self) -> Pages {
        self.kept.map(RefCell::into_inner).unwrap_or_default()
    }

    /// The newest committed transaction, at some instant of this call. It costs four small reads, so it is the cheap
    /// way to ask "did anything change".
    pub fn newest_txid(&self) -> Result<TxId, BboltError> {
        self.snapshot(|_| Ok(())).map(|((), txid)| txid)
    }

    /// Runs `read` on the newest transaction until the file held still meanwhile, and returns its answer with that
    /// transaction's id. At most ten tries within about 160 ms, then [`BboltError::Busy`].
    ///
    /// `read` may be called several times and must not keep anything of earlier calls. An error of `read` is returned
    /// only when the file held still, because a file that moves looks damaged. Keep `read` short: decode afterwards.
    pub fn snapshot<T, E: From<BboltError>>(
        &self,
        mut read: impl FnMut(&Snapshot<'_, S>) -> Result<T, E>,
    ) -> Result<(T, TxId), E> {
        let mut seen: Option<(u64, u64)> = None;
        let mut looks: Vec<Vec<u8>> = Vec::new();
        for pause in PAUSES {
            if pause > 0 {
                std::thread::sleep(Duration::from_millis(pause));
            }
            let newest = match self.newest_meta() {
                Err(error @ BboltError::NoMeta { .. }) => {
                    let bytes = self.meta_bytes()?;
                    looks.retain(|before| *before == bytes);
                    looks.push(bytes);
                    if looks.len() >= META_LOOKS {
                        return Err(error.into());
                    }
                    continue;
                }
                other => other?,
            };
            let meta = newest.meta;
            seen = Some((seen.map_or(meta.txid, |(first, _)| first), meta.txid));
            let size = self.size()?;
            let snapshot = Snapshot::new(&self.source, size, meta, newest.older, self.kept.is_some());
            let answer = read(&snapshot).and_then(|answer| {
                if self.free_list {
                    snapshot.check_free_list()?;
                }
                Ok(answer)
            });
            let reached = snapshot.into_reached();
            if self.is_newest(newest)? && self.keep(newest, reached)? {
                self.ensure_current()?;
                return answer.map(|answer| (answer, TxId(meta.txid)));
            }
        }
        self.ensure_current()?;
        let (first, last) = seen.unwrap_or_default();
        Err(BboltError::Busy {
            file: self.source.name(),
            tries: PAUSES.len(),
            first,
            last,
        }
        .into())
    }

    /// Keeps what was reached, where that is asked for, with the beginning of the meta page that leads to it. False when
    /// that one is gone already.
    fn keep(&self, newest: Newest, mut reached: BTreeMap<u64, Vec<u8>>) -> Result<bool, BboltError> {
        let Some(kept) = &self.kept else { return Ok(true) };
        let Some(bytes) = self.meta_page(newest.own, self.size()?)? else {
            return Ok(false);
        };
        if bytes.get(HEADER..).map(Meta::decode) != Some(Ok(newest.meta)) {
            return Ok(false);
        }
        reached.insert(newest.own / u64::from(newest.meta.page_size), bytes.to_vec());
        kept.replace(Pages::new(newest.meta.page_size, reached));
        Ok(true)
    }

    pub(crate) fn ensure_current(&self) -> Result<(), BboltError> {
        match self.source.is_current() {
            Ok(true) => Ok(()),
            Ok(false) => Err(BboltError::Replaced {
                file: self.source.name(),
            }),
            Err(source) => Err(self.io("look up", source)),
        }
    }

    fn io(&self, doing: impl Into<String>, source: std::io::Error) -> BboltError {
        BboltError::Io {
            doing: doing.into(),
            file: self.source.name(),
            source,
        }
    }

    pub(crate) fn size(&self) -> Result<u64, BboltError> {
        self.source
            .size()
            .map_err(|source| self.io("look up the size of", source))
    }

    /// The valid meta with the highest transaction id (`db.go`, `meta`). The two are read one after the other, so
    /// this may be a meta that was the newest, or one that never was while both existed.
    pub(crate) fn newest_meta(&self) -> Result<Newest, BboltError> {
        let size = self.size()?;
        if size == 0 {
            return Err(BboltError::Empty {
                file: self.source.name(),
            });
        }
        let first = self.meta_at(0, size)?;
        let second = match first {
            Ok(meta) => self.meta_at(u64::from(meta.page_size), size)?,
            // Without the first, the second says itself where it is: its page size is its offset.
            Err(_) => self.probe_second(size)?,
        };
        let newest = |meta: Meta, older: Option<Meta>, own: u64| Newest {
            meta,
            older,
            own,
            other: u64::from(meta.page_size) - own,
        };
        match (first, second) {
            (Ok(first), Ok(second)) if second.page_size == first.page_size && second.txid > first.txid => {
                Ok(newest(second, Some(first), u64::from(second.page_size)))
            }
            (Ok(first), second) => Ok(newest(first, second.ok(), 0)),
            (Err(_), Ok(second)) => Ok(newest(second, None, u64::from(second.page_size))),
            (Err(first), Err(second)) => Err(BboltError::NoMeta {
                file: self.source.name(),
                size,
                problem: format!("page 0: {first}; page 1: {second}"),
            }),
        }
    }

    /// Whether, at the instant of the first read here, transaction T of `newest` was the newest committed one.
    ///
    /// The order matters. The other meta page holds T - 1, or is being overwritten with T + 1, or with T + 3: a torn
    /// meta does not tell which. Only when T's own page is still T's *afterwards* was there no T + 2, hence no T + 3,
    /// and the torn one was T + 1, not committed yet. The other way round, two commits between the two reads could
    /// hide behind a torn third (found by `a_commit_at_any_moment_leaves_one_transaction`).
    ///
    /// The whole structure is compared, not only the id: a file restored in place may repeat ids.
    fn is_newest(&self, newest: Newest) -> Result<bool, BboltError> {
        let size = self.size()?;
        let other = self.meta_at(newest.other, size)?;
        let own = self.meta_at(newest.own, size)?;
        let newer = other.is_ok_and(|other| other.txid > newest.meta.txid);
        Ok(!newer && own == Ok(newest.meta))
    }

    /// Finds the second meta page at each page size there can be (`db.go`, `getPageSizeFromSecondMeta`).
    fn probe_second(&self, size: u64) -> Result<Result<Meta, NoMeta>, BboltError> {
        let mut best = NoMeta::Magic;
        for doublings in 0..=PAGE_DOUBLINGS {
            let page_size = SMALLEST_PAGE << doublings;
            match self.meta_at(u64::from(page_size), size)? {
                Ok(meta) if meta.page_size == page_size => return Ok(Ok(meta)),
                // A copy of a meta page inside somebody's data is none.
                Ok(_) | Err(NoMeta::Short | NoMeta::Magic) => {}
                Err(closer) => best = closer,
            }
        }
        Ok(Err(best))
    }

    /// The bytes at every place where a meta page can be, as far as the file goes.
    fn meta_bytes(&self) -> Result<Vec<u8>, BboltError> {
        let size = self.size()?;
        let mut all = Vec::new();
        for offset in (0..=PAGE_DOUBLINGS)
            .map(|doublings| u64::from(SMALLEST_PAGE << doublings))
            .chain([0])
        {
            if let Some(bytes) = self.meta_page(offset, size)? {
                all.extend(bytes);
            }
        }
        Ok(all)
    }

    fn meta_at(&self, page_offset: u64, size: u64) -> Result<Result<Meta, NoMeta>, BboltError> {
        let page = self.meta_page(page_offset, size)?;
        Ok(page
            .as_ref()
            .and_then(|page| page.get(HEADER..))
            .map_or(Err(NoMeta::Short), Meta::decode))
    }

    /// The first bytes of a meta page, when the file is long enough.
    fn meta_page(&self, page_offset: u64, size: u64) -> Result<Option<[u8; HEADER + META]>, BboltError> {
        let mut bytes = [0; HEADER + META];
        let fits = |room: u64| u64::try_from(bytes.len()).is_ok_and(|length| length <= room);
        if !size.checked_sub(page_offset).is_some_and(fits) {
            return Ok(None);
        }
        let doing = || format!("read the meta page at offset {page_offset} of");
        self.source
            .read_at(page_offset, &mut bytes)
            .map_err(|source| self.io(doing(), source))?;
        Ok(Some(bytes))
    }
}
