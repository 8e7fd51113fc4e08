//! Scenarios on a real kernel with a real containerd, in the VM of `xtask::vm`. Each reads as arrange, break, expect.
//! They need the set-up (`cargo xtask setup`); `cargo xtask test` does it and runs them.

#![expect(
    clippy::indexing_slicing,
    reason = "a missing JSON key reads as null, and a test fails by panicking"
)]

mod block_errors;
mod databases;
mod flood;
mod killed;
mod leaked_thin;
mod metadata_snapshot;
mod must_not_act;
mod probes;
mod recorded;
mod senses;
mod status;
mod support;
mod trouble;
mod without_bpf;
