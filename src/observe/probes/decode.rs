//! Bytes from the rings into observations. Pure; the bytes partly come from user memory and are not trusted.

use std::time::Duration;

use suture_events::{
    ANCESTORS, Ancestor, BlockErrorEvent, DeviceEndEvent, DmIoctlEvent, PoolEvent, ProcessEvent,
    block_source, pool_function, process_change,
};

use crate::model::{
    DeviceNumber, PoolMode, Sectors, ThinId, Timestamp, Untrusted,
    dm::{CallResult, Caller, DmCommand, DmIoctl, Message, Payload, Process, Target},
    kernel::{DeviceEnded, Ending, PoolCall, PoolFunction, ProcessChange},
    observation::{BlockError, BlockSource, Direction},
};

/// How `CLOCK_MONOTONIC`, which BPF programs tell, maps to wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Wall time at the boot of the machine, in nanoseconds since the epoch (sleep not counted).
    pub boot_ns: u64,
}

impl Clock {
    /// Wall time of a monotonic time.
    #[must_use]
    pub fn wall(self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_nanoseconds(self.boot_ns.saturating_add(monotonic_ns))
    }
}

/// A device-mapper ioctl.
#[must_use]
pub fn dm_ioctl(event: &DmIoctlEvent, clock: Clock) -> DmIoctl {
    let command = DmCommand::from(event.command);
    let length = usize::try_from(event.payload_len)
        .unwrap_or(usize::MAX)
        .min(event.payload.len());
    let carried = event.payload.get(..length).unwrap_or_default();
    let (payload, truncated) = decode_payload(command, carried, event.target_count, event.unreadable != 0);
    let device = [event.out_dev, event.dev]
        .into_iter()
        .find(|dev| *dev != 0)
        .map(DeviceNumber::from_huge);
    DmIoctl {
        entered: clock.wall(event.entered_ns),
        duration: Duration::from_nanos(event.duration_ns),
        command,
        name: Untrusted::from_c_string(&event.name),
        uuid: Untrusted::from_c_string(&event.uuid),
        device,
        flags: event.flags,
        event_nr: event.out_event_nr,
        payload,
        truncated,
        result: CallResult::from_return(event.result),
        caller: Caller {
            process: process(event.tgid, &event.comm),
            thread: event.pid,
            cgroup: event.cgroup_id,
            cgroup_path: None,
            ancestors: lineage(&event.ancestors),
        },
    }
}

fn process(pid: u32, comm: &[u8]) -> Process {
    Process {
        pid,
        comm: Untrusted::from_c_string(comm),
    }
}

fn lineage(ancestors: &[Ancestor; ANCESTORS]) -> Vec<Process> {
    ancestors
        .iter()
        .take_while(|one| one.tgid != 0)
        .map(|one| process(one.tgid, &one.comm))
        .collect()
}

/// The payload, and whether it ends before what it carries ends. How long the request says it is means little: libdm
/// sends 16 KiB with a message of 20 bytes in it.
fn decode_payload(command: DmCommand, bytes: &[u8], targets: u32, unreadable: bool) -> (Payload, bool) {
    match command {
        DmCommand::TargetMsg | DmCommand::TableLoad if unreadable => (Payload::Malformed, false),
        DmCommand::TargetMsg => match message(bytes) {
            Some((message, cut)) => (Payload::Message(message), cut),
            None => (Payload::Malformed, false),
        },
        DmCommand::TableLoad => {
            let read = table(bytes, targets);
            let cut = u32::try_from(read.len()).unwrap_or(u32::MAX) < targets;
            if cut && read.is_empty() {
                (Payload::Malformed, cut)
            } else {
                (Payload::Table { targets: read }, cut)
            }
        }
        _ => (Payload::Nothing, false),
    }
}

/// `struct dm_target_msg { __u64 sector; char message[]; }`, and whether its end was not carried. Then it is not
/// understood either: `delete 12` cut from `delete 123` would be a lie.
fn message(bytes: &[u8]) -> Option<(Message, bool)> {
    let text = bytes.get(8..)?;
    match text.iter().position(|byte| *byte == 0) {
        Some(end) => text.get(..end).map(|whole| (Message::parse(whole), false)),
        None => Some((
            Message::Other {
                text: Untrusted::from_bytes(text),
            },
            true,
        )),
    }
}

