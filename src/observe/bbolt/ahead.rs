//! Pages that are read before they are asked for, neighbours in one go. A bucket that holds another one has a page of its own,
//! so a hundred thousand rows with labels are as many pages, and a call for each costs more than its bytes.
//!
//! Where there are very many of them several threads take a share each.

use std::{
    num::NonZero,
    ops::{Deref, Range},
    panic::resume_unwind,
    rc::Rc,
    thread,
};

use super::error::BboltError;
use super::source::{PageSource, Shared};
use super::walk::{Bucket, Origin, Snapshot, Tree};

/// Runs of pages that are worth the start of a thread.
const RUNS_FOR_ONE: usize = 4;
/// Threads that share the work, at most: beyond that it is memory that is waited for.
const MOST_THREADS: usize = 4;

/// What is made of each of many buckets, by any thread.
pub trait Visit: Sync {
    /// What is made of one.
    type Made: Send;
    /// Why nothing is made of one.
    type Error: From<BboltError> + Send;

    /// Makes it of the bucket at this place among the others. Nothing may depend on which were visited before.
    fn visit<S: PageSource>(&self, place: usize, bucket: &Bucket<'_, S>) -> Result<Self::Made, Self::Error>;
}

/// Bytes of a page, or of a part of one: a share of whatever they were read with.
#[derive(Debug, Clone)]
pub(crate) struct PageBytes {
    all: Rc<Vec<u8>>,
    range: Range<usize>,
}

impl PageBytes {
    /// A part of these bytes, which it is borrowed from.
    pub(super) fn part(&self, part: &[u8]) -> Self {
        let from = part.as_ptr().addr().saturating_sub(self.all.as_ptr().addr());
        Self {
            all: Rc::clone(&self.all),
            range: from..from.saturating_add(part.len()),
        }
    }
}

impl From<Vec<u8>> for PageBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            range: 0..bytes.len(),
            all: Rc::new(bytes),
        }
    }
}

impl Deref for PageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.all.get(self.range.clone()).unwrap_or_default()
    }
}

/// Pages that were read before they were asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead {
    offset: u64,
    bytes: Rc<Vec<u8>>,
}

impl Ahead {
    /// The bytes at a place of the file, where they were read.
    pub(super) fn get(&self, offset: u64, length: usize) -> Option<PageBytes> {
        let begin = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let range = begin..begin.checked_add(length)?;
        self.bytes.get(range.clone())?;
        Some(PageBytes {
            all: Rc::clone(&self.bytes),
            range,
        })
    }

    /// The room that these bytes took, where nobody looks at them any more.
    fn into_room(self) -> Vec<u8> {
        Rc::try_unwrap(self.bytes).unwrap_or_default()
    }
}

/// Pages that lie beside each other: where their bytes are. Of length 0 where they are better read one by one.
#[derive(Debug, Clone, Copy)]
struct Run {
    offset: u64,
    length: usize,
}

impl Run {
    /// Reads it into this room. Nothing is there where that fails: then each page is read by itself, and the error names it.
    fn read(self, source: &(impl PageSource + ?Sized), mut room: Vec<u8>) -> Vec<u8> {
        room.resize(self.length, 0);
        if self.length > 0 && source.read_at(self.offset, &mut room).is_err() {
            room.clear();
        }
        room
    }
}

/// The first of these pages and those that follow it without a gap, as many as the source has read in one go; tells how many
/// of the pages are in it. A page that can not be there is left to [`Snapshot::load`], which says so.
fn run_of<S: PageSource>(snapshot: &Snapshot<'_, S>, pages: impl Iterator<Item = u64>) -> (Run, usize) {
    let mut pages = pages.peekable();
    let first = pages.peek().copied().unwrap_or_default();
    let page_size = u64::from(snapshot.meta.page_size);
    let most = (snapshot.source.read_ahead() / page_size).min(snapshot.meta.high_water.saturating_sub(first));
    let mut end = first.saturating_add(1);
    let mut count = 0;
    for page in pages {
        let fits = page < end || (page == end && end.saturating_sub(first) < most);
        if page < first || !fits {
            break;
        }
        end = end.max(page.saturating_add(1));
        count += 1;
    }
    let bytes = |pages: u64| pages.checked_mul(page_size);
    let place = bytes(first).zip(bytes(end.saturating_sub(first)));
    let place = place.filter(|(offset, length)| {
        end.saturating_sub(first) > 1
            && offset
                .checked_add(*length)
                .is_some_and(|end| end <= snapshot.size)
    });
    let (offset, length) = place.unwrap_or_default();
    let length = usize::try_from(length).unwrap_or_default();
    (Run { offset, length }, count.max(1))
}

/// Reads ahead on the way over pages that are asked for one by one, with whatever is below them in between.
pub(super) struct Runs<'s, 'd, S> {
    snapshot: &'s Snapshot<'d, S>,
    pages: Vec<u64>,
    now: Ahead,
    /// The first of the pages that is in no run yet.
    next: usize,
}

impl<'s, 'd, S: PageSource> Runs<'s, 'd, S> {
    pub(super) fn of(snapshot: &'s Snapshot<'d, S>, pages: Vec<u64>) -> Self {
        Self {
            snapshot,
            pages,
            now: Ahead::default(),
            next: 0,
        }
    }

