//! The ring that carries every event but block errors, in the order of the kernel.

use aya_ebpf::{macros::map, maps::RingBuf};

/// Resized at load.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);
