//! The only room that changes anything outside: carries out a plan under its guards, or does nothing and says why.
//! Order: guards, durable intent, last look, act, verify, outcome. A crash anywhere leaves an intent that `settle`
//! resolves by looking. `repair` does the same for `suture repair`, which also edits containerd's database while containerd
//! is stopped.

pub mod bbolt_editor;
#[cfg(feature = "node")]
mod carry_out;
#[cfg(feature = "node")]
mod hands;
#[cfg(feature = "node")]
pub mod metadata_snapshot;
#[cfg(feature = "node")]
mod node_calls;
#[cfg(feature = "node")]
pub mod repair;
#[cfg(feature = "node")]
#[cfg(test)]
mod tests;

#[cfg(feature = "node")]
pub use carry_out::{Begun, Eyes, RemedyError, act, begin, conclude, settle};
#[cfg(feature = "node")]
pub use hands::{Hands, HandsError, KernelHands, NodeNow};
#[cfg(feature = "node")]
pub use metadata_snapshot::ReservedSnapshots;
