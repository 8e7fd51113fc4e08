//! What each fuzz target does; the targets themselves only hand the bytes over.
#![allow(
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "a panic is what a fuzz target answers with"
)]

#[allow(
    dead_code,
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "the tests' own"
)]
#[path = "../../tests/shared/bbolt_file.rs"]
mod bbolt_file;
mod bounds;
mod changed;
mod editor;
#[allow(
    dead_code,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "the tests' own"
)]
#[path = "../../tests/shared/page_map.rs"]
mod page_map;
mod readers;
mod text;
mod thin;
#[allow(
    dead_code,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "the tests' own"
)]
#[path = "../../tests/shared/thin_image.rs"]
mod thin_image;

pub use changed::bbolt_changed;
pub use editor::bbolt_editor;
pub use readers::{core_db, pool_db, snapshot_db};
pub use text::{containerd_config, dm_status, mountinfo};
pub use thin::{thin_changed, thin_metadata};
