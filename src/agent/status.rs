//! Tells how suture is: gathers the `Status` and publishes it to who asks. Publishing is a value put into a channel; who
//! reads it, and how slowly, is nothing that the agent would notice.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Agent, now,
    pulse::{Pulse, reasons},
    rounds::Rounds,
    tell::tell,
};
use crate::{
    brain::{Report, Standing},
    control::{ClientCounts, CommandSender, ControlServer, Group, MetricsServer, ServeError, Serving},
    correlate,
    model::{
        Status,
        observation::LossKind,
        status::{Bound, BoundKind, FindingStatus, OpenGap, Overall, TraceDelivery},
    },
    reporter::Reporter,
    telemetry::{self, metrics::Metrics},
    words::explain,
};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listen {
    /// The control socket; none for a suture that only records.
    pub socket: Option<PathBuf>,
    /// The group whose members may ask and command there, beside root.
    pub group: Option<String>,
    /// Where the metrics are served; nowhere by default.
    pub metrics: Option<SocketAddr>,
}

/// Who can ask. What could not be had is told, and suture goes on without.
#[derive(Default)]
pub(super) struct Listeners {
    control: Option<ControlServer>,
    metrics: Option<MetricsServer>,
}

impl Listeners {
    /// `commands` is where the agent takes commands from; none for one that takes none.
    pub(super) fn start(
        listen: &Listen,
        pulse: &Pulse,
        commands: Option<CommandSender>,
        reporter: &mut Reporter<io::Stdout>,
    ) -> Self {
        let group = listen.group.as_deref().and_then(|name| {
            Group::named(name)
                .inspect_err(|error| {
                    let what = explain(error);
                    tell(reporter, now(), &Report::Trouble { what });
                })
                .ok()
        });
        let mut told = |socket: &Path, error: &ServeError| {
            let report = Report::NotAskable {
                place: socket.display().to_string(),
                why: explain(error),
            };
            tell(reporter, now(), &report);
        };
        let control = listen.socket.as_ref().and_then(|socket| {
            let serving = Serving {
                status: pulse.feed(),
                commands,
                group,
            };
            ControlServer::start(socket, serving)
                .inspect_err(|error| told(socket, error))
                .ok()
        });
        let metrics = listen.metrics.and_then(|address| {
            let metrics = Metrics::new(pulse.feed(), pulse.read_times());
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
        self.pulse.put(&[self.databases.senses()]);
        let status = &mut self.pulse.status;
        status.at = now();
        status.bounds = bounds;
        let known = self.brain.correlator();
        status.gap = known.gap().map(|gap| OpenGap {
            noticed: gap.noticed,
            why: gap.why.clone(),
        });
        status.containerd.up = self.containerd.up().cloned();
        status.open_operations = count(known.operations().filter(|one| !one.state.is_closed()).count());
        status.finding_counts.clear();
        let known: BTreeSet<_> = self.brain.standings().map(|one| &one.finding.id).collect();
        let of_rounds = self.rounds.iter().flat_map(|rounds| rounds.open.standings());
        let of_rounds = of_rounds.filter(|one| !known.contains(&one.finding.id));
        let mut findings: Vec<_> = self.brain.standings().chain(of_rounds).collect();
        let decided = |row: &Standing| {
            let of_rounds = self
                .rounds
                .as_ref()
                .and_then(|rounds| rounds.open.decision(&row.finding.id));
            of_rounds.unwrap_or(&row.decision).to_owned()
        };
        let verdict_of = |id| {
            let rounds = self.rounds.as_ref()?;
            rounds.verdicts.get(id).map(|(verdict, _)| verdict.clone())
        };
        for standing in &findings {
            *status.finding_counts.entry(standing.finding.class).or_default() += 1;
        }
        findings.sort_by_key(|row| row.first_seen);
        let listed = findings
            .into_iter()
            .take(Status::MAX_FINDINGS)
            .map(|row| FindingStatus {
                id: row.finding.id.clone(),
                class: row.finding.class,
                subject: row.finding.subject.clone(),
                first_seen: row.first_seen,
                decision: decided(row),
                verdict: verdict_of(&row.finding.id),
            });
        status.findings = listed.collect();
        status.healing = self.rounds.as_ref().map(Rounds::healing);
        status.traces = self.telemetry.delivery_status().map(|delivery| TraceDelivery {
            endpoint: delivery.endpoint,
            error: delivery.error,
            kept: count(delivery.kept),
            dropped: delivery.dropped,
        });
        let mut why = reasons(status, self.options.policy.act);
        let hangs = self.under_way.as_ref().map(|_| {
            "the kernel has not answered to a deletion, and nothing else is deleted before it has".to_owned()
        });
        let trouble = self.rounds.as_ref().and_then(|rounds| rounds.trouble.as_ref());
        let rounds = trouble.map(|trouble| format!("the last healing round came to nothing: {trouble}"));
        why.extend(hangs.into_iter().chain(rounds));
        status.overall = Overall::because(why);
        self.pulse.send();
        self.tell_manager();
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
                    pulse.losses_of(&[
                        LossKind::DmRingFull,
                        LossKind::PoolRingFull,
                        LossKind::DeviceEndRingFull,
                        LossKind::ProcessRingFull,
                    ]),
                ),
                BoundKind::BlockRingBytes => (
                    u64::from(probes.block_ring_bytes),
                    None,
                    pulse.losses_of(&[LossKind::BlockRingFull, LossKind::BioRingFull]),
                ),
                BoundKind::DmCallsInFlight => (
                    u64::from(probes.calls_in_flight),
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
                    Some(count(self.brain.correlator().operations().count())),
                    self.brain.correlator().given_up(),
                ),
                BoundKind::SpansKept => (
                    count(telemetry::MAX_SPANS_KEPT),
                    Some(traces.as_ref().map_or(0, |one| count(one.kept))),
                    traces.as_ref().map_or(0, |one| one.dropped),
                ),
                BoundKind::RecordingBytes => match &self.recorder {
                    Some(recorder) => (recorder.max_bytes(), Some(recorder.size()), recorder.turned()),
                    None => (0, None, 0),
                },
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

fn count(number: usize) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}
