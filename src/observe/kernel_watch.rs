//! Watching the kernel by the best means that it allows: by probes or, where it takes none, by what is left.

use tokio::sync::mpsc::Sender;

use super::{
    probes::{self, ProbeError, ProbeOptions, Probes, Seen},
    watch_thread::WatchThread,
    without_bpf::{self, WithoutBpfError},
};
use crate::model::{PoolName, sense::Sense};

/// Whether to watch with kernel probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UseBpf {
    /// With them, and without where the kernel takes none.
    #[default]
    IfPossible,
    /// With them or not at all.
    Always,
    /// Without them.
    Never,
}

/// Why the kernel can not be watched.
#[derive(Debug, thiserror::Error)]
pub enum KernelWatchError {
    /// By probes.
    #[error("the kernel can not be watched")]
    Probes(#[from] ProbeError),
    /// By what is left without them.
    #[error(transparent)]
    WithoutBpf(#[from] WithoutBpfError),
    /// By neither.
    #[error("the kernel takes no probes ({probes}), and can not be watched without them")]
    Neither {
        /// Why it takes none.
        probes: String,
        /// Why it can not be watched otherwise.
        source: WithoutBpfError,
    },
}

/// A handle on the thread that watches.
pub struct KernelWatch {
    thread: WatchThread,
    senses: Vec<Sense>,
    /// Why not with probes.
    without_bpf: Option<String>,
}

impl KernelWatch {
    /// Starts watching; what is seen goes to `to`, and of what is left without probes also how `pool` is. Drop the
    /// receiver before the handle.
    pub fn start(
        use_bpf: UseBpf,
        options: ProbeOptions,
        pool: Option<&PoolName>,
        to: Sender<Seen>,
    ) -> Result<Self, KernelWatchError> {
        let refused = match use_bpf {
            UseBpf::Never => None,
            UseBpf::IfPossible | UseBpf::Always => match Probes::attach(options) {
                Ok(probes) => {
                    let senses = probes.senses().to_vec();
                    return Ok(Self {
                        thread: probes::start(probes, to)?,
                        senses,
                        without_bpf: None,
                    });
                }
                // A size that can not be used is a mistake on the command line, not the kernel's refusal.
                Err(error @ ProbeError::RingSize(_)) => return Err(error.into()),
                Err(error) if use_bpf == UseBpf::Always => return Err(error.into()),
                Err(error) => Some(crate::words::explain(&error)),
            },
        };
        match (without_bpf::start(pool.cloned(), to), refused) {
            (Ok(thread), refused) => Ok(Self {
                thread,
                senses: without_bpf::senses(),
                without_bpf: Some(
                    refused.unwrap_or_else(|| "suture was told to do without kernel probes".to_owned()),
                ),
            }),
            (Err(source), Some(probes)) => Err(KernelWatchError::Neither { probes, source }),
            (Err(source), None) => Err(source.into()),
        }
    }

    /// Asks for [`Seen::Barrier`] with the number that is returned.
    #[must_use]
    pub fn request_barrier(&self) -> u64 {
        self.thread.request_barrier()
    }

    /// What is seen, by what means, and what is not and why, as it was at the start.
    #[must_use]
    pub fn senses(&self) -> &[Sense] {
        &self.senses
    }

    /// Why it does without probes, where it does.
    #[must_use]
    pub fn without_bpf(&self) -> Option<&str> {
        self.without_bpf.as_deref()
    }
}
