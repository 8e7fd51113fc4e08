//! Where was looked, as words of a command line: the next command is to look at the same place.

use std::{fmt::Write as _, path::Path};

use crate::{
    cli::{places::SurveyArguments, run::LEDGER},
    observe::{
        containerd::{DEFAULT_CONFIG, read_config},
        world::Places,
    },
};

/// The words, each with a space before it; empty where everything was found by itself.
pub(in crate::cli) fn spelled(arguments: &SurveyArguments, with_metadata: bool) -> String {
    let places = &arguments.places;
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let words = [
        ("--containerd-config", path(&places.containerd_config)),
        ("--pool", places.pool.clone()),
        ("--root-path", path(&places.root_path)),
        (
            "--metadata-device",
            path(&arguments.metadata_device).filter(|_| with_metadata),
        ),
    ];
    let given = words.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
    given.fold(String::new(), |mut text, (flag, value)| {
        let _ = write!(text, " {flag} {}", quoted(&value));
        text
    })
}

/// The words that a command needs once containerd is stopped: what only the running one told, by its command line, is not to be
/// found any more then. Nothing where the words that were given, or containerd's usual file, tell the same.
pub(in crate::cli) fn told_by_running(arguments: &SurveyArguments, found: &Places) -> String {
    let given = &arguments.places;
    if given.containerd_config.is_some() || given.pool.is_some() {
        return String::new();
    }
    let usual = read_config(Path::new(DEFAULT_CONFIG)).map(|config| config.places);
    named_unless(usual.ok().as_ref(), found)
}

fn named_unless(usual: Option<&Places>, found: &Places) -> String {
    if usual == Some(found) {
        return String::new();
    }
    format!(
        " --pool {} --root-path {}",
        quoted(found.pool.as_str()),
        quoted(&found.root.display().to_string())
    )
}

/// The ledger's word, where it is not in its usual place: it knows which devices are containerd's.
pub(in crate::cli) fn ledger_word(ledger: &Path) -> String {
    if ledger == Path::new(LEDGER) {
        return String::new();
    }
    format!(" --ledger {}", quoted(&ledger.display().to_string()))
}

/// For a shell, where it needs that.
pub(in crate::cli) fn quoted(word: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_./:@%+=,".contains(one);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(char::is_control) {
        // $'..' understands what escape_default writes.
        let escaped: String = word
            .chars()
            .map(|one| match one {
                '\'' | '\\' => format!("\\{one}"),
                one if one.is_control() => format!("\\x{:02x}", u32::from(one)),
                one => one.to_string(),
            })
            .collect();
        return format!("$'{escaped}'");
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PoolName;

    #[test]
    fn what_only_a_running_containerd_tells_is_said_for_when_it_is_stopped() {
        let places = |pool: &str, root: &str| Places {
            pool: PoolName::new(pool),
            root: root.into(),
        };
        let found = places("tp", "/a folder/devmapper");
        assert_eq!(named_unless(Some(&found), &found), "");
        let words = " --pool tp --root-path '/a folder/devmapper'";
        for usual in [
            None,
            Some(places("tp", "/b")),
            Some(places("other", "/a folder/devmapper")),
        ] {
            assert_eq!(named_unless(usual.as_ref(), &found), words);
        }
        assert_eq!(ledger_word(Path::new(LEDGER)), "");
        assert_eq!(ledger_word(Path::new("/l.db")), " --ledger /l.db");
    }

    #[test]
    fn a_shell_reads_the_same_word_again() {
        for (word, expected) in [
            ("tp", "tp"),
            ("/var/lib/x", "/var/lib/x"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("x;rm", "'x;rm'"),
            ("e\u{1b}[0m'", "$'e\\x1b[0m\\''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
