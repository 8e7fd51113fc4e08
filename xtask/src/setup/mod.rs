//! Makes a machine ready: host packages, the compiler and linker for BPF, and the pieces of the test VM.
//!
//! All but the host packages lands below `target/setup/`, keyed by package versions; a second run finds it there and
//! does nothing. What other parts of the project rely on: `target/setup/bin/bpf-rustc` and
//! `target/setup/bin/bpf-linker`.

mod apt;
mod bbolt_peer;
mod bpftrace;
mod compiler;
mod host;
mod kernel;
mod linker;
mod modules;
mod prometheus;
pub(crate) mod qemu;
mod rootfs;
mod step;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use bpftrace::bpftrace;
pub use kernel::Kernel;

use self::apt::{Apt, Package};
use self::step::Workshop;

/// Does the whole set-up. With `refresh`, newer package versions are looked for and taken.
pub fn everything(refresh: bool) -> Result<()> {
    host_packages()?;
    bpf_toolchain(refresh)?;
    vm(refresh)?;
    promtool(refresh)?;
    bbolt_peer(refresh)?;
    Ok(())
}

/// Installs the few packages that building on this machine needs, if any is missing. The only part that needs root.
pub fn host_packages() -> Result<()> {
    let _lock = lock()?;
    host::install_missing(&setup_dir())
}

/// Makes `target/setup/bin/bpf-rustc` and `bpf-linker`.
pub fn bpf_toolchain(refresh: bool) -> Result<()> {
    let _lock = lock()?;
    let workshop = workshop(refresh);
    let compiler = compiler::ensure(&workshop)?;
    linker::ensure(&workshop, &compiler)?;
    Ok(())
}

/// Makes Prometheus' checker ready, and gives its path.
pub fn promtool(refresh: bool) -> Result<PathBuf> {
    let _lock = lock()?;
    prometheus::ensure(&workshop(refresh))
}

/// Makes the program on the real bbolt ready (`xtask/peers/bbolt/main.go` says what it does), and gives its path.
pub fn bbolt_peer(refresh: bool) -> Result<PathBuf> {
    let _lock = lock()?;
    bbolt_peer::ensure(&workshop(refresh))
}

/// What a VM is booted from. Each is a folder or file below `target/setup`.
#[derive(Debug, Clone)]
pub struct VmParts {
    /// qemu and the other programs of the host's side, as unpacked packages.
    pub tools: PathBuf,
    /// The root disk, never written to.
    pub root_disk: PathBuf,
    /// The folder of each kernel, by [`VmParts::kernel`].
    kernels: PathBuf,
}

impl VmParts {
    /// The folder of one kernel: `vmlinuz`, `modules.img`, `boot/` and `boot-order`.
    #[must_use]
    pub fn kernel(&self, kernel: Kernel) -> PathBuf {
        self.kernels.join(format!("kernel-{kernel}"))
    }
}

/// Makes qemu, the kernels and the root disk ready.
pub fn vm(refresh: bool) -> Result<VmParts> {
    let _lock = lock()?;
    let workshop = workshop(refresh);
    let tools = qemu::ensure(&workshop)?;
    for kernel in Kernel::ALL {
        kernel::ensure(&workshop, kernel, &tools)?;
    }
    let root = rootfs::ensure(&workshop)?;
    Ok(VmParts {
        tools,
        root_disk: root.join("root.img"),
        kernels: workshop.base,
    })
}

/// `target/setup`.
#[must_use]
pub fn setup_dir() -> PathBuf {
    crate::target_dir().join("setup")
}

fn workshop(refresh: bool) -> Workshop {
    let base = setup_dir();
    Workshop {
        apt: Apt::new(&base.join("apt")),
        base,
        refresh,
    }
}

/// Waits until no other set-up is running here. The lock goes with the returned file, also when this process dies.
fn lock() -> Result<File> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the set-up needs Linux on x86-64: run it in a Debian 12 machine or container of that kind");
    }
    let base = setup_dir();
    std::fs::create_dir_all(&base).with_context(|| format!("making {}", base.display()))?;
    let file = File::create(base.join("lock"))?;
    if file.try_lock().is_err() {
        eprintln!("setup: waiting for another set-up to finish");
        file.lock()
            .with_context(|| format!("locking {}", base.display()))?;
    }
    Ok(file)
}

/// Writes a small `sh` program that runs `program` with the libraries of `prefix`. Both are named relative to
/// `target/setup`, and found from the script's own place, so the folder may be moved.
fn write_wrapper(name: &str, prefix: &str, program: &str) -> Result<()> {
    let folder = setup_dir().join("bin");
    std::fs::create_dir_all(&folder)?;
    let script = format!(
        "#!/bin/sh\n# Written by `cargo xtask setup`.\nsetup=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")\n\
         LD_LIBRARY_PATH=\"$setup/{prefix}/usr/lib/x86_64-linux-gnu${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
         export LD_LIBRARY_PATH\nexec \"$setup/{program}\" \"$@\"\n"
    );
    let file = folder.join(name);
    // An unchanged wrapper keeps its time, so that build scripts which watch it do not run again.
    if std::fs::read_to_string(&file).is_ok_and(|present| present == script) {
        return Ok(());
    }
    let mut fresh = tempfile::NamedTempFile::new_in(&folder)?;
    std::io::Write::write_all(&mut fresh, script.as_bytes())?;
    make_executable(fresh.path())?;
    fresh
        .persist(&file)
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(())
}

fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", file.display()))
}

/// Unpacks `packages` into `root`, with `/bin`, `/sbin` and `/lib` as links into `/usr`: Debian 12's packages carry files
/// at both places and expect these links, which the installer of a machine makes.
fn unpack(apt: &Apt, packages: &[Package], root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir_all(root.join("usr").join(name))?;
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    apt.unpack(packages, root)
}

/// The name of the first file in `folder`, in the order of the alphabet, that `is_it` accepts.
fn find_file(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_it(name))
        .collect();
    names.sort();
    names.into_iter().next().with_context(|| {
        format!(
            "{} lacks a file that Debian's package had so far",
            folder.display()
        )
    })
}

/// A few characters that stand for `text`.
fn short_hash(text: &str) -> String {
    use sha2::Digest;
    let mut digest = hex::encode(sha2::Sha256::digest(text.as_bytes()));
    digest.truncate(12);
    digest
}
