//! The only room that changes anything outside: carries out a plan under its guards, or does nothing and says why.
//! Order: guards, durable intent, last look, act, verify, outcome. A crash anywhere leaves an intent that `settle`
//! resolves by looking.

mod carry_out;
mod hands;
pub mod metadata_snapshot;
#[cfg(test)]
mod tests;

pub use carry_out::{Eyes, RemedyError, carry_out, settle};
pub use hands::{Hands, HandsError, KernelHands};
pub use metadata_snapshot::ReservedSnapshots;
