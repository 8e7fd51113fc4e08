//! Programs that containerd has started and that work on devices at this moment. While there is one, what looks half done
//! is being done. One that an earlier containerd left behind works on as well (systemd's `KillMode=process`).

use std::{
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use procfs::process::Process;

use super::process;
use crate::model::{Node, PoolName, Untrusted};

/// What the snapshotter runs (plugins/snapshots/devmapper: `dmsetup/`, `mkfs` and `blkdiscard` in snapshotter.go), with
/// the names under which those run in turn.
const PROGRAMS: [&str; 10] = [
    "dmsetup",
    "blkdiscard",
    "mkfs",
    "mkfs.ext4",
    "mkfs.ext2",
    "mkfs.ext3",
    "mkfs.xfs",
    "mke2fs",
    "mount",
    "umount",
];
/// Programs that are told.
const MOST: usize = 32;
/// Ancestors that are followed from a program to containerd.
const MOST_ANCESTORS: usize = 16;
/// The longest command line that is read.
const LONGEST_COMMAND_LINE: u64 = 64 << 10;

/// Where a process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    pid: u32,
    /// Set when it is a shim: what shims run is the containers' and not containerd's.
    is_shim: bool,
}

/// The programs at work on the pool or on devices of its snapshots, such as `mkfs.ext4 [1234] /dev/mapper/tp-snap-3`.
/// They are `containerd`'s, or nobody's any more: an administrator's own are not among them.
#[must_use]
pub fn at_work(containerd: Option<u32>, pool: &PoolName, nodes: &[Node]) -> Vec<String> {
    let devices: Vec<String> = nodes
        .iter()
        .map(|node| format!("dm-{}", node.device.minor))
        .collect();
    let mut found = Vec::new();
    for pid in process::named(&PROGRAMS) {
        if found.len() >= MOST {
            break;
        }
        let folder = PathBuf::from(format!("/proc/{pid}"));
        // The snapshotter needs root: nobody else can make it look busy.
        if !fs::metadata(&folder).is_ok_and(|folder: Metadata| folder.uid() == 0) {
            continue;
        }
        let mut line = Vec::new();
        let read = File::open(folder.join("cmdline"))
            .and_then(|file| file.take(LONGEST_COMMAND_LINE).read_to_end(&mut line));
        if read.is_err() {
            continue;
        }
        if let Some(device) = device_of_ours(&line, pool, &devices)
            && is_containerds(pid, containerd, parent_of)
        {
            let name = fs::read(folder.join("comm")).unwrap_or_default();
            let name = Untrusted::from_bytes(name.trim_ascii_end());
            found.push(format!("{name} [{pid}] {device}"));
        }
    }
    found.sort_unstable();
    found
}

/// The first word of a command line that names the pool or a device of a snapshot in it, made printable. A table for
/// `dmsetup` is one argument of several words.
fn device_of_ours(line: &[u8], pool: &PoolName, devices: &[String]) -> Option<Untrusted> {
    let is_ours = |word: &&[u8]| {
        let name = word
            .strip_prefix(b"/dev/mapper/")
            .or_else(|| word.strip_prefix(b"/dev/"))
            .unwrap_or(word);
        std::str::from_utf8(name).is_ok_and(|name| {
            name == pool.as_str()
                || pool.snapshot_of(name).is_some()
                || (word.starts_with(b"/dev/") && devices.iter().any(|device| device == name))
        })
    };
    let words = line
        .split(|byte| *byte == 0 || byte.is_ascii_whitespace())
        .skip(1);
    words
        .filter(|word| !word.is_empty())
        .find(is_ours)
        .map(Untrusted::from_bytes)
}

/// Whether containerd started a process, itself or through others; or nobody is left that did.
fn is_containerds(pid: u32, containerd: Option<u32>, parent: impl Fn(u32) -> Option<Parent>) -> bool {
    let mut at = pid;
    for step in 0..MOST_ANCESTORS {
        let Some(Parent { pid, is_shim }) = parent(at) else {
            return false;
        };
        if is_shim {
            return false;
        }
        if Some(pid) == containerd {
            return true;
        }
        if pid <= 1 {
            // The program's own parent is gone. What has an ancestor left is that one's work.
            return step == 0;
        }
        at = pid;
    }
    false
}

