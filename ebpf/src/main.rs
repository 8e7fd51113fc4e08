//! suture's BPF programs: device-mapper ioctls, thin pools from inside, ends of dm devices, block errors, containerd's
//! start and end, and who forked whom.
//!
//! Each program filters in its first instructions, copies bounded bytes, and counts what it could not hand over. None
//! interprets: what the bytes mean is the agent's work (src/observe/probes/).
#![no_std]
#![no_main]

mod block;
mod device_end;
mod device_mapper;
mod lineage;
mod loss;
mod process;
mod ring;
mod thin_pool;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// Some of the helpers (bpf_probe_read_kernel, bpf_get_current_task) are offered only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
