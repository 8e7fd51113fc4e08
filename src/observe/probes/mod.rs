//! The kernel probes: loading and attaching them (`loader`), reading their rings on a thread of their own (`reader`),
//! and turning untrusted bytes into observations (`decode`, pure). Which field of a tracepoint lies where comes from
//! the running kernel (`tracefs`).

pub mod decode;
mod error;
mod loader;
mod reader;
pub mod tracefs;

pub use error::ProbeError;
pub use loader::{ProbeOptions, Probes};
pub(super) use reader::clock;
pub use reader::{ProbeThread, Seen, start};
