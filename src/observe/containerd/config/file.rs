//! One configuration file, and how several become one.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, PLUGIN};

/// The newest version that is known (`version.ConfigVersion`): 3 is of containerd 2.0, 4 of 2.3.
const NEWEST_VERSION: i64 = 4;

/// What one file says, as far as it matters. Everything else in it is other plugins'.
#[derive(Debug, Default, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) version: i64,
    #[serde(default)]
    pub(super) imports: Vec<PathBuf>,
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    #[serde(default)]
    disabled_plugins: Vec<String>,
    #[serde(default)]
    grpc: Server,
    #[serde(default)]
    plugins: Plugins,
}

#[derive(Debug, Default, Deserialize)]
struct Plugins {
    #[serde(rename = "io.containerd.snapshotter.v1.devmapper")]
    devmapper: Option<Section>,
    /// The key of version 1 files (`v1MigratePluginName`).
    #[serde(rename = "devmapper")]
    version_1: Option<Section>,
    /// Where version 4 has the socket.
    #[serde(rename = "io.containerd.server.v1.grpc", default)]
    grpc: Server,
}

#[derive(Debug, Default, Deserialize)]
struct Server {
    address: Option<PathBuf>,
}

/// The snapshotter's section (`Config`, plugins/snapshots/devmapper/config.go).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Section {
    pub(super) pool_name: Option<String>,
    pub(super) root_path: Option<PathBuf>,
    pub(super) async_remove: Option<bool>,
}

/// What all files say together.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) root: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) address: Option<PathBuf>,
    pub(super) disabled_plugins: Vec<String>,
    /// The section as containerd 2 merges it: key by key.
    pub(super) merged: Section,
    /// The section as containerd 1.x merges it: the last one as a whole.
    pub(super) replaced: Section,
    /// Set when the first file is of a version that only containerd 2 reads.
    pub(super) is_of_2: bool,
    /// Set when a section is under a key that its file's version does not have.
    pub(super) has_short_key: bool,
    pub(super) warnings: Vec<String>,
}

impl File {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

impl Settings {
    /// Adds a file, as `mergeConfig` does: what it says overrides what was said before, an empty text says nothing.
    pub(super) fn add(&mut self, path: &Path, file: File, is_first: bool) {
        let take = |to: &mut Option<PathBuf>, from: Option<PathBuf>| {
            if let Some(from) = from.filter(|path| !path.as_os_str().is_empty()) {
                *to = Some(from);
            }
        };
        if is_first {
            self.is_of_2 = file.version >= 3;
        }
        if file.version > NEWEST_VERSION {
            self.warnings.push(format!(
                "{} is of version {}, which suture does not know yet; it is read as version {NEWEST_VERSION}",
                path.display(),
                file.version
            ));
        }
        take(&mut self.root, file.root);
        take(&mut self.state, file.state);
        take(&mut self.address, file.grpc.address);
        take(&mut self.address, file.plugins.grpc.address);
        let names = file.disabled_plugins.into_iter();
        self.disabled_plugins
            .extend(names.map(|name| match name.as_str() {
                "devmapper" if file.version <= 1 => PLUGIN.to_owned(),
                _ => name,
            }));
        let short = file.plugins.version_1;
        let section = if file.version <= 1 {
            short.or(file.plugins.devmapper)
        } else {
            self.has_short_key |= short.is_some();
            file.plugins.devmapper
        };
        if let Some(section) = section {
            self.replaced = section.clone();
            let before = std::mem::take(&mut self.merged);
            self.merged = Section {
                pool_name: section.pool_name.or(before.pool_name),
                root_path: section.root_path.or(before.root_path),
                async_remove: section.async_remove.or(before.async_remove),
            };
        }
    }
}
