//! Three calls on one dm device by its name, each exactly once.
//!
//! The devicemapper crate's `device_remove` tries again for 0.8 s when the kernel says EBUSY, and waits for udev after both
//! removal and resume. In that time containerd's own clean-up may have removed the device and made a new one of its name:
//! the next try would take that. So the ioctls are made here; the kernel's first answer stands, and nobody is waited for.
#![expect(
    unsafe_code,
    reason = "an ioctl, and a structure of the kernel's that goes with it"
)]

use std::{
    fs::{File, OpenOptions},
    os::fd::AsFd as _,
};

use rustix::{
    io::Errno,
    ioctl::{Updater, ioctl, opcode},
};

use super::hands::{HandsError, NodeNow};
use crate::model::DeviceNumber;

/// `struct dm_ioctl` (include/uapi/linux/dm-ioctl.h), without any data after it.
#[repr(C)]
struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; NAME],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `DM_NAME_LEN`.
const NAME: usize = 128;
/// `sizeof(struct dm_ioctl)`.
const SIZE: u32 = 312;
const _: () = assert!(
    size_of::<DmIoctl>() == SIZE as usize,
    "the structure is the kernel's"
);

/// `DM_IOCTL`.
const DM: u8 = 0xfd;
/// `DM_DEV_REMOVE_CMD`.
const REMOVE: u32 = opcode::read_write::<DmIoctl>(DM, 4);
/// `DM_DEV_SUSPEND_CMD`; without its flag it resumes.
const SUSPEND: u32 = opcode::read_write::<DmIoctl>(DM, 6);
/// `DM_DEV_STATUS_CMD`.
const STATUS: u32 = opcode::read_write::<DmIoctl>(DM, 7);

/// `DM_SUSPEND_FLAG`.
const SUSPENDED: u32 = 1 << 1;
/// `DM_ACTIVE_PRESENT_FLAG`.
const ACTIVE: u32 = 1 << 5;
/// `DM_INACTIVE_PRESENT_FLAG`.
const INACTIVE: u32 = 1 << 6;

/// Asks for a device as it is at this moment; nothing where there is none.
pub(super) fn status(name: &str) -> Result<Option<NodeNow>, HandsError> {
    match call::<STATUS>(name) {
        Ok(answer) => Ok(Some(NodeNow {
            device: DeviceNumber::from_huge(answer.dev),
            open_count: u32::try_from(answer.open_count).unwrap_or(u32::MAX),
            suspended: answer.flags & SUSPENDED != 0,
            live: answer.flags & ACTIVE != 0,
            loaded: answer.flags & INACTIVE != 0,
        })),
        Err(HandsError::Kernel(errno)) if errno == Errno::NXIO.raw_os_error() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Resumes it.
pub(super) fn resume(name: &str) -> Result<(), HandsError> {
    call::<SUSPEND>(name).map(|_| ())
}

/// Removes it: neither forced nor deferred.
pub(super) fn remove(name: &str) -> Result<(), HandsError> {
    call::<REMOVE>(name).map(|_| ())
}

fn call<const OPCODE: u32>(name: &str) -> Result<DmIoctl, HandsError> {
    let mut argument = DmIoctl {
        version: [4, 0, 0],
        data_size: SIZE,
        data_start: SIZE,
        target_count: 0,
        open_count: 0,
        flags: 0,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: [0; NAME],
        uuid: [0; 129],
        data: [0; 7],
    };
    // The kernel wants a zero after the name.
    let place = argument.name.get_mut(..name.len()).filter(|_| name.len() < NAME);
    let place = place.ok_or_else(|| HandsError::Call(format!("`{}` is too long", name.escape_debug())))?;
    place.copy_from_slice(name.as_bytes());
    let control = control()?;
    // SAFETY: the opcode is one of device-mapper's with this very structure, which lives through the call.
    let updater = unsafe { Updater::<OPCODE, DmIoctl>::new(&mut argument) };
    // SAFETY: the structure says its own size and has no data behind it, so the kernel writes inside it only.
    let done = unsafe { ioctl(control.as_fd(), updater) };
    match done {
        Ok(()) => Ok(argument),
        Err(Errno::BUSY) => Err(HandsError::Busy),
        Err(errno) => Err(HandsError::Kernel(errno.raw_os_error())),
    }
}

fn control() -> Result<File, HandsError> {
    let path = "/dev/mapper/control";
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| HandsError::Call(format!("opening {path}: {error}")))
}
