//! Where containerd's configuration says that the devmapper snapshotter keeps its things.

mod discover;
mod error;
mod file;
mod imports;
mod running;
mod view;

use std::path::{Path, PathBuf};

pub use discover::discover;
pub use error::ConfigError;

use self::{
    file::{Section, Settings},
    view::View,
};
use super::arguments::Arguments;
use crate::{model::PoolName, observe::world::Places};

/// Where containerd looks itself (`defaults/defaults_unix.go`).
pub const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";
/// Root where the configuration does not name one (`DefaultRootDir`, `defaults/defaults_unix.go`).
const DEFAULT_ROOT: &str = "/var/lib/containerd";
/// Folder for what does not outlive a boot, where the configuration does not name one (`DefaultStateDir`).
const DEFAULT_STATE: &str = "/run/containerd";
/// Socket where the configuration does not name one (`DefaultAddress`).
const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";
/// Folder of a plugin below the root (cmd/containerd/server/server.go), and its key in a configuration.
const PLUGIN: &str = "io.containerd.snapshotter.v1.devmapper";

/// What the configuration says of the snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devmapper {
    /// Pool and folder.
    pub places: Places,
    /// containerd's own folder, `root`.
    pub root: PathBuf,
    /// Its folder for what does not outlive a boot, `state`.
    pub state: PathBuf,
    /// Its socket.
    pub address: PathBuf,
    /// Whether removed snapshots wait for a clean-up of containerd's (`async_remove`).
    pub async_remove: bool,
    /// How all of this was found, for people.
    pub source: String,
    /// What is odd about it, for people.
    pub warnings: Vec<String>,
}

impl Devmapper {
    /// containerd's own database (`plugins/metadata/plugin.go`): what clients call things.
    #[must_use]
    pub fn core_db(&self) -> PathBuf {
        self.root.join("io.containerd.metadata.v1.bolt/meta.db")
    }
}

/// Reads a configuration file of containerd's with all that it imports.
pub fn read_config(path: &Path) -> Result<Devmapper, ConfigError> {
    let (view, path) = View::of_path(path);
    read_as(&view, &path, &Arguments::default(), path.display().to_string())
}

/// Reads a configuration as a containerd with these arguments does (`applyFlags`, cmd/containerd/command/main.go).
fn read_as(
    view: &View,
    path: &Path,
    arguments: &Arguments,
    source: String,
) -> Result<Devmapper, ConfigError> {
    let settings = imports::load(view, path)?;
    let root = first(arguments.root.as_ref(), settings.root.as_ref(), DEFAULT_ROOT);
    let mut warnings = settings.warnings.clone();
    let section = section(view, &settings, &root, &mut warnings);
    let pool = section.pool_name.as_deref().filter(|name| !name.is_empty());
    let Some(pool) = pool else {
        return Err(ConfigError::NoPool {
            path: path.to_owned(),
            hint: no_pool_hint(view, &settings, &root),
        });
    };
    if settings.disabled_plugins.iter().any(|plugin| plugin == PLUGIN) {
        warnings.push(format!(
            "{} switches the devmapper snapshotter off (`disabled_plugins`)",
            path.display()
        ));
    }
    if let Some(folder) = view.prefix() {
        warnings.push(format!(
            "containerd's files are seen through {}, for they are not in this process's own file system",
            folder.display()
        ));
    }
    Ok(Devmapper {
        places: Places {
            pool: PoolName::new(pool),
            root: view.real(&folder(&section, &root)),
        },
        state: view.real(&first(
            arguments.state.as_ref(),
            settings.state.as_ref(),
            DEFAULT_STATE,
        )),
        address: view.real(&first(
            arguments.address.as_ref(),
            settings.address.as_ref(),
            DEFAULT_ADDRESS,
        )),
        root: view.real(&root),
        async_remove: section.async_remove.unwrap_or_default(),
        source,
        warnings,
    })
}

fn first(argument: Option<&PathBuf>, setting: Option<&PathBuf>, default: &str) -> PathBuf {
    let named = [argument, setting].into_iter().flatten();
    let mut named = named.filter(|path| !path.as_os_str().is_empty());
    named.next().cloned().unwrap_or_else(|| PathBuf::from(default))
}

/// Where the snapshotter's databases are.
fn folder(section: &Section, root: &Path) -> PathBuf {
    let named = section
        .root_path
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty());
    named.cloned().unwrap_or_else(|| root.join(PLUGIN))
}

/// The snapshotter's section. Until 1.7 a section of an imported file replaces the whole one before it; since 2.0 it is
/// merged key by key (containerd#9982). Which containerd runs is not written in a configuration of version 2, so where
/// the two differ, the one whose database exists is taken.
fn section(view: &View, settings: &Settings, root: &Path, warnings: &mut Vec<String>) -> Section {
    let (merged, replaced) = (&settings.merged, &settings.replaced);
    if merged == replaced || settings.is_of_2 {
        return merged.clone();
    }
    let exists = |section: &Section| {
        section.pool_name.as_deref().is_some_and(|pool| {
            let database = folder(section, root).join(format!("{pool}.db"));
            !pool.is_empty() && view.real(&database).exists()
        })
    };
    let (taken, how) = match (exists(merged), exists(replaced)) {
        (false, true) => (
            replaced,
            "as containerd 1.x reads them: the last file's section replaces the others",
        ),
        _ => (merged, "as containerd 2 reads them: merged key by key"),
    };
    warnings.push(format!(
        "several files have a section [plugins.\"{PLUGIN}\"]; they are taken {how}"
    ));
    taken.clone()
}

/// What may help where no pool is named.
fn no_pool_hint(view: &View, settings: &Settings, root: &Path) -> String {
    let mut hint = String::new();
    if settings.has_short_key {
        hint.push_str(
            "; it has a section [plugins.devmapper], which containerd reads only in files of version 1",
        );
    }
    let folder = view.real(&root.join(PLUGIN));
    if let Some(pool) = pool_beside(&folder) {
        let folder = folder.display();
        let exists = format!(
            "; but {folder}/{pool}.db exists: if that is the pool, name it with --pool {pool} --root-path {folder}"
        );
        hint.push_str(&exists);
    }
    hint
}

/// The name of a pool whose database is in a folder.
fn pool_beside(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pools: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(".db")?.escape_default().to_string()))
        .filter(|pool| pool != "metadata")
        .take(16)
        .collect();
    pools.sort_unstable();
    pools.into_iter().next()
}

#[cfg(test)]
mod tests;
