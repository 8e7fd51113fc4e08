//! bpftrace, which benchmarks hold suture's probes against. Unpacked, never installed; fetched when it is first wanted.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::apt::is_for_prefix;
use super::step::Step;
use super::{lock, qemu::tool, unpack, workshop};

/// bpftrace as a command, ready for its arguments.
pub fn bpftrace() -> Result<Command> {
    let _lock = lock()?;
    let workshop = workshop(false);
    let folder: PathBuf = Step {
        name: "bpftrace",
        recipe: "1",
        about: "bpftrace, to compare with",
    }
    .ensure(
        &workshop,
        || {
            let mut packages = workshop.apt.closure(&["bpftrace"])?;
            packages.retain(|package| is_for_prefix(package, &["bpftrace", "zlib1g"]));
            Ok(packages)
        },
        |folder, packages| unpack(&workshop.apt, packages, folder),
    )?;
    Ok(tool(&folder, "usr/bin/bpftrace"))
}
