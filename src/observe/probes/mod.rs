//! The kernel probes: loading (`loader`) and attaching them, each sense by the best means there is (`attach`), reading
//! their rings on a thread of their own (`reader`), and turning untrusted bytes into observations (`wire` and `decode`,
//! pure).
//! Which field lies where comes from the running kernel (`tracefs`, `btf`).

mod attach;
mod btf;
pub mod decode;
mod error;
mod heap;
mod in_flight;
mod loader;
mod reader;
pub mod tracefs;
pub mod wire;

pub use error::ProbeError;
pub use loader::{Means, ProbeOptions, Probes};
pub(super) use reader::clock;
pub use reader::{Seen, start};
