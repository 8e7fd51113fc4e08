//! The metrics, made anew for each reader out of the agent's last `Status`: what is no more leaves no series behind.
//! docs/metrics.md lists them; a test holds the two together.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry},
};

use super::exposition;
pub use super::exposition::Exposition;
use crate::{
    control::StatusFeed,
    model::{
        FindingClass, Status, Timestamp,
        observation::LossKind,
        sense::Quality,
        status::{EventKind, Mode, OverallQuality, ReadResult},
    },
};

/// Seconds of the buckets of reads of the world: from a pool of some devices to one whose disk hangs.
const READ_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

type Labels = Vec<(&'static str, String)>;

/// How long reads of the world took; shared by the agent, which notes, and the metrics, which show.
#[derive(Debug, Clone)]
pub struct ReadTimes(Histogram);

impl Default for ReadTimes {
    fn default() -> Self {
        Self(Histogram::new(READ_BUCKETS))
    }
}

impl ReadTimes {
    /// Notes one.
    pub fn note(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

/// What the metrics are made from.
#[derive(Debug, Clone)]
pub struct Metrics {
    status: StatusFeed,
    reads: ReadTimes,
}

impl Metrics {
    /// From what the agent publishes.
    #[must_use]
    pub fn new(status: StatusFeed, reads: ReadTimes) -> Self {
        Self { status, reads }
    }

    /// For how long the agent has published nothing, where that is too long.
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        self.status.borrow().staleness(now)
    }

    /// All metrics as they are now.
    pub fn encode(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let status = std::sync::Arc::clone(&self.status.borrow());
        let mut page = Page::default();
        page.about_suture(&status);
        page.about_the_world(&status);
        page.about_bounds(&status);
        page.register(
            "suture_world_read_seconds",
            "How long reads of the world took that ended",
            self.reads.0.clone(),
        );
        page.about_the_process();
        let mut open_metrics = String::new();
        text::encode(&mut open_metrics, &page.0)?;
        let open_metrics = exposition::in_order(&open_metrics);
        Ok(match exposition {
            Exposition::OpenMetrics => open_metrics,
            Exposition::Text => exposition::as_plain_text(&open_metrics),
        })
    }
}

#[derive(Default)]
struct Page(Registry);

impl Page {
    fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        self.register(name, help, gauge);
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u64::from(value));
    }

    fn time(&mut self, name: &str, help: &str, seconds: f64) {
        let gauge: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
        gauge.set(seconds);
        self.register(name, help, gauge);
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family: Family<Labels, Gauge> = Family::default();
        for (labels, value) in values {
            family
                .get_or_create(&labels)
                .set(value.try_into().unwrap_or(i64::MAX));
        }
        self.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.register(name, help, counter);
    }

    /// The library adds `_total` to the name.
    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family: Family<Labels, Counter> = Family::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.register(name, help, family);
    }

    fn about_suture(&mut self, status: &Status) {
        self.register(
            "suture_build",
            "Which suture this is",
            Info::new(vec![("version", status.version.clone())]),
        );
        self.time(
            "suture_status_timestamp_seconds",
            "When the agent published what is told here; it does so every few seconds",
            seconds(status.at),
        );
        self.flag(
            "suture_heals",
            "Whether suture heals what is proven safe (1) or only tells (0)",
            status.mode == Mode::Heals,
        );
        self.flag(
            "suture_degraded",
            "Whether suture sees or does less than it could; `suture status` says why",
            status.overall.quality == OverallQuality::Degraded,
        );
        let qualities = [Quality::Full, Quality::Degraded, Quality::Missing];
        let qualities_of_each = status.senses.iter().flat_map(|one| {
            qualities.map(|quality| {
                let labels = vec![
                    ("sense", one.sense.name().to_owned()),
                    ("quality", quality.to_string()),
                ];
                (labels, u64::from(one.quality == quality))
            })
        });
        self.gauges(
            "suture_sense",
            "How well each sense works: 1 at its quality",
            qualities_of_each,
        );
        let by_means = status.senses.iter().filter(|one| !one.means.is_empty());
        let means = by_means.map(|one| {
            let labels = vec![
                ("sense", one.sense.name().to_owned()),
                ("means", one.means.clone()),
            ];
            (labels, 1)
        });
        self.gauges("suture_sense_info", "By what means each sense works", means);
        let traces = status.traces.as_ref();
        self.flag(
            "suture_traces_failing",
            "Whether the last delivery of traces failed",
            traces.is_some_and(|one| one.error.is_some()),
        );
        self.gauge(
            "suture_spans_kept",
            "Spans that wait for the collector",
            traces.map_or(0, |one| one.kept),
        );
        self.counter(
            "suture_spans_dropped",
            "Spans given up because the collector was away for too long",
            traces.map_or(0, |one| one.dropped),
        );
        self.flag(
            "suture_ledger_failing",
            "Whether the ledger can not be written; then nothing is healed",
            status.ledger_trouble.is_some(),
        );
    }

    fn about_the_world(&mut self, status: &Status) {
        let kinds = EventKind::ALL.map(|kind| {
            let count = status.events.get(&kind).copied().unwrap_or_default();
            (vec![("kind", kind.name().to_owned())], count)
        });
        self.counters("suture_events", "Events taken in, by kind", kinds);
        let lost = LossKind::NAMES.map(|name| {
            let of_that_name = status.losses.iter().filter(|loss| loss.kind.name() == name);
            let total = of_that_name.map(|loss| loss.total).fold(0, u64::saturating_add);
            (vec![("kind", name.to_owned())], total)
        });
        self.counters(
            "suture_lost_events",
            "Events lost, by kind; a loss that nobody can count is one",
            lost,
        );
        self.flag(
            "suture_gap_open",
            "Whether operations can have been missed; then nothing is deleted until the world was read anew",
            status.gap.is_some(),
        );
        let findings = FindingClass::ALL.map(|class| {
            let count = status.finding_counts.get(&class).copied().unwrap_or_default();
            (vec![("class", class.to_string())], count)
        });
        self.gauges("suture_findings", "Findings that stand, by class", findings);
        self.gauge(
            "suture_operations_open",
            "Operations of containerd's that are not concluded",
            status.open_operations,
        );
        self.flag(
            "suture_containerd_up",
            "Whether a containerd holds the pool database",
            status.containerd.up.is_some(),
        );
        let results = ReadResult::ALL.map(|result| {
            let count = status.world.results.get(&result).copied().unwrap_or_default();
            (vec![("result", result.name().to_owned())], count)
        });
        self.counters(
            "suture_world_reads",
            "Reads of the world, by what came of them",
            results,
        );
        if let Some(read) = status.world.last {
            self.time(
                "suture_world_read_timestamp_seconds",
                "When the world was last read consistently; not there before the first time",
                seconds(read.at),
            );
        }
    }

    fn about_bounds(&mut self, status: &Status) {
        let labels = |bound: &crate::model::status::Bound| vec![("bound", bound.bound.name().to_owned())];
        let bounds = &status.bounds;
        self.gauges(
            "suture_bound_limit",
            "How much is allowed",
            bounds.iter().map(|bound| (labels(bound), bound.limit)),
        );
        self.gauges(
            "suture_bound_current",
            "How much there is, where suture knows",
            bounds
                .iter()
                .filter_map(|bound| Some((labels(bound), bound.current?))),
        );
        self.counters(
            "suture_bound_hits",
            "How often a bound was hit",
            bounds.iter().map(|bound| (labels(bound), bound.hits)),
        );
    }

    /// The names that every Prometheus client uses. Where /proc does not tell, they are left out.
    fn about_the_process(&mut self) {
        let Some(own) = super::process::Own::read() else {
            return;
        };
        self.gauge(
            "process_resident_memory_bytes",
            "Memory of suture in RAM",
            own.resident_bytes,
        );
        let counter: Counter<f64, std::sync::atomic::AtomicU64> = Counter::default();
        counter.inc_by(own.cpu_seconds);
        self.register(
            "process_cpu_seconds",
            "Time on processors, of suture and of the kernel for it",
            counter,
        );
        self.time(
            "process_start_time_seconds",
            "When suture was started",
            own.started_seconds,
        );
    }
}

/// Seconds since the epoch. Precise to less than a microsecond for the next centuries.
fn seconds(at: Timestamp) -> f64 {
    Duration::from_nanos(at.nanoseconds()).as_secs_f64()
}
