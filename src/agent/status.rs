//! Tells how suture is: gathers the `Status` and publishes it to who asks. Publishing is a value put into a channel; who
//! reads it, and how slowly, is nothing that the agent would notice.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{Agent, Options, Report, Reporter, now};
use crate::{
    control::{ClientCounts, ControlServer, MetricsServer, ServeError, StatusFeed},
    correlate,
    model::{
        Observation, Status,
        observation::LossKind,
        sense::{Quality, Sense, SenseKind},
        status::{
            Bound, BoundKind, ContainerdStatus, EventKind, FindingStatus, LossTotal, Mode, OpenGap, Overall,
            ReadResult, StatusPlaces, TraceDelivery, WorldRead, WorldReads, shortcomings,
        },
    },
    telemetry::{
        self,
        metrics::{Metrics, ReadTimes},
    },
    words::explain,
};

/// At most so often a status is published.
const PAUSE: Duration = Duration::from_millis(250);

/// Bounds of the agent's own; those of the probes are in
/// [`ProbeOptions`](crate::observe::probes::ProbeOptions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events that may wait for the agent, each of about 1 KiB; more wait in the rings.
    pub queue_events: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { queue_events: 4096 }
    }
}

/// Where suture can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The control socket.
    pub socket: PathBuf,
    /// Where the metrics are served; nowhere by default.
    pub metrics: Option<SocketAddr>,
}

/// What is told of suture, as far as it happened.
pub(super) struct Pulse {
    status: Status,
    reads: ReadTimes,
    to: watch::Sender<Arc<Status>>,
    published: Instant,
    due: Option<Instant>,
    queue_full: bool,
    queue_hits: u64,
    /// How the holder is seen when it is seen.
    holder: Option<Sense>,
}

