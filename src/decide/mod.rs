//! Findings, policy and provenance into a plan, or into the reason for none. Pure.
//! For the sidecar `policy` decides; `guards` says whether what a plan rests on still holds in a world read just before the act. For `suture repair`
//! `repair` plans by the `modes` of its configuration; `conditions` says what holds. The `engine` decides when and whether a plan
//! of `repair`'s is carried out by the running sidecar.

pub mod conditions;
pub mod engine;
pub mod guards;
mod modes;
mod policy;
mod repair;
#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests;

pub use conditions::Evidence;
pub use engine::{Engine, EngineState, Facts, HealingPolicy, PolicyParts};
pub use modes::{Handling, RepairPolicy};
pub use policy::{Policy, decide, without_world};
pub use repair::{Selection, plan};
