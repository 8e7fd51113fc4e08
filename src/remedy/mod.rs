//! The only room that changes anything outside: carries out a plan under its guards, or does nothing and says why.
//! Order: guards, durable intent, last look, act, verify, outcome. A crash anywhere leaves an intent that `settle`
//! resolves by looking. `repair` does the same for `suture repair`, which also edits containerd's database while containerd
//! is stopped.

pub mod bbolt_editor;
mod carry_out;
mod hands;
pub mod metadata_snapshot;
mod node_calls;
pub mod repair;
#[cfg(test)]
mod tests;

pub use carry_out::{Eyes, RemedyError, carry_out, settle};
pub use hands::{Hands, HandsError, KernelHands, NodeNow};
pub use metadata_snapshot::ReservedSnapshots;
