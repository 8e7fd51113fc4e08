//! suture watches what device-mapper really did, compares it with what containerd's devmapper snapshotter believes,
//! and heals what was left half done, when that is proven safe. ARCHITECTURE.md is the map of this crate.
//!
//! The feature `node` is everything that touches a node: the probes, device-mapper, the ledger, remedies, traces. Without
//! it what is left thinks and replays, on any machine.

#[cfg(feature = "node")]
pub mod agent;
pub mod brain;
#[cfg(feature = "node")]
pub mod citizen;
pub mod cli;
#[cfg(feature = "node")]
pub mod config;
#[cfg(feature = "node")]
pub mod control;
pub mod correlate;
pub mod decide;
pub mod diagnose;
#[cfg(feature = "node")]
mod files;
#[cfg(feature = "node")]
pub mod healer;
#[cfg(feature = "node")]
pub mod ledger;
pub mod model;
pub mod observe;
pub mod recording;
#[cfg(feature = "readers")]
pub mod remedy;
pub mod reporter;
#[cfg(feature = "node")]
pub mod telemetry;
pub mod words;

#[cfg(test)]
mod testing;
