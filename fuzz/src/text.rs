//! Texts of other programs and of the kernel: containerd's configuration, lists of mounts, status lines.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::OnceLock};

use suture::{
    model::DeviceNumber,
    observe::{containerd::read_config, mounts},
};

use crate::bounds::bounded;

/// A folder of this process's own, in memory where there is such a place.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let base = PathBuf::from("/dev/shm");
        let base = if base.is_dir() { base } else { std::env::temp_dir() };
        let folder = base.join(format!("suture-fuzz-{}", std::process::id()));
        fs::create_dir_all(folder.join("1/ns")).expect("a folder for inputs");
        let link = |to: &str, at: &str| {
            let _ = std::os::unix::fs::symlink(to, folder.join(at));
        };
        link("mnt:[4026531841]", "1/ns/mnt");
        link("/", "1/root");
        fs::write(folder.join("1/comm"), "init\n").expect("a file for inputs");
        folder
    })
}

/// containerd's configuration, and one that it may import, behind a NUL.
pub fn containerd_config(data: &[u8]) {
    let (first, second) = data
        .iter()
        .position(|byte| *byte == 0)
        .map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    let path = folder().join("config.toml");
    fs::write(&path, first).expect("writing an input");
    fs::write(folder().join("more.toml"), second).expect("writing an input");
    let _ = bounded(data.len(), || read_config(&path));
}

/// What a process sees mounted.
pub fn mountinfo(data: &[u8]) {
    fs::write(folder().join("1/mountinfo"), data).expect("writing an input");
    let ours: BTreeSet<DeviceNumber> = (0..4).map(|minor| DeviceNumber { major: 253, minor }).collect();
    let found = bounded(data.len(), || mounts::read_below(folder(), &ours));
    assert!(found.by_device.keys().all(|device| ours.contains(device)));
    for mount in found.by_device.values().flatten() {
        assert!(
            !mount.path.contains(char::is_control),
            "an unprintable path: {:?}",
            mount.path
        );
    }
}
