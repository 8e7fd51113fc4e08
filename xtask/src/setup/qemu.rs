//! The programs of the host's side of the VM: qemu, and two that handle kernel modules. Unpacked, never installed: as
//! an installed package this qemu could replace a newer one of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::apt::is_for_prefix;
use super::step::{Step, Workshop, remove_folder};
use super::unpack;

const PROGRAMS: &[&str] = &[
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
    "kmod",
    "xz-utils",
];

/// Gives the folder with the programs.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    Step {
        name: "tools",
        recipe: "3",
        about: "qemu",
    }
    .ensure(
        workshop,
        || {
            let mut packages = workshop.apt.closure(&["qemu-system-x86", "kmod", "xz-utils"])?;
            packages.retain(|package| is_for_prefix(package, PROGRAMS));
            Ok(packages)
        },
        |folder, packages| {
            unpack(&workshop.apt, packages, folder)?;
            for unused in ["doc", "man", "locale", "icons", "applications", "lintian", "i18n"] {
                remove_folder(&folder.join("usr/share").join(unused))?;
            }
            // One program with many names; the package's links lead to the machine's own folders.
            let depmod = folder.join("usr/sbin/depmod");
            let _ = std::fs::remove_file(&depmod);
            std::os::unix::fs::symlink("../bin/kmod", depmod)?;
            Ok(())
        },
    )
}

/// A command of `tools`, found by its path in there, with the libraries it came with.
#[must_use]
pub(crate) fn tool(tools: &Path, program: &str) -> Command {
    let mut command = Command::new(tools.join(program));
    command.env("LD_LIBRARY_PATH", tools.join("usr/lib/x86_64-linux-gnu"));
    command
}
