//! From the initramfs to a complete system: modules, disks, file systems, network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};

/// Where the later root is put together.
const ROOT: &str = "/newroot";

/// How long a disk may take to appear.
const DISK_LIMIT: Duration = Duration::from_secs(20);

/// Does it all; afterwards `/` is the root disk under a tmpfs.
pub(crate) fn bring_up() -> Result<()> {
    attach("proc", "/proc", "proc", "")?;
    attach("sysfs", "/sys", "sysfs", "")?;
    attach("devtmpfs", "/dev", "devtmpfs", "")?;
    load_modules()?;
    put_root_together()?;
    switch_root()?;
    attach_the_rest()?;
    start_network();
    Ok(())
}

fn attach(source: &str, target: &str, kind: &str, options: &str) -> Result<()> {
    attach_with(source, target, kind, MountFlags::empty(), options)
}

fn attach_with(source: &str, target: &str, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("making the folder {target}"))?;
    let options = std::ffi::CString::new(options)?;
    mount(source, target, kind, flags, options.as_c_str())
        .with_context(|| format!("mounting {kind} on {target}"))
}

/// Loads the modules that the host put into `/modules`, in the order it found out.
fn load_modules() -> Result<()> {
    let order = fs::read_to_string("/modules/order").context("reading the list of modules")?;
    for name in order.lines() {
        let file =
            fs::File::open(Path::new("/modules").join(name)).with_context(|| format!("opening {name}"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            // A module for hardware that is not there says so; that is no reason not to boot.
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::NODEV) => {}
            Err(error) => return Err(error).with_context(|| format!("loading the module {name}")),
        }
    }
    Ok(())
}

/// The root disk, read-only, under a tmpfs that takes what is written; so the disk can be shared by many VMs.
fn put_root_together() -> Result<()> {
    attach("tmpfs", "/overlay", "tmpfs", "size=75%")?;
    attach_with(&disk("root")?, "/overlay/lower", "ext4", MountFlags::RDONLY, "")?;
    for folder in ["/overlay/upper", "/overlay/work"] {
        fs::create_dir(folder)?;
    }
    attach(
        "overlay",
        ROOT,
        "overlay",
        "lowerdir=/overlay/lower,upperdir=/overlay/upper,workdir=/overlay/work",
    )?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    attach_with(
        &disk("modules")?,
        &format!("{ROOT}/lib/modules/{release}"),
        "ext4",
        MountFlags::RDONLY,
        "",
    )?;
    attach_with(
        &disk("files")?,
        &format!("{ROOT}/host"),
        "ext4",
        MountFlags::RDONLY,
        "",
    )?;
    let persist = format!("{ROOT}/persist");
    match find_disk("persist") {
        Some(device) => attach(&device, &persist, "ext4", "")?,
        None => attach("tmpfs", &persist, "tmpfs", "size=50%")?,
    }
    Ok(())
}

/// Makes the new root `/`. The initramfs stays below it, unreachable; it is small.
fn switch_root() -> Result<()> {
    for folder in ["proc", "sys", "dev"] {
        let target = format!("{ROOT}/{folder}");
        fs::create_dir_all(&target)?;
        rustix::mount::mount_move(format!("/{folder}"), &target)
            .with_context(|| format!("moving /{folder}"))?;
    }
    attach("tmpfs", &format!("{ROOT}/run"), "tmpfs", "mode=755")?;
    fs::copy("/init", format!("{ROOT}/run/suture-vm-guest")).context("copying this program")?;
    rustix::process::chdir(ROOT)?;
    rustix::mount::mount_move(".", "/").context("moving the root")?;
    rustix::process::chroot(".").context("entering the root")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn attach_the_rest() -> Result<()> {
    attach("tmpfs", "/tmp", "tmpfs", "")?;
    attach("tmpfs", "/dev/shm", "tmpfs", "")?;
    attach("devpts", "/dev/pts", "devpts", "ptmxmode=666")?;
    attach("cgroup2", "/sys/fs/cgroup", "cgroup2", "")?;
    attach("tracefs", "/sys/kernel/tracing", "tracefs", "")?;
    attach("debugfs", "/sys/kernel/debug", "debugfs", "")?;
    attach("bpf", "/sys/fs/bpf", "bpf", "")?;
    for (link, target) in [("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0")] {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    rustix::system::sethostname(b"suture-vm")?;
    // What the host lent is found by its name alone.
    for entry in fs::read_dir("/host").context("reading the disk with the host's files")? {
        let file = entry?.path();
        if let Some(name) = file.file_name() {
            let _ = std::os::unix::fs::symlink(&file, Path::new("/usr/local/bin").join(name));
        }
    }
    Ok(())
}

/// The host is reached as 10.0.2.2. A VM without a network is still of use, so trouble is only told.
fn start_network() {
    for words in [
        "ifconfig lo 127.0.0.1 up",
        "ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up",
        "route add default gw 10.0.2.2",
    ] {
        match Command::new("/bin/busybox").args(words.split(' ')).status() {
            Ok(status) if status.success() => {}
            other => println!("suture-vm-guest: no network: `{words}` gave {other:?}"),
        }
    }
}

/// The device of the disk with this serial number, once it is there.
fn disk(serial: &str) -> Result<String> {
    let begun = Instant::now();
    while begun.elapsed() < DISK_LIMIT {
        if let Some(device) = find_disk(serial) {
            return Ok(device);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("the disk `{serial}` did not appear");
}

fn find_disk(serial: &str) -> Option<String> {
    let folders: Vec<PathBuf> = fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let found = folders
        .iter()
        .find(|folder| fs::read_to_string(folder.join("serial")).is_ok_and(|found| found.trim() == serial))?;
    Some(format!("/dev/{}", found.file_name()?.to_str()?))
}