impl Pulse {
    pub(super) fn new(options: &Options, senses: Vec<Sense>, no_ledger: Option<String>) -> Self {
        let at = now();
        let heals = options.policy.act && no_ledger.is_none();
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: at,
            at,
            pool: options.places.pool.clone(),
            places: StatusPlaces {
                pool_database: options.places.pool_db(),
                snapshot_database: options.places.snapshot_db(),
                ledger: options.ledger.clone(),
            },
            mode: if heals { Mode::Heals } else { Mode::OnlyTells },
            overall: Overall::because(Vec::new()),
            gap: None,
            world: WorldReads::default(),
            containerd: ContainerdStatus::default(),
            finding_counts: std::collections::BTreeMap::new(),
            findings: Vec::new(),
            open_operations: 0,
            events: std::collections::BTreeMap::new(),
            losses: Vec::new(),
            bounds: Vec::new(),
            traces: None,
            ledger_trouble: no_ledger,
            senses: Vec::new(),
        };
        Self {
            holder: senses.iter().find(|one| one.sense == SenseKind::Holder).cloned(),
            to: watch::Sender::new(Arc::new(status.clone())),
            status: Status { senses, ..status },
            reads: ReadTimes::default(),
            published: Instant::now(),
            due: None,
            queue_full: false,
            queue_hits: 0,
        }
    }

    pub(super) fn feed(&self) -> StatusFeed {
        self.to.subscribe()
    }

    /// Counts one observation; `waiting` are the events behind it in the queue.
    pub(super) fn observed(&mut self, observation: &Observation, waiting: usize, queue: usize) {
        let count = self.status.events.entry(EventKind::of(observation)).or_default();
        *count = count.saturating_add(1);
        if let Observation::Lost { at, what, count, .. } = observation {
            self.lost(LossTotal {
                kind: *what,
                total: (*count).max(1),
                last: *at,
            });
        }
        // This one has just left the queue.
        let full = waiting.saturating_add(1) >= queue;
        if full && !self.queue_full {
            self.queue_hits = self.queue_hits.saturating_add(1);
        }
        self.queue_full = full;
        self.soon();
    }

    fn lost(&mut self, loss: LossTotal) {
        match self.status.losses.iter_mut().find(|one| one.kind == loss.kind) {
            Some(known) => {
                known.total = known.total.saturating_add(loss.total);
                known.last = known.last.max(loss.last);
            }
            // As many as there are kinds.
            None => self.status.losses.push(loss),
        }
    }

    /// Notes what came of a try to read the world.
    pub(super) fn read(&mut self, result: ReadResult, took: Duration, trouble: Option<String>) {
        let world = &mut self.status.world;
        let count = world.results.entry(result).or_default();
        *count = count.saturating_add(1);
        if result != ReadResult::Late {
            self.reads.note(took);
        }
        match result {
            ReadResult::Consistent => {
                world.trouble = None;
                world.last = Some(WorldRead {
                    at: now(),
                    took_us: took.as_micros().try_into().unwrap_or(u64::MAX),
                });
            }
            // It stands or not; nothing was learnt of it.
            ReadResult::Busy => {}
            ReadResult::Failed | ReadResult::Late => world.trouble = trouble,
        }
        self.soon();
    }

    /// Notes whether it can be told which containerd runs.
    pub(super) fn holder_seen(&mut self, blind: Option<String>) {
        let holder = self
            .status
            .senses
            .iter_mut()
            .find(|one| one.sense == SenseKind::Holder);
        if let (Some(sense), Some(well)) = (holder, &self.holder) {
            *sense = match &blind {
                Some(why) => Sense {
                    quality: Quality::Missing,
                    means: String::new(),
                    why: vec![why.clone()],
                    ..well.clone()
                },
                None => well.clone(),
            };
        }
        self.status.containerd.unknown = blind;
        self.soon();
    }

    /// Notes whether the ledger took what was to be stored.
    pub(super) fn ledger(&mut self, trouble: Option<String>) {
        self.status.ledger_trouble = trouble;
        self.soon();
    }

    fn soon(&mut self) {
        let earliest = self.published + PAUSE;
        self.due.get_or_insert(earliest);
    }

    /// Is done when there is something to publish, and not too early.
    pub(super) async fn due(&self) {
        match self.due {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Whether there is something to publish now.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|at| at <= Instant::now())
    }

    fn losses(&self, kind: LossKind) -> u64 {
        let of_kind = self.status.losses.iter().filter(|loss| loss.kind == kind);
        of_kind.map(|loss| loss.total).sum()
    }
}

/// Who can ask. What could not be had is told, and suture goes on without.
#[derive(Default)]
pub(super) struct Listeners {
    control: Option<ControlServer>,
    metrics: Option<MetricsServer>,
}

impl Listeners {
    pub(super) fn start(listen: &Listen, pulse: &Pulse, reporter: &mut Reporter) -> Self {
        let mut told = |socket: &Path, error: &ServeError| {
            reporter.tell(&Report::NotAskable {
                place: socket.display().to_string(),
                why: explain(error),
            });
        };
        let control = ControlServer::start(&listen.socket, pulse.feed())
            .inspect_err(|error| told(&listen.socket, error))
            .ok();
        let metrics = listen.metrics.and_then(|address| {
            let metrics = Metrics::new(pulse.feed(), pulse.reads.clone());
            MetricsServer::start(address, metrics)
                .inspect_err(|error| told(Path::new(&address.to_string()), error))
                .ok()
        });
        Self { control, metrics }
    }
}

