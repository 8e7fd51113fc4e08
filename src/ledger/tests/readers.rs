use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

use super::*;

/// A small file system of its own, which goes with the value. Making one needs root, as all that suture does.
pub(super) struct SmallDisk(pub(super) tempfile::TempDir);

impl SmallDisk {
    pub(super) fn new(kilobytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={kilobytes}k")).unwrap();
        mount(
            "suture-test",
            folder.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(size.as_c_str()),
        )
        .expect("mounting a tmpfs needs root");
        let _ = mount_change(folder.path(), MountPropagationFlags::PRIVATE);
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn read_only(&self, only: bool) {
        let flags = if only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        mount_remount(self.path(), flags, c"").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_ledger_is_read_from_a_file_system_that_can_only_be_read() {
    let disk = SmallDisk::new(4096);
    let path = disk.path().join("ledger.db");
    let mut ledger = Ledger::open(&path).unwrap();
    fill(&mut ledger);
    let written = all_of(&ledger).unwrap();
    drop(ledger);
    disk.read_only(true);
    let reader = Ledger::open_to_read(&path).unwrap();
    assert_eq!(all_of(&reader).unwrap(), written);
    assert!(reader.is_watching(at(99)).is_err());
}

#[test]
fn the_log_of_a_killed_suture_is_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill(&mut ledger);
    let written = all_of(&ledger).unwrap();
    // What is on the disk at this moment, as a kill leaves it.
    let copy = tempfile::tempdir().unwrap();
    for file in ["ledger.db", "ledger.db-wal"] {
        fs::copy(folder.path().join("folder").join(file), copy.path().join(file)).unwrap();
    }
    let path = copy.path().join("ledger.db");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let reader = Ledger::open_to_read(&path).unwrap();
    assert_eq!(all_of(&reader).unwrap(), written);
}
