//! Findings, policy and provenance into a plan, or into the reason for none. Pure.
//! `policy` decides; `guards` says whether what a plan rests on still holds in a world read just before the act.

pub mod guards;
mod policy;
#[cfg(test)]
mod tests;

pub use policy::{Policy, decide, without_world};
