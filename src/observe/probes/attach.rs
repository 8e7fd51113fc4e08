//! Which probe goes where: for each sense the best means that this kernel offers, and why not a better one.

use aya::{
    Ebpf,
    programs::{KProbe, ProgramError, TracePoint},
};

use super::{ProbeError, loader::Means};
use crate::{
    model::sense::{Sense, SenseKind},
    words::explain,
};

/// Modules whose functions are probed.
pub(super) const DEVICE_MAPPER: &str = "dm_mod";
pub(super) const THIN_POOL: &str = "dm_thin_pool";

/// A function of a thin pool's, and the programs at its entry and its return.
const POOL_FUNCTIONS: [(&str, &str, Option<&str>); 7] = [
    (
        "dm_pool_create_thin",
        "create_thin_enter",
        Some("create_thin_return"),
    ),
    (
        "dm_pool_create_snap",
        "create_snap_enter",
        Some("create_snap_return"),
    ),
    (
        "dm_pool_delete_thin_device",
        "delete_thin_enter",
        Some("delete_thin_return"),
    ),
    ("dm_pool_commit_metadata", "commit_enter", Some("commit_return")),
    ("dm_pool_abort_metadata", "abort_enter", Some("abort_return")),
    ("metadata_operation_failed", "metadata_operation_failed", None),
    ("set_pool_mode", "set_pool_mode", None),
];

/// dm-cache has a function of that name too: without the module's name it may be the wrong one.
const AMBIGUOUS: &str = "metadata_operation_failed";

/// The kernel's way of probing its functions through `perf_event_open`.
const KPROBE_EVENTS: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Why no function of the kernel is to be probed, if so.
fn no_functions(means: Means) -> Option<String> {
    if means == Means::Tracepoints {
        return Some("probing the kernel's functions was switched off".to_owned());
    }
    (!std::path::Path::new(KPROBE_EVENTS).exists())
        .then(|| "this kernel lets nobody probe its functions (CONFIG_KPROBE_EVENTS is off)".to_owned())
}

/// Puts every probe where it belongs, as far as this kernel lets it. Fails only when device-mapper's calls can not be
/// seen at all: then there is nothing left that BPF would be good for.
pub(super) fn attach_all(ebpf: &mut Ebpf, means: Means, offsets: &Missing) -> Result<Vec<Sense>, ProbeError> {
    // The fork probe first: an ioctl seen without its lineage proves nothing about who made it.
    let lineage = one(
        ebpf,
        SenseKind::Lineage,
        ("sched_process_fork", "sched", "sched_process_fork"),
        offsets.fork.as_deref(),
    );
    let mut senses = vec![
        lineage,
        device_mapper_calls(ebpf, means)?,
        pool_internals(ebpf, means, offsets),
        device_ends(ebpf, means, offsets),
        process_ends(ebpf, offsets),
    ];
    let others = [
        (
            SenseKind::BlockRequests,
            ("block_rq_error", "block", "block_rq_error"),
            &offsets.requests,
        ),
        (
            SenseKind::BlockBios,
            ("block_bio_complete", "block", "block_bio_complete"),
            &offsets.bios,
        ),
        (
            SenseKind::OutOfMemory,
            ("mark_victim", "oom", "mark_victim"),
            &offsets.victim,
        ),
        (
            SenseKind::ProcessStarts,
            ("sched_process_exec", "sched", "sched_process_exec"),
            &None,
        ),
    ];
    for (kind, where_to, missing) in others {
        senses.push(one(ebpf, kind, where_to, missing.as_deref()));
    }
    senses.sort_by_key(|sense| sense.sense);
    Ok(senses)
}

/// What the kernel did not tell of itself, a sentence each: probes that need it are left out, or tell less.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) fork: Option<String>,
    pub(super) requests: Option<String>,
    pub(super) bios: Option<String>,
    pub(super) victim: Option<String>,
    pub(super) exit_code: Option<String>,
    pub(super) pool: Option<String>,
    pub(super) device: Option<String>,
}

