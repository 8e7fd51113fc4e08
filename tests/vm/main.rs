//! Scenarios on a real kernel with a real containerd, in the VM of `xtask::vm`. Each reads as arrange, break, expect.
//! They need the set-up (`cargo xtask setup`); `cargo xtask test` does it and runs them.

#![expect(
    clippy::indexing_slicing,
    reason = "a missing JSON key reads as null, and a test fails by panicking"
)]

mod block_errors;
mod check_layers;
mod check_lost;
mod check_never;
mod check_nodes;
mod check_outage;
mod check_pool;
mod check_space;
mod citizen;
mod clean_operations;
mod crash_table;
mod databases;
mod failing;
mod flood;
mod hand;
mod healing;
mod healing_clock;
mod healing_hung;
mod healing_killed;
mod healing_people;
mod healing_restart;
mod killed;
mod leaked_thin;
mod metadata_snapshot;
mod must_not_act;
mod power_cut;
mod preload;
mod probes;
mod pull_request;
mod recorded;
mod restart_path;
mod senses;
mod soak;
mod stage;
mod status;
mod support;
mod trouble;
mod without_bpf;
