//! Where the snapshotter keeps its things: from containerd's configuration, or named one by one.

use std::{io, path::PathBuf};

use clap::Args;

use super::CliError;
use crate::{
    model::PoolName,
    observe::{
        containerd::{ConfigError, Devmapper, discover},
        survey::SurveyPlaces,
        world::Places,
    },
    words::explain,
};

/// Where the snapshotter keeps its things.
#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    /// containerd's configuration, which tells pool and folder [default: that of the running containerd, or
    /// /etc/containerd/config.toml].
    #[arg(long, value_name = "FILE")]
    pub(super) containerd_config: Option<PathBuf>,
    /// dm name of the thin pool, instead of the configuration's.
    #[arg(long, value_name = "NAME", requires = "root_path")]
    pub(super) pool: Option<String>,
    /// Folder of the snapshotter's databases, instead of the configuration's.
    #[arg(long, value_name = "FOLDER", requires = "pool")]
    pub(super) root_path: Option<PathBuf>,
}

/// What a check looks at.
#[derive(Debug, Args)]
pub(super) struct SurveyArguments {
    #[command(flatten)]
    pub(super) places: PlaceArguments,
    /// The pool's metadata device, or a copy of it: for a pool that is not set up.
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_device: Option<PathBuf>,
}

impl SurveyArguments {
    /// Where everything is.
    pub(super) fn survey_places(&self) -> Result<SurveyPlaces, CliError> {
        Ok(SurveyPlaces {
            metadata_device: self.metadata_device.clone(),
            ..self.places.survey_places()?
        })
    }
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
        let config = self.discover();
        match self.named() {
            Some(places) => {
                let core = self.core_db(&places, config.as_ref().ok());
                Ok(Databases { places, core })
            }
            None => Ok(of_config(config?)),
        }
    }

    /// The databases, for a command that can do without: none where nothing was named and containerd's configuration
    /// is not in its usual place, or tells of no pool.
    pub(super) fn databases(&self) -> Result<Option<Databases>, CliError> {
        let config = match self.discover() {
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
        Ok(match self.named() {
            Some(places) => {
                let core = self.core_db(&places, config.as_ref());
                Some(Databases { places, core })
            }
            None => config.map(of_config),
        })
    }

    /// What a survey reads. With pool and folder named, no configuration is needed; one that tells of another pool says
    /// nothing about this one.
    pub(super) fn survey_places(&self) -> Result<SurveyPlaces, CliError> {
        let config = self.discover();
        let Some(places) = self.named() else {
            let config = config?;
            return Ok(SurveyPlaces {
                core_db: Some(config.core_db()),
                async_remove: Some(config.async_remove),
                places: config.places,
                metadata_device: None,
            });
        };
        let config = match config {
            // A file that was named is to be read.
            Err(error) if self.containerd_config.is_some() && !is_without_pool(&error) => {
                return Err(error.into());
            }
            config => config.ok(),
        };
        let same = config.as_ref().filter(|config| config.places == places);
        Ok(SurveyPlaces {
            core_db: self.core_db(&places, config.as_ref()),
            async_remove: same.map(|config| config.async_remove),
            places,
            metadata_device: None,
        })
    }

    /// containerd's own database, for a pool and folder that were named: as the configuration says that was named or is
    /// of the same pool, or where it lies beside the snapshotter's folder by default.
    fn core_db(&self, places: &Places, config: Option<&Devmapper>) -> Option<PathBuf> {
        let config = config.filter(|config| self.containerd_config.is_some() || config.places == *places);
        config.map(Devmapper::core_db).or_else(|| {
            let beside = places
                .root
                .parent()?
                .join("io.containerd.metadata.v1.bolt/meta.db");
            beside.exists().then_some(beside)
        })
    }

    /// containerd's configuration. What is odd about it is told.
    fn discover(&self) -> Result<Devmapper, ConfigError> {
        let config = discover(self.containerd_config.as_deref())?;
        for warning in &config.warnings {
            eprintln!("suture: {}: {warning}", config.source);
        }
        Ok(config)
    }

    fn named(&self) -> Option<Places> {
        Some(Places {
            pool: PoolName::new(self.pool.clone()?),
            root: self.root_path.clone()?,
        })
    }
}

fn of_config(config: Devmapper) -> Databases {
    Databases {
        core: Some(config.core_db()),
        places: config.places,
    }
}

fn is_without_pool(error: &ConfigError) -> bool {
    matches!(error, ConfigError::NoPool { .. })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        survey: SurveyArguments,
    }

    fn found(arguments: &[&str]) -> Result<SurveyPlaces, CliError> {
        let words = ["check"].iter().chain(arguments);
        Command::try_parse_from(words).unwrap().survey.survey_places()
    }

    #[test]
    fn pool_and_folder_need_no_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("devmapper");
        let named = ["--pool", "tp", "--root-path", root.to_str().unwrap()];
        let places = found(&named).unwrap();
        assert_eq!(places.places.pool_db(), root.join("tp.db"));
        assert_eq!((places.core_db, places.async_remove), (None, None));

        let core = folder.path().join("io.containerd.metadata.v1.bolt");
        fs::create_dir(&core).unwrap();
        fs::write(core.join("meta.db"), b"").unwrap();
        assert_eq!(found(&named).unwrap().core_db, Some(core.join("meta.db")));
    }

    #[test]
    fn a_configuration_tells_all_of_its_own_pool_and_nothing_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        fs::write(&config, "version = 2\nroot = '/c'\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = 'tp'\nroot_path = '/dm'\nasync_remove = true\n").unwrap();
        let config = config.to_str().unwrap();
        let all = found(&["--containerd-config", config, "--metadata-device", "/dev/x"]).unwrap();
        assert_eq!(all.async_remove, Some(true));
        assert_eq!(
            all.core_db.as_deref(),
            Some(Path::new("/c/io.containerd.metadata.v1.bolt/meta.db"))
        );
        assert_eq!(all.metadata_device.as_deref(), Some(Path::new("/dev/x")));
        let same = found(&[
            "--containerd-config",
            config,
            "--pool",
            "tp",
            "--root-path",
            "/dm",
        ])
        .unwrap();
        assert_eq!(same.async_remove, Some(true));
        let other = found(&[
            "--containerd-config",
            config,
            "--pool",
            "other",
            "--root-path",
            "/dm",
        ])
        .unwrap();
        assert_eq!(other.async_remove, None);
        assert_eq!(
            other.core_db.as_deref(),
            Some(Path::new("/c/io.containerd.metadata.v1.bolt/meta.db"))
        );
        fs::write(config, "=").unwrap();
        assert!(
            found(&[
                "--containerd-config",
                config,
                "--pool",
                "tp",
                "--root-path",
                "/dm"
            ])
            .is_err()
        );
        assert!(found(&["--containerd-config", "/nowhere.toml"]).is_err());
    }
}
