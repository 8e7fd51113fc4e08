//! Loads the BPF object that build.rs embedded, told where things lie in this kernel, and attaches its programs.

use std::os::unix::fs::MetadataExt as _;

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, PerCpuArray, RingBuf},
};
use suture_events::loss;

use super::{
    ProbeError,
    attach::{self, DEVICE_MAPPER, Missing, THIN_POOL},
    btf::Types,
    heap,
    in_flight::{InFlight, Stale},
    tracefs::{self, Format},
};
use crate::{
    model::{
        observation::LossKind,
        sense::{Quality, Sense, SenseKind},
    },
    words::explain,
};

/// Aligned as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/suture-ebpf"));

const RING: &str = "EVENTS";
const BLOCK_RING: &str = "BLOCK_ERRORS";
const LOSSES: &str = "LOSSES";
const IN_FLIGHT: &str = "IN_FLIGHT";
const PARENTS: &str = "PARENTS";
/// An offset that is not known, as the programs have it.
const UNKNOWN: u32 = u32::MAX;

/// By what means the kernel may be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Means {
    /// The best that there is.
    #[default]
    Best,
    /// The best, but device-mapper's calls by tracepoints: returns from its function were missed.
    WithoutReturns,
    /// Tracepoints only, as on a kernel whose functions can not be probed.
    Tracepoints,
}

/// Sizes that an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Bytes of the ring of every event but block errors (up to 976 bytes an event); a power of two.
    pub dm_ring_bytes: u32,
    /// Bytes of the ring of block errors (40 bytes an event); a power of two.
    pub block_ring_bytes: u32,
    /// device-mapper calls that may be under way at once.
    pub calls_in_flight: u32,
    /// Processes whose parent is remembered.
    pub lineage_entries: u32,
    /// By what means.
    pub means: Means,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            dm_ring_bytes: 4 * 1024 * 1024,
            block_ring_bytes: 256 * 1024,
            calls_in_flight: 512,
            lineage_entries: 16_384,
            means: Means::Best,
        }
    }
}

/// The attached probes. Dropping them detaches everything: the kernel frees programs and maps with their last handle,
/// also when suture is killed.
pub struct Probes {
    /// Every event but block errors.
    pub(super) events: RingBuf<MapData>,
    /// Block errors.
    pub(super) block: RingBuf<MapData>,
    losses: PerCpuArray<MapData, u64>,
    in_flight: HashMap<MapData, u64, InFlight>,
    stale: Stale,
    seen: [u64; loss::COUNT as usize],
    senses: Vec<Sense>,
    modules: [Option<u64>; 2],
    options: ProbeOptions,
    _programs: Ebpf,
}

impl Probes {
    /// Loads and attaches what this kernel allows; what it does not allow is said by [`Self::senses`]. Fails where not
    /// even device-mapper's calls can be seen. Needs root, or `CAP_BPF` and `CAP_PERFMON` and a readable tracefs.
    pub fn attach(options: ProbeOptions) -> Result<Self, ProbeError> {
        for bytes in [options.dm_ring_bytes, options.block_ring_bytes] {
            if !bytes.is_power_of_two() || !(4096..=1 << 30).contains(&bytes) {
                return Err(ProbeError::RingSize(bytes));
            }
        }
        // Before anything is attached: a module that comes now is seen as a change later.
        let modules = modules();
        let (places, missing) = Places::find()?;
        let mut ebpf = EbpfLoader::new()
            .override_global("FORK_CHILD_PID_OFFSET", &places.fork, true)
            .override_global("REQUEST_OFFSETS", &places.requests, true)
            .override_global("BIO_OFFSETS", &places.bios, true)
            .override_global("VICTIM_PID_OFFSET", &places.victim, true)
            .override_global("EXIT_CODE_OFFSET", &places.exit_code, true)
            .override_global("POOL_OFFSETS", &places.pool, true)
            .override_global("DEVICE_OFFSETS", &places.device, true)
            .map_max_entries(RING, options.dm_ring_bytes)
            .map_max_entries(BLOCK_RING, options.block_ring_bytes)
            .map_max_entries(IN_FLIGHT, options.calls_in_flight.max(1))
            .map_max_entries(PARENTS, options.lineage_entries.max(1))
            .load(OBJECT)
            .map_err(|error| ProbeError::Load(Box::new(error)))?;
        let senses = attach::attach_all(&mut ebpf, options.means, &missing)?;
        heap::give_back();
        Ok(Self {
            events: map(&mut ebpf, RING)?,
            block: map(&mut ebpf, BLOCK_RING)?,
            losses: map(&mut ebpf, LOSSES)?,
            in_flight: map(&mut ebpf, IN_FLIGHT)?,
            stale: Stale::default(),
            seen: [0; loss::COUNT as usize],
            senses,
            modules,
            options,
            _programs: ebpf,
        })
    }

    /// What is seen, by what means, and what is not and why.
    #[must_use]
    pub fn senses(&self) -> &[Sense] {
        &self.senses
    }

    /// Attaches anew: `returns_missed` for good by means that miss none.
    pub(super) fn attach_again(&self, returns_missed: bool) -> Result<Self, ProbeError> {
        let means = if returns_missed && self.options.means == Means::Best {
            Means::WithoutReturns
        } else {
            self.options.means
        };
        Self::attach(ProbeOptions {
            means,
            ..self.options
        })
    }

    /// Whether returns of calls can be missed: then those who saw it happen change to other means.
    pub(super) fn can_miss_returns(&self) -> bool {
        self.options.means == Means::Best
            && self
                .senses
                .iter()
                .any(|sense| sense.sense == SenseKind::DeviceMapperCalls && sense.quality == Quality::Full)
    }

