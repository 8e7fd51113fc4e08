//! One step of the set-up: a folder below `target/setup/` that is either complete or not there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Apt, Package};

/// The file in a step's folder that is written last and says what the folder was made from.
const STAMP: &str = ".made-from";

/// What every step gets.
pub(super) struct Workshop {
    /// `target/setup`.
    pub(super) base: PathBuf,
    /// The packages.
    pub(super) apt: Apt,
    /// Whether newer versions are to be looked for.
    pub(super) refresh: bool,
}

/// What a step is and how it is made.
pub(super) struct Step<'a> {
    /// The folder's name below `target/setup`.
    pub(super) name: &'a str,
    /// Changes whenever the step's code does, so that old folders are made anew.
    pub(super) recipe: &'a str,
    /// What is happening, for the person who waits, as in "the kernel 6.1".
    pub(super) about: &'a str,
}

impl Step<'_> {
    /// Gives the folder, after making it if it is missing, of another recipe, or (on a refresh) of other versions than
    /// `resolve` now finds. `build` fills an empty folder, which takes its place only when complete.
    pub(super) fn ensure(
        &self,
        context: &Workshop,
        resolve: impl FnOnce() -> Result<Vec<Package>>,
        build: impl FnOnce(&Path, &[Package]) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = context.base.join(self.name);
        let stamp = std::fs::read_to_string(folder.join(STAMP)).unwrap_or_default();
        let of_this_recipe = stamp.lines().next() == Some(self.recipe);
        if of_this_recipe && !context.refresh {
            return Ok(folder);
        }
        let packages = resolve()?;
        let made_from = describe(self.recipe, &packages);
        if stamp == made_from {
            return Ok(folder);
        }
        eprintln!("setup: making {}", self.about);
        let begun = std::time::Instant::now();
        // The caller holds the lock, so whatever lies there was left by a run that was stopped.
        let building = context.base.join(format!(".{}.building", self.name));
        remove_folder(&building)?;
        std::fs::create_dir_all(&building)?;
        build(&building, &packages).with_context(|| format!("setup: {} could not be made", self.about))?;
        std::fs::write(building.join(STAMP), made_from)?;
        remove_folder(&folder)?;
        std::fs::rename(&building, &folder)
            .with_context(|| format!("putting {} into its place", folder.display()))?;
        eprintln!("setup: made {} in {:.0?}", self.about, begun.elapsed());
        Ok(folder)
    }
}

/// Removes a folder with everything in it; that it is not there is fine.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn describe(recipe: &str, packages: &[Package]) -> String {
    let packages = packages
        .iter()
        .map(|package| format!("{}={}", package.name, package.version));
    let lines: Vec<String> = std::iter::once(recipe.to_owned()).chain(packages).collect();
    lines.join("\n") + "\n"
}

/// What a complete folder was made from.
pub(super) fn stamp(folder: &Path) -> Result<String> {
    let file = folder.join(STAMP);
    std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}
