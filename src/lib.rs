//! suture watches what device-mapper really did, compares it with what containerd's devmapper snapshotter believes,
//! and heals what was left half done, when that is proven safe. ARCHITECTURE.md is the map of this crate.

pub mod agent;
pub mod cli;
pub mod control;
pub mod correlate;
pub mod decide;
pub mod diagnose;
pub mod ledger;
pub mod model;
pub mod observe;
pub mod remedy;
pub mod telemetry;
pub mod words;

#[cfg(test)]
mod testing;
