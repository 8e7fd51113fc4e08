//! Debian's cloud kernels: the image, the modules a test may want as a small disk, and those needed to find the disks.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::modules::Modules;
use super::qemu::tool;
use super::step::{Step, Workshop, remove_folder};
use crate::command::{folder_size, make_ext4, output};

/// The kernels a VM can be booted with, both as Debian 12 offers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// Debian 12's own.
    #[default]
    V6_1,
    /// The newer one of its security updates.
    V6_12,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Kernel; 2] = [Kernel::V6_1, Kernel::V6_12];

    fn metapackage(self) -> &'static str {
        match self {
            Kernel::V6_1 => "linux-image-cloud-amd64",
            Kernel::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
        })
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.to_string() == text)
            .ok_or_else(|| format!("there is no kernel {text} here; take 6.1 or 6.12"))
    }
}

/// Loaded before anything else, in the initramfs: what finding the disks and talking to the host needs, and the parts
/// of device-mapper that nearly every test wants.
const AT_BOOT: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "ext4",
    "overlay",
    "loop",
    "dm_mod",
    "dm_thin_pool",
];

/// Folders of modules that stay available to `modprobe` in the guest.
const KEPT_FOLDERS: &[&str] = &[
    "drivers/md/",
    "drivers/virtio/",
    "drivers/block/",
    "drivers/nvme/",
    "fs/overlayfs/",
    "fs/ext4/",
    "fs/xfs/",
    "fs/squashfs/",
];

/// Single modules that stay available too.
const KEPT_MODULES: &[&str] = &[
    "scsi_debug",
    "sd_mod",
    "virtio_net",
    "virtio_console",
    "crc32c_intel",
    "veth",
    "bridge",
];

/// Makes `vmlinuz`, `modules.img`, `boot/` and `boot-order` of one kernel.
pub(super) fn ensure(workshop: &Workshop, kernel: Kernel, tools: &Path) -> Result<PathBuf> {
    let (name, about) = (format!("kernel-{kernel}"), format!("the kernel {kernel}"));
    Step {
        name: &name,
        recipe: "1",
        about: &about,
    }
    .ensure(
        workshop,
        || {
            let metapackage = kernel.metapackage();
            let mut packages = workshop.apt.closure(&[metapackage])?;
            packages
                .retain(|package| package.name.starts_with("linux-image-") && package.name != metapackage);
            if packages.len() != 1 {
                bail!(
                    "{metapackage} depends on {} kernels instead of one; the set-up needs a look",
                    packages.len()
                );
            }
            Ok(packages)
        },
        |folder, packages| {
            let unpacked = folder.join("unpacked");
            workshop.apt.unpack(packages, &unpacked)?;
            lay_out(&unpacked, folder, tools)?;
            remove_folder(&unpacked)
        },
    )
}

fn lay_out(unpacked: &Path, folder: &Path, tools: &Path) -> Result<()> {
    let image = super::find_file(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    let release = image.trim_start_matches("vmlinuz-");
    std::fs::rename(unpacked.join("boot").join(&image), folder.join("vmlinuz"))?;
    std::fs::write(folder.join("release"), release)?;

    let all = unpacked.join("lib/modules").join(release);
    let modules = depmod(tools, unpacked, release)?;
    let keep = |path: &str| {
        let inner = path.trim_start_matches("kernel/");
        KEPT_FOLDERS.iter().any(|kept| inner.starts_with(kept))
    };
    let wanted = modules.paths().filter(|path| keep(path)).map(str::to_owned);
    let named = AT_BOOT
        .iter()
        .chain(KEPT_MODULES)
        .filter_map(|name| modules.path_of(name))
        .map(str::to_owned);
    let kept: BTreeSet<String> = wanted
        .chain(named)
        .flat_map(|path| modules.load_order(&[path]))
        .collect();

    // A tree of its own with only those, from which both the disk and the list for the initramfs are made.
    let tree = unpacked.join("kept");
    let target = tree.join("lib/modules").join(release);
    for path in &kept {
        let to = target.join(path);
        std::fs::create_dir_all(to.parent().context("a module outside of every folder")?)?;
        std::fs::rename(all.join(path), &to).with_context(|| format!("keeping the module {path}"))?;
        if to.extension().is_some_and(|extension| extension == "xz") {
            // The kernel could do it, but at a tenth of the speed.
            let mut xz = tool(tools, "usr/bin/xz");
            output(
                xz.arg("--decompress").arg(&to),
                &format!("unpacking the module {path}"),
            )?;
        }
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        std::fs::copy(all.join(list), target.join(list))?;
    }
    let modules = depmod(tools, &tree, release)?;
    let first: Vec<String> = AT_BOOT
        .iter()
        .filter_map(|name| modules.path_of(name))
        .map(str::to_owned)
        .collect();
    let order = modules.load_order(&first);
    std::fs::create_dir(folder.join("boot"))?;
    let mut list = Vec::new();
    for path in &order {
        let name = path.rsplit('/').next().unwrap_or(path);
        std::fs::copy(target.join(path), folder.join("boot").join(name))?;
        list.push(name);
    }
    std::fs::write(folder.join("boot-order"), list.join("\n"))?;
    let size = folder_size(&target) * 5 / 4 / 1024 / 1024 + 8;
    make_ext4(
        &folder.join("modules.img"),
        Some(&target),
        size,
        &["-O", "^has_journal"],
    )
}

/// Runs depmod on a tree of modules, which the packages leave to the machine they are installed on, and reads what it
/// found.
fn depmod(tools: &Path, tree: &Path, release: &str) -> Result<Modules> {
    let mut command = tool(tools, "usr/sbin/depmod");
    output(
        command.arg("-b").arg(tree).arg(release),
        "finding out which kernel modules need which",
    )?;
    let folder = tree.join("lib/modules").join(release);
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    };
    Ok(Modules::parse(&read("modules.dep")?, &read("modules.softdep")?))
}
