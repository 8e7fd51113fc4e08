//! containerd's own start and end, and how it ended.

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_ktime_get_ns, bpf_probe_read_kernel,
    },
    macros::{map, tracepoint},
    maps::LruHashMap,
    programs::TracePointContext,
};
use suture_events::{ANCESTORS, Ancestor, COMM_LEN, ProcessEvent, kind, loss, process_change};

use crate::{lineage, loss as losses, ring::EVENTS};

/// The name that is watched for, with its end: a shim's name goes on.
const NAME: &[u8; 11] = b"containerd\0";

/// Offset of `exit_code` in `struct task_struct`, from the kernel's type information; all ones where that does not tell.
#[unsafe(no_mangle)]
static EXIT_CODE_OFFSET: Global<u32> = Global::new(u32::MAX);

/// Offset of `pid` in `oom:mark_victim`, from tracefs.
#[unsafe(no_mangle)]
static VICTIM_PID_OFFSET: Global<u32> = Global::new(0);

/// Processes that the kernel has chosen to free memory.
#[map]
static VICTIMS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(256, 0);

#[tracepoint]
pub fn mark_victim(context: TracePointContext) -> u32 {
    let offset = VICTIM_PID_OFFSET.load() as usize;
    // SAFETY: the offset comes from the kernel's own description of this tracepoint.
    if let Ok(victim) = unsafe { context.read_at::<u32>(offset) } {
        let _ = VICTIMS.insert(&victim, &1, 0);
    }
    0
}

#[tracepoint]
pub fn sched_process_exec(_context: TracePointContext) -> u32 {
    emit(process_change::EXEC);
    0
}

#[tracepoint]
pub fn sched_process_exit(_context: TracePointContext) -> u32 {
    emit(process_change::EXIT);
    0
}

#[inline(always)]
fn emit(change: u32) {
    let thread = bpf_get_current_pid_tgid();
    let (pid, tgid) = (thread as u32, (thread >> 32) as u32);
    // Of a process only its first thread counts: the others end before it, or are ended with it.
    if pid != tgid {
        return;
    }
    let Ok(comm) = bpf_get_current_comm() else { return };
    if comm[..NAME.len()] != NAME[..] {
        return;
    }
    let mut event = ProcessEvent {
        kind: kind::PROCESS,
        change,
        // SAFETY (both): helpers without preconditions.
        at_ns: unsafe { bpf_ktime_get_ns() },
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        pid,
        tgid,
        exit_code: 0,
        exit_code_unknown: 0,
        out_of_memory: 0,
        padding: 0,
        comm,
        ancestors: [Ancestor {
            tgid: 0,
            comm: [0; COMM_LEN],
            padding: 0,
        }; ANCESTORS],
    };
    lineage::ancestors(tgid, &mut event.ancestors);
    if change == process_change::EXIT {
        event.out_of_memory = u32::from(VICTIMS.get_ptr(tgid).is_some());
        match exit_code() {
            Some(code) => event.exit_code = code,
            None => event.exit_code_unknown = 1,
        }
    }
    if EVENTS.output::<ProcessEvent>(&event, 0).is_err() {
        losses::count(loss::PROCESS_RING_FULL);
    }
}

#[inline(always)]
fn exit_code() -> Option<i32> {
    let offset = EXIT_CODE_OFFSET.load();
    if offset == u32::MAX {
        return None;
    }
    // SAFETY (both): a helper without preconditions, and one that checks kernel addresses.
    let task = unsafe { bpf_get_current_task() };
    unsafe { bpf_probe_read_kernel((task + u64::from(offset)) as *const i32) }.ok()
}
