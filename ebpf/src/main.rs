//! suture's BPF programs: device-mapper ioctls, block errors, and who forked whom.
//!
//! Each program filters in its first instructions, copies bounded bytes, and counts what it could not hand over. None
//! interprets: what the bytes mean is the agent's work (src/observe/probes/).
#![no_std]
#![no_main]

mod block;
mod device_mapper;
mod lineage;
mod loss;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// bpf_probe_read_user and bpf_ringbuf_output are offered to any licence, the tracepoint helpers only to GPL-compatible ones.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
