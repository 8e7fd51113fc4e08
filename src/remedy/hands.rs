//! The hands: each kernel call that a remedy may make.

use devicemapper::{DM, DevId, DmError, DmName};
use nix::errno::Errno;

use super::node_calls;
use crate::{
    model::{DeviceNumber, PoolName, ThinId, dm::describe_error},
    observe::device_mapper::errno,
};

/// How the kernel answered.
#[derive(Debug, thiserror::Error)]
pub enum HandsError {
    /// There is no such thin device.
    #[error("the pool has no such thin device")]
    NoSuchDevice,
    /// The device is open.
    #[error("the kernel says the device is in use")]
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
    /// A dm device as it is at this moment; nothing where there is none.
    fn node(&self, name: &str) -> Result<Option<NodeNow>, HandsError>;
    /// Resumes a dm device.
    fn resume_node(&self, name: &str) -> Result<(), HandsError>;
    /// Removes a dm device that nobody has open: neither forced nor deferred, and tried once.
    fn remove_node(&self, name: &str) -> Result<(), HandsError>;
}

/// A dm device at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeNow {
    /// Its number.
    pub device: DeviceNumber,
    /// How many have it open.
    pub open_count: u32,
    /// Whether I/O to it is held back.
    pub suspended: bool,
    /// Whether it has a live table.
    pub live: bool,
    /// Whether it has a loaded table, which a resume would make the live one.
    pub loaded: bool,
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

    fn node(&self, name: &str) -> Result<Option<NodeNow>, HandsError> {
        node_calls::status(name)
    }

    fn resume_node(&self, name: &str) -> Result<(), HandsError> {
        node_calls::resume(name)
    }

    fn remove_node(&self, name: &str) -> Result<(), HandsError> {
        node_calls::remove(name)
    }
}
