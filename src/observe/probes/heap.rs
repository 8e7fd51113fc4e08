//! Loading the probes reads all of the kernel's type information, many times what suture needs afterwards.

/// Gives freed memory back to the system. The C library keeps what is freed between pieces that are still in use, for a
/// process that will need as much again; suture will not.
#[expect(unsafe_code, reason = "the C library offers it to C only")]
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no precondition; it takes the allocator's own locks.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
