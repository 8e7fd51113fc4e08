//! The commands of `cargo xtask`, one file each.

pub mod bench;
pub mod build;
pub mod demo;
pub mod fuzz;
pub mod recordings;
mod relay;
pub mod run;
pub mod setup;
pub mod test;
pub mod vm;
