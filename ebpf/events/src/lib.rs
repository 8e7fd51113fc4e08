//! The wire types between suture's BPF programs and its agent.
//!
//! Compiled twice: for the BPF virtual machine and for the agent. Every type is `repr(C)`, says its padding, and has its
//! size checked below, so that both compilers lay it out alike. No type has a niche or an invalid bit pattern.
#![no_std]

/// `TASK_COMM_LEN`, include/linux/sched.h.
pub const COMM_LEN: usize = 16;
/// `DM_NAME_LEN`, include/uapi/linux/dm-ioctl.h.
pub const NAME_LEN: usize = 128;
/// `DM_UUID_LEN` (129) rounded up to a multiple of eight.
pub const UUID_LEN: usize = 136;
/// How much of an ioctl's data (message or table) is carried; the event says how long it really was.
pub const PAYLOAD_LEN: usize = 512;
/// How many ancestors of the calling process are carried.
pub const ANCESTORS: usize = 4;
/// `DM_IOCTL`, the type byte of every device-mapper ioctl (include/uapi/linux/dm-ioctl.h).
pub const DM_IOCTL_TYPE: u32 = 0xfd;
/// `DM_DEV_CREATE_CMD` and the others that the programs look at.
pub mod command {
    /// Load a table into the inactive slot; its data are `struct dm_target_spec`s.
    pub const TABLE_LOAD: u32 = 9;
    /// Send a message to a target; its data are a `struct dm_target_msg`.
    pub const TARGET_MSG: u32 = 14;
}

/// A process as the programs know it: who forked whom, remembered at the fork itself, so that a parent's death or a
/// re-parenting to init does not lose it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ancestor {
    /// Process id (`tgid`); 0 ends the list.
    pub tgid: u32,
    /// Name of the thread that forked the child, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Explicit padding; always zero.
    pub padding: u32,
}

/// What an event of the ring is: its first word.
pub mod kind {
    /// [`crate::DmIoctlEvent`].
    pub const DM_IOCTL: u32 = 1;
    /// [`crate::PoolEvent`].
    pub const POOL: u32 = 2;
    /// [`crate::DeviceEndEvent`].
    pub const DEVICE_END: u32 = 3;
    /// [`crate::ProcessEvent`].
    pub const PROCESS: u32 = 4;
}

/// One finished device-mapper ioctl.
///
/// `name`, `uuid` and `payload` were read from the caller's memory when the call entered the kernel, the `out_` fields
/// when it left: a caller that writes to its own request meanwhile can make them lie. They are bounded, and untrusted.
/// In the ring the event ends after `payload_len` bytes of `payload`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DmIoctlEvent {
    /// [`kind::DM_IOCTL`].
    pub kind: u32,
    /// Low byte of the ioctl number: `DM_*_CMD`.
    pub command: u32,
    /// Clock at entry, `CLOCK_MONOTONIC`, in nanoseconds.
    pub entered_ns: u64,
    /// Time in the kernel, in nanoseconds.
    pub duration_ns: u64,
    /// Id of the caller's cgroup (v2).
    pub cgroup_id: u64,
    /// `dev` of the request, `huge_encode_dev`.
    pub dev: u64,
    /// `dev` of the answer.
    pub out_dev: u64,
    /// Thread that made the call.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// What the call returned: 0 or more, or a negative errno.
    pub result: i32,
    /// `flags` of the request.
    pub flags: u32,
    /// `flags` of the answer.
    pub out_flags: u32,
    /// `event_nr` of the answer.
    pub out_event_nr: u32,
    /// `open_count` of the answer.
    pub out_open_count: i32,
    /// `target_count` of the request: how many targets a table load carries.
    pub target_count: u32,
    /// Bytes of the request's data in `payload`.
    pub payload_len: u32,
    /// 1 when the request could not be read from the caller's memory: name, flags and payload are empty then.
    pub unreadable: u32,
    /// Name of the calling thread, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Who forked the caller, and who forked that one; the nearest first.
    pub ancestors: [Ancestor; ANCESTORS],
    /// dm name of the request or, where it names its device otherwise, of the answer; NUL-terminated unless hostile.
    pub name: [u8; NAME_LEN],
    /// dm uuid of the request, NUL-terminated unless hostile.
    pub uuid: [u8; UUID_LEN],
    /// First bytes of the request's data: a message or target specifications. Last, so that what is not used is not
    /// handed over.
    pub payload: [u8; PAYLOAD_LEN],
}

/// Which function of a thin pool's.
pub mod pool_function {
    /// `dm_pool_create_thin(pmd, id)`.
    pub const CREATE_THIN: u32 = 1;
    /// `dm_pool_create_snap(pmd, id, origin)`.
    pub const CREATE_SNAP: u32 = 2;
    /// `dm_pool_delete_thin_device(pmd, id)`.
    pub const DELETE_THIN: u32 = 3;
    /// `dm_pool_commit_metadata(pmd)`.
    pub const COMMIT: u32 = 4;
    /// `dm_pool_abort_metadata(pmd)`.
    pub const ABORT: u32 = 5;
    /// `metadata_operation_failed(pool, operation, result)`.
    pub const OPERATION_FAILED: u32 = 6;
    /// `set_pool_mode(pool, mode)`.
    pub const SET_MODE: u32 = 7;
}

/// How much of the name of a failed operation is carried.
pub const OPERATION_LEN: usize = 48;

