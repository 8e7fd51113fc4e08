//! Bytes of the rings into observations: the wire types are read from them, `decode` says what they mean. Bytes that are
//! no event, or one that this suture does not know, give nothing.

#![expect(
    unsafe_code,
    reason = "the ring hands over bytes; the wire type is read from them"
)]

use std::{
    mem::{MaybeUninit, offset_of},
    ptr,
};

use suture_events::{BlockErrorEvent, DeviceEndEvent, DmIoctlEvent, PoolEvent, ProcessEvent, kind};

use super::decode::{self, Clock};
use crate::model::Observation;

/// One event of the common ring, by its first word.
#[must_use]
pub fn event(bytes: &[u8], clock: Clock) -> Option<Observation> {
    let (first, _) = bytes.split_first_chunk()?;
    Some(match u32::from_ne_bytes(*first) {
        kind::DM_IOCTL => {
            let event = read::<DmIoctlEvent>(bytes, offset_of!(DmIoctlEvent, payload))?;
            Observation::DmIoctl(Box::new(decode::dm_ioctl(&event, clock)))
        }
        kind::POOL => {
            let event = read::<PoolEvent>(bytes, size_of::<PoolEvent>())?;
            Observation::PoolCall(decode::pool_call(&event, clock)?)
        }
        kind::DEVICE_END => {
            let event = read::<DeviceEndEvent>(bytes, size_of::<DeviceEndEvent>())?;
            Observation::DeviceEnded(decode::device_ended(&event, clock))
        }
        kind::PROCESS => {
            let event = read::<ProcessEvent>(bytes, size_of::<ProcessEvent>())?;
            Observation::Process(decode::process_changed(&event, clock))
        }
        _ => return None,
    })
}

/// One event of the ring of block errors.
#[must_use]
pub fn block_error(bytes: &[u8], clock: Clock) -> Option<Observation> {
    let event = read::<BlockErrorEvent>(bytes, size_of::<BlockErrorEvent>())?;
    Some(Observation::BlockError(decode::block_error(&event, clock)))
}

/// # Safety
///
/// Implemented only for `repr(C)` types made of integers, whose every bit pattern is a value.
unsafe trait Wire: Copy {}
// SAFETY: see suture_events: integers and arrays of them, padding spelled out.
unsafe impl Wire for DmIoctlEvent {}
// SAFETY: as above.
unsafe impl Wire for PoolEvent {}
// SAFETY: as above.
unsafe impl Wire for DeviceEndEvent {}
// SAFETY: as above.
unsafe impl Wire for ProcessEvent {}
// SAFETY: as above.
unsafe impl Wire for BlockErrorEvent {}

/// Reads a type from its first bytes, of which there must be `least`; what is not there is zero.
fn read<T: Wire>(bytes: &[u8], least: usize) -> Option<T> {
    if bytes.len() < least {
        return None;
    }
    let mut value = MaybeUninit::<T>::zeroed();
    let length = bytes.len().min(size_of::<T>());
    // SAFETY: both are valid for `length` bytes and do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), length) };
    // SAFETY: all of it was written, with zeros at first, and every bit pattern is a value of the type.
    Some(unsafe { value.assume_init() })
}
