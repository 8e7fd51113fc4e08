//! How a running suture is: what it sees and by what means, what it knows, what it lost, and which of its bounds were hit.
//!
//! The agent fills it, `suture status` shows it, the metrics are made from it. As JSON it is stable: fields are added,
//! never renamed or taken away. Times are RFC 3339 in UTC; sizes are in bytes where the name says so.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::bound::{Bound, BoundKind};

use super::{
    FindingClass, FindingId, Incarnation, Observation, PoolName, Subject, Timestamp,
    healing::{HealingStatus, VerdictStatus},
    observation::LossKind,
    sense::{Quality, Sense, SenseKind},
};

/// What suture may do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It heals what is proven safe.
    #[serde(rename = "heals")]
    Heals,
    /// It tells and changes nothing.
    #[serde(rename = "only tells")]
    OnlyTells,
}

/// Where suture looks and where it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusPlaces {
    /// containerd's pool database.
    pub pool_database: PathBuf,
    /// containerd's snapshot database.
    pub snapshot_database: PathBuf,
    /// suture's own ledger; none where it does without one.
    pub ledger: Option<PathBuf>,
}

/// Whether suture is as good as it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverallQuality {
    /// It sees what it needs to see, and nothing is in its way.
    Full,
    /// Something is amiss.
    Degraded,
}

/// The verdict and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overall {
    /// The verdict.
    pub quality: OverallQuality,
    /// Why it is not better, a sentence each; empty when it is full.
    pub reasons: Vec<String>,
}

impl Overall {
    /// The verdict that the reasons make.
    #[must_use]
    pub fn because(reasons: Vec<String>) -> Self {
        let quality = if reasons.is_empty() {
            OverallQuality::Full
        } else {
            OverallQuality::Degraded
        };
        Self { quality, reasons }
    }
}

/// A gap that is open: nothing is deleted until a full read of the world has closed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenGap {
    /// When its end was noticed.
    pub noticed: Timestamp,
    /// Why there is one.
    pub why: String,
}

/// What came of a try to read the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadResult {
    /// One consistent world.
    Consistent,
    /// containerd wrote meanwhile, each time.
    Busy,
    /// Something could not be read.
    Failed,
    /// It took too long and goes on.
    Late,
}

impl ReadResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Consistent, Self::Busy, Self::Failed, Self::Late];

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Late => "late",
        }
    }
}

/// The last consistent read of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldRead {
    /// When it was done.
    pub at: Timestamp,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// Reads of the world.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorldReads {
    /// The last consistent one; nothing before the first.
    pub last: Option<WorldRead>,
    /// Why it could not be read since; nothing when it could, or when containerd was only busy.
    pub trouble: Option<String>,
    /// How often what came of it.
    pub results: BTreeMap<ReadResult, u64>,
}

/// The containerd that holds the pool's database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerdStatus {
    /// Which one runs; nothing when none does, or when nobody can tell.
    pub up: Option<Incarnation>,
    /// Why it can not be told which one runs.
    pub unknown: Option<String>,
}

/// A finding that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingStatus {
    /// Its name.
    pub id: FindingId,
    /// Its class.
    pub class: FindingClass,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// When it was first read.
    pub first_seen: Timestamp,
    /// What was decided about it last, as people read it; empty before that.
    pub decision: String,
    /// The same for programs; nothing where no healing round has judged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictStatus>,
}

/// What was lost of one kind since suture runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossTotal {
    /// Of what kind.
    pub kind: LossKind,
    /// How many events; a loss that nobody can count is one.
    pub total: u64,
    /// When it was noticed last.
    pub last: Timestamp,
}

/// Whether traces reach their collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDelivery {
    /// Where they are sent.
    pub endpoint: String,
    /// Why the last delivery failed; nothing when it did not.
    pub error: Option<String>,
    /// Spans that wait.
    pub kept: u64,
    /// Spans given up.
    pub dropped: u64,
}

/// What an observation is, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the variant of `Observation` of that name")]
pub enum EventKind {
    DmIoctl,
    BlockError,
    PoolCall,
    DeviceEnded,
    Process,
    Commit,
    DeviceChange,
    PoolStatus,
    Lost,
    ContainerdUp,
    ContainerdGone,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::DmIoctl,
        Self::BlockError,
        Self::PoolCall,
        Self::DeviceEnded,
        Self::Process,
        Self::Commit,
        Self::DeviceChange,
        Self::PoolStatus,
        Self::Lost,
        Self::ContainerdUp,
        Self::ContainerdGone,
    ];

    /// Of an observation.
    #[must_use]
    pub fn of(observation: &Observation) -> Self {
        match observation {
            Observation::DmIoctl(_) => Self::DmIoctl,
            Observation::BlockError(_) => Self::BlockError,
            Observation::PoolCall(_) => Self::PoolCall,
            Observation::DeviceEnded(_) => Self::DeviceEnded,
            Observation::Process(_) => Self::Process,
            Observation::Commit(_) => Self::Commit,
            Observation::DeviceChange(_) => Self::DeviceChange,
            Observation::PoolStatus(_) => Self::PoolStatus,
            Observation::Lost { .. } => Self::Lost,
            Observation::ContainerdUp { .. } => Self::ContainerdUp,
            Observation::ContainerdGone { .. } => Self::ContainerdGone,
        }
    }

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DmIoctl => "dm_ioctl",
            Self::BlockError => "block_error",
            Self::PoolCall => "pool_call",
            Self::DeviceEnded => "device_ended",
            Self::Process => "process",
            Self::Commit => "commit",
            Self::DeviceChange => "device_change",
            Self::PoolStatus => "pool_status",
            Self::Lost => "lost",
            Self::ContainerdUp => "containerd_up",
            Self::ContainerdGone => "containerd_gone",
        }
    }
}

