//! Debian packages as a source of files: resolved and fetched with apt, unpacked into a folder, never installed.
//!
//! apt gets state folders of its own, so that no root is needed and the machine's package lists are left alone. It
//! resolves against an empty machine, which makes the answer the same everywhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use super::step::remove_folder;
use crate::command::{find_program, output};

/// One package in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// The name, as in `runc`.
    pub(super) name: String,
    /// The version in full, as in `1.1.5+ds1-1+deb12u1`.
    pub(super) version: String,
}

/// Whether this process has fetched the package lists; once is enough.
static UPDATED: AtomicBool = AtomicBool::new(false);

/// apt with its state below one folder.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Uses `folder` for the state. Nothing is touched before the first question.
    #[must_use]
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
        }
    }

    fn make_ready(&self) -> Result<()> {
        let folder = &self.folder;
        for program in ["apt-get", "dpkg"] {
            if find_program(program).is_none() {
                bail!(
                    "`{program}` was not found: the set-up takes the compiler, qemu and the test VM from Debian 12's packages, so it needs a Debian 12 (x86-64) machine or container"
                );
            }
        }
        for part in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.join(part))
                .with_context(|| format!("making apt's folder below {}", folder.display()))?;
        }
        std::fs::write(folder.join("empty"), "")?;
        Ok(())
    }

    /// The folder with this apt's package lists, fetched when that was not yet done in this process.
    pub(super) fn lists(&self) -> Result<PathBuf> {
        if !UPDATED.load(Ordering::Relaxed) {
            self.make_ready()?;
            eprintln!("setup: fetching Debian's package lists");
            output(
                self.program("apt-get").args(["-q", "update"]),
                "fetching Debian's package lists",
            )?;
            UPDATED.store(true, Ordering::Relaxed);
        }
        Ok(self.folder.join("state/lists"))
    }

    /// Everything that `names` need, themselves included, on a machine that has nothing.
    pub(super) fn closure(&self, names: &[&str]) -> Result<Vec<Package>> {
        self.lists()?;
        let text = output(
            self.program("apt-get")
                .args(["install", "-s", "--no-install-recommends"])
                .args(names),
            &format!(
                "looking for the packages {}; is this Debian 12 with its security updates in apt's sources?",
                names.join(" ")
            ),
        )?;
        Ok(parse_simulation(&text))
    }

    /// Fetches `packages` and unpacks them into `root`.
    pub(super) fn unpack(&self, packages: &[Package], root: &Path) -> Result<()> {
        self.lists()?;
        // A fixed place, so that what a stopped run leaves behind is removed by the next one; the caller holds the lock.
        let debs = self.folder.join("debs");
        remove_folder(&debs)?;
        std::fs::create_dir(&debs)?;
        let wanted = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version));
        output(
            self.program("apt-get")
                .args(["-q", "download"])
                .args(wanted)
                .current_dir(&debs),
            "fetching packages",
        )?;
        std::fs::create_dir_all(root)?;
        for entry in std::fs::read_dir(&debs)? {
            let deb = entry?.path();
            unpack_deb(&deb, root).with_context(|| format!("unpacking {}", deb.display()))?;
        }
        remove_folder(&debs)
    }

    fn program(&self, name: &str) -> Command {
        let option = |key: &str, part: &str| format!("{key}={}", self.folder.join(part).display());
        let mut command = Command::new(name);
        command
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            option("Dir::State", "state"),
            option("Dir::Cache", "cache"),
            option("Dir::State::status", "empty"),
            // Fetching as the user `_apt` fails in folders that only their owner may enter.
            "APT::Sandbox::User=".into(),
            // Nothing is installed, and the caller holds the set-up's own lock.
            "Debug::NoLocking=1".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// `dpkg -x` would put a folder where `root` has a link to one; tar can be told not to.
fn unpack_deb(deb: &Path, root: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()?;
    let from = archive.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"])
        .arg(root)
        .stdin(from);
    let unpacked = tar.status()?;
    let read = archive.wait()?;
    if !unpacked.success() || !read.success() {
        bail!("tar gave {unpacked}, dpkg-deb {read}");
    }
    Ok(())
}

/// The packages that `apt-get install -s` would install.
fn parse_simulation(text: &str) -> Vec<Package> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            // An installed package that would be replaced stands in brackets between name and version.
            let version = rest.split_once('(')?.1.split(' ').next()?;
            Some(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            })
        })
        .collect()
}

/// Whether a package belongs into a prefix that lends programs to the machine: libraries do, except the ones every
/// machine with a C compiler has (a second libc beside the machine's own would only break things) and those for
/// building; programs only when asked for by name.
#[must_use]
pub(super) fn is_for_prefix(package: &Package, programs: &[&str]) -> bool {
    let name = package.name.as_str();
    let of_the_machine =
        ["libc6", "libgcc-s1", "libstdc++6", "libc-bin"].contains(&name) || name.ends_with("-dev");
    programs.contains(&name) || (name.starts_with("lib") && !of_the_machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_lists_names_and_versions() {
        let text = "Reading package lists...\n\
            Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])\n\
            Inst kmod [30-1] (30+20221128-1 Debian:12.15/oldstable [amd64]) []\n\
            Conf libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])\n";
        let found = parse_simulation(text);
        let expected =
            [("libc6", "2.36-9+deb12u14"), ("kmod", "30+20221128-1")].map(|(name, version)| Package {
                name: name.into(),
                version: version.into(),
            });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_prefix_takes_libraries_but_not_the_machines_own() {
        let keeps = |name: &str| {
            is_for_prefix(
                &Package {
                    name: name.into(),
                    version: "1".into(),
                },
                &["kmod"],
            )
        };
        assert!(keeps("kmod") && keeps("libslirp0"));
        assert!(!keeps("libc6") && !keeps("libssl-dev") && !keeps("adduser"));
    }
}
