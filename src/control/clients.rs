//! Bounds what clients can hold: so many at once, each for so long. A new one is always served: where all seats are
//! taken by clients that say nothing, the one that sits longest loses its seat.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

/// Clients at once.
const SEATS: usize = 16;
/// How long one may take for everything.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for a seat before one is taken away: an honest client needs less than this.
const PATIENCE: Duration = Duration::from_millis(20);

/// How many clients there are.
#[derive(Debug, Default)]
pub struct ClientCounts {
    current: AtomicU64,
    cut_short: AtomicU64,
}

impl ClientCounts {
    /// How many there may be.
    pub const LIMIT: u64 = SEATS as u64;

    /// How many there are.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// How many lost their seat to a new one.
    #[must_use]
    pub fn cut_short(&self) -> u64 {
        self.cut_short.load(Ordering::Relaxed)
    }
}

/// The clients that are being served. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    tasks: JoinSet<()>,
    /// The one that sits longest first.
    seated: VecDeque<AbortHandle>,
    counts: Arc<ClientCounts>,
}

/// Counts one client for as long as it is served.
struct Seat(Arc<ClientCounts>);

impl Seat {
    fn take(counts: &Arc<ClientCounts>) -> Self {
        counts.current.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    pub(super) fn new(counts: Arc<ClientCounts>) -> Self {
        Self {
            counts,
            ..Self::default()
        }
    }

    /// Serves one more, in the background.
    pub(super) async fn serve(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= SEATS && timeout(PATIENCE, self.tasks.join_next()).await.is_err() {
            self.seated.retain(|one| !one.is_finished());
            if let Some(longest) = self.seated.pop_front() {
                longest.abort();
                self.counts.cut_short.fetch_add(1, Ordering::Relaxed);
                self.tasks.join_next().await;
            }
        }
        self.seated.retain(|one| !one.is_finished());
        let seat = Seat::take(&self.counts);
        self.seated.push_back(self.tasks.spawn(async move {
            let _seat = seat;
            let _ = timeout(DEADLINE, client).await;
        }));
    }
}
