//! Running other programs, with errors that say which one failed and what it said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How many of the last lines of a failed program's output an error shows.
const LINES_SHOWN: usize = 15;

/// Runs `command` to its end and gives its standard output. `doing` names the purpose in the error, as in "unpacking
/// the kernel".
pub fn output(command: &mut Command, doing: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{doing}: `{name}` could not be started; is it installed?"))?;
    let stdout = String::from_utf8_lossy(&result.stdout).into_owned();
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        bail!(
            "{doing}: `{name}` failed ({}):\n{}",
            result.status,
            tail(&format!("{stdout}{stderr}"))
        );
    }
    Ok(stdout)
}

/// Looks for a program on `PATH` and in the folders for administrators, which the `PATH` of a plain user lacks.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Makes an ext image of `size_mib` MiB at `image`, filled from `folder` when one is given. No root is needed.
pub fn make_ext4(image: &Path, folder: Option<&Path>, size_mib: u64, options: &[&str]) -> Result<()> {
    let mke2fs = find_program("mke2fs").context("mke2fs was not found; install the package e2fsprogs")?;
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-m", "0"]).args(options);
    if let Some(folder) = folder {
        command.arg("-d").arg(folder);
    }
    command.arg(image).arg(format!("{size_mib}M"));
    output(
        &mut command,
        &format!("making the disk image {}", image.display()),
    )?;
    Ok(())
}

/// The size of all files below `folder`, in bytes, as far as it can be read.
#[must_use]
pub fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A `cargo` that does not see what the outer cargo said to this program, so that a build in it is the same as one
/// from a shell.
#[must_use]
pub fn clean_cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if is_left_over(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// What cargo sets for a program it runs, and what would make a build in it another one than from a shell. What a
/// person set to reach a registry or a proxy stays.
fn is_left_over(name: &OsStr) -> bool {
    const NAMES: &[&str] = &[
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "RUSTC_BOOTSTRAP",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO",
    ];
    const FAMILIES: &[&str] = &[
        "PKG", "MANIFEST", "BIN", "CRATE", "PRIMARY", "TARGET", "BUILD", "PROFILE", "CFG", "FEATURE",
    ];
    let Some(name) = name.to_str() else { return false };
    let family = name
        .strip_prefix("CARGO_")
        .and_then(|rest| rest.split('_').next());
    NAMES.contains(&name) || family.is_some_and(|family| FAMILIES.contains(&family))
}

/// The last lines of `text`.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(LINES_SHOWN))
        .copied()
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_cargo_keeps_what_reaches_a_registry() {
        for gone in [
            "CARGO_MANIFEST_DIR",
            "CARGO_TARGET_DIR",
            "CARGO_PKG_NAME",
            "RUSTFLAGS",
            "RUSTC",
        ] {
            assert!(is_left_over(OsStr::new(gone)), "{gone}");
        }
        for kept in [
            "CARGO_HOME",
            "CARGO_HTTP_CAINFO",
            "CARGO_NET_OFFLINE",
            "RUSTUP_TOOLCHAIN",
            "PATH",
        ] {
            assert!(!is_left_over(OsStr::new(kept)), "{kept}");
        }
    }

    #[test]
    fn a_failure_shows_the_program_and_its_last_words() {
        let error = output(
            Command::new("sh").args(["-c", "echo sorry >&2; exit 4"]),
            "trying",
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("trying") && error.contains("`sh`") && error.contains("sorry"),
            "{error}"
        );
    }
}
