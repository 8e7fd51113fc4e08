//! Where the snapshotter keeps its things: from containerd's configuration, or named one by one.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;

use super::CliError;
use crate::{
    model::PoolName,
    observe::{
        containerd::{ConfigError, Devmapper, read_config},
        world::Places,
    },
    words::explain,
};

/// Where containerd looks itself (`defaults/defaults_unix.go`).
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

/// Where the snapshotter keeps its things.
#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    /// containerd's configuration, which tells pool and folder [default: /etc/containerd/config.toml].
    #[arg(long, value_name = "FILE")]
    containerd_config: Option<PathBuf>,
    /// dm name of the thin pool, instead of the configuration's.
    #[arg(long, value_name = "NAME", requires = "root_path")]
    pool: Option<String>,
    /// Folder of the snapshotter's databases, instead of the configuration's.
    #[arg(long, value_name = "FOLDER", requires = "pool")]
    root_path: Option<PathBuf>,
}

/// The databases that can be watched.
#[derive(Debug)]
pub(super) struct Databases {
    pub(super) places: Places,
    /// containerd's meta.db, where the configuration tells it.
    pub(super) core: Option<PathBuf>,
}

impl PlaceArguments {
    /// The databases, for a command that needs them: an error where pool and folder are not known.
    pub(super) fn required(&self) -> Result<Databases, CliError> {
        let config = read_config(self.config());
        let core = config.as_ref().ok().map(Devmapper::core_db);
        let places = match self.named() {
            Some(places) => places,
            None => config?.places,
        };
        Ok(Databases { places, core })
    }

    /// The databases, for a command that can do without: none where nothing was named and containerd's configuration
    /// is not in its usual place, or tells of no pool.
    pub(super) fn databases(&self) -> Result<Option<Databases>, CliError> {
        let config = match read_config(self.config()) {
            Ok(config) => Some(config),
            Err(error) if self.containerd_config.is_some() => return Err(error.into()),
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if self.pool.is_none() {
                    eprintln!("suture: without containerd's databases: {}", explain(&error));
                }
                None
            }
        };
        let core = config.as_ref().map(Devmapper::core_db);
        let places = self.named().or_else(|| config.map(|config| config.places));
        Ok(places.map(|places| Databases { places, core }))
    }

    fn config(&self) -> &Path {
        self.containerd_config
            .as_deref()
            .unwrap_or_else(|| Path::new(DEFAULT_CONFIG))
    }

    fn named(&self) -> Option<Places> {
        Some(Places {
            pool: PoolName::new(self.pool.clone()?),
            root: self.root_path.clone()?,
        })
    }
}