fn parent_of(pid: u32) -> Option<Parent> {
    let stat = |pid: u32| Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok();
    let parent = u32::try_from(stat(pid)?.ppid).ok()?;
    let is_shim = parent > 1 && stat(parent).is_some_and(|stat| stat.comm.starts_with("containerd-shim"));
    Some(Parent { pid: parent, is_shim })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        process::{Command, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    fn pool() -> PoolName {
        PoolName::new("tp")
    }

    #[test]
    fn a_device_of_ours_is_told_from_anybody_elses() {
        let word = |line: &str| {
            let devices = ["dm-7".to_owned()];
            device_of_ours(line.replace('|', "\0").as_bytes(), &pool(), &devices).map(|word| word.to_string())
        };
        for (line, expected) in [
            (
                "mkfs.ext4|-E|nodiscard|/dev/mapper/tp-snap-3|",
                Some("/dev/mapper/tp-snap-3"),
            ),
            (
                "dmsetup|create|tp-snap-3|--table|0 8 thin /dev/mapper/tp 3|",
                Some("tp-snap-3"),
            ),
            (
                "dmsetup|reload|x|--table|0 8 thin /dev/mapper/tp 3|",
                Some("/dev/mapper/tp"),
            ),
            ("dmsetup|message|tp|0|create_thin 3|", Some("tp")),
            ("blkdiscard|/dev/dm-7|", Some("/dev/dm-7")),
            ("blkdiscard|/dev/dm-8|", None),
            ("mkfs.ext4|dm-7|", None),
            ("mkfs.ext4|/dev/mapper/tp-snap-x|", None),
            ("mkfs.ext4|/dev/mapper/tp2|", None),
            ("tp|other|", None),
            ("", None),
        ] {
            assert_eq!(word(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn descendants_and_orphans_are_containerds_and_what_shims_run_is_not() {
        const CONTAINERD: u32 = 500;
        let parents = BTreeMap::from([
            (10, (CONTAINERD, false)),
            (11, (10, false)),
            (20, (1, false)),
            (30, (31, true)),
            (31, (CONTAINERD, false)),
            (40, (41, false)),
            (41, (1, false)),
            (50, (51, false)),
            (51, (50, false)),
            (CONTAINERD, (1, false)),
        ]);
        let is = |pid, containerd| {
            is_containerds(pid, containerd, |pid| {
                let (pid, is_shim) = *parents.get(&pid)?;
                Some(Parent { pid, is_shim })
            })
        };
        for (pid, expected) in [
            (10, true),
            (11, true),
            (20, true),
            (30, false),
            (40, false),
            (50, false),
            (60, false),
        ] {
            assert_eq!(is(pid, Some(CONTAINERD)), expected, "{pid}");
        }
        assert!(is(20, None) && !is(11, None));
    }

    #[test]
    fn a_running_program_is_found_with_its_device() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        // A script has its own name as the process's.
        let script = folder.path().join("mkfs.ext4");
        fs::write(&script, "#!/bin/sh\nread line\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = Command::new(&script)
            .args(["-F", "/dev/mapper/tp-snap-3"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut other = Command::new(&script)
            .arg("/dev/mapper/other")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let me = std::process::id();
        let expected = format!("mkfs.ext4 [{}] /dev/mapper/tp-snap-3", child.id());
        let begun = std::time::Instant::now();
        let mut found = Vec::new();
        while found.is_empty() && begun.elapsed().as_secs() < 20 {
            found = at_work(Some(me), &pool(), &[]);
        }
        let strangers = at_work(Some(me + 1_000_000), &pool(), &[]);
        for child in [&mut child, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found, [expected]);
        assert_eq!(strangers, [""; 0], "another's child is no work of containerd's");
    }

    proptest! {
        #[test]
        fn no_command_line_panics_or_drives_a_terminal(line in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(b'/'), Just(b't'), Just(b'p')], 0..100)) {
            if let Some(word) = device_of_ours(&line, &pool(), &[]) {
                prop_assert!(word.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
