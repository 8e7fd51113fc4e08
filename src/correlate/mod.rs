//! Observations, in order, into operations: what containerd set out to do, how far it came, and whether anybody will
//! still finish it. Pure: no clock, no file, no kernel. `lineage` says on whose behalf a call was made, `correlator`
//! keeps the operations (`by_device` finds them), `inside` adds what the kernel and the databases tell beside the calls.

mod by_device;
mod correlator;
mod inside;
#[cfg(test)]
mod inside_tests;
mod lineage;
#[cfg(test)]
mod tests;

pub use correlator::{Change, Correlator, Gap};
