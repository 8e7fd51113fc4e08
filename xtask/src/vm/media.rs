//! What a VM boots from and sees of the host, beside the parts of the set-up: the initramfs and small disks.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use cpio::newc;

use crate::command::{clean_cargo, folder_size, make_ext4, output};

/// The size of a kept disk, in MiB. The file is sparse: it takes what is used.
const KEPT_DISK_MIB: u64 = 8 * 1024;

/// What the names of the folders of running VMs begin with; the process id of the owner follows.
const WORK_PREFIX: &str = "of-";

/// The kept disk's file in its folder.
const KEPT_DISK: &str = "data.img";

/// Makes a folder for the images of one VM. Folders of processes that died before they could remove theirs are removed.
pub(super) fn work_folder() -> Result<tempfile::TempDir> {
    let base = crate::target_dir().join("vm");
    fs::create_dir_all(&base).with_context(|| format!("making {}", base.display()))?;
    for entry in fs::read_dir(&base)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(WORK_PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else may be at it too; one of us succeeds.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{WORK_PREFIX}{}-", std::process::id());
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&base)
        .context("making a folder for the VM")
}

/// The guest's first process, built when its sources changed. It is linked statically, since it runs where no library
/// is yet.
pub(super) fn guest_program() -> Result<PathBuf> {
    // Once per process is enough; asking cargo takes longer than much of what a boot does.
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = &*built {
        return Ok(program.clone());
    }
    let target = crate::target_dir().join("vm-guest");
    let mut cargo = clean_cargo();
    cargo
        .args(["build", "--quiet", "--release", "--package", "suture-vm-guest"])
        // With a target named, the flags below are not for build scripts and macros, which cannot be static.
        .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
        .arg(&target)
        .current_dir(crate::workspace_root())
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    output(&mut cargo, "building the first process of the test VM")?;
    let program = target.join("x86_64-unknown-linux-gnu/release/suture-vm-guest");
    *built = Some(program.clone());
    Ok(program)
}

/// Writes the initramfs: the first process, and the modules it loads.
pub(super) fn write_initramfs(file: &Path, program: &Path, kernel: &Path) -> Result<()> {
    let about = || format!("writing the initramfs {}", file.display());
    let order = fs::read_to_string(kernel.join("boot-order")).with_context(about)?;
    let mut archive = std::io::BufWriter::new(File::create(file).with_context(about)?);
    let mut inode = 1;
    let mut add = |name: &str, mode: u32, contents: &[u8]| -> Result<()> {
        inode += 1;
        let entry = newc::Builder::new(name).ino(inode).nlink(1).mode(mode);
        let mut writer = entry.write(&mut archive, u32::try_from(contents.len())?);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    };
    add("dev", 0o40_755, b"")?;
    // Opened as the first process's outputs, before it can mount anything.
    add("modules", 0o40_755, b"")?;
    add("init", 0o100_755, &fs::read(program).with_context(about)?)?;
    add("modules/order", 0o100_644, order.as_bytes())?;
    for name in order.lines() {
        let module = kernel.join("boot").join(name);
        let contents = fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
        add(&format!("modules/{name}"), 0o100_644, &contents)?;
    }
    newc::trailer(archive)
        .with_context(about)?
        .flush()
        .with_context(about)
}

/// Makes the disk with the host's files, each in the top folder under the name it shall have in the guest.
pub(super) fn make_files_disk(image: &Path, files: &[(PathBuf, String)]) -> Result<()> {
    let folder = image.with_extension("d");
    fs::create_dir_all(&folder)?;
    for (file, name) in files {
        let target = folder.join(name);
        let about = || format!("taking {} into the VM", file.display());
        let source = fs::canonicalize(file).with_context(about)?;
        // A second name costs nothing where the file system allows it.
        if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target).with_context(about)?;
        }
    }
    let size = folder_size(&folder) * 9 / 8 / 1024 / 1024 + 8;
    make_ext4(image, Some(&folder), size, &["-O", "^has_journal"])?;
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

/// Gives the disk image in the folder of kept disks, made at the first time.
pub(super) fn kept_disk(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let image = folder.join(KEPT_DISK);
    if !image.exists() {
        let fresh = folder.join(format!(".{KEPT_DISK}.{}", std::process::id()));
        make_ext4(
            &fresh,
            None,
            KEPT_DISK_MIB,
            &["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"],
        )?;
        fs::rename(&fresh, &image)?;
    }
    Ok(image)
}
