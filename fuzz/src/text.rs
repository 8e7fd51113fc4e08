//! Texts of other programs and of the kernel: containerd's configuration, lists of mounts, status lines.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::OnceLock};

use suture::{
    model::{
        DeviceNumber, PoolMode, PoolName, PoolUsage, Sectors, ThinId, Untrusted,
        dm::{Message, Target},
    },
    observe::{containerd::read_config, mounts, pool_status},
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

/// The device that lines of tables are held against.
const POOL: DeviceNumber = DeviceNumber { major: 253, minor: 2 };

/// What the kernel says of pools and thin devices, and what is said to it: a line of each kind.
pub fn dm_status(data: &[u8]) {
    bounded(data.len(), || data.split(|byte| *byte == b'\n').for_each(line));
}

fn line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let usage = pool_status::usage(&text, Some(Sectors(128)));
    let mode = pool_status::mode(&text);
    if let Some((mode, needs_check)) = mode {
        assert!(
            usage.is_some() != matches!(mode, PoolMode::Failed | PoolMode::Unknown),
            "a pool that works counts, and one that failed does not: {text}"
        );
        if let Some(usage) = usage {
            // Written as the kernel writes it, it says the same.
            let again = status(&usage, mode, needs_check);
            assert_eq!(pool_status::mode(&again), Some((mode, needs_check)), "{again}");
            assert_eq!(
                pool_status::usage(&again, Some(Sectors(128))),
                Some(usage),
                "{again}"
            );
        }
    }
    let _ = pool_status::metadata_device(&text);
    let (kind, parameters) = text.split_once(' ').unwrap_or((&text, ""));
    let read = pool_status::thin_id(Some(POOL), kind, parameters);
    assert!(
        read.is_none_or(|id| kind == "thin" && id <= ThinId::MAX),
        "{text}"
    );
    let target = Target {
        start: Sectors(0),
        length: Sectors(8),
        kind: Untrusted::from_bytes(kind.as_bytes()),
        parameters: Untrusted::from_bytes(parameters.as_bytes()),
    };
    // One reads what the kernel says, the other what anybody asks of it, which may be less strict.
    let asked = target.thin_on(&PoolName::new("tp"), Some(POOL));
    let plain = !parameters.contains(char::is_control);
    assert!(
        read.is_none() || asked == read || !plain,
        "{asked:?} and {read:?} of {text}"
    );
    if let message @ (Message::CreateThin { .. } | Message::CreateSnap { .. } | Message::Delete { .. }) =
        Message::parse(bytes)
    {
        assert!(message.subject().is_some_and(|id| id <= ThinId::MAX), "{text}");
        assert_eq!(Message::parse(message.to_string().as_bytes()), message, "{text}");
    }
}

/// `pool_status`, drivers/md/dm-thin.c.
fn status(usage: &PoolUsage, mode: PoolMode, needs_check: bool) -> String {
    let PoolUsage {
        metadata_used,
        metadata_total,
        data_used,
        data_total,
        held_root,
        ..
    } = usage;
    let held_root = held_root.map_or("-".to_owned(), |root| root.to_string());
    let mode = match mode {
        PoolMode::ReadOnly => "ro",
        PoolMode::OutOfDataSpace => "out_of_data_space",
        _ => "rw",
    };
    let check = if needs_check { "needs_check" } else { "-" };
    format!(
        "0 {metadata_used}/{metadata_total} {data_used}/{data_total} {held_root} {mode} discard_passdown queue_if_no_space {check} 1024"
    )
}
