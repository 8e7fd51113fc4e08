//! device-mapper ioctls: what was asked (at entry) and what came of it (at return). Two ways in, of which the agent
//! attaches one: a kprobe pair on device-mapper's own function, which costs other ioctls nothing, and the syscall
//! tracepoints, which every kernel has.

use core::{mem::offset_of, ptr, slice};

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        bpf_probe_read_user,
        generated::{
            bpf_probe_read_user as probe_read_user_raw, bpf_probe_read_user_str as probe_read_user_str_raw,
        },
    },
    macros::{kprobe, kretprobe, map, tracepoint},
    maps::{Array, HashMap},
    programs::{ProbeContext, RetProbeContext, TracePointContext},
};
use suture_events::{COMM_LEN, DM_IOCTL_TYPE, DmIoctlEvent, NAME_LEN, PAYLOAD_LEN, command, kind, loss};

use crate::{lineage, loss as losses, ring::EVENTS};

/// Fields of `sys_enter_ioctl` and `sys_exit_ioctl`: 8 bytes each from 16 on, on every 64-bit kernel
/// (`struct syscall_trace_enter` and `_exit`, kernel/trace/trace.h).
const ENTER_COMMAND: usize = 24;
const ENTER_ARGUMENT: usize = 32;
const EXIT_RESULT: usize = 16;

/// The fixed head of `struct dm_ioctl` before its names (include/uapi/linux/dm-ioctl.h): a stable ABI.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
}

const NAME_AT: u64 = 48;
const UUID_AT: u64 = 176;
/// `DM_UUID_LEN`.
const UUID_BYTES: usize = 129;
/// `sector` of `struct dm_target_msg`, before the message's text.
const MESSAGE_AT: usize = 8;

