//! What is known of suture itself: counted and noted as it happens, published at most four times a second.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{Options, now};
use crate::{
    control::StatusFeed,
    model::{
        Observation, Status,
        observation::LossKind,
        sense::{Sense, SenseKind},
        status::{
            ContainerdStatus, EventKind, LossTotal, Mode, Overall, ReadResult, StatusPlaces, WorldRead,
            WorldReads, shortcomings,
        },
    },
    telemetry::metrics::ReadTimes,
};

/// At most so often a status is published.
const PAUSE: Duration = Duration::from_millis(250);

/// What is told of suture, as far as it happened.
pub(super) struct Pulse {
    pub(super) status: Status,
    reads: ReadTimes,
    to: watch::Sender<Arc<Status>>,
    published: Instant,
    due: Option<Instant>,
    queue_full: bool,
    pub(super) queue_hits: u64,
    /// How the holder is seen when it is seen.
    holder: Option<Sense>,
}

impl Pulse {
    pub(super) fn new(options: &Options, senses: Vec<Sense>, no_ledger: Option<String>) -> Self {
        let at = now();
        let heals = options.policy.act && options.ledger.is_some() && no_ledger.is_none();
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
            finding_counts: BTreeMap::new(),
            findings: Vec::new(),
            open_operations: 0,
            events: BTreeMap::new(),
            losses: Vec::new(),
            bounds: Vec::new(),
            traces: None,
            ledger_trouble: no_ledger,
            healing: None,
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

    pub(super) fn read_times(&self) -> ReadTimes {
        self.reads.clone()
    }

    /// Publishes the status as it stands.
    pub(super) fn send(&mut self) {
        self.to.send_replace(Arc::new(self.status.clone()));
        self.published = Instant::now();
        self.due = None;
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
                Some(why) => Sense::new(SenseKind::Holder, "", vec![why.clone()]),
                None => well.clone(),
            };
        }
        self.status.containerd.unknown = blind;
        self.soon();
    }

    /// Notes what is seen from now on; of senses that are not named it is as before.
    pub(super) fn senses(&mut self, senses: &[Sense]) {
        self.put(senses);
        self.soon();
    }

    /// The same, for a status that is about to be published.
    pub(super) fn put(&mut self, senses: &[Sense]) {
        Sense::renew(&mut self.status.senses, senses);
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

    pub(super) fn losses_of(&self, kinds: &[LossKind]) -> u64 {
        let each = kinds.iter().map(|kind| self.losses(*kind));
        each.fold(0, u64::saturating_add)
    }

    pub(super) fn losses(&self, kind: LossKind) -> u64 {
        let of_kind = self.status.losses.iter().filter(|loss| loss.kind == kind);
        of_kind.map(|loss| loss.total).sum()
    }
}

