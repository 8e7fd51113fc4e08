//! What this suture sees and by what means: what its probes were attached to.

use crate::model::sense::{Quality, Sense, SenseKind};

/// The senses of the probes that [`Probes::attach`](crate::observe::probes::Probes::attach) attaches, all or none, and of
/// the thread that watches containerd.
pub(super) fn of_the_probes() -> Vec<Sense> {
    SenseKind::ALL.map(of_one).into()
}

fn of_one(sense: SenseKind) -> Sense {
    let (quality, means, why) = match sense {
        SenseKind::DeviceMapperCalls => (
            Quality::Degraded,
            "tracepoint syscalls:sys_enter_ioctl",
            "calls are seen at the system call, with what the caller's memory said when they came and went; a kprobe on dm_ctl_ioctl is not attached",
        ),
        SenseKind::Lineage => (Quality::Full, "tracepoint sched:sched_process_fork", ""),
        SenseKind::BlockRequests => (Quality::Full, "tracepoint block:block_rq_error", ""),
        SenseKind::BlockBios => (Quality::Full, "tracepoint block:block_bio_complete", ""),
        SenseKind::Holder => (Quality::Full, "the lock on the pool database and a pidfd", ""),
        SenseKind::PoolInternals
        | SenseKind::DeviceEnds
        | SenseKind::ProcessStarts
        | SenseKind::ProcessEnds
        | SenseKind::OutOfMemory
        | SenseKind::Databases => (Quality::Missing, "", "this suture has no means for it"),
    };
    Sense {
        sense,
        quality,
        means: means.to_owned(),
        why: (!why.is_empty()).then(|| why.to_owned()).into_iter().collect(),
    }
}
