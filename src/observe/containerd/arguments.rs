//! The arguments of a running containerd (`cmd/containerd/command/main.go`).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// What the arguments say about places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Arguments {
    pub(super) config: Option<PathBuf>,
    pub(super) root: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) address: Option<PathBuf>,
}

impl Arguments {
    /// Understands a command line as `/proc/PID/cmdline` has it: each argument ended by a NUL. None where it is not one of
    /// a server: `containerd config dump` is another program of the same name. The flags are those of Go's `flag`: one
    /// dash or two, the value behind an equals sign or as the next argument, the last one wins.
    pub(super) fn parse(command_line: &[u8]) -> Option<Self> {
        let command_line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
        let mut words = command_line.split(|byte| *byte == 0).skip(1);
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            let flag = word.strip_prefix(b"--").or_else(|| word.strip_prefix(b"-"))?;
            if flag.is_empty() {
                break;
            }
            let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
                Some(at) => (flag.get(..at)?, flag.get(at + 1..)),
                None => (flag, None),
            };
            let slot = match name {
                b"config" | b"c" => Some(&mut arguments.config),
                b"root" => Some(&mut arguments.root),
                b"state" => Some(&mut arguments.state),
                b"address" | b"a" => Some(&mut arguments.address),
                b"log-level" | b"l" => None,
                // It takes no value, or is not known.
                _ => continue,
            };
            let value = value.or_else(|| words.next());
            if let (Some(slot), Some(value)) = (slot, value) {
                *slot = Some(PathBuf::from(OsStr::from_bytes(value))).filter(|_| !value.is_empty());
            }
        }
        Some(arguments)
    }

    /// Relative paths are relative to the folder that the process works in.
    pub(super) fn below(self, folder: &Path) -> Self {
        let join = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        Self {
            config: join(self.config),
            root: join(self.root),
            state: join(self.state),
            address: join(self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &[&str]) -> Option<Arguments> {
        Arguments::parse((words.join("\0") + "\0").as_bytes())
    }

    #[test]
    fn flags_are_read_in_every_form_that_go_takes() {
        let k3s = parse(&[
            "containerd",
            "-c",
            "/k/config.toml",
            "-a",
            "/k/sock",
            "--state",
            "/k/state",
            "--root",
            "/k/root",
        ]);
        let expected = Arguments {
            config: Some(PathBuf::from("/k/config.toml")),
            root: Some(PathBuf::from("/k/root")),
            state: Some(PathBuf::from("/k/state")),
            address: Some(PathBuf::from("/k/sock")),
        };
        assert_eq!(k3s, Some(expected));
        for words in [
            &["/usr/bin/containerd", "--config=/c"][..],
            &["containerd", "-config", "/c"],
            &["containerd", "--log-level", "debug", "-c=/c"],
            &["containerd", "-l", "config", "--config", "/a", "--config", "/c"],
            &["containerd", "--unknown", "--config", "/c", "--", "config"],
        ] {
            assert_eq!(
                parse(words).unwrap().config,
                Some(PathBuf::from("/c")),
                "{words:?}"
            );
        }
        assert_eq!(parse(&["containerd"]), Some(Arguments::default()));
        assert_eq!(parse(&["containerd", "-c"]), Some(Arguments::default()));
        assert_eq!(parse(&["containerd", "config", "dump"]), None);
        let relative = parse(&["containerd", "-c", "c.toml"])
            .unwrap()
            .below(Path::new("/srv"));
        assert_eq!(relative.config, Some(PathBuf::from("/srv/c.toml")));
    }

    proptest! {
        #[test]
        fn no_command_line_panics(line in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(b'-'), Just(b'='), Just(b'c')], 0..200)) {
            let _ = Arguments::parse(&line);
        }
    }
}
