//! What no input may cost: memory out of proportion to its size. Time is libFuzzer's to watch (`-timeout`).

use std::alloc::System;

use cap::Cap;

/// Counts what is allocated, and refuses what goes beyond the limit, which ends the program: a finding.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that every reader may use, however small its input.
const FLOOR: usize = 4 << 20;
/// Bytes that it may use for each byte of input. An entry of a few bytes becomes values in maps, with their strings.
const FOR_EACH: usize = 256;

/// Runs `work` on an input of that many bytes under the limit that this gives.
pub(crate) fn bounded<T>(input: usize, work: impl FnOnce() -> T) -> T {
    let limit = ALLOCATOR.allocated() + FLOOR + FOR_EACH * input;
    // Neither fails: the limit is above what is allocated, and then there is none.
    let _ = ALLOCATOR.set_limit(limit);
    let answer = work();
    let _ = ALLOCATOR.set_limit(usize::MAX);
    answer
}