/// As many lines of a table as were carried whole: `struct dm_target_spec` (40 bytes) and its parameters, NUL-terminated;
/// the next one lies `next` bytes after the start of this one (`next_target`, drivers/md/dm-ioctl.c).
fn table(bytes: &[u8], count: u32) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut rest = bytes;
    for _ in 0..count {
        let Some((target, next)) = target(rest) else { break };
        targets.push(target);
        match rest.get(next..) {
            Some(behind) if next >= SPECIFICATION => rest = behind,
            _ => break,
        }
    }
    targets
}

/// `sizeof(struct dm_target_spec)`.
const SPECIFICATION: usize = 40;

/// One line, and how far it is to the next.
fn target(bytes: &[u8]) -> Option<(Target, usize)> {
    let (specification, parameters) = bytes.split_at_checked(SPECIFICATION)?;
    let (start, behind) = specification.split_first_chunk()?;
    let (length, behind) = behind.split_first_chunk()?;
    let (_status, behind) = behind.split_first_chunk::<4>()?;
    let (next, kind) = behind.split_first_chunk()?;
    let end = parameters.iter().position(|byte| *byte == 0)?;
    let target = Target {
        start: Sectors(u64::from_le_bytes(*start)),
        length: Sectors(u64::from_le_bytes(*length)),
        kind: Untrusted::from_c_string(kind),
        parameters: Untrusted::from_bytes(parameters.get(..end)?),
    };
    Some((target, usize::try_from(u32::from_le_bytes(*next)).ok()?))
}

/// A call of a thin pool's own function; nothing where the agent does not know the function.
#[must_use]
pub fn pool_call(event: &PoolEvent, clock: Clock) -> Option<PoolCall> {
    // The kernel's `dm_thin_id` is 64 bits wide, of which it uses 24.
    let id = |argument: u64| u32::try_from(argument).ok().map(ThinId);
    let what = match event.function {
        pool_function::CREATE_THIN => PoolFunction::CreateThin {
            id: id(event.argument)?,
        },
        pool_function::CREATE_SNAP => PoolFunction::CreateSnap {
            id: id(event.argument)?,
            origin: id(event.origin)?,
        },
        pool_function::DELETE_THIN => PoolFunction::DeleteThin {
            id: id(event.argument)?,
        },
        pool_function::COMMIT => PoolFunction::Commit,
        pool_function::ABORT => PoolFunction::Abort,
        pool_function::OPERATION_FAILED => PoolFunction::OperationFailed {
            operation: Untrusted::from_c_string(&event.operation),
        },
        pool_function::SET_MODE => PoolFunction::SetMode {
            mode: pool_mode(event.argument),
        },
        _ => return None,
    };
    Some(PoolCall {
        entered: clock.wall(event.entered_ns),
        duration: Duration::from_nanos(event.duration_ns),
        metadata_device: (event.metadata_dev != 0).then(|| DeviceNumber::from_kernel(event.metadata_dev)),
        what,
        result: CallResult::from_return(event.result),
        process: process(event.tgid, &event.comm),
    })
}

/// `enum pool_mode`, drivers/md/dm-thin.c, since Linux 4.20.
fn pool_mode(mode: u64) -> PoolMode {
    match mode {
        0 => PoolMode::ReadWrite,
        1 => PoolMode::OutOfDataSpace,
        // Out of metadata space, which its status calls read-only too.
        2 | 3 => PoolMode::ReadOnly,
        4 => PoolMode::Failed,
        _ => PoolMode::Unknown,
    }
}

/// A dm device that ended.
#[must_use]
pub fn device_ended(event: &DeviceEndEvent, clock: Clock) -> DeviceEnded {
    DeviceEnded {
        at: clock.wall(event.at_ns),
        device: (event.major != 0).then_some(DeviceNumber {
            major: event.major,
            minor: event.minor,
        }),
        deferred: event.deferred != 0,
        process: process(event.tgid, &event.comm),
    }
}

