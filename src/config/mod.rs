//! suture's own configuration, `/etc/suture/suture.toml`. Each table belongs to one subject; what is not understood is
//! refused with its line, because a word that is misspelt would otherwise mean its opposite.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::decide::RepairPolicy;

/// Where it is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/suture/suture.toml";
/// Longest file that is read.
const LONGEST: u64 = 1 << 20;

/// Everything that can be configured, with what is shipped where the file says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is done about findings, by class: `wedge = "auto"`, `foreign-thin = "observe"`.
    pub repair: RepairPolicy,
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

impl Config {
    /// Reads a file that a person named.
    pub fn read(path: &Path) -> Result<Self, ConfigFileError> {
        let failed = |source| ConfigFileError::Read {
            path: path.to_owned(),
            source,
        };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > LONGEST {
            return Err(failed(io::Error::other(format!("it has {size} bytes"))));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|problem| ConfigFileError::Parse {
            path: path.to_owned(),
            problem,
        })
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

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or(text);
                format!("line {}: ", before.matches('\n').count() + 1)
            });
            format!(
                "{}{}",
                line.unwrap_or_default(),
                error.message().replace('\n', " ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decide::Handling, model::FindingClass};

    #[test]
    fn what_is_not_said_is_as_shipped() {
        let config = Config::parse("").unwrap();
        assert_eq!(config, Config::default());
        for class in FindingClass::ALL {
            let expected = match class {
                FindingClass::ForeignThin => Handling::Observe,
                _ => Handling::Auto,
            };
            assert_eq!(config.repair.of(class), expected, "{class}");
        }
    }

    #[test]
    fn a_class_is_handled_as_the_file_says() {
        let config = Config::parse("[repair]\nwedge = \"observe\"\nforeign-thin = \"auto\"\n").unwrap();
        assert_eq!(config.repair.of(FindingClass::Wedge), Handling::Observe);
        assert_eq!(config.repair.of(FindingClass::ForeignThin), Handling::Auto);
        assert_eq!(config.repair.of(FindingClass::BurnedId), Handling::Auto);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, line, word) in [
            ("[repair]\n\nwedge = \"atuo\"\n", "line 3", "atuo"),
            ("[repair]\nwegde = \"auto\"\n", "line 2", "wegde"),
            ("\n\n[repairs]\nwedge = \"auto\"\n", "line 3", "repairs"),
            ("[repair\n", "line 1", ""),
            ("repair = 3\n", "line 1", ""),
        ] {
            let problem = Config::parse(text).unwrap_err();
            assert!(problem.starts_with(line), "{problem}");
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suture.toml");
        assert!(matches!(Config::read(&path), Err(ConfigFileError::Read { .. })));
        fs::write(&path, "[repair]\nnothing = 1\n").unwrap();
        let said = Config::read(&path).unwrap_err().to_string();
        assert!(said.contains("line 2") && said.contains("suture.toml"), "{said}");
    }
}
