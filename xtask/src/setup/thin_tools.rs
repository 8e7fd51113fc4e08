//! The tools for thin-pool metadata, of the same version as in the test VM: for large pools that benchmarks read, and for
//! comparing with. Unpacked, never installed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::apt::is_for_prefix;
use super::step::{Step, Workshop};
use super::{qemu, unpack};

const PACKAGE: &str = "thin-provisioning-tools";

/// Gives the folder with the programs.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    Step {
        name: "thin-tools",
        recipe: "1",
        about: "the tools for thin-pool metadata",
    }
    .ensure(
        workshop,
        || {
            let mut packages = workshop.apt.closure(&[PACKAGE])?;
            packages.retain(|package| is_for_prefix(package, &[PACKAGE]));
            Ok(packages)
        },
        |folder, packages| unpack(&workshop.apt, packages, folder),
    )
}

/// One of them, such as `thin_restore`.
pub(super) fn tool(folder: &std::path::Path, name: &str) -> Command {
    qemu::tool(folder, &format!("usr/sbin/{name}"))
}
