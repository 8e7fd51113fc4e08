//! What a developer of suture runs: `setup` makes a machine ready, [`vm`] boots a real kernel with a real containerd,
//! and `tasks` holds one file per command of `cargo xtask`.
//!
//! Nothing here is part of the agent. Errors are [`anyhow::Error`]s that read as a sentence: what was being done, to
//! what, and what to do next.

pub mod command;
pub mod setup;
pub mod tasks;
pub mod tracefs;
pub mod vm;

use std::path::{Path, PathBuf};

/// The folder that holds the workspace's `Cargo.toml`.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// `<workspace root>/target`, whatever `CARGO_TARGET_DIR` says: the set-up is to be found at one place by everybody,
/// the build script of suture included.
#[must_use]
pub fn target_dir() -> PathBuf {
    workspace_root().join("target")
}
