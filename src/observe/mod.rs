//! Facts, with a time and a source: from the kernel's probes, device-mapper's ioctls and the snapshotter's databases.
//! This room only reads. It takes no lock that containerd could wait for, and changes nothing anywhere.
//! What it reads comes from outside: every parser here answers damage with an error, never with a panic.
//! Only what parses bytes is there without features: a replay needs no more. What reads files comes with `readers`, what
//! asks a machine with `node`.

pub mod bbolt;
#[cfg(feature = "node")]
pub mod cgroups;
#[cfg(feature = "readers")]
pub mod containerd;
#[cfg(feature = "readers")]
pub mod core_db;
#[cfg(feature = "node")]
pub mod databases;
#[cfg(feature = "node")]
pub mod device_mapper;
#[cfg(feature = "node")]
mod kept;
#[cfg(feature = "node")]
pub mod kernel_watch;
mod little_endian;
#[cfg(feature = "node")]
pub mod lost;
#[cfg(feature = "readers")]
pub mod mounts;
#[cfg(feature = "readers")]
pub mod outline;
pub mod pages;
#[cfg(feature = "readers")]
pub mod places;
pub mod pool_db;
#[cfg(feature = "readers")]
pub mod pool_status;
#[cfg(feature = "node")]
mod privileges;
#[cfg(feature = "node")]
pub mod probes;
#[cfg(feature = "readers")]
mod row_index;
pub mod snapshot_db;
#[cfg(feature = "node")]
pub mod survey;
#[cfg(feature = "readers")]
pub mod thin_metadata;
#[cfg(feature = "node")]
pub mod topology;
#[cfg(feature = "node")]
pub mod watch_thread;
#[cfg(feature = "node")]
pub mod without_bpf;
#[cfg(feature = "node")]
pub mod world;
