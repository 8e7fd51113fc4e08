//! Why containerd's configuration does not tell.

use std::{io, path::PathBuf};

use super::PLUGIN;

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
    /// A file that another one imports is at fault: containerd itself would not start with it.
    #[error("{importing} imports {path}")]
    Import {
        /// The file with the import.
        importing: PathBuf,
        /// The file that is imported.
        path: PathBuf,
        /// What is wrong with that.
        source: Box<ConfigError>,
    },
    /// An import that is no pattern of names.
    #[error("{importing} imports `{pattern}`, which is no pattern of file names")]
    Pattern {
        /// The file with the import.
        importing: PathBuf,
        /// The pattern, made printable.
        pattern: String,
        /// Why.
        source: glob::PatternError,
    },
    /// More files than any configuration has.
    #[error("{path} imports more than {limit} files")]
    TooMany {
        /// The first file.
        path: PathBuf,
        /// How many are read.
        limit: usize,
    },
    /// The snapshotter is not configured.
    #[error(
        "containerd's configuration {path} names no pool for its devmapper snapshotter (`pool_name` under [plugins.\"{PLUGIN}\"]); there is nothing for suture to watch{hint}"
    )]
    NoPool {
        /// The file.
        path: PathBuf,
        /// What may help.
        hint: String,
    },
    /// More than one containerd with a pool.
    #[error(
        "more than one containerd runs with a devmapper snapshotter: {}; name the configuration of the one that is meant with --containerd-config",
        .running.join(", ")
    )]
    Several {
        /// Each with its configuration.
        running: Vec<String>,
    },
    /// Only containerds that see other files than this process does.
    #[error(
        "the only containerd that runs sees other files than suture does: {}; if that one is meant, name its configuration with --containerd-config",
        .running.join(", ")
    )]
    Elsewhere {
        /// Each with its configuration as it can be read from here.
        running: Vec<String>,
    },
}