/// One call of a thin pool's own function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolEvent {
    /// [`kind::POOL`].
    pub kind: u32,
    /// One of [`pool_function`].
    pub function: u32,
    /// Clock at entry, `CLOCK_MONOTONIC`, in nanoseconds.
    pub entered_ns: u64,
    /// Time in the function, in nanoseconds; 0 where its return is not watched.
    pub duration_ns: u64,
    /// The pool's metadata object in the kernel, or the pool: only to tell one from another.
    pub address: u64,
    /// Second argument: a thin id, or a mode.
    pub argument: u64,
    /// Third argument: the origin of a snapshot.
    pub origin: u64,
    /// Kernel's internal `dev_t` of the metadata device; 0 where it is not known.
    pub metadata_dev: u32,
    /// What the function returned, or was told.
    pub result: i32,
    /// Thread.
    pub pid: u32,
    /// Process.
    pub tgid: u32,
    /// Its name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Name of what failed, NUL-terminated; for [`pool_function::OPERATION_FAILED`] only.
    pub operation: [u8; OPERATION_LEN],
}

/// One dm device that ended (`dm_destroy`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DeviceEndEvent {
    /// [`kind::DEVICE_END`].
    pub kind: u32,
    /// 1 when no ioctl of the same thread asked for it: a deferred removal that completed.
    pub deferred: u32,
    /// Clock, `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// Major number; 0 where the device's number is not known.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Thread.
    pub pid: u32,
    /// Process.
    pub tgid: u32,
    /// Its name, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// What happened to a process.
pub mod process_change {
    /// It executed a program by the watched name.
    pub const EXEC: u32 = 1;
    /// It ended.
    pub const EXIT: u32 = 2;
}

/// A containerd that began or ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProcessEvent {
    /// [`kind::PROCESS`].
    pub kind: u32,
    /// One of [`process_change`].
    pub change: u32,
    /// Clock, `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// Id of its cgroup (v2).
    pub cgroup_id: u64,
    /// Its thread, which is its process too.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// `exit_code` of its task: signal in the low seven bits, code above the low eight.
    pub exit_code: i32,
    /// 1 when `exit_code` is not known.
    pub exit_code_unknown: u32,
    /// 1 when the kernel had chosen it to free memory.
    pub out_of_memory: u32,
    /// Explicit padding; always zero.
    pub padding: u32,
    /// Its name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Who forked it, and who forked that one; the nearest first.
    pub ancestors: [Ancestor; ANCESTORS],
}

/// Where a block error was seen.
pub mod block_source {
    /// `block_rq_error`: a request of a request-based device failed.
    pub const REQUEST: u32 = 0;
    /// `block_bio_complete` with an error: a bio failed, also on bio-based devices such as device-mapper's.
    pub const BIO: u32 = 1;
}

/// One failed block request or bio.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BlockErrorEvent {
    /// Clock, `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
    /// Kernel's internal `dev_t` (12 bits of major, 20 of minor).
    pub dev: u32,
    /// Length in sectors.
    pub sectors: u32,
    /// Negative errno.
    pub error: i32,
    /// One of [`block_source`].
    pub source: u32,
    /// The kernel's letters for the operation: R read, W write, D discard, F flush, and modifiers.
    pub rwbs: [u8; 8],
}

/// Indices into the map of loss counters: what was seen by a program and could not be handed over.
pub mod loss {
    /// The common ring had no room for a device-mapper call.
    pub const DM_RING_FULL: u32 = 0;
    /// Too many device-mapper ioctls at once to remember their entries.
    pub const DM_IN_FLIGHT_FULL: u32 = 1;
    /// The block-error ring had no room for a failed request.
    pub const BLOCK_RING_FULL: u32 = 2;
    /// A process's parent could not be remembered: whose child it is would be another one's answer.
    pub const LINEAGE: u32 = 3;
    /// A call was entered by a thread of which an earlier call never returned, as far as was seen.
    pub const RETURN_MISSED: u32 = 4;
    /// Too many calls of thin pools' own functions at once to remember their entries.
    pub const POOL_IN_FLIGHT_FULL: u32 = 5;
    /// The block-error ring had no room for a failed bio.
    pub const BIO_RING_FULL: u32 = 6;
    /// The common ring had no room for a call of a thin pool's own function.
    pub const POOL_RING_FULL: u32 = 7;
    /// The common ring had no room for the end of a dm device.
    pub const DEVICE_END_RING_FULL: u32 = 8;
    /// The common ring had no room for the begin or end of a process.
    pub const PROCESS_RING_FULL: u32 = 9;
    /// How many counters there are.
    pub const COUNT: u32 = 10;
}

const _: () = assert!(size_of::<Ancestor>() == 24);
const _: () = assert!(
    size_of::<DmIoctlEvent>()
        == 5 * 8 + 12 * 4 + COMM_LEN + 24 * ANCESTORS + NAME_LEN + UUID_LEN + PAYLOAD_LEN
);
const _: () = assert!(size_of::<DmIoctlEvent>() == 976);
const _: () = assert!(core::mem::offset_of!(DmIoctlEvent, payload) == 464);
const _: () = assert!(size_of::<PoolEvent>() == 8 + 5 * 8 + 4 * 4 + COMM_LEN + OPERATION_LEN);
const _: () = assert!(size_of::<DeviceEndEvent>() == 48);
const _: () = assert!(size_of::<ProcessEvent>() == 48 + COMM_LEN + 24 * ANCESTORS);
const _: () = assert!(size_of::<BlockErrorEvent>() == 40);
const _: () = assert!(align_of::<DmIoctlEvent>() == 8 && align_of::<BlockErrorEvent>() == 8);
