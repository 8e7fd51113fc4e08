//! Every operation of the snapshotter's as a saga: what containerd committed and what its dmsetup children asked of the
//! kernel, in one story, with the step it stands at and, after a death, the window that it died in. `chain` has the steps,
//! `hypotheses` what the steps seen may mean, `remains` what a death leaves behind, `evidence` reads observations,
//! `builder` keeps the sagas, `failures` the calls that fail over and over.

mod builder;
mod chain;
mod evidence;
mod failures;
mod hypotheses;
mod remains;
#[cfg(test)]
mod tests;

pub use builder::{MAX_SAGAS, Sagas};
pub use failures::{FailureKind, LiveFailure, LiveFailures};
pub use remains::{NodeFound, Remains};
