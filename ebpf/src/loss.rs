//! Counters of what was seen and could not be handed over, per CPU; the agent sums them.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use suture_events::loss;

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(loss::COUNT, 0);

/// Counts one loss of the given kind ([`suture_events::loss`]).
#[inline(always)]
pub fn count(kind: u32) {
    if let Some(counter) = LOSSES.get_ptr_mut(kind) {
        // SAFETY: the pointer is to this CPU's slot of the map, and a program is not preempted by itself.
        unsafe { *counter += 1 };
    }
}
