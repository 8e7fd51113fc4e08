//! Failed block requests and bios. Offsets of the fields come from tracefs: `ioprio` was added in 2024 and moved some.

use aya_ebpf::{
    Global,
    helpers::bpf_ktime_get_ns,
    macros::{map, tracepoint},
    maps::RingBuf,
    programs::TracePointContext,
};
use suture_events::{BlockErrorEvent, block_source, loss};

use crate::loss as losses;

/// Offsets of the fields inside one block tracepoint.
#[repr(C)]
#[derive(Clone, Copy)]
struct Offsets {
    dev: u32,
    sector: u32,
    sectors: u32,
    error: u32,
    rwbs: u32,
}

const UNKNOWN: Offsets = Offsets {
    dev: 0,
    sector: 0,
    sectors: 0,
    error: 0,
    rwbs: 0,
};

#[unsafe(no_mangle)]
static REQUEST_OFFSETS: Global<Offsets> = Global::new(UNKNOWN);
#[unsafe(no_mangle)]
static BIO_OFFSETS: Global<Offsets> = Global::new(UNKNOWN);

/// Apart from the device-mapper ring, so that a storm of block errors can not push out an operation. Resized at load.
#[map]
static BLOCK_ERRORS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

#[tracepoint]
pub fn block_rq_error(context: TracePointContext) -> u32 {
    let _ = emit(&context, REQUEST_OFFSETS.load(), block_source::REQUEST);
    0
}

#[tracepoint]
pub fn block_bio_complete(context: TracePointContext) -> u32 {
    let _ = emit(&context, BIO_OFFSETS.load(), block_source::BIO);
    0
}

#[inline(always)]
fn emit(context: &TracePointContext, at: Offsets, source: u32) -> Result<(), i32> {
    // SAFETY (this and the reads below): offsets come from the kernel's own description of this tracepoint.
    let error: i32 = unsafe { context.read_at(at.error as usize) }?;
    if error == 0 {
        return Ok(());
    }
    let event = BlockErrorEvent {
        at_ns: unsafe { bpf_ktime_get_ns() },
        sector: unsafe { context.read_at(at.sector as usize) }?,
        dev: unsafe { context.read_at(at.dev as usize) }?,
        sectors: unsafe { context.read_at(at.sectors as usize) }?,
        error,
        source,
        rwbs: unsafe { context.read_at(at.rwbs as usize) }?,
    };
    if BLOCK_ERRORS.output::<BlockErrorEvent>(&event, 0).is_err() {
        losses::count(if source == block_source::REQUEST {
            loss::BLOCK_RING_FULL
        } else {
            loss::BIO_RING_FULL
        });
    }
    Ok(())
}