    /// Whether device-mapper's modules came, went or were loaded anew since the probes were attached: then they may
    /// hang on nothing.
    pub(super) fn modules_changed(&self) -> bool {
        self.modules != modules()
    }

    /// What was lost since the last call.
    pub(super) fn new_losses(&mut self) -> Result<Vec<(LossKind, u64)>, ProbeError> {
        let mut lost = Vec::new();
        for (slot, kind) in [
            (loss::DM_RING_FULL, LossKind::DmRingFull),
            (loss::DM_IN_FLIGHT_FULL, LossKind::DmInFlightFull),
            (loss::BLOCK_RING_FULL, LossKind::BlockRingFull),
            (loss::BIO_RING_FULL, LossKind::BioRingFull),
            (loss::POOL_RING_FULL, LossKind::PoolRingFull),
            (loss::DEVICE_END_RING_FULL, LossKind::DeviceEndRingFull),
            (loss::PROCESS_RING_FULL, LossKind::ProcessRingFull),
            (loss::LINEAGE, LossKind::Lineage),
            (loss::RETURN_MISSED, LossKind::ReturnMissed),
            (loss::POOL_IN_FLIGHT_FULL, LossKind::DmInFlightFull),
        ] {
            let per_cpu = self.losses.get(&slot, 0).map_err(map_error(LOSSES))?;
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

    /// How many calls entered the kernel and can not return any more without having been seen to: their threads are
    /// gone. Asked from time to time.
    pub(super) fn missed_returns(&mut self) -> u64 {
        self.stale.sweep(&mut self.in_flight)
    }
}

/// Which loaded modules these are: a module that is loaded anew has another folder.
fn modules() -> [Option<u64>; 2] {
    [DEVICE_MAPPER, THIN_POOL].map(|module| {
        let folder = std::fs::metadata(format!("/sys/module/{module}"));
        folder.ok().map(|folder| folder.ino())
    })
}

/// Where things lie in this kernel: offsets in bytes, in the order in which the programs have them.
struct Places {
    fork: u32,
    requests: [u32; 5],
    bios: [u32; 5],
    victim: u32,
    exit_code: u32,
    pool: [u32; 3],
    device: [u32; 3],
}

impl Places {
    fn find() -> Result<(Self, Missing), ProbeError> {
        let tracefs = tracefs::find()?;
        let mut missing = Missing::default();
        let field = |category: &str, name: &str, field| {
            Format::read(&tracefs, category, name).and_then(|format| format.offset(field))
        };
        let block = |name| Format::read(&tracefs, "block", name).and_then(|format| block_offsets(&format));
        let fork = field("sched", "sched_process_fork", "child_pid");
        let victim = field("oom", "mark_victim", "pid");
        let places = Self {
            fork: or_say(fork, &mut missing.fork),
            requests: or_say(block("block_rq_error"), &mut missing.requests),
            bios: or_say(block("block_bio_complete"), &mut missing.bios),
            victim: or_say(victim, &mut missing.victim),
            exit_code: UNKNOWN,
            pool: [UNKNOWN; 3],
            device: [UNKNOWN; 3],
        };
        Ok((places.with_types(&mut missing), missing))
    }

    /// What only the kernel's type information tells.
    fn with_types(mut self, missing: &mut Missing) -> Self {
        let kernel = Types::of_kernel();
        let of_kernel = |structure, field| kernel.as_ref()?.offset(structure, field, None);
        let types_of = |module| Types::of_module(module, kernel.as_ref()?);
        let (thin_pool, device_mapper) = (types_of(THIN_POOL), types_of(DEVICE_MAPPER));
        // Where the module is built in, the kernel's own types tell.
        let of_module = |types: &Option<Types>, structure, field| match types {
            Some(types) => types.offset(structure, field, kernel.as_ref()),
            None => of_kernel(structure, field),
        };
        let unknown = |what: &str| {
            Some(format!(
                "the kernel's type information (BTF) does not tell {what}"
            ))
        };
        match of_kernel("task_struct", "exit_code") {
            Some(offset) => self.exit_code = offset,
            None => missing.exit_code = unknown("how a process ended"),
        }
        self.pool = [
            of_module(&thin_pool, "dm_pool_metadata", "bdev"),
            of_module(&thin_pool, "pool", "md_dev"),
            of_kernel("block_device", "bd_dev"),
        ]
        .map(|offset| offset.unwrap_or(UNKNOWN));
        if self.pool.contains(&UNKNOWN) {
            missing.pool = unknown("which pool a call is about");
        }
        self.device = [
            of_module(&device_mapper, "mapped_device", "disk"),
            of_kernel("gendisk", "major"),
            of_kernel("gendisk", "first_minor"),
        ]
        .map(|offset| offset.unwrap_or(UNKNOWN));
        if self.device.contains(&UNKNOWN) {
            missing.device = unknown("which device ended");
        }
        self
    }
}

fn or_say<T: Default>(result: Result<T, ProbeError>, missing: &mut Option<String>) -> T {
    result.unwrap_or_else(|error| {
        *missing = Some(explain(&error));
        T::default()
    })
}

fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, ProbeError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(ProbeError::Missing(name))?;
    T::try_from(map).map_err(map_error(name))
}

fn map_error(map: &'static str) -> impl Fn(aya::maps::MapError) -> ProbeError {
    move |source| ProbeError::Map {
        map,
        source: Box::new(source),
    }
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
