//! Where containerd's configuration says that the devmapper snapshotter keeps its things.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{model::PoolName, observe::world::Places};

/// Root where the configuration does not name one (`DefaultRootDir`, `defaults/defaults_unix.go`).
const DEFAULT_ROOT: &str = "/var/lib/containerd";
/// Folder of a plugin below the root (cmd/containerd/server/server.go).
const PLUGIN: &str = "io.containerd.snapshotter.v1.devmapper";

/// Why the configuration does not tell.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "reading containerd's configuration {path}; name another with --containerd-config, or the pool and its folder with --pool and --root-path"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what containerd reads.
    #[error("understanding containerd's configuration {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// The snapshotter is not configured.
    #[error(
        "containerd's configuration {path} names no pool for its devmapper snapshotter (`pool_name` under [plugins.\"{PLUGIN}\"]); there is nothing for suture to watch"
    )]
    NoPool {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Debug, Deserialize)]
struct File {
    root: Option<PathBuf>,
    #[serde(default)]
    plugins: Plugins,
}

#[derive(Debug, Default, Deserialize)]
struct Plugins {
    #[serde(rename = "io.containerd.snapshotter.v1.devmapper")]
    devmapper: Option<Section>,
    /// The key of version 1 files.
    #[serde(rename = "devmapper")]
    version_1: Option<Section>,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    pool_name: Option<String>,
    root_path: Option<PathBuf>,
}

/// What the configuration says of the snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devmapper {
    /// Pool and folder.
    pub places: Places,
    /// containerd's own folder, `root`.
    pub root: PathBuf,
}

impl Devmapper {
    /// containerd's own database (`plugins/metadata/plugin.go`): what clients call things.
    #[must_use]
    pub fn core_db(&self) -> PathBuf {
        self.root.join("io.containerd.metadata.v1.bolt/meta.db")
    }
}

/// Reads a configuration file of containerd's (versions 1 to 3 keep the snapshotter's section under these names).
pub fn read_config(path: &Path) -> Result<Devmapper, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Devmapper, ConfigError> {
    let file: File = toml::from_str(text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let section = file
        .plugins
        .devmapper
        .or(file.plugins.version_1)
        .unwrap_or_default();
    let pool = section.pool_name.filter(|name| !name.is_empty());
    let pool = pool.ok_or_else(|| ConfigError::NoPool {
        path: path.to_owned(),
    })?;
    let root = file.root.filter(|path| !path.as_os_str().is_empty());
    let root = root.unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
    let root_path = section.root_path.filter(|path| !path.as_os_str().is_empty());
    Ok(Devmapper {
        places: Places {
            pool: PoolName::new(pool),
            root: root_path.unwrap_or_else(|| root.join(PLUGIN)),
        },
        root,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_and_its_folder_are_found() {
        let text = "version = 2\nroot = \"/data/containerd\"\n[plugins]\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = \"tp\"\nbase_image_size = \"8GB\"\n";
        let places = parse(Path::new("c"), text).unwrap().places;
        assert_eq!(places.pool, PoolName::new("tp"));
        assert_eq!(
            places.root,
            Path::new("/data/containerd/io.containerd.snapshotter.v1.devmapper")
        );
        assert_eq!(
            places.pool_db(),
            Path::new("/data/containerd/io.containerd.snapshotter.v1.devmapper/tp.db")
        );
        let core = parse(Path::new("c"), text).unwrap().core_db();
        assert_eq!(
            core,
            Path::new("/data/containerd/io.containerd.metadata.v1.bolt/meta.db")
        );
        let rootless = parse(Path::new("c"), &text.replace("/data/containerd", "")).unwrap();
        assert_eq!(rootless.root, Path::new(DEFAULT_ROOT));
        let named = parse(Path::new("c"), &format!("{text}root_path = \"/dm\"\n"))
            .unwrap()
            .places;
        assert_eq!(named.snapshot_db(), Path::new("/dm/metadata.db"));
    }

    #[test]
    fn a_configuration_without_the_snapshotter_is_said_so() {
        assert!(matches!(
            parse(Path::new("c"), "version = 2\n"),
            Err(ConfigError::NoPool { .. })
        ));
        let disabled = "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = \"\"\n";
        assert!(matches!(
            parse(Path::new("c"), disabled),
            Err(ConfigError::NoPool { .. })
        ));
        assert!(matches!(
            parse(Path::new("c"), "version = "),
            Err(ConfigError::Parse { .. })
        ));
    }
}
