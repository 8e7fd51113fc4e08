//! The few packages that building on this machine needs.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::apt::Apt;
use crate::command::{find_program, output};

/// The devicemapper crate binds libdevmapper with bindgen, which needs libclang and the C headers; e2fsprogs makes the
/// disks of the test VM; libFuzzer, which comes as source, is written in C++.
const NEEDED: &[&str] = &[
    "libdevmapper-dev",
    "pkg-config",
    "libclang-dev",
    "gcc",
    "g++",
    "libc6-dev",
    "e2fsprogs",
];

/// Installs what is missing of them with apt, as root or through a sudo that does not ask.
pub(super) fn install_missing(base: &Path) -> Result<()> {
    if find_program("dpkg-query").is_none() || find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt: install the equivalents of Debian's {} yourself, and run the rest of the set-up on Debian 12",
            NEEDED.join(", ")
        );
    }
    let missing: Vec<&str> = NEEDED
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let mut install = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else if Command::new("sudo")
        .args(["-n", "true"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        let mut command = Command::new("sudo");
        command.args(["-n", "apt-get"]);
        command
    } else {
        bail!(
            "the packages {names} are missing, and installing them needs root: run `apt-get install {names}` as root, then this again"
        );
    };
    // The machine's own lists may never have been fetched; ours are there or are fetched now.
    let lists = Apt::new(&base.join("apt")).lists()?;
    eprintln!("setup: installing {names}");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-y", "--no-install-recommends", "-o"])
        .arg(format!("Dir::State::Lists={}", lists.display()))
        .arg("install")
        .args(&missing);
    output(&mut install, &format!("installing the packages {names}"))?;
    Ok(())
}

fn is_installed(name: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}\n", name])
        .output()
        .is_ok_and(|found| found.stdout.starts_with(b"installed"))
}
