//! One consistent world and the operations known, into findings. Pure.
//! The classes and their predicates are the ones of docs/findings.md.

mod thin;

pub use thin::thin_findings;
