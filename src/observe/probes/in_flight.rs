//! Calls that entered the kernel and were never seen to return: the kernel watches only so many returns at a time
//! (kretprobes have a fixed number of places), and does not tell the program of those that it let go.

use std::{collections::BTreeSet, path::Path};

use aya::maps::{HashMap, MapData};
use suture_events::DmIoctlEvent;

/// An entry of the programs' map of calls under way; only its key is looked at.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct InFlight {
    event: DmIoctlEvent,
    argument: u64,
}

#[expect(unsafe_code, reason = "states that the entry has no invalid bit pattern")]
mod pod {
    // SAFETY: `repr(C)`, integers and arrays of them, no padding between them.
    unsafe impl aya::Pod for super::InFlight {}
}

/// Entries whose thread was gone at the last look.
#[derive(Debug, Default)]
pub(super) struct Stale {
    suspects: BTreeSet<u64>,
}

impl Stale {
    /// Drops entries whose thread was gone at this look and at the one before; says how many. Once is not enough: a
    /// call may return between the look at the map and the look at its thread.
    pub(super) fn sweep(&mut self, entries: &mut HashMap<MapData, u64, InFlight>) -> u64 {
        let gone: BTreeSet<u64> = entries
            .keys()
            .filter_map(Result::ok)
            .filter(|key| !is_alive(*key))
            .collect();
        let (mut missed, mut suspects) = (0_u64, BTreeSet::new());
        for key in gone {
            if self.suspects.contains(&key) {
                if entries.remove(&key).is_ok() {
                    missed = missed.saturating_add(1);
                }
            } else {
                suspects.insert(key);
            }
        }
        self.suspects = suspects;
        missed
    }
}

/// Whether the thread of a key (`bpf_get_current_pid_tgid`: process above, thread below) runs still.
fn is_alive(key: u64) -> bool {
    let (process, thread) = (key >> 32, key & 0xffff_ffff);
    Path::new(&format!("/proc/{process}/task/{thread}")).exists()
}
