//! Loads the BPF object that build.rs embedded, and attaches its programs.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray, RingBuf},
    programs::TracePoint,
};
use suture_events::loss;

use super::{
    ProbeError,
    tracefs::{self, Format},
};
use crate::model::observation::LossKind;

/// Aligned as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/suture-ebpf"));

/// Every program: its name in the object, and the tracepoint that it goes on.
const PROGRAMS: [(&str, &str, &str); 5] = [
    // The fork probe first: an ioctl seen without its lineage proves nothing about who made it.
    ("sched_process_fork", "sched", "sched_process_fork"),
    // Exit before entry: an entry without an exit would stay in flight for ever.
    ("sys_exit_ioctl", "syscalls", "sys_exit_ioctl"),
    ("sys_enter_ioctl", "syscalls", "sys_enter_ioctl"),
    ("block_rq_error", "block", "block_rq_error"),
    ("block_bio_complete", "block", "block_bio_complete"),
];

const DM_RING: &str = "DM_IOCTLS";
const BLOCK_RING: &str = "BLOCK_ERRORS";
const IN_FLIGHT: &str = "IN_FLIGHT";
const PARENTS: &str = "PARENTS";
const LOSSES: &str = "LOSSES";

/// Sizes that an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Bytes of the ring of device-mapper ioctls (976 bytes an event); a power of two.
    pub dm_ring_bytes: u32,
    /// Bytes of the ring of block errors (40 bytes an event); a power of two.
    pub block_ring_bytes: u32,
    /// device-mapper calls under way at once that are remembered (about 1 KiB of kernel memory each).
    pub calls_in_flight: u32,
    /// Processes whose parent is remembered (about 100 bytes of kernel memory each); the oldest go first.
    pub lineage_entries: u32,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            dm_ring_bytes: 1024 * 1024,
            block_ring_bytes: 256 * 1024,
            calls_in_flight: 512,
            lineage_entries: 16384,
        }
    }
}

/// The attached probes. Dropping them detaches everything: the kernel frees programs and maps with their last handle,
/// also when suture is killed.
pub struct Probes {
    /// Device-mapper ioctls.
    pub(super) dm: RingBuf<MapData>,
    /// Block errors.
    pub(super) block: RingBuf<MapData>,
    losses: PerCpuArray<MapData, u64>,
    seen: [u64; loss::COUNT as usize],
    _programs: Ebpf,
}

impl Probes {
    /// Loads and attaches. Needs root, or `CAP_BPF` and `CAP_PERFMON` and a readable tracefs.
    pub fn attach(options: ProbeOptions) -> Result<Self, ProbeError> {
        for bytes in [options.dm_ring_bytes, options.block_ring_bytes] {
            if !bytes.is_power_of_two() || !(4096..=1 << 30).contains(&bytes) {
                return Err(ProbeError::RingSize(bytes));
            }
        }
        let tracefs = tracefs::find()?;
        let fork = Format::read(&tracefs, "sched", "sched_process_fork")?.offset("child_pid")?;
        let request = block_offsets(&Format::read(&tracefs, "block", "block_rq_error")?)?;
        let bio = block_offsets(&Format::read(&tracefs, "block", "block_bio_complete")?)?;

        let mut ebpf = EbpfLoader::new()
            .override_global("FORK_CHILD_PID_OFFSET", &fork, true)
            .override_global("REQUEST_OFFSETS", &request, true)
            .override_global("BIO_OFFSETS", &bio, true)
            .map_max_entries(DM_RING, options.dm_ring_bytes)
            .map_max_entries(BLOCK_RING, options.block_ring_bytes)
            .map_max_entries(IN_FLIGHT, options.calls_in_flight)
            .map_max_entries(PARENTS, options.lineage_entries)
            .load(OBJECT)
            .map_err(|error| ProbeError::Load(Box::new(error)))?;
        for (program, category, name) in PROGRAMS {
            attach(&mut ebpf, program, category, name)?;
        }
        Ok(Self {
            dm: map(&mut ebpf, DM_RING)?,
            block: map(&mut ebpf, BLOCK_RING)?,
            losses: map(&mut ebpf, LOSSES)?,
            seen: [0; loss::COUNT as usize],
            _programs: ebpf,
        })
    }

    /// What was lost since the last call.
    pub(super) fn new_losses(&mut self) -> Result<Vec<(LossKind, u64)>, ProbeError> {
        let mut lost = Vec::new();
        for (slot, kind) in [
            (loss::DM_RING_FULL, LossKind::DmRingFull),
            (loss::DM_IN_FLIGHT_FULL, LossKind::DmInFlightFull),
            (loss::BLOCK_RING_FULL, LossKind::BlockRingFull),
            (loss::LINEAGE, LossKind::Lineage),
        ] {
            let per_cpu = self.losses.get(&slot, 0).map_err(|source| ProbeError::Map {
                map: LOSSES,
                source: Box::new(source),
            })?;
            let total: u64 = per_cpu.iter().copied().fold(0, u64::saturating_add);
            let index = usize::try_from(slot).unwrap_or(usize::MAX);
            if let Some(seen) = self.seen.get_mut(index)
                && total > *seen
            {
                lost.push((kind, total - *seen));
                *seen = total;
            }
        }
        Ok(lost)
    }
}

fn attach(ebpf: &mut Ebpf, program: &'static str, category: &str, name: &str) -> Result<(), ProbeError> {
    let failed = |source| ProbeError::Attach {
        program,
        source: Box::new(source),
    };
    let found = ebpf.program_mut(program).ok_or(ProbeError::Missing(program))?;
    let tracepoint: &mut TracePoint = found.try_into().map_err(failed)?;
    tracepoint.load().map_err(failed)?;
    tracepoint.attach(category, name).map_err(failed)?;
    Ok(())
}

fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, ProbeError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(ProbeError::Missing(name))?;
    T::try_from(map).map_err(|source| ProbeError::Map {
        map: name,
        source: Box::new(source),
    })
}

/// In the order of `Offsets` in ebpf/src/block.rs.
fn block_offsets(format: &Format) -> Result<[u32; 5], ProbeError> {
    let at = |field| format.offset(field);
    Ok([
        at("dev")?,
        at("sector")?,
        at("nr_sector")?,
        at("error")?,
        at("rwbs")?,
    ])
}
