//! Observations, in order, into operations: what containerd set out to do, how far it came, and whether anybody will
//! still finish it. Pure: no clock, no file, no kernel. `lineage` says on whose behalf a call was made, `correlator`
//! keeps the operations (`by_device` finds them), `inside` adds what the kernel and the databases tell beside the calls,
//! `block_errors` folds failed reads and writes, `next_record` knows the record that may be a wedge. `saga` follows every
//! operation of the snapshotter's, not only those that make a device, and names the window that one died in.

mod block_errors;
mod by_device;
mod correlator;
mod inside;
#[cfg(test)]
mod inside_tests;
mod lineage;
mod next_record;
mod saga;
#[cfg(test)]
mod tests;

pub use block_errors::{BlockErrors, Kind, LostErrors, Tally};
pub use correlator::MAX_OPERATIONS;
pub use correlator::{Change, Correlator, Gap};
pub use lineage::Running;
pub use next_record::Standing;
pub use saga::{FailureKind, LiveFailure, LiveFailures, MAX_SAGAS, NodeFound, Remains, Sagas};
