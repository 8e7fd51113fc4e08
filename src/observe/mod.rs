//! Facts, with a time and a source: from the kernel's probes, device-mapper's ioctls and the snapshotter's databases.
//! This room only reads. It takes no lock that containerd could wait for, and changes nothing anywhere.
//! What it reads comes from outside: every parser here answers damage with an error, never with a panic.

pub mod bbolt;
pub mod cgroups;
pub mod containerd;
pub mod core_db;
pub mod databases;
pub mod device_mapper;
pub mod kernel_watch;
mod little_endian;
pub mod pool_db;
pub mod probes;
pub mod snapshot_db;
pub mod thin_metadata;
pub mod topology;
pub mod without_bpf;
pub mod world;
