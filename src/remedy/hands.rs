//! The hands: each kernel call that a remedy may make.

use devicemapper::{DM, DevId, DmError, DmName};
use nix::errno::Errno;

use crate::{
    model::{PoolName, ThinId, dm::describe_error},
    observe::device_mapper::errno,
};

/// How the kernel answered.
#[derive(Debug, thiserror::Error)]
pub enum HandsError {
    /// There is no such thin device.
    #[error("the pool has no such thin device")]
    NoSuchDevice,
    /// The thin device is open.
    #[error("the kernel says the thin device is in use")]
    Busy,
    /// Anything else.
    #[error("the kernel refused with {}", describe_error(*.0))]
    Kernel(i32),
    /// The call could not be made.
    #[error("calling device-mapper failed: {0}")]
    Call(String),
}

impl From<DmError> for HandsError {
    fn from(error: DmError) -> Self {
        // `delete`: ENODATA for a missing id, EBUSY for an open one (drivers/md/dm-thin-metadata.c, `__delete_device`).
        match errno(&error) {
            Some(number) if number == Errno::ENODATA as i32 => Self::NoSuchDevice,
            Some(number) if number == Errno::EBUSY as i32 => Self::Busy,
            Some(number) => Self::Kernel(number),
            None => Self::Call(error.to_string()),
        }
    }
}

/// What can be done to the world outside.
pub trait Hands {
    /// Deletes a thin device that nobody has open.
    fn delete_thin(&self, pool: &PoolName, id: ThinId) -> Result<(), HandsError>;
}

/// The real kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelHands;

impl Hands for KernelHands {
    fn delete_thin(&self, pool: &PoolName, id: ThinId) -> Result<(), HandsError> {
        let name = DmName::new(pool.as_str()).map_err(|error| HandsError::Call(error.to_string()))?;
        DM::new()?.target_msg(&DevId::Name(name), None, &format!("delete {id}"))?;
        Ok(())
    }
}
