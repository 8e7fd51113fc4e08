//! dm devices as they really end: at once, or long after their removal was asked for (`dm_destroy`, drivers/md/dm.c).

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::kprobe,
    programs::ProbeContext,
};
use suture_events::{COMM_LEN, DeviceEndEvent, kind, loss};

use crate::{device_mapper, loss as losses, ring::EVENTS};

/// Where a dm device's number is found, from the kernel's type information; all ones where that does not tell.
#[repr(C)]
#[derive(Clone, Copy)]
struct Offsets {
    /// `disk` in `struct mapped_device`.
    disk: u32,
    /// `major` in `struct gendisk`.
    major: u32,
    /// `first_minor` in `struct gendisk`.
    first_minor: u32,
}

const UNKNOWN: u32 = u32::MAX;

#[unsafe(no_mangle)]
static DEVICE_OFFSETS: Global<Offsets> = Global::new(Offsets {
    disk: UNKNOWN,
    major: UNKNOWN,
    first_minor: UNKNOWN,
});

/// `dm_destroy(mapped_device)`.
#[kprobe]
pub fn dm_destroy(context: ProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let (major, minor) = number(context.arg::<u64>(0).unwrap_or(0)).unwrap_or((0, 0));
    let event = DeviceEndEvent {
        kind: kind::DEVICE_END,
        deferred: u32::from(!device_mapper::in_call()),
        // SAFETY: a helper without preconditions.
        at_ns: unsafe { bpf_ktime_get_ns() },
        major,
        minor,
        pid: thread as u32,
        tgid: (thread >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
    };
    if EVENTS.output::<DeviceEndEvent>(&event, 0).is_err() {
        losses::count(loss::DEVICE_END_RING_FULL);
    }
    0
}

#[inline(always)]
fn number(device: u64) -> Result<(u32, u32), i32> {
    let at = DEVICE_OFFSETS.load();
    if at.disk == UNKNOWN || at.major == UNKNOWN || at.first_minor == UNKNOWN {
        return Ok((0, 0));
    }
    // SAFETY (all): the helper checks kernel addresses.
    let disk = unsafe { bpf_probe_read_kernel((device + u64::from(at.disk)) as *const u64) }?;
    let major = unsafe { bpf_probe_read_kernel((disk + u64::from(at.major)) as *const u32) }?;
    let minor = unsafe { bpf_probe_read_kernel((disk + u64::from(at.first_minor)) as *const u32) }?;
    Ok((major, minor))
}