/// How a running suture is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// suture's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it watches.
    pub since: Timestamp,
    /// When this was put together.
    pub at: Timestamp,
    /// The thin pool that it watches.
    pub pool: PoolName,
    /// Where it looks and writes.
    pub places: StatusPlaces,
    /// What it may do by itself.
    pub mode: Mode,
    /// The verdict.
    pub overall: Overall,
    /// What it sees and by what means.
    pub senses: Vec<Sense>,
    /// The gap that is open.
    pub gap: Option<OpenGap>,
    /// Reads of the world.
    pub world: WorldReads,
    /// containerd.
    pub containerd: ContainerdStatus,
    /// How many findings stand, by class.
    pub finding_counts: BTreeMap<FindingClass, u64>,
    /// The findings that stand, at most [`Status::MAX_FINDINGS`] of them, the oldest first.
    pub findings: Vec<FindingStatus>,
    /// Operations of containerd's that are not concluded.
    pub open_operations: u64,
    /// Events taken in since suture runs, by kind.
    pub events: BTreeMap<EventKind, u64>,
    /// What was lost since suture runs.
    pub losses: Vec<LossTotal>,
    /// The bounds.
    pub bounds: Vec<Bound>,
    /// Whether traces reach their collector; nothing when nobody wants them.
    pub traces: Option<TraceDelivery>,
    /// Why the ledger could not be written the last time; nothing when it could.
    pub ledger_trouble: Option<String>,
    /// How the healing stands; nothing from a suture that makes no healing rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healing: Option<HealingStatus>,
}

impl Status {
    /// More findings are counted, not listed.
    pub const MAX_FINDINGS: usize = 256;
    /// A status that is older than this comes from an agent that hangs: it waits at most 30 s for a read of the world,
    /// and does so at most twice in a row.
    pub const STALE: Duration = Duration::from_mins(2);

    /// How old it is, where that is too old.
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        let age = now.since(self.at);
        (age > Self::STALE).then_some(age)
    }
}

/// Whether suture proves or finds less without this sense. A kill for want of memory only explains a death that is seen
/// in any case.
fn matters(sense: SenseKind) -> bool {
    sense != SenseKind::OutOfMemory
}

/// What the senses are short of, a sentence for each quality that is not the best.
#[must_use]
pub fn shortcomings(senses: &[Sense]) -> Vec<String> {
    let of = |quality| {
        let names: Vec<String> = senses
            .iter()
            .filter(|one| one.quality == quality && matters(one.sense))
            .map(|one| one.sense.to_string())
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let missing = of(Quality::Missing).map(|names| format!("does not see {names}"));
    let degraded = of(Quality::Degraded).map(|names| format!("sees late or less exactly: {names}"));
    missing.into_iter().chain(degraded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sense(sense: SenseKind, quality: Quality) -> Sense {
        Sense {
            sense,
            quality,
            means: String::new(),
            why: Vec::new(),
        }
    }

    #[test]
    fn the_worst_of_the_senses_that_matter_decides() {
        let full = |kind| sense(kind, Quality::Full);
        assert!(shortcomings(&SenseKind::ALL.map(full)).is_empty());
        for kind in SenseKind::ALL {
            for quality in [Quality::Degraded, Quality::Missing] {
                let one = SenseKind::ALL.map(|each| {
                    if each == kind {
                        sense(kind, quality)
                    } else {
                        full(each)
                    }
                });
                let said = shortcomings(&one);
                assert_eq!(
                    said.len(),
                    usize::from(kind != SenseKind::OutOfMemory),
                    "{kind}: {said:?}"
                );
                assert!(said.iter().all(|text| text.contains(&kind.to_string())));
            }
        }
        assert_eq!(Overall::because(Vec::new()).quality, OverallQuality::Full);
        assert_eq!(
            Overall::because(vec!["x".to_owned()]).quality,
            OverallQuality::Degraded
        );
    }

    #[test]
    fn names_in_json_and_in_metrics_are_the_same() {
        let json = |value: serde_json::Value| value.as_str().map(str::to_owned);
        for kind in EventKind::ALL {
            assert_eq!(
                json(serde_json::to_value(kind).unwrap()).as_deref(),
                Some(kind.name())
            );
        }
        for bound in BoundKind::ALL {
            assert_eq!(
                json(serde_json::to_value(bound).unwrap()).as_deref(),
                Some(bound.name())
            );
        }
        for result in ReadResult::ALL {
            assert_eq!(
                json(serde_json::to_value(result).unwrap()).as_deref(),
                Some(result.name())
            );
        }
    }
}
