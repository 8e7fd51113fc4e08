//! A configuration with all that it imports, in containerd's order (`LoadConfig`, cmd/containerd/server/config/config.go):
//! a file, then its imports, then theirs; each file once.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Component, Path, PathBuf},
};

use super::{ConfigError, View, file::File, file::Settings};

/// How many files are read.
const MOST_FILES: usize = 256;

pub(super) fn load(view: &View, path: &Path) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    let mut loaded = BTreeSet::new();
    let mut pending = VecDeque::from([(path.to_owned(), None::<PathBuf>)]);
    while let Some((file, importing)) = pending.pop_front() {
        if !loaded.insert(file.clone()) {
            continue;
        }
        if loaded.len() > MOST_FILES {
            return Err(ConfigError::TooMany {
                path: path.to_owned(),
                limit: MOST_FILES,
            });
        }
        let parsed = read(view, &file).map_err(|error| match importing {
            None => error,
            Some(importing) => ConfigError::Import {
                importing,
                path: file.clone(),
                source: Box::new(error),
            },
        })?;
        for import in &parsed.imports {
            let imports = resolve(view, &file, import)?;
            pending.extend(imports.into_iter().map(|path| (path, Some(file.clone()))));
        }
        settings.add(&file, parsed, loaded.len() == 1);
    }
    Ok(settings)
}

fn read(view: &View, path: &Path) -> Result<File, ConfigError> {
    let text = view.read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    File::parse(path, &text)
}

/// The files of one import (`resolveImports`): relative to the file's folder, in the order of their names where it is a
/// pattern. A pattern that fits nothing is no error, a name that is not there is one.
fn resolve(view: &View, importing: &Path, import: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let parent = importing.parent().unwrap_or_else(|| Path::new("/"));
    let path = clean(&parent.join(import));
    let Some(text) = path.to_str().filter(|text| text.contains('*')) else {
        return Ok(vec![path]);
    };
    // Go's `filepath.Glob` knows no `**`: it is one star there, and `[^a]` is what is `[!a]` here.
    let mut pattern = text.replace("[^", "[!");
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    let prefix = view
        .prefix()
        .map(|prefix| glob::Pattern::escape(&prefix.to_string_lossy()));
    let pattern = format!("{}{pattern}", prefix.unwrap_or_default());
    let found = glob::glob(&pattern).map_err(|source| ConfigError::Pattern {
        importing: importing.to_owned(),
        pattern: pattern.escape_default().to_string(),
        source,
    })?;
    // What can not be looked at is skipped, as Go does.
    let found = found.filter_map(Result::ok).take(MOST_FILES + 1);
    Ok(found.map(|path| view.theirs(&path)).collect())
}

/// Go's `filepath.Clean`, for paths from the root: links are not looked at.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
