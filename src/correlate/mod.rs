//! Observations, in order, into operations: what containerd set out to do, how far it came, and whether anybody will
//! still finish it. Pure: no clock, no file, no kernel. `lineage` says on whose behalf a call was made, `correlator`
//! keeps the operations, `inside` adds what the kernel and the databases tell beside the calls.

mod correlator;
mod inside;
#[cfg(test)]
mod inside_tests;
mod lineage;
#[cfg(test)]
mod tests;

pub(crate) use correlator::MAX_OPERATIONS;
pub use correlator::{Change, Correlator, Gap};
