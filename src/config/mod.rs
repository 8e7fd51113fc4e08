//! suture's own configuration, `/etc/suture/suture.toml`. `keys` and `lists` have every key, `read` and `text` go by them;
//! `fault` says where something is wrong. What is not understood is refused with its line, because a word that is misspelt
//! would otherwise mean its opposite.

mod fault;
mod keys;
mod lists;
mod read;
#[cfg(test)]
mod tests;
mod text;
mod values;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use fault::{Fault, Place};

use crate::{
    decide::{HealingPolicy, RepairPolicy},
    model::Bytes,
};

/// A time as a person writes it, such as `15s`, `10m`, `24h` or `90d`; or why it is none.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    values::time(text)
}

/// Where it is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/suture/suture.toml";
/// Longest file that is read.
const LONGEST: u64 = 1 << 20;

/// Everything that can be configured, with what is shipped where the file says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// What `suture repair` does about findings, by class: `wedge = "auto"`, `foreign-thin = "observe"`.
    pub repair: RepairPolicy,
    /// What the running sidecar heals, how often and when. It has the same `repair`.
    pub policy: HealingPolicy,
    /// What is kept.
    pub ledger: LedgerSettings,
    /// Who may talk to a running suture.
    pub control: ControlSettings,
}

/// What the ledger keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSettings {
    /// How long.
    pub keep_for: Duration,
    /// How large it may become.
    pub largest: Bytes,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            keep_for: Duration::from_hours(90 * 24),
            largest: Bytes(256 << 20),
        }
    }
}

/// Who may talk to a running suture, beside root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlSettings {
    /// Members of this group; nothing where only root may.
    pub group: Option<String>,
}

/// Why the configuration can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It can not be read.
    #[error("reading suture's configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what suture understands.
    #[error("understanding suture's configuration {path}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What, and in which line.
        problem: String,
    },
}

/// A configuration file that was looked at: its text, and what is wrong or odd in it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its text.
    pub text: String,
    /// What it says and what is odd about it; or everything that is wrong with it.
    pub result: Result<(Config, Vec<Fault>), Vec<Fault>>,
}

/// The kill switch, while it is there or can not be looked for: a plain sentence.
#[must_use]
pub fn kill_switch(path: &Path) -> Option<String> {
    match path.try_exists() {
        Ok(false) => None,
        Ok(true) => Some(format!(
            "the kill switch {} is there; remove it to let suture go on",
            path.display()
        )),
        Err(error) => Some(format!(
            "whether the kill switch {} is there can not be told: {error}",
            path.display()
        )),
    }
}

impl Config {
    /// Reads a file that a person named.
    pub fn read(path: &Path) -> Result<Self, ConfigFileError> {
        let checked = Self::check(path)?;
        let problem = |faults: &Vec<Fault>| {
            let mut lines = faults.iter().map(|fault| fault.line(&checked.text));
            let first = lines.next().unwrap_or_default();
            match lines.count() {
                0 => first,
                more => format!("{first} (and {more} more: `suture config check`)"),
            }
        };
        match &checked.result {
            Ok((config, _)) => Ok(config.clone()),
            Err(faults) => Err(ConfigFileError::Parse {
                path: path.to_owned(),
                problem: problem(faults),
            }),
        }
    }

    /// Reads the file that is used; only in its usual place it may be missing.
    pub fn read_used(path: &Path) -> Result<Self, ConfigFileError> {
        if path == Path::new(DEFAULT_PATH) {
            Self::read_default()
        } else {
            Self::read(path)
        }
    }

    /// Reads the file in its usual place; without one everything is as shipped.
    pub fn read_default() -> Result<Self, ConfigFileError> {
        match Self::read(Path::new(DEFAULT_PATH)) {
            Err(ConfigFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            other => other,
        }
    }

    /// Reads a file and says everything that is wrong with it.
    pub fn check(path: &Path) -> Result<Checked, ConfigFileError> {
        let failed = |source| ConfigFileError::Read {
            path: path.to_owned(),
            source,
        };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > LONGEST {
            return Err(failed(io::Error::other(format!("it has {size} bytes"))));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Ok(Checked {
            result: read::read(&text),
            text,
        })
    }

    /// As the file would say it, every key explained.
    #[must_use]
    pub fn text(&self) -> String {
        text::text(self)
    }
}
