//! What can go wrong with the probes.

use std::{io, path::PathBuf};

/// Why the kernel can not be watched.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No tracefs at its usual places.
    #[error(
        "tracefs is not mounted at /sys/kernel/tracing; mount it with `mount -t tracefs tracefs /sys/kernel/tracing`"
    )]
    NoTracefs,
    /// tracefs is there, for root only.
    #[error("{path} can not be looked into; watching the kernel needs root")]
    TracefsForbidden {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// A tracepoint's description could not be read.
    #[error(
        "reading the tracepoint description {path}; is suture running as root, and does this kernel have that tracepoint?"
    )]
    Format {
        /// The `format` file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The description lacks a field.
    #[error(
        "the kernel describes tracepoint {tracepoint} without the field {field}; this kernel is not supported yet"
    )]
    Field {
        /// Category and name.
        tracepoint: String,
        /// The missing field.
        field: &'static str,
    },
    /// The object was refused.
    #[error(
        "loading the BPF object into the kernel; it needs root, or CAP_BPF and CAP_PERFMON, and a kernel of 5.18 or later"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused or could not be attached.
    #[error("attaching the probe `{program}`")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object does not hold what the agent expects of it.
    #[error("the BPF object has no `{0}`; suture was built wrongly, build it again")]
    Missing(&'static str),
    /// A map could not be used.
    #[error("using the BPF map `{map}`")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The reading thread could not be started.
    #[error("starting the thread that reads the probes' rings")]
    Thread(#[source] io::Error),
    /// A ring's size can not be used.
    #[error("a ring of {0} bytes is not possible; use a power of two from 4096 to 1073741824")]
    RingSize(u32),
}
