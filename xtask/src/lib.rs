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

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

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

/// Refuses to work on another tree than the one it is called in. The path of the workspace is compiled in: with a target folder
/// that two trees share, or one that was copied with its tree, the binary may be the other's.
pub fn ensure_called_at_home() -> Result<()> {
    // cargo sets it for what it runs.
    let by_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let called_in = match by_cargo {
        Some(xtask) => xtask.parent().map(Path::to_owned),
        None => env::current_dir()
            .ok()
            .and_then(|folder| workspace_around(&folder)),
    };
    match called_in {
        Some(called_in) => ensure_same(&workspace_root(), &called_in),
        None => Ok(()),
    }
}

/// The tree of suture's that a folder is in; nothing where it is in none.
fn workspace_around(folder: &Path) -> Option<PathBuf> {
    let is_root = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file();
    folder.ancestors().find(is_root).map(Path::to_owned)
}

fn ensure_same(built_of: &Path, called_in: &Path) -> Result<()> {
    // A tree that is gone is itself by its name alone.
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(built_of) == real(called_in) {
        return Ok(());
    }
    bail!(
        "this xtask was built of the tree {}, and would work on that one instead of {}, where it was called: the two share a \
         target folder, or it was copied. Give each tree a target folder of its own (CARGO_TARGET_DIR), or run \
         `cargo clean --package xtask` here and then try again",
        built_of.display(),
        called_in.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_on_the_tree_that_it_is_called_in_and_on_no_other() {
        let here = workspace_root();
        assert_eq!(workspace_around(&here.join("xtask/src")).unwrap(), here);
        assert_eq!(workspace_around(Path::new("/")), None);
        ensure_same(&here, &here.join("src/..")).unwrap();
        let other = tempfile::tempdir().unwrap();
        let said = ensure_same(&here, other.path()).unwrap_err().to_string();
        for part in [here.as_path(), other.path()] {
            assert!(said.contains(&*part.to_string_lossy()), "{said}");
        }
        ensure_same(Path::new("/no/such/tree"), &here).unwrap_err();
    }
}
