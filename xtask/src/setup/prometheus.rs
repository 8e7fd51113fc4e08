//! Prometheus' own checker of metrics and rules, `promtool`. Only that one program is kept of Debian's package.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::step::{Step, Workshop, remove_folder};
use super::unpack;

const PACKAGE: &str = "prometheus";

/// Gives the program.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    let folder = Step {
        name: "prometheus",
        recipe: "1",
        about: "promtool",
    }
    .ensure(
        workshop,
        || {
            // A Go program: of what the package needs, it needs the C library of any machine.
            let mut packages = workshop.apt.closure(&[PACKAGE])?;
            packages.retain(|package| package.name == PACKAGE);
            Ok(packages)
        },
        |folder, packages| {
            let whole = folder.join("whole");
            std::fs::create_dir(&whole)?;
            unpack(&workshop.apt, packages, &whole)?;
            std::fs::rename(whole.join("usr/bin/promtool"), folder.join("promtool"))
                .context("Debian's package prometheus has no promtool")?;
            remove_folder(&whole)
        },
    )?;
    Ok(folder.join("promtool"))
}