/// What was asked, by thread, until the call returns. Not an LRU map: an entry that had to give way would be an
/// operation lost in silence. Resized at load.
#[map]
static IN_FLIGHT: HashMap<u64, InFlight> = HashMap::with_max_entries(512, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct InFlight {
    event: DmIoctlEvent,
    /// Address of the request in the caller's memory, read again at exit for the answer.
    argument: u64,
}

/// One all-zero entry to start from: it is too large for the stack of a BPF program.
#[map]
static ZEROED: Array<InFlight> = Array::with_max_entries(1, 0);

/// `ctl_ioctl(file, command, user)` or `dm_ctl_ioctl(file, command, u)`, drivers/md/dm-ioctl.c.
#[kprobe]
pub fn dm_ioctl_enter(context: ProbeContext) -> u32 {
    let (Some(number), Some(argument)) = (context.arg::<u64>(1), context.arg::<u64>(2)) else {
        return 0;
    };
    // Of another type only where somebody calls /dev/mapper/control with a number that is not its own: it is refused.
    if (number as u32 >> 8) & 0xff == DM_IOCTL_TYPE {
        remember(number as u32 & 0xff, argument);
    }
    0
}

#[kretprobe]
pub fn dm_ioctl_return(context: RetProbeContext) -> u32 {
    finish(context.ret::<u64>() as i32);
    0
}

#[tracepoint]
pub fn sys_enter_ioctl(context: TracePointContext) -> u32 {
    // SAFETY: a load from the context at a constant offset inside the tracepoint's record.
    let number = unsafe { ptr::read_volatile(context.as_ptr().byte_add(ENTER_COMMAND).cast::<u64>()) } as u32;
    if (number >> 8) & 0xff != DM_IOCTL_TYPE {
        return 0;
    }
    // SAFETY: as above.
    let argument = unsafe { ptr::read_volatile(context.as_ptr().byte_add(ENTER_ARGUMENT).cast::<u64>()) };
    remember(number & 0xff, argument);
    0
}

#[tracepoint]
pub fn sys_exit_ioctl(context: TracePointContext) -> u32 {
    // SAFETY: a load from the context at a constant offset inside the tracepoint's record.
    let result = unsafe { ptr::read_volatile(context.as_ptr().byte_add(EXIT_RESULT).cast::<i64>()) };
    finish(result as i32);
    0
}

/// Whether this thread is inside a device-mapper ioctl.
#[inline(always)]
pub fn in_call() -> bool {
    IN_FLIGHT.get_ptr(bpf_get_current_pid_tgid()).is_some()
}

#[inline(always)]
fn remember(number: u32, argument: u64) {
    let thread = bpf_get_current_pid_tgid();
    let Some(zeroed) = ZEROED.get(0) else { return };
    if IN_FLIGHT.get_ptr(thread).is_some() {
        losses::count(loss::RETURN_MISSED);
    }
    if IN_FLIGHT.insert(&thread, zeroed, 0).is_err() {
        losses::count(loss::DM_IN_FLIGHT_FULL);
        return;
    }
    let Some(entry) = IN_FLIGHT.get_ptr_mut(&thread) else {
        return;
    };
    // SAFETY: the entry belongs to this thread, which is here and nowhere else.
    let entry = unsafe { &mut *entry };
    entry.argument = argument;
    let event = &mut entry.event;
    event.kind = kind::DM_IOCTL;
    // SAFETY: helpers without preconditions.
    unsafe {
        event.entered_ns = bpf_ktime_get_ns();
        event.cgroup_id = bpf_get_current_cgroup_id();
    }
    event.pid = thread as u32;
    event.tgid = (thread >> 32) as u32;
    event.command = number;
    event.comm = bpf_get_current_comm().unwrap_or([0; COMM_LEN]);
    lineage::ancestors(event.tgid, &mut event.ancestors);
    if read_request(event, argument).is_err() {
        event.unreadable = 1;
    }
}

#[inline(always)]
fn read_request(event: &mut DmIoctlEvent, argument: u64) -> Result<(), i32> {
    // SAFETY (this function): the helpers check user addresses, and every length is bounded by its destination.
    let head: Head = unsafe { bpf_probe_read_user(argument as *const Head) }?;
    event.dev = head.dev;
    event.flags = head.flags;
    event.target_count = head.target_count;
    read_user(event.name.as_mut_ptr(), NAME_LEN as u32, argument + NAME_AT)?;
    read_user(event.uuid.as_mut_ptr(), UUID_BYTES as u32, argument + UUID_AT)?;
    let data = argument + u64::from(head.data_start);
    if event.command == command::TABLE_LOAD {
        let mut length = head.data_size.saturating_sub(head.data_start);
        if length > PAYLOAD_LEN as u32 {
            length = PAYLOAD_LEN as u32;
        }
        read_user(event.payload.as_mut_ptr(), length, data)?;
        event.payload_len = length;
    } else if event.command == command::TARGET_MSG {
        event.payload_len = read_message(event, data)?;
    }
    Ok(())
}

/// A message is as long as its text, not as its buffer: libdm sends 16 KiB with 20 bytes of it. A text that does not end
/// inside its buffer is refused by the kernel (`invalid_str`, drivers/md/dm-ioctl.c), so its length need not be asked.
#[inline(always)]
fn read_message(event: &mut DmIoctlEvent, data: u64) -> Result<u32, i32> {
    const ROOM: u32 = (PAYLOAD_LEN - MESSAGE_AT) as u32;
    // SAFETY: `ROOM` bytes lie behind `MESSAGE_AT`; the helper checks the user address.
    let text = unsafe { event.payload.as_mut_ptr().add(MESSAGE_AT) };
    let got = unsafe { probe_read_user_str_raw(text.cast(), ROOM, (data + MESSAGE_AT as u64) as *const _) };
    if got < 0 {
        return Err(got as i32);
    }
    if got >= i64::from(ROOM) {
        // Cut, though the helper ended it like a whole one: without an end it will not be taken for one.
        event.payload[PAYLOAD_LEN - 1] = 0xff;
        return Ok(PAYLOAD_LEN as u32);
    }
    Ok(MESSAGE_AT as u32 + got as u32)
}

#[inline(always)]
fn read_user(into: *mut u8, length: u32, from: u64) -> Result<(), i32> {
    // SAFETY: callers pass a destination of at least `length` bytes; the helper checks the user address.
    match unsafe { probe_read_user_raw(into.cast(), length, from as *const _) } {
        0 => Ok(()),
        error => Err(error as i32),
    }
}

#[inline(always)]
fn finish(result: i32) {
    let thread = bpf_get_current_pid_tgid();
    let Some(entry) = IN_FLIGHT.get_ptr_mut(&thread) else {
        return;
    };
    // SAFETY: the entry belongs to this thread, which is here and nowhere else.
    let InFlight { event, argument } = unsafe { &mut *entry };
    // SAFETY: a helper without preconditions.
    event.duration_ns = unsafe { bpf_ktime_get_ns() } - event.entered_ns;
    event.result = result;
    // SAFETY: the helper checks the user address.
    if let Ok(answer) = unsafe { bpf_probe_read_user(*argument as *const Head) } {
        event.out_dev = answer.dev;
        event.out_flags = answer.flags;
        event.out_event_nr = answer.event_nr;
        event.out_open_count = answer.open_count;
        // libdm names a device by its number once it knows that; the kernel answers with the name
        // (`__find_device_hash_cell`, drivers/md/dm-ioctl.c).
        if event.name[0] == 0 {
            let _ = read_user(event.name.as_mut_ptr(), NAME_LEN as u32, *argument + NAME_AT);
        }
    }
    let mut carried = event.payload_len as usize;
    if carried > PAYLOAD_LEN {
        carried = PAYLOAD_LEN;
    }
    let length = offset_of!(DmIoctlEvent, payload) + carried;
    // SAFETY: at most the size of the event, which lies in the map's entry.
    let bytes = unsafe { slice::from_raw_parts(ptr::from_ref(&*event).cast::<u8>(), length) };
    if EVENTS.output::<[u8]>(bytes, 0).is_err() {
        losses::count(loss::DM_RING_FULL);
    }
    let _ = IN_FLIGHT.remove(&thread);
}
