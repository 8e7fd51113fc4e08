//! Where suture's own configuration is.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, ConfigFileError, DEFAULT_PATH};

/// suture's own configuration.
#[derive(Debug, Args)]
pub(super) struct ConfigArgument {
    /// suture's own configuration; see `suture config default`.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, env = "SUTURE_CONFIG")]
    config: PathBuf,
}

impl ConfigArgument {
    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.config.clone()
    }

    /// What it says. The file in its usual place may be missing: then everything is as shipped.
    pub(super) fn read(&self) -> Result<Config, ConfigFileError> {
        Config::read_used(&self.config)
    }
}
