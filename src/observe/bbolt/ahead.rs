//! Pages that are read before they are asked for, neighbours in one go. A bucket that holds another one has a page of its own,
//! so a hundred thousand rows with labels are as many pages, and a call for each costs more than its bytes.
//!
//! Where there are very many of them a second thread reads while this one looks at what was read. All the looking, and so
//! what is told of damage, is this one's, page by page in the same order.

use std::{
    ops::{Deref, Range},
    rc::Rc,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::error::BboltError;
use super::source::PageSource;
use super::walk::{Bucket, Snapshot, Tree};

/// Runs of pages from which on a second thread is worth its start.
const RUNS_FOR_TWO: usize = 8;
/// Runs that are read and not looked at yet, at most.
const RUNS_WAITING: usize = 4;

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

/// A bucket among others: its first page, and its place among them.
type Placed = (u64, usize);

impl<S: PageSource> Snapshot<'_, S> {
    /// Calls `visit` for each of the buckets with its place among them, in the order in which their first pages lie in the
    /// file; stops at the first error.
    pub fn in_file_order<E: From<BboltError>>(
        &self,
        buckets: &[Bucket<'_, S>],
        visit: impl FnMut(usize, &Bucket<'_, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        let first_page = |bucket: &Bucket<'_, S>| match bucket.tree {
            Tree::Pages { root, .. } => root,
            // It is read already, with the page that it is on.
            Tree::Inline { .. } => 0,
        };
        let places = buckets.iter().enumerate();
        let mut order: Vec<Placed> = places
            .map(|(place, bucket)| (first_page(bucket), place))
            .collect();
        order.sort_unstable();
        let inline = order.partition_point(|(page, _)| *page == 0);
        let mut runs = vec![(Run { offset: 0, length: 0 }, inline)];
        let mut at = inline;
        while let Some(rest) = order.get(at..).filter(|rest| !rest.is_empty()) {
            let (run, count) = run_of(self, rest.iter().map(|(page, _)| *page));
            runs.push((run, count));
            at = at.saturating_add(count);
        }
        let visited = match self.source.shared() {
            Some(source) if runs.len() >= RUNS_FOR_TWO => self.by_two(source, &runs, &order, buckets, visit),
            _ => {
                let mut room = Vec::new();
                let read = |run: Run, used: Vec<u8>| {
                    room = used;
                    run.read(self.source, std::mem::take(&mut room))
                };
                self.visit_runs(&runs, &order, buckets, read, visit)
            }
        };
        self.ahead.take();
        visited
    }

    /// Reads in a thread of its own what is looked at here.
    fn by_two<E: From<BboltError>>(
        &self,
        source: &(dyn PageSource + Sync),
        runs: &[(Run, usize)],
        order: &[Placed],
        buckets: &[Bucket<'_, S>],
        visit: impl FnMut(usize, &Bucket<'_, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        thread::scope(|scope| {
            let (give, given): (SyncSender<Vec<u8>>, Receiver<_>) = sync_channel(RUNS_WAITING);
            let (give_back, rooms): (SyncSender<Vec<u8>>, Receiver<_>) = sync_channel(RUNS_WAITING);
            let read_all = move || {
                for (run, _) in runs {
                    let room = rooms.try_recv().unwrap_or_default();
                    // Nobody waits for it any more once a page was found to be damaged.
                    if give.send(run.read(source, room)).is_err() {
                        return;
                    }
                }
            };
            let reader = thread::Builder::new().name("pages ahead".to_owned());
            // Without a second thread nothing comes, and each run is read here.
            drop(reader.spawn_scoped(scope, read_all));
            let read = |run: Run, used: Vec<u8>| {
                // A full queue, or no thread: the room is given back to the system.
                drop(give_back.try_send(used));
                given.recv().unwrap_or_else(|_| run.read(self.source, Vec::new()))
            };
            self.visit_runs(runs, order, buckets, read, visit)
        })
    }

    /// Visits run by run what `read` reads; it is given the room of the run before.
    fn visit_runs<E: From<BboltError>>(
        &self,
        runs: &[(Run, usize)],
        order: &[Placed],
        buckets: &[Bucket<'_, S>],
        mut read: impl FnMut(Run, Vec<u8>) -> Vec<u8>,
        mut visit: impl FnMut(usize, &Bucket<'_, S>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = order.iter();
        let mut now = Ahead::default();
        for (run, count) in runs {
            self.ahead.take();
            now = Ahead {
                offset: run.offset,
                bytes: Rc::new(read(*run, now.into_room())),
            };
            for (_, place) in rest.by_ref().take(*count) {
                let Some(bucket) = buckets.get(*place) else {
                    continue;
                };
                // What is below a bucket may have been read ahead too.
                self.ahead.replace(now.clone());
                visit(*place, bucket)?;
            }
        }
        Ok(())
    }
}