    /// Makes sure that the page at this place is read with its neighbours, if it has any.
    pub(super) fn go_to(&mut self, place: usize) {
        if place >= self.next {
            let rest = self.pages.get(place..).unwrap_or_default();
            let (run, count) = run_of(self.snapshot, rest.iter().copied());
            self.snapshot.ahead.take();
            let room = std::mem::take(&mut self.now).into_room();
            self.now = Ahead {
                offset: run.offset,
                bytes: Rc::new(run.read(self.snapshot.source, room)),
            };
            self.next = place.saturating_add(count);
        }
        self.snapshot.ahead.replace(self.now.clone());
    }
}

/// A bucket that has pages of its own, among others.
#[derive(Debug, Clone, Copy)]
struct Placed {
    root: u64,
    place: usize,
    origin: Origin,
    sequence: u64,
}

/// Pages to be read in one go, and how many of the buckets begin on them.
type Part = (Run, usize);

/// What was made of buckets, with their places among the others.
type Made<T> = Vec<(usize, T)>;

impl<S: PageSource> Snapshot<'_, S> {
    /// Calls `visit` for each of the buckets, in the order in which their first pages lie in the file, and gives what it made
    /// of them in their own order; or its first error.
    ///
    /// Where there are very many, several threads share them. What they say is what one says: where any of them meets an
    /// error, or two of them a page that both reach, it is all read again by this one.
    pub fn in_file_order<V: Visit>(
        &self,
        buckets: &[Bucket<'_, S>],
        visit: &V,
    ) -> Result<Vec<V::Made>, V::Error> {
        let mut made = Vec::new();
        let mut order = Vec::new();
        for (place, bucket) in buckets.iter().enumerate() {
            match bucket.tree {
                Tree::Pages { root, origin } => order.push(Placed {
                    root,
                    place,
                    origin,
                    sequence: bucket.sequence(),
                }),
                // It is read already, with the page that it is on.
                Tree::Inline { .. } => made.push((place, visit.visit(place, bucket)?)),
            }
        }
        order.sort_unstable_by_key(|placed| (placed.root, placed.place));
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(rest) = order.get(at..).filter(|rest| !rest.is_empty()) {
            let (run, count) = run_of(self, rest.iter().map(|placed| placed.root));
            parts.push((run, count));
            at = at.saturating_add(count);
        }
        let several = self
            .source
            .shared()
            .and_then(|source| self.by_several(Shared(source), &parts, &order, visit));
        let lists = if let Some(lists) = several {
            lists
        } else {
            let mut all = Vec::with_capacity(order.len());
            self.visit_parts(&parts, &order, visit, &mut all)?;
            vec![all]
        };
        let mut placed: Vec<Option<V::Made>> = buckets.iter().map(|_| None).collect();
        for (place, one) in lists.into_iter().flatten().chain(made) {
            if let Some(free) = placed.get_mut(place) {
                *free = Some(one);
            }
        }
        // Each was visited once.
        Ok(placed.into_iter().flatten().collect())
    }

    /// The same by several threads, each with a snapshot of its own of the same transaction. Nothing where there are too few
    /// to share, and where anything is wrong.
    fn by_several<V: Visit>(
        &self,
        source: Shared<'_>,
        parts: &[Part],
        order: &[Placed],
        visit: &V,
    ) -> Option<Vec<Made<V::Made>>> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.min(MOST_THREADS).min(parts.len() / RUNS_FOR_ONE);
        if threads < 2 {
            return None;
        }
        let each = parts.len().div_ceil(threads);
        let again = self.again();
        let mut rest = order;
        let shares = parts.chunks(each).map(|parts| {
            let count = parts.iter().map(|(_, count)| count).sum();
            let (mine, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = others;
            move || {
                let snapshot = again.of(&source);
                let mut made = Vec::with_capacity(mine.len());
                let all = snapshot.visit_parts(parts, mine, visit, &mut made);
                all.ok().map(|()| (made, snapshot.into_gathered()))
            }
        });
        let shares: Vec<_> = shares.collect();
        let shares: Option<Vec<_>> = thread::scope(|scope| {
            let mut shares = shares.into_iter();
            let last = shares.next_back()?;
            let others: Vec<_> = shares
                .map(|share| {
                    let thread = thread::Builder::new().name("rows".to_owned());
                    thread.spawn_scoped(scope, share)
                })
                .collect();
            let last = last();
            let others = others.into_iter().map(|thread| match thread.ok()?.join() {
                Ok(share) => share,
                Err(panic) => resume_unwind(panic),
            });
            // All are waited for, whatever came of the first.
            let others: Vec<_> = others.collect();
            others.into_iter().chain([last]).collect()
        });
        let (made, gathered): (Vec<_>, Vec<_>) = shares?.into_iter().unzip();
        self.gather(gathered).then_some(made)
    }

    /// Visits run by run, in this thread.
    fn visit_parts<V: Visit>(
        &self,
        parts: &[Part],
        order: &[Placed],
        visit: &V,
        made: &mut Made<V::Made>,
    ) -> Result<(), V::Error> {
        let mut rest = order.iter();
        let mut now = Ahead::default();
        for (run, count) in parts {
            self.ahead.take();
            now = Ahead {
                offset: run.offset,
                bytes: Rc::new(run.read(self.source, now.into_room())),
            };
            for placed in rest.by_ref().take(*count) {
                // What is below a bucket may have been read ahead too.
                self.ahead.replace(now.clone());
                let bucket = Bucket::of_pages(self, placed.root, placed.origin, placed.sequence);
                made.push((placed.place, visit.visit(placed.place, &bucket)?));
            }
        }
        self.ahead.take();
        Ok(())
    }
}
