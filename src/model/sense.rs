//! What suture can see on this machine, by what means, and what it can not see and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that suture wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SenseKind {
    /// device-mapper's calls: what was asked, by whom, and what came of it.
    DeviceMapperCalls,
    /// Who forked whom: without it nobody knows for whom a call was made.
    Lineage,
    /// What thin pools do by themselves: creates, deletes, commits, aborts, modes.
    PoolInternals,
    /// dm devices as they really end, also those whose removal was put off.
    DeviceEnds,
    /// Failed requests of disks.
    BlockRequests,
    /// Failed bios, also of dm devices.
    BlockBios,
    /// containerd's start.
    ProcessStarts,
    /// containerd's end, and how.
    ProcessEnds,
    /// Processes killed because memory ran out.
    OutOfMemory,
    /// Which process holds the pool database.
    Holder,
    /// Commits to containerd's databases.
    Databases,
}

impl SenseKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::DeviceMapperCalls,
        Self::Lineage,
        Self::PoolInternals,
        Self::DeviceEnds,
        Self::BlockRequests,
        Self::BlockBios,
        Self::ProcessStarts,
        Self::ProcessEnds,
        Self::OutOfMemory,
        Self::Holder,
        Self::Databases,
    ];

    /// As metrics and JSON call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceMapperCalls => "device_mapper_calls",
            Self::Lineage => "lineage",
            Self::PoolInternals => "pool_internals",
            Self::DeviceEnds => "device_ends",
            Self::BlockRequests => "block_requests",
            Self::BlockBios => "block_bios",
            Self::ProcessStarts => "process_starts",
            Self::ProcessEnds => "process_ends",
            Self::OutOfMemory => "out_of_memory",
            Self::Holder => "holder",
            Self::Databases => "databases",
        }
    }
}

impl fmt::Display for SenseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceMapperCalls => "device-mapper calls",
            Self::Lineage => "who forked whom",
            Self::PoolInternals => "thin pools from inside",
            Self::DeviceEnds => "ends of dm devices",
            Self::BlockRequests => "failed disk requests",
            Self::BlockBios => "failed bios",
            Self::ProcessStarts => "containerd's start",
            Self::ProcessEnds => "containerd's end",
            Self::OutOfMemory => "kills for want of memory",
            Self::Holder => "who holds the pool database",
            Self::Databases => "commits to the databases",
        })
    }
}

/// How well a sense works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// The best way that there is.
    Full,
    /// Another way: later, or less exact.
    Degraded,
    /// Not at all.
    Missing,
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        })
    }
}

/// One sense as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// Which.
    pub sense: SenseKind,
    /// How well.
    pub quality: Quality,
    /// By what means, such as `kprobe dm_ctl_ioctl`; empty where by none.
    pub means: String,
    /// Why not better, one sentence for each means that could not be had; empty where nothing is amiss.
    pub why: Vec<String>,
}

impl Sense {
    /// How well it works follows from the rest: without means not at all, with nothing amiss fully.
    #[must_use]
    pub fn new(sense: SenseKind, means: impl Into<String>, why: Vec<String>) -> Self {
        let means = means.into();
        let quality = match (means.is_empty(), why.is_empty()) {
            (true, _) => Quality::Missing,
            (false, true) => Quality::Full,
            (false, false) => Quality::Degraded,
        };
        Self {
            sense,
            quality,
            means,
            why,
        }
    }

    /// Puts newer ones in the place of those that they renew; of the others it is as before. They stay in the order in
    /// which they are shown.
    pub fn renew(senses: &mut Vec<Self>, newer: &[Self]) {
        senses.retain(|one| newer.iter().all(|new| new.sense != one.sense));
        senses.extend_from_slice(newer);
        senses.sort_by_key(|one| one.sense);
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sense, self.quality)?;
        if !self.means.is_empty() {
            write!(f, ", by {}", self.means)?;
        }
        if !self.why.is_empty() {
            write!(f, " ({})", self.why.join("; "))?;
        }
        Ok(())
    }
}