fn one(
    ebpf: &mut Ebpf,
    sense: SenseKind,
    (program, category, name): (&'static str, &str, &str),
    missing: Option<&str>,
) -> Sense {
    let attached = match missing {
        Some(why) => Err(why.to_owned()),
        None => tracepoint(ebpf, program, category, name).map_err(|error| explain(&error)),
    };
    match attached {
        Ok(()) => Sense::new(sense, format!("tracepoint {category}:{name}"), Vec::new()),
        Err(why) => Sense::new(sense, "", vec![why]),
    }
}

fn process_ends(ebpf: &mut Ebpf, offsets: &Missing) -> Sense {
    let where_to = ("sched_process_exit", "sched", "sched_process_exit");
    let Sense {
        sense,
        means,
        mut why,
        ..
    } = one(ebpf, SenseKind::ProcessEnds, where_to, None);
    if !means.is_empty() {
        why.extend(offsets.exit_code.clone());
    }
    Sense::new(sense, means, why)
}

/// By device-mapper's own function, where calls of 32-bit programs pass too; else by the syscall tracepoints.
fn device_mapper_calls(ebpf: &mut Ebpf, means: Means) -> Result<Sense, ProbeError> {
    let sense = SenseKind::DeviceMapperCalls;
    let mut why = Vec::new();
    if means == Means::WithoutReturns {
        why.push(
            "returns from device-mapper's function were missed: more calls wait in it than the kernel has places to watch for"
                .to_owned(),
        );
    } else if let Some(none) = no_functions(means) {
        why.push(none);
    } else {
        for function in ["ctl_ioctl", "dm_ctl_ioctl"] {
            match in_module(
                ebpf,
                DEVICE_MAPPER,
                function,
                "dm_ioctl_enter",
                Some("dm_ioctl_return"),
            ) {
                Ok(()) => return Ok(Sense::new(sense, format!("kprobe {function}"), Vec::new())),
                Err(error) => why.push(format!("{function}: {}", explain(&error))),
            }
        }
    }
    // Exit before entry: an entry without an exit would stay in flight for ever.
    tracepoint(ebpf, "sys_exit_ioctl", "syscalls", "sys_exit_ioctl")?;
    tracepoint(ebpf, "sys_enter_ioctl", "syscalls", "sys_enter_ioctl")?;
    Ok(Sense::new(
        sense,
        "tracepoints syscalls:sys_enter_ioctl and sys_exit_ioctl: calls of 32-bit programs are not seen",
        why,
    ))
}

fn pool_internals(ebpf: &mut Ebpf, means: Means, offsets: &Missing) -> Sense {
    let (mut attached, mut why) = (Vec::new(), Vec::new());
    if let Some(none) = no_functions(means) {
        why.push(none);
    } else {
        for (function, enter, leave) in POOL_FUNCTIONS {
            match in_module(ebpf, THIN_POOL, function, enter, leave) {
                Ok(()) => attached.push(function),
                Err(error) => why.push(format!("{function}: {}", explain(&error))),
            }
        }
    }
    if !attached.is_empty() {
        why.extend(offsets.pool.clone());
    }
    let means = if attached.is_empty() {
        String::new()
    } else {
        format!("kprobes {}", attached.join(", "))
    };
    Sense::new(SenseKind::PoolInternals, means, why)
}

fn device_ends(ebpf: &mut Ebpf, means: Means, offsets: &Missing) -> Sense {
    let sense = SenseKind::DeviceEnds;
    if let Some(why) = no_functions(means) {
        return Sense::new(sense, "", vec![why]);
    }
    match in_module(ebpf, DEVICE_MAPPER, "dm_destroy", "dm_destroy", None) {
        Ok(()) => Sense::new(
            sense,
            "kprobe dm_destroy",
            offsets.device.iter().cloned().collect(),
        ),
        Err(error) => Sense::new(sense, "", vec![format!("dm_destroy: {}", explain(&error))]),
    }
}

fn tracepoint(ebpf: &mut Ebpf, program: &'static str, category: &str, name: &str) -> Result<(), ProbeError> {
    let failed = |source| ProbeError::Attach {
        program,
        source: Box::new(source),
    };
    let found = ebpf.program_mut(program).ok_or(ProbeError::Missing(program))?;
    let tracepoint: &mut TracePoint = found.try_into().map_err(failed)?;
    loaded(tracepoint.load()).map_err(failed)?;
    tracepoint.attach(category, name).map_err(failed)?;
    Ok(())
}

/// A function of a module's or, where that is built into the kernel, of the kernel's.
fn in_module(
    ebpf: &mut Ebpf,
    module: &str,
    function: &'static str,
    enter: &'static str,
    leave: Option<&'static str>,
) -> Result<(), ProbeError> {
    match function_pair(ebpf, &format!("{module}:{function}"), enter, leave) {
        Err(_) if function != AMBIGUOUS => function_pair(ebpf, function, enter, leave),
        other => other,
    }
}

/// A function's return and its entry, or neither.
fn function_pair(
    ebpf: &mut Ebpf,
    function: &str,
    enter: &'static str,
    leave: Option<&'static str>,
) -> Result<(), ProbeError> {
    let left = leave.map(|leave| kprobe(ebpf, leave, function).map(|link| (leave, link)));
    let left = left.transpose()?;
    match (kprobe(ebpf, enter, function), left) {
        (Ok(_), _) => Ok(()),
        (Err(error), None) => Err(error),
        (Err(error), Some((leave, link))) => {
            let found: Option<&mut KProbe> = ebpf
                .program_mut(leave)
                .and_then(|program| program.try_into().ok());
            if let Some(program) = found {
                // What is left attached would only find nothing to end.
                let _ = program.detach(link);
            }
            Err(error)
        }
    }
}

fn kprobe(
    ebpf: &mut Ebpf,
    program: &'static str,
    function: &str,
) -> Result<aya::programs::kprobe::KProbeLinkId, ProbeError> {
    let failed = |source| ProbeError::Attach {
        program,
        source: Box::new(source),
    };
    let found = ebpf.program_mut(program).ok_or(ProbeError::Missing(program))?;
    let kprobe: &mut KProbe = found.try_into().map_err(failed)?;
    loaded(kprobe.load()).map_err(failed)?;
    kprobe.attach(function, 0).map_err(failed)
}

/// A second try to attach a program finds it loaded.
fn loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}
