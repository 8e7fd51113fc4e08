//! Looking and acting in a process of its own, for the sidecar: a thread that hangs in the kernel can not be ended, and a read
//! of everything needs memory that a sidecar must not keep. `message` is what the two say to each other, `worker` the
//! side that works, `handle` the side that asks and waits no longer than a deadline.

mod about;
mod handle;
mod message;
mod restart;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use handle::WORD as WORKER;
pub use handle::{Healer, HealerError};
pub use message::{Answer, Ask, Begin, Looked};
pub(crate) use restart::WORD as RESTART;
pub use restart::{Restart, unit_of};
pub use worker::{WorkerError, work};
