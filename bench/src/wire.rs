//! Events as the kernel programs would put them into the ring, for measuring without a kernel.

use std::mem::offset_of;

use suture_events::{
    ANCESTORS, Ancestor, COMM_LEN, DmIoctlEvent, NAME_LEN, PAYLOAD_LEN, UUID_LEN, command, kind,
};

/// The pid that all calls have as the one who forked their caller.
pub(crate) const CONTAINERD: u32 = 512;
/// `huge_encode_dev` of 253:2.
const POOL_DEVICE: u64 = (253 << 8) | 2;

/// A call: command, flags, dm name and the data behind the request.
struct Call {
    command: u32,
    flags: u32,
    name: String,
    data: Vec<u8>,
}

/// The calls that containerd's devmapper snapshotter makes for one snapshot (pkg `dmsetup` and `PoolDevice`): each
/// `dmsetup` asks for the version first.
pub(crate) fn snapshot_of_containerd(id: u32, origin: Option<u32>) -> Vec<Vec<u8>> {
    let name = format!("tp-snap-{id}");
    let of = |command: u32, flags: u32, name: &str, data: Vec<u8>| Call {
        command,
        flags,
        name: name.to_owned(),
        data,
    };
    let version = || of(0, 0, "", Vec::new());
    let mut calls = Vec::new();
    if let Some(origin) = origin {
        let origin = format!("tp-snap-{origin}");
        calls.extend([version(), of(6, 2, &origin, Vec::new())]);
    }
    let create = match origin {
        Some(origin) => format!("create_snap {id} {origin}"),
        None => format!("create_thin {id}"),
    };
    calls.extend([version(), of(command::TARGET_MSG, 0, "tp", message(&create))]);
    if let Some(origin) = origin {
        let origin = format!("tp-snap-{origin}");
        calls.extend([version(), of(6, 0, &origin, Vec::new())]);
    }
    calls.extend([
        version(),
        of(3, 0, &name, Vec::new()),
        of(command::TABLE_LOAD, 0, &name, table(id)),
        of(6, 0, &name, Vec::new()),
        version(),
        // `dmsetup status` before and after.
        of(12, 0, &name, Vec::new()),
        version(),
        of(2, 0, &name, Vec::new()),
    ]);
    in_order(&calls, id, 0)
}

/// The calls with which it removes one.
pub(crate) fn removal_by_containerd(id: u32) -> Vec<Vec<u8>> {
    let of = |command: u32, name: &str, data: Vec<u8>| Call {
        command,
        flags: 0,
        name: name.to_owned(),
        data,
    };
    let calls = [
        of(0, "", Vec::new()),
        of(4, &format!("tp-snap-{id}"), Vec::new()),
        of(0, "", Vec::new()),
        of(command::TARGET_MSG, "tp", message(&format!("delete {id}"))),
    ];
    in_order(&calls, id, 20)
}

fn in_order(calls: &[Call], id: u32, first: usize) -> Vec<Vec<u8>> {
    let calls = calls.iter().enumerate();
    calls
        .map(|(place, call)| bytes(call, id, first + place))
        .collect()
}

/// `struct dm_target_msg`.
fn message(text: &str) -> Vec<u8> {
    let mut data = vec![0; 8];
    data.extend(text.as_bytes());
    data.push(0);
    data
}

/// `struct dm_target_spec` with its parameters.
fn table(id: u32) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(0_u64.to_le_bytes());
    data.extend(131_072_u64.to_le_bytes());
    data.extend([0; 8]);
    data.extend(b"thin\0\0\0\0\0\0\0\0\0\0\0\0");
    data.extend(format!("/dev/mapper/tp {id}\0").as_bytes());
    // libdm's buffer is larger than what it says.
    data.resize(PAYLOAD_LEN, 0);
    data
}

/// The event's bytes, ended where the kernel program ends them.
fn bytes(call: &Call, id: u32, place: usize) -> Vec<u8> {
    let place = u32::try_from(place).unwrap_or_default();
    let carried = call.data.len().min(PAYLOAD_LEN);
    let mut bytes = vec![0; offset_of!(DmIoctlEvent, payload) + carried];
    let mut put = |at: usize, value: &[u8]| {
        if let Some(target) = bytes.get_mut(at..at + value.len()) {
            target.copy_from_slice(value);
        }
    };
    put(offset_of!(DmIoctlEvent, kind), &kind::DM_IOCTL.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, command), &call.command.to_ne_bytes());
    let entered = u64::from(id) * 1_000_000 + u64::from(place) * 10_000;
    put(offset_of!(DmIoctlEvent, entered_ns), &entered.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, duration_ns), &8_000_u64.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, cgroup_id), &1_u64.to_ne_bytes());
    if call.name == "tp" {
        put(offset_of!(DmIoctlEvent, out_dev), &POOL_DEVICE.to_ne_bytes());
    } else if !call.name.is_empty() {
        let device = (253_u64 << 8) | u64::from(id % 200 + 3);
        put(offset_of!(DmIoctlEvent, out_dev), &device.to_ne_bytes());
    }
    // A process of its own for each `dmsetup`, which makes a few calls.
    let pid = 1000 + id % 30_000 * 8 + place / 4;
    put(offset_of!(DmIoctlEvent, pid), &pid.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, tgid), &pid.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, flags), &call.flags.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, target_count), &1_u32.to_ne_bytes());
    let length = u32::try_from(carried).unwrap_or_default();
    put(offset_of!(DmIoctlEvent, payload_len), &length.to_ne_bytes());
    put(offset_of!(DmIoctlEvent, comm), &padded::<COMM_LEN>("dmsetup"));
    let ancestors = [(CONTAINERD, "containerd"), (1, "systemd")];
    for (slot, (tgid, comm)) in ancestors.iter().enumerate().take(ANCESTORS) {
        let at = offset_of!(DmIoctlEvent, ancestors) + slot * size_of::<Ancestor>();
        put(at + offset_of!(Ancestor, tgid), &tgid.to_ne_bytes());
        put(at + offset_of!(Ancestor, comm), &padded::<COMM_LEN>(comm));
    }
    put(offset_of!(DmIoctlEvent, name), &padded::<NAME_LEN>(&call.name));
    put(offset_of!(DmIoctlEvent, uuid), &[0; UUID_LEN]);
    put(
        offset_of!(DmIoctlEvent, payload),
        call.data.get(..carried).unwrap_or_default(),
    );
    bytes
}

fn padded<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    for (target, byte) in bytes.iter_mut().zip(text.bytes()) {
        *target = byte;
    }
    bytes
}