/// A containerd that began or ended.
#[must_use]
pub fn process_changed(event: &ProcessEvent, clock: Clock) -> ProcessChange {
    let ended = (event.change == process_change::EXIT).then(|| {
        // As `wait(2)` has it: a signal below, an exit code above.
        let (signal, code) = (event.exit_code & 0x7f, (event.exit_code >> 8) & 0xff);
        if event.out_of_memory != 0 {
            Ending::OutOfMemory
        } else if event.exit_code_unknown != 0 {
            Ending::Unknown
        } else if signal != 0 {
            Ending::Signalled { signal }
        } else {
            Ending::Exited { code }
        }
    });
    ProcessChange {
        at: clock.wall(event.at_ns),
        who: Caller {
            process: process(event.tgid, &event.comm),
            thread: event.pid,
            cgroup: event.cgroup_id,
            cgroup_path: None,
            ancestors: lineage(&event.ancestors),
        },
        ended,
    }
}

/// A failed block request or bio.
#[must_use]
pub fn block_error(event: &BlockErrorEvent, clock: Clock) -> BlockError {
    BlockError {
        at: clock.wall(event.at_ns),
        device: DeviceNumber::from_kernel(event.dev),
        sector: Sectors(event.sector),
        length: Sectors(u64::from(event.sectors)),
        errno: event.error.saturating_neg(),
        direction: direction(&event.rwbs),
        operation: Untrusted::from_c_string(&event.rwbs),
        source: if event.source == block_source::REQUEST {
            BlockSource::Request
        } else {
            BlockSource::Bio
        },
    }
}

