//! What can go wrong without probes.

use std::io;

use crate::observe::device_mapper::DeviceMapperError;

/// Why a sense that needs no probes is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WithoutBpfError {
    /// Device-mapper can not be asked.
    #[error(transparent)]
    DeviceMapper(#[from] DeviceMapperError),
    /// The kernel's log can not be read.
    #[error("opening /dev/kmsg to read the kernel's log; it needs root, or CAP_SYSLOG")]
    KernelLog(#[source] io::Error),
    /// Neither of the two: there is nothing to watch with.
    #[error("without kernel probes there is nothing left to watch with ({log})")]
    Nothing {
        /// Why device-mapper can not be asked.
        #[source]
        devices: DeviceMapperError,
        /// Why the log can not be read.
        log: String,
    },
    /// The thread could not be started.
    #[error("starting the thread that watches without kernel probes")]
    Thread(#[source] io::Error),
    /// The receiver was full or closed before anything was seen.
    #[error("nobody takes what would be seen without kernel probes")]
    NobodyListens,
}
