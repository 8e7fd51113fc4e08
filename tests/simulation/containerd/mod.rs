//! containerd's devmapper snapshotter as its sources have it (plugins/snapshots/devmapper and core/snapshots/storage), with
//! core's part around it (core/metadata/snapshot.go): every durable step in its order, and what is done when one fails.

mod device;
mod snapshotter;
mod start;

use suture::model::DeviceState;

use crate::kernel::Errno;

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// `device .. is already there`: containerd#5646.
    AlreadyThere(DeviceState),
    /// There is no such record, or no such snapshot.
    NotFound,
    /// A removal failed in a way after which the garbage collection goes on.
    Precondition,
    /// It has children.
    HasChild,
    /// The kernel said no.
    Kernel(Errno),
    /// The snapshotter is not loaded.
    NotLoaded,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}