/// Why suture is not as good as it could be. Traces that do not get through, and what was lost before the last full read
/// of the world, are told elsewhere: they take nothing from what it may do.
pub(super) fn reasons(status: &Status, act: bool) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{Bounds, Format, Listen, senses},
        decide::Policy,
        model::{
            Incarnation, PoolName, Timestamp,
            sense::Quality,
            status::{OpenGap, Overall, OverallQuality},
        },
        observe::{probes::ProbeOptions, world::Places},
    };

    fn pulse(no_ledger: Option<&str>) -> Pulse {
        let options = Options {
            places: Places {
                pool: PoolName::new("tp"),
                root: "/nowhere".into(),
            },
            policy: Policy {
                act: true,
                grace: Duration::ZERO,
            },
            core_db: None,
            healing: None,
            use_bpf: crate::observe::kernel_watch::UseBpf::IfPossible,
            probes: ProbeOptions::default(),
            bounds: Bounds::default(),
            listen: Listen {
                socket: Some("/nowhere/socket".into()),
                group: None,
                metrics: None,
            },
            ledger: Some("/nowhere/ledger".into()),
            record: None,
            only_record: false,
            format: Format::Text,
            verbose: false,
        };
        Pulse::new(&options, vec![senses::holder()], no_ledger.map(str::to_owned))
    }

    fn lost(second: u64, what: LossKind, count: u64) -> Observation {
        let at = Timestamp::from_nanoseconds(second * 1_000_000_000);
        Observation::Lost {
            since: at,
            at,
            what,
            count,
        }
    }

    #[tokio::test]
    async fn losses_add_up_by_kind_and_one_that_nobody_can_count_is_one() {
        let mut pulse = pulse(None);
        for (second, what, count) in [
            (1, LossKind::DmRingFull, 3),
            (9, LossKind::DmRingFull, 4),
            (5, LossKind::DmRingFull, u64::MAX),
            (2, LossKind::NotWatching, 0),
        ] {
            pulse.observed(&lost(second, what, count), 0, 64);
        }
        assert_eq!(pulse.losses(LossKind::DmRingFull), u64::MAX);
        assert_eq!(pulse.losses(LossKind::NotWatching), 1);
        assert_eq!(pulse.losses(LossKind::Lineage), 0);
        assert_eq!(
            pulse.status.losses[0].last,
            Timestamp::from_nanoseconds(9_000_000_000)
        );
        assert_eq!(pulse.status.events.get(&EventKind::Lost), Some(&4));
    }

    #[tokio::test]
    async fn a_queue_that_stays_full_is_one_hit() {
        let mut pulse = pulse(None);
        let up = Observation::ContainerdUp {
            at: Timestamp::default(),
            who: Incarnation {
                pid: 1,
                start_ticks: 1,
                boot: String::new(),
            },
        };
        for waiting in [0, 62, 63, 64, 63, 5, 63] {
            pulse.observed(&up, waiting, 64);
        }
        assert_eq!(pulse.queue_hits, 2);
    }

    #[tokio::test]
    async fn the_holder_is_missing_while_nobody_can_tell_and_then_as_before() {
        let mut pulse = pulse(None);
        let before = pulse.status.senses.clone();
        let holder = |pulse: &Pulse| {
            let senses = pulse.status.senses.iter();
            senses
                .filter(|one| one.sense == SenseKind::Holder)
                .cloned()
                .collect::<Vec<_>>()
        };
        pulse.holder_seen(Some("no /proc".to_owned()));
        assert_eq!(holder(&pulse)[0].quality, Quality::Missing);
        assert_eq!(holder(&pulse)[0].why, ["no /proc"]);
        assert!(shortcomings(&pulse.status.senses)[0].contains("who holds the pool database"));
        pulse.holder_seen(None);
        assert_eq!(pulse.status.senses, before);
    }

    #[tokio::test]
    async fn each_thing_that_is_amiss_is_a_reason_and_goes_when_it_is_over() {
        let mut pulse = pulse(Some("there is no ledger: a full disk"));
        assert_eq!(pulse.status.mode, Mode::OnlyTells);
        pulse.status.senses.clear();
        assert_eq!(
            reasons(&pulse.status, true),
            ["there is no ledger: a full disk, so nothing is healed"]
        );
        pulse.ledger(None);
        pulse.read(ReadResult::Failed, Duration::ZERO, Some("no pool".to_owned()));
        assert_eq!(
            reasons(&pulse.status, true),
            ["the world can not be read: no pool"]
        );
        // Nothing was learnt.
        pulse.read(ReadResult::Busy, Duration::ZERO, None);
        assert_eq!(reasons(&pulse.status, true).len(), 1);
        pulse.read(ReadResult::Consistent, Duration::from_micros(7), None);
        assert_eq!(pulse.status.world.last.map(|read| read.took_us), Some(7));
        pulse.status.gap = Some(OpenGap {
            noticed: Timestamp::default(),
            why: "lost".to_owned(),
        });
        assert_eq!(reasons(&pulse.status, true), ["a gap is open: lost"]);
        pulse.status.gap = None;
        let overall = Overall::because(reasons(&pulse.status, true));
        assert_eq!(overall.quality, OverallQuality::Full);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_published_four_times_a_second() {
        let mut pulse = pulse(None);
        let begun = Instant::now();
        let mut published = 0;
        while begun.elapsed() < Duration::from_secs(10) {
            pulse.observed(&lost(1, LossKind::Polling, 1), 0, 64);
            if pulse.is_due() {
                pulse.due().await;
                pulse.send();
                published += 1;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!((38..=40).contains(&published), "{published}");
    }
}
