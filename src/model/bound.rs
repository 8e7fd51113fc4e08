//! What is bounded, and how near each bound is.

use serde::{Deserialize, Serialize};

/// Something that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundKind {
    /// Bytes of the ring of device-mapper calls. A hit is an event that did not fit.
    DmRingBytes,
    /// Bytes of the ring of block errors. A hit is an event that did not fit.
    BlockRingBytes,
    /// device-mapper calls under way at once that the kernel's side remembers. A hit is a call that was not.
    DmCallsInFlight,
    /// Processes whose parent the kernel's side remembers; the oldest go first. A hit is one that could not be.
    LineageEntries,
    /// Events that wait for the agent. A hit is each time it was found full; nothing is lost then, the rings wait.
    QueueEvents,
    /// Operations that are kept. A hit is an open one that was given up.
    Operations,
    /// Spans kept for a collector that is away. A hit is a span that was given up.
    SpansKept,
    /// Clients of the control socket at once. A hit is one that was cut short to let a new one in.
    ControlClients,
    /// Clients of the metrics' address at once. A hit is one that was cut short to let a new one in.
    MetricsClients,
}

impl BoundKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::DmRingBytes,
        Self::BlockRingBytes,
        Self::DmCallsInFlight,
        Self::LineageEntries,
        Self::QueueEvents,
        Self::Operations,
        Self::SpansKept,
        Self::ControlClients,
        Self::MetricsClients,
    ];

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DmRingBytes => "dm_ring_bytes",
            Self::BlockRingBytes => "block_ring_bytes",
            Self::DmCallsInFlight => "dm_calls_in_flight",
            Self::LineageEntries => "lineage_entries",
            Self::QueueEvents => "queue_events",
            Self::Operations => "operations",
            Self::SpansKept => "spans_kept",
            Self::ControlClients => "control_clients",
            Self::MetricsClients => "metrics_clients",
        }
    }

    /// As people read it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::DmRingBytes => "bytes of the device-mapper ring",
            Self::BlockRingBytes => "bytes of the block error ring",
            Self::DmCallsInFlight => "device-mapper calls at once",
            Self::LineageEntries => "processes with a known parent",
            Self::QueueEvents => "events waiting for the agent",
            Self::Operations => "operations kept",
            Self::SpansKept => "spans kept for the collector",
            Self::ControlClients => "clients of the control socket",
            Self::MetricsClients => "clients of the metrics",
        }
    }
}

/// A bound and how near it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Of what.
    pub bound: BoundKind,
    /// How much is allowed.
    pub limit: u64,
    /// How much there is; nothing where only the kernel knows.
    pub current: Option<u64>,
    /// How often it was hit since suture runs.
    pub hits: u64,
}
