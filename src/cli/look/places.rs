//! Where was looked, as words of a command line: the next command is to look at the same place.

use std::fmt::Write as _;

use crate::cli::places::SurveyArguments;

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
    use super::quoted;

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
