//! Observations, in order, into operations: what containerd set out to do, how far it came, and whether anybody will
//! still finish it. Pure: no clock, no file, no kernel. `lineage` says on whose behalf a call was made, `correlator`
//! keeps the operations, `block_errors` the failed reads and writes, `next_record` the record that may be a wedge.

mod block_errors;
mod correlator;
mod lineage;
mod next_record;
#[cfg(test)]
mod tests;

pub use block_errors::{BlockErrors, Kind, LostErrors, Tally};
pub use correlator::{Change, Correlator, Gap};
pub use lineage::Running;
pub use next_record::Standing;
