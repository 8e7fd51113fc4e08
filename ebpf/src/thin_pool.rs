//! What thin pools do inside the kernel: the same creates and deletes that the ioctls ask for, as they really ended,
//! and what nobody asks for: failed commits, roll-backs, changes of mode (drivers/md/dm-thin.c, dm-thin-metadata.c).

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel,
        generated::bpf_probe_read_kernel_str,
    },
    macros::{kprobe, kretprobe, map},
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use suture_events::{COMM_LEN, OPERATION_LEN, PoolEvent, kind, loss, pool_function};

use crate::{loss as losses, ring::EVENTS};

/// Where the metadata device is found, from the kernel's type information; all ones where that does not tell.
#[repr(C)]
#[derive(Clone, Copy)]
struct Offsets {
    /// `bdev` in `struct dm_pool_metadata`.
    metadata_bdev: u32,
    /// `md_dev` in `struct pool`.
    pool_md_dev: u32,
    /// `bd_dev` in `struct block_device`.
    bd_dev: u32,
}

const UNKNOWN: u32 = u32::MAX;

#[unsafe(no_mangle)]
static POOL_OFFSETS: Global<Offsets> = Global::new(Offsets {
    metadata_bdev: UNKNOWN,
    pool_md_dev: UNKNOWN,
    bd_dev: UNKNOWN,
});

/// Calls under way, by thread: these functions do not call each other. An LRU map, so that what never returned does
/// not fill it: unlike the calls of the ioctl, these are not what provenance rests on.
#[map]
static POOL_IN_FLIGHT: LruHashMap<u64, PoolEvent> = LruHashMap::with_max_entries(256, 0);

/// Pools whose next commit is told, because it makes a create or a delete durable.
#[map]
static AWAITED_COMMITS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(64, 0);

/// The number of the block device that a field of a kernel object points at; 0 when it can not be had.
#[inline(always)]
fn device_at(object: u64, field: u32, bd_dev: u32) -> u32 {
    if field == UNKNOWN || bd_dev == UNKNOWN {
        return 0;
    }
    // SAFETY (both): the helper checks kernel addresses.
    let Ok(device) = (unsafe { bpf_probe_read_kernel((object + u64::from(field)) as *const u64) }) else {
        return 0;
    };
    unsafe { bpf_probe_read_kernel((device + u64::from(bd_dev)) as *const u32) }.unwrap_or(0)
}

#[inline(always)]
fn event(function: u32, address: u64, argument: u64, origin: u64, metadata_dev: u32) -> PoolEvent {
    let thread = bpf_get_current_pid_tgid();
    PoolEvent {
        kind: kind::POOL,
        function,
        // SAFETY: a helper without preconditions.
        entered_ns: unsafe { bpf_ktime_get_ns() },
        duration_ns: 0,
        address,
        argument,
        origin,
        metadata_dev,
        result: 0,
        pid: thread as u32,
        tgid: (thread >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
        operation: [0; OPERATION_LEN],
    }
}

#[inline(always)]
fn enter(context: &ProbeContext, function: u32) -> u32 {
    let at = POOL_OFFSETS.load();
    let metadata = context.arg::<u64>(0).unwrap_or(0);
    let (argument, origin) = match function {
        pool_function::CREATE_SNAP => (context.arg(1).unwrap_or(0), context.arg(2).unwrap_or(0)),
        pool_function::CREATE_THIN | pool_function::DELETE_THIN => (context.arg(1).unwrap_or(0), 0),
        _ => (0, 0),
    };
    let device = device_at(metadata, at.metadata_bdev, at.bd_dev);
    let event = event(function, metadata, argument, origin, device);
    if POOL_IN_FLIGHT
        .insert(&bpf_get_current_pid_tgid(), &event, 0)
        .is_err()
    {
        losses::count(loss::POOL_IN_FLIGHT_FULL);
    }
    0
}

#[inline(always)]
fn leave(context: &RetProbeContext, function: u32) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(entry) = POOL_IN_FLIGHT.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: the entry belongs to this thread, which is here and nowhere else.
    let event = unsafe { &mut *entry };
    // SAFETY: a helper without preconditions.
    event.duration_ns = unsafe { bpf_ktime_get_ns() } - event.entered_ns;
    event.result = context.ret::<u64>() as i32;
    let failed = event.result != 0;
    let tell = match function {
        pool_function::COMMIT => {
            let awaited = AWAITED_COMMITS.get_ptr(event.address).is_some();
            if awaited {
                let _ = AWAITED_COMMITS.remove(event.address);
            }
            awaited || failed
        }
        pool_function::ABORT => true,
        _ => {
            if !failed {
                let _ = AWAITED_COMMITS.insert(&event.address, &1, 0);
            }
            true
        }
    };
    if tell && event.function == function {
        emit(event);
    }
    let _ = POOL_IN_FLIGHT.remove(&thread);
    0
}

#[inline(always)]
fn emit(event: &PoolEvent) {
    if EVENTS.output::<PoolEvent>(event, 0).is_err() {
        losses::count(loss::DM_RING_FULL);
    }
}

macro_rules! watched {
    ($enter:ident, $leave:ident, $function:expr) => {
        #[kprobe]
        pub fn $enter(context: ProbeContext) -> u32 {
            enter(&context, $function)
        }

        #[kretprobe]
        pub fn $leave(context: RetProbeContext) -> u32 {
            leave(&context, $function)
        }
    };
}

watched!(create_thin_enter, create_thin_return, pool_function::CREATE_THIN);
watched!(create_snap_enter, create_snap_return, pool_function::CREATE_SNAP);
watched!(delete_thin_enter, delete_thin_return, pool_function::DELETE_THIN);
watched!(commit_enter, commit_return, pool_function::COMMIT);
watched!(abort_enter, abort_return, pool_function::ABORT);

/// `metadata_operation_failed(pool, operation, result)`.
#[kprobe]
pub fn metadata_operation_failed(context: ProbeContext) -> u32 {
    let at = POOL_OFFSETS.load();
    let pool = context.arg::<u64>(0).unwrap_or(0);
    let device = device_at(pool, at.pool_md_dev, at.bd_dev);
    let mut event = event(pool_function::OPERATION_FAILED, pool, 0, 0, device);
    event.result = context.arg::<u64>(2).unwrap_or(0) as i32;
    let operation = context.arg::<u64>(1).unwrap_or(0);
    // SAFETY: the destination has the length that is given; the helper checks the address.
    unsafe {
        bpf_probe_read_kernel_str(
            event.operation.as_mut_ptr().cast(),
            OPERATION_LEN as u32,
            operation as *const _,
        )
    };
    emit(&event);
    0
}

/// `set_pool_mode(pool, mode)`.
#[kprobe]
pub fn set_pool_mode(context: ProbeContext) -> u32 {
    let at = POOL_OFFSETS.load();
    let pool = context.arg::<u64>(0).unwrap_or(0);
    let mode = context.arg::<u64>(1).unwrap_or(0) & 0xffff_ffff;
    let device = device_at(pool, at.pool_md_dev, at.bd_dev);
    emit(&event(pool_function::SET_MODE, pool, mode, 0, device));
    0
}
