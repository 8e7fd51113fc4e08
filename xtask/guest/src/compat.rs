//! A device-mapper call as a 32-bit program makes it: through the kernel's other entrance (`int 0x80`), which the
//! syscall tracepoints leave out.

use std::{fs::File, os::fd::AsRawFd as _, ptr};

use anyhow::{Context, Result, bail};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// `struct dm_ioctl` with a message behind it.
const REQUEST: usize = 512;
/// `_IOWR(0xfd, DM_TARGET_MSG_CMD, struct dm_ioctl)`.
const DM_TARGET_MSG: u32 = 0xc138_fd0e;
/// `ioctl` in the table of 32-bit calls (`arch/x86/entry/syscalls/syscall_32.tbl`).
const IOCTL: u32 = 54;

/// An address below 4 GiB, where nothing else lies; the kernel follows the wish where it can.
const LOW: usize = 0x1000_0000;

/// Sends a message to a dm device: `compat DEVICE TEXT`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [name, text] = arguments else {
        bail!("usage: compat DEVICE TEXT");
    };
    let mut request = vec![0_u8; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = request.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &4_u32.to_le_bytes());
    put(12, &u32::try_from(REQUEST)?.to_le_bytes());
    put(16, &312_u32.to_le_bytes());
    put(48, name.as_bytes());
    // `struct dm_target_msg`: a sector, then the text.
    put(320, text.as_bytes());
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/mapper/control")?;
    match call(&control, &request)? {
        0 => Ok(()),
        error => bail!("the kernel answers {error}"),
    }
}

#[expect(unsafe_code, reason = "the entrance of 32-bit programs has no safe way in")]
fn call(control: &File, request: &[u8]) -> Result<i32> {
    // SAFETY: an anonymous mapping that nothing else uses; below 4 GiB, where a 32-bit address reaches.
    let low = unsafe {
        mmap_anonymous(
            ptr::without_provenance_mut(LOW),
            REQUEST,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .context("mapping memory below 4 GiB")?;
    // SAFETY: both are as long as that, and apart.
    unsafe { ptr::copy_nonoverlapping(request.as_ptr(), low.cast(), request.len().min(REQUEST)) };
    let address = u32::try_from(low.addr())?;
    let descriptor = u32::try_from(control.as_raw_fd())?;
    let mut result = IOCTL;
    // SAFETY: the call reads and writes the mapping, as far as its `data_size` says. rbx belongs to the compiler, so it
    // is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {descriptor}",
            "int 0x80",
            "xchg rbx, {descriptor}",
            descriptor = inout(reg) u64::from(descriptor) => _,
            inout("eax") result,
            in("ecx") DM_TARGET_MSG,
            in("edx") address,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Ok(result.cast_signed())
}