impl Agent {
    /// Puts the status together and publishes it.
    pub(super) fn publish(&mut self) {
        let bounds = self.bounds();
        let status = &mut self.pulse.status;
        status.at = now();
        status.bounds = bounds;
        status.gap = self.correlator.gap().map(|gap| OpenGap {
            noticed: gap.noticed,
            why: gap.why.clone(),
        });
        status.containerd.up = self.containerd.up().cloned();
        status.open_operations = count(
            self.correlator
                .operations()
                .filter(|one| !one.state.is_closed())
                .count(),
        );
        status.finding_counts.clear();
        for open in &self.findings {
            *status.finding_counts.entry(open.row.finding.class).or_default() += 1;
        }
        let mut findings: Vec<_> = self.findings.iter().map(|open| &open.row).collect();
        findings.sort_by_key(|row| row.first_seen);
        let listed = findings
            .into_iter()
            .take(Status::MAX_FINDINGS)
            .map(|row| FindingStatus {
                id: row.finding.id.clone(),
                class: row.finding.class,
                subject: row.finding.subject.clone(),
                first_seen: row.first_seen,
                decision: row.decision.clone(),
            });
        status.findings = listed.collect();
        status.traces = self.telemetry.delivery_status().map(|delivery| TraceDelivery {
            endpoint: delivery.endpoint,
            error: delivery.error,
            kept: count(delivery.kept),
            dropped: delivery.dropped,
        });
        status.overall = Overall::because(reasons(status, self.options.policy.act));
        let status = Arc::new(status.clone());
        self.pulse.to.send_replace(status);
        self.pulse.published = Instant::now();
        self.pulse.due = None;
    }

    fn bounds(&self) -> Vec<Bound> {
        let (pulse, probes) = (&self.pulse, &self.options.probes);
        let traces = self.telemetry.delivery_status();
        let control = self.listeners.control.as_ref().map(ControlServer::clients);
        let metrics = self.listeners.metrics.as_ref().map(MetricsServer::clients);
        let clients = |counts: Option<&ClientCounts>| {
            let current = counts.map_or(0, ClientCounts::current);
            (
                ClientCounts::LIMIT,
                Some(current),
                counts.map_or(0, ClientCounts::cut_short),
            )
        };
        let all = BoundKind::ALL.map(|bound| {
            let (limit, current, hits) = match bound {
                BoundKind::DmRingBytes => (
                    u64::from(probes.dm_ring_bytes),
                    None,
                    pulse.losses(LossKind::DmRingFull),
                ),
                BoundKind::BlockRingBytes => (
                    u64::from(probes.block_ring_bytes),
                    None,
                    pulse.losses(LossKind::BlockRingFull),
                ),
                BoundKind::DmCallsInFlight => (
                    u64::from(probes.dm_calls_in_flight),
                    None,
                    pulse.losses(LossKind::DmInFlightFull),
                ),
                BoundKind::LineageEntries => (
                    u64::from(probes.lineage_entries),
                    None,
                    pulse.losses(LossKind::Lineage),
                ),
                BoundKind::QueueEvents => (
                    count(self.options.bounds.queue_events),
                    Some(count(self.events.len())),
                    pulse.queue_hits,
                ),
                BoundKind::Operations => (
                    count(correlate::MAX_OPERATIONS),
                    Some(count(self.correlator.operations().count())),
                    self.correlator.given_up(),
                ),
                BoundKind::SpansKept => (
                    count(telemetry::MAX_SPANS_KEPT),
                    Some(traces.as_ref().map_or(0, |one| count(one.kept))),
                    traces.as_ref().map_or(0, |one| one.dropped),
                ),
                BoundKind::ControlClients => clients(control),
                BoundKind::MetricsClients => clients(metrics),
            };
            Bound {
                bound,
                limit,
                current,
                hits,
            }
        });
        all.into()
    }
}

/// Why suture is not as good as it could be. Traces that do not get through, and what was lost before the last full read
/// of the world, are told elsewhere: they take nothing from what it may do.
fn reasons(status: &Status, act: bool) -> Vec<String> {
    let mut reasons = shortcomings(&status.senses);
    if let Some(gap) = &status.gap {
        reasons.push(format!("a gap is open: {}", gap.why));
    }
    if let Some(trouble) = &status.world.trouble {
        reasons.push(format!("the world can not be read: {trouble}"));
    }
    if let Some(trouble) = &status.ledger_trouble {
        let consequence = if act { ", so nothing is healed" } else { "" };
        reasons.push(format!("{trouble}{consequence}"));
    }
    reasons
}

fn count(number: usize) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}
