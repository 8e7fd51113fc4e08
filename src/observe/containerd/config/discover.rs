//! Finds the configuration that counts: the named one, the running containerd's, or the one in the usual place.

use std::path::Path;

use super::{
    ConfigError, DEFAULT_CONFIG, Devmapper, View, read_as,
    running::{self, Running},
};
use crate::observe::containerd::arguments::Arguments;

/// Finds out what the snapshotter's places are, from the configuration at `named` or by itself.
pub fn discover(named: Option<&Path>) -> Result<Devmapper, ConfigError> {
    choose(named, running::find())
}

fn choose(named: Option<&Path>, running: Vec<Running>) -> Result<Devmapper, ConfigError> {
    if let Some(path) = named {
        let (view, theirs) = View::of_path(path);
        let user = running
            .iter()
            .find(|one| one.view.as_ref() == Some(&view) && one.config() == theirs);
        let (arguments, source) = match user {
            Some(one) => (one.arguments.clone(), told_by(one, path)),
            None => (Arguments::default(), path.display().to_string()),
        };
        return read_as(&view, &theirs, &arguments, source);
    }
    let mut found: Vec<(Running, Devmapper)> = Vec::new();
    let mut failed = None;
    let mut elsewhere = Vec::new();
    for one in running {
        let Some(view) = one.view.clone() else {
            elsewhere.push(format!(
                "{} (/proc/{}/root{})",
                one.pid,
                one.pid,
                one.config().display()
            ));
            continue;
        };
        let config = one.config();
        match read_as(&view, &config, &one.arguments, told_by(&one, &view.real(&config))) {
            Ok(devmapper) => found.push((one, devmapper)),
            Err(error) => {
                // One that fails tells more than one that has nothing to do with device-mapper.
                if failed.is_none() || !matches!(error, ConfigError::NoPool { .. }) {
                    failed = Some(error);
                }
            }
        }
    }
    let several = |found: &[(Running, Devmapper)]| ConfigError::Several {
        running: found
            .iter()
            .map(|(one, _)| format!("{} ({})", one.pid, one.config().display()))
            .collect(),
    };
    if let Some((_, first)) = found.first() {
        let same = found.iter().all(|(_, other)| other.places == first.places);
        return if same {
            Ok(first.clone())
        } else {
            Err(several(&found))
        };
    }
    // None that runs has a pool: docker's own, say, while the one with the pool is stopped.
    let path = Path::new(DEFAULT_CONFIG);
    match read_as(
        &View::default(),
        path,
        &Arguments::default(),
        path.display().to_string(),
    ) {
        Ok(devmapper) => Ok(devmapper),
        Err(error) => Err(match failed {
            Some(failed) => failed,
            None if !elsewhere.is_empty() && is_absent(&error) => {
                ConfigError::Elsewhere { running: elsewhere }
            }
            None => error,
        }),
    }
}

fn is_absent(error: &ConfigError) -> bool {
    matches!(error, ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn told_by(one: &Running, config: &Path) -> String {
    format!("the running containerd [{}] with {}", one.pid, config.display())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::model::PoolName;

    fn configuration(folder: &Path, name: &str, pool: &str) -> PathBuf {
        let path = folder.join(name);
        let text = format!(
            "version = 2\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = '{pool}'\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn running(pid: u32, config: &Path, view: Option<View>) -> Running {
        Running::of(
            pid,
            Arguments {
                config: Some(config.to_owned()),
                root: Some(PathBuf::from(format!("/root-of-{pid}"))),
                ..Arguments::default()
            },
            view,
        )
    }

    #[test]
    fn the_running_containerd_with_a_pool_is_taken_with_its_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let (tp, docker) = (
            configuration(folder.path(), "tp.toml", "tp"),
            configuration(folder.path(), "docker.toml", ""),
        );
        let here = || Some(View::default());
        let found = choose(None, vec![running(7, &docker, here()), running(8, &tp, here())]).unwrap();
        assert_eq!(found.places.pool, PoolName::new("tp"));
        assert_eq!(found.root, Path::new("/root-of-8"));
        assert!(found.source.contains("[8]"), "{}", found.source);

        let other = configuration(folder.path(), "other.toml", "other");
        let two = choose(None, vec![running(7, &other, here()), running(8, &tp, here())]).unwrap_err();
        let text = two.to_string();
        assert!(
            text.contains("7 (") && text.contains("8 (") && text.contains("--containerd-config"),
            "{text}"
        );
        let named = choose(
            Some(&other),
            vec![running(7, &other, here()), running(8, &tp, here())],
        )
        .unwrap();
        assert_eq!(
            (named.places.pool, named.root),
            (PoolName::new("other"), PathBuf::from("/root-of-7"))
        );
    }

    #[test]
    fn a_containerd_in_a_container_is_never_taken_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let fake = configuration(folder.path(), "fake.toml", "tp");
        if Path::new(DEFAULT_CONFIG).exists() {
            return;
        }
        let refused = choose(None, vec![running(7, &fake, None)]).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains(&format!("/proc/7/root{}", fake.display())),
            "{refused}"
        );
        let nothing = choose(None, Vec::new()).unwrap_err();
        assert!(is_absent(&nothing), "{nothing}");
    }
}
