//! Who forked whom. dmsetup lives for milliseconds and may outlive a killed containerd, so its parent is noted at the
//! fork: later, `/proc` has forgotten it or says init.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::{map, tracepoint},
    maps::LruHashMap,
    programs::TracePointContext,
};
use suture_events::{ANCESTORS, Ancestor, COMM_LEN, loss};

use crate::loss as losses;

/// Offset of `child_pid` in `sched_process_fork`, from tracefs: it moved between kernel versions.
#[unsafe(no_mangle)]
static FORK_CHILD_PID_OFFSET: Global<u32> = Global::new(0);

/// Child -> the process that forked it. Oldest entries fall out; a missing one reads as "no known parent".
#[map]
static PARENTS: LruHashMap<u32, Ancestor> = LruHashMap::with_max_entries(16384, 0);

#[tracepoint]
pub fn sched_process_fork(context: TracePointContext) -> u32 {
    let offset = FORK_CHILD_PID_OFFSET.load() as usize;
    // SAFETY: the offset comes from the kernel's own description of this tracepoint.
    let Ok(child) = (unsafe { context.read_at::<u32>(offset) }) else {
        return 0;
    };
    let parent = Ancestor {
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
        padding: 0,
    };
    if PARENTS.insert(&child, &parent, 0).is_err() {
        // An earlier process of that number must not lend it its parent.
        let _ = PARENTS.remove(&child);
        losses::count(loss::LINEAGE);
    }
    0
}

/// Fills in up to [`ANCESTORS`] ancestors of a process, the nearest first; the rest stays zero.
#[inline(always)]
pub fn ancestors(tgid: u32, into: &mut [Ancestor; ANCESTORS]) {
    let mut process = tgid;
    for slot in into {
        // SAFETY: an entry replaced while it is read gives another process's name, never memory outside the map.
        let Some(parent) = (unsafe { PARENTS.get(&process) }) else {
            return;
        };
        *slot = *parent;
        process = parent.tgid;
    }
}
