//! The root disk of the test VM: containerd and the tools around it, as Debian packages unpacked into a tree.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::step::{Step, Workshop, remove_folder};
use super::unpack;
use crate::command::{folder_size, make_ext4, output};

const PACKAGES: &[&str] = &[
    "containerd",
    "runc",
    "thin-provisioning-tools",
    "dmsetup",
    "kmod",
    "busybox-static",
    "e2fsprogs",
    "strace",
    "util-linux",
    "mount",
    "dash",
    "systemd",
];

/// Without a use in the VM, and a good part of the size.
const LEFT_OUT: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/perl5",
    "usr/share/bash-completion",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/locale",
    "usr/lib/systemd/catalog",
    "usr/lib/systemd/boot",
    "usr/lib/systemd/portable",
    "usr/lib/systemd/system-generators",
    "usr/lib/udev",
    "usr/share/zsh",
    "usr/share/i18n",
];

/// Where packages put systemd's units, and what they want started at every boot.
const UNITS: &str = "usr/lib/systemd/system";

/// What systemd starts in the VM: nothing of its own. A scenario brings the units that it is about.
const TARGET: &str = "[Unit]\nDescription=suture's test VM\n";

/// Folders that must be there to be mounted on or written to.
const FOLDERS: &[&str] = &[
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "host",
    "persist",
    "opt/break",
    "usr/local/bin",
    "lib/modules",
    "var/tmp",
    "var/lib",
    "mnt",
    "etc/containerd",
];

/// Makes `root.img`, and `busybox` beside it.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    Step {
        name: "rootfs",
        recipe: "4",
        about: "the root disk of the test VM",
    }
    .ensure(
        workshop,
        || workshop.apt.closure(PACKAGES),
        |folder, packages| {
            let tree = folder.join("tree");
            unpack(&workshop.apt, packages, &tree)?;
            for unused in LEFT_OUT {
                remove_folder(&tree.join(unused))?;
            }
            for needed in FOLDERS {
                std::fs::create_dir_all(tree.join(needed))?;
            }
            write_configuration(&tree)?;
            quiet_systemd(&tree)?;
            link_busybox(&tree)?;
            let size = folder_size(&tree) * 5 / 4 / 1024 / 1024 + 32;
            make_ext4(
                &folder.join("root.img"),
                Some(&tree),
                size,
                &["-O", "^has_journal"],
            )?;
            // For the images that scenarios make on the host.
            std::fs::copy(tree.join("usr/bin/busybox"), folder.join("busybox"))?;
            remove_folder(&tree)
        },
    )
}

fn write_configuration(tree: &Path) -> Result<()> {
    for (file, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\ndisk:x:6:\nnogroup:x:65534:\n"),
        ("etc/hosts", "127.0.0.1 localhost suture-vm\n10.0.2.2 host\n"),
        ("etc/hostname", "suture-vm\n"),
        // Answered by qemu.
        ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
        (
            "etc/os-release",
            "ID=suture-vm\nPRETTY_NAME=\"suture's test VM\"\n",
        ),
    ] {
        std::fs::write(tree.join(file), text).with_context(|| format!("writing the VM's {file}"))?;
    }
    Ok(())
}

/// Leaves of systemd's own units only what a scenario's units lean on: the machine is brought up by our first process,
/// and under emulation each service that is started costs a second.
fn quiet_systemd(tree: &Path) -> Result<()> {
    let units = tree.join(UNITS);
    for entry in std::fs::read_dir(&units).with_context(|| format!("reading {}", units.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "wants") {
            remove_folder(&path)?;
        }
    }
    let own = tree.join("etc/systemd/system");
    remove_folder(&own)?;
    std::fs::create_dir_all(&own)?;
    std::fs::write(own.join("default.target"), TARGET).context("writing the VM's default.target")?;
    Ok(())
}

/// Gives each command of busybox a name of its own, where no real program has it.
fn link_busybox(tree: &Path) -> Result<()> {
    let busybox = tree.join("usr/bin/busybox");
    let list = output(
        Command::new(&busybox).arg("--list"),
        "asking busybox for its commands",
    )?;
    let names = list.lines().chain(["sh"]);
    for name in names {
        let taken = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|folder| tree.join(folder).join(name).symlink_metadata().is_ok());
        if !taken {
            let target = if name == "sh" && tree.join("usr/bin/dash").exists() {
                "dash"
            } else {
                "busybox"
            };
            symlink(target, tree.join("usr/bin").join(name))?;
        }
    }
    Ok(())
}