/// `blk_fill_rwbs`, kernel/trace/blktrace.c: a leading F is a preflush, then one letter for the operation.
fn direction(rwbs: &[u8]) -> Direction {
    let mut letters = rwbs.iter().copied().take_while(|letter| *letter != 0);
    match (letters.next(), letters.next()) {
        (Some(b'F'), Some(b'W')) | (Some(b'W'), _) => Direction::Write,
        (Some(b'R'), _) => Direction::Read,
        (Some(b'D'), _) => Direction::Discard,
        (Some(b'F'), _) => Direction::Flush,
        _ => Direction::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use suture_events::{COMM_LEN, NAME_LEN, PAYLOAD_LEN, UUID_LEN};

    use super::*;
    use crate::model::ThinId;

    const CLOCK: Clock = Clock { boot_ns: 1_000 };

    fn event(command: u32, payload: &[u8]) -> DmIoctlEvent {
        let padded = |text: &[u8]| {
            let mut bytes = [0; COMM_LEN];
            bytes[..text.len()].copy_from_slice(text);
            bytes
        };
        let nobody = Ancestor {
            tgid: 0,
            comm: [0; COMM_LEN],
            padding: 0,
        };
        let mut event = DmIoctlEvent {
            kind: suture_events::kind::DM_IOCTL,
            entered_ns: 5,
            duration_ns: 800_000,
            cgroup_id: 1,
            dev: 0,
            out_dev: (253 << 8) | 2,
            pid: 1234,
            tgid: 1234,
            command,
            result: -17,
            flags: 0,
            out_flags: 0,
            out_event_nr: 3,
            out_open_count: 1,
            target_count: 1,
            payload_len: u32::try_from(payload.len().min(PAYLOAD_LEN)).unwrap(),
            unreadable: 0,
            comm: padded(b"dmsetup"),
            ancestors: [
                Ancestor {
                    tgid: 77,
                    comm: padded(b"containerd"),
                    padding: 0,
                },
                nobody,
                nobody,
                nobody,
            ],
            name: [0; NAME_LEN],
            uuid: [0; UUID_LEN],
            payload: [0; PAYLOAD_LEN],
        };
        event.name[..9].copy_from_slice(b"vg0-pool0");
        let carried = payload.len().min(PAYLOAD_LEN);
        event.payload[..carried].copy_from_slice(&payload[..carried]);
        event
    }

    #[test]
    fn a_message_reads_as_a_person_would_want() {
        let call = dm_ioctl(&event(14, b"\0\0\0\0\0\0\0\0create_snap 59 6\0"), CLOCK);
        assert_eq!(
            call.to_string(),
            "create_snap 59 6 on vg0-pool0 -> EEXIST (file exists), 0.8 ms, dmsetup [1234] under containerd"
        );
        assert_eq!(
            call.payload,
            Payload::Message(Message::CreateSnap {
                id: ThinId(59),
                origin: ThinId(6)
            })
        );
        assert_eq!(call.entered, Timestamp::from_nanoseconds(1_005));
        assert!(!call.truncated);
    }

    #[test]
    fn an_oversized_message_is_shown_cut_and_never_understood() {
        let mut payload = vec![0; 8];
        payload.extend(b"delete 12");
        payload.resize(PAYLOAD_LEN, b'3');
        payload.extend(b"4\0");
        let call = dm_ioctl(&event(14, &payload), CLOCK);
        assert!(call.truncated);
        assert!(
            matches!(call.payload, Payload::Message(Message::Other { .. })),
            "{:?}",
            call.payload
        );
        assert!(call.to_string().contains("(cut)"));
    }

    #[test]
    fn a_table_is_read_line_by_line() {
        let mut data = Vec::new();
        for (start, kind, parameters) in [(0_u64, &b"thin"[..], &b"253:2 7\0"[..]), (8, b"error", b"\0")] {
            let begin = data.len();
            data.extend(start.to_le_bytes());
            data.extend(8_u64.to_le_bytes());
            data.extend(0_u32.to_le_bytes());
            data.extend(48_u32.to_le_bytes());
            data.extend(kind);
            data.resize(begin + 40, 0);
            data.extend(parameters);
            data.resize(begin + 48, 0);
        }
        let mut event = event(9, &data);
        event.target_count = 2;
        let call = dm_ioctl(&event, CLOCK);
        let Payload::Table { targets } = &call.payload else {
            panic!("{:?}", call.payload)
        };
        assert_eq!(targets[0].to_string(), "0 8 thin 253:2 7");
        assert_eq!(targets[1].to_string(), "8 8 error ");
        assert!(
            call.request()
                .starts_with("load table of vg0-pool0: 0 8 thin 253:2 7; 8 8 error")
        );
    }

    #[test]
    fn control_characters_in_a_name_can_not_reach_a_terminal() {
        let mut event = event(3, b"");
        event.name[..6].copy_from_slice(b"\x1b[2J\r\n");
        assert!(
            dm_ioctl(&event, CLOCK)
                .to_string()
                .starts_with("create device \\x1b[2J\\r\\n")
        );
    }

    #[test]
    fn block_errors_name_direction_and_cause() {
        let event = BlockErrorEvent {
            at_ns: 1,
            sector: 2048,
            dev: (253 << 20) | 3,
            sectors: 8,
            error: -5,
            source: block_source::BIO,
            rwbs: *b"FWFS\0\0\0\0",
        };
        let error = block_error(&event, CLOCK);
        assert_eq!(
            error.to_string(),
            "write of 8 sectors at 2048 on 253:3 failed: EIO (i/o error)"
        );
        assert_eq!(direction(b"D\0"), Direction::Discard);
        assert_eq!(direction(b"FF\0"), Direction::Flush);
        assert_eq!(direction(b""), Direction::Other);
    }

    proptest! {
        #[test]
        fn hostile_payloads_never_panic_and_never_grow(command in 0_u32..20, count in any::<u32>(), claimed in any::<u32>(), payload in proptest::collection::vec(any::<u8>(), 0..PAYLOAD_LEN)) {
            let mut event = event(command, &payload);
            event.target_count = count;
            event.payload_len = claimed;
            let call = dm_ioctl(&event, CLOCK);
            if let Payload::Table { targets } = &call.payload {
                prop_assert!(targets.len() <= PAYLOAD_LEN / 40);
            }
            let _ = call.to_string();
        }
    }
}
