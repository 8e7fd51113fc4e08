//! Where block devices are mounted, in every mount namespace: a device that looks idle here may be the root of a container
//! that only its own namespace shows.
//!
//! The lines are parsed here and not by the `procfs` crate, which takes a file of lines as text: one mount point with a
//! name that is not UTF-8, which any container can make, and it would answer for none of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use crate::{
    model::{
        DeviceNumber, Untrusted,
        survey::{Mount, Mounts},
    },
    words::{counted, one_or},
};

/// Mounts that are told of one device; more are not needed to leave it alone.
const MOST_PER_DEVICE: usize = 64;
/// Namespaces that are read. A node has one for each container.
const MOST_NAMESPACES: usize = 16_384;
/// Bytes of one namespace's list: some hundred thousand mounts.
const LONGEST_LIST: u64 = 64 << 20;
/// Bytes of all lists together.
const LONGEST_TOTAL: u64 = 512 << 20;

/// One line of mountinfo, as far as it matters (`show_mountinfo`, `fs/proc_namespace.c`).
#[derive(Debug, PartialEq, Eq)]
struct Line<'l> {
    device: DeviceNumber,
    /// What of the file system is mounted; of a namespace's own file its name, such as `mnt:[4026532256]`.
    root: &'l [u8],
    mount_point: &'l [u8],
    file_system: &'l [u8],
    source: &'l [u8],
}

/// What was found on the way.
#[derive(Debug, Default)]
struct Walk {
    by_device: BTreeMap<DeviceNumber, Vec<Mount>>,
    /// Namespaces that were read as their own root shows them.
    read: BTreeSet<u64>,
    /// Namespaces of which only processes in a changed root were met, by those.
    chrooted: BTreeMap<u64, Vec<u32>>,
    /// Namespaces that are bound to a file.
    bound: BTreeSet<u64>,
    /// Processes that could not be looked at.
    refused: usize,
    /// Lines that make no sense.
    strange: usize,
    /// Bytes read so far.
    bytes: u64,
    /// Set when a limit was met.
    cut: bool,
    /// Devices by the source that a line names.
    sources: BTreeMap<Vec<u8>, Option<DeviceNumber>>,
}

/// Where these devices are mounted. What can not be seen is said in the answer: it never fails.
#[must_use]
pub fn read(devices: &BTreeSet<DeviceNumber>) -> Mounts {
    read_below(Path::new("/proc"), devices)
}

/// The same, where `/proc` is another folder.
#[must_use]
pub fn read_below(proc: &Path, devices: &BTreeSet<DeviceNumber>) -> Mounts {
    if devices.is_empty() {
        return Mounts::default();
    }
    let entries = match fs::read_dir(proc) {
        Ok(entries) => entries,
        Err(error) => {
            return Mounts {
                incomplete: Some(format!("{} can not be listed: {error}", proc.display())),
                ..Mounts::default()
            };
        }
    };
    let mut walk = Walk::default();
    for pid in entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
    {
        walk.process(proc, pid, devices);
    }
    for (namespace, pids) in std::mem::take(&mut walk.chrooted) {
        if !walk.read.contains(&namespace) {
            for pid in pids {
                walk.list(proc, pid, namespace, devices);
            }
            walk.cut = true;
        }
    }
    walk.finish()
}

impl Walk {
    fn process(&mut self, proc: &Path, pid: u32, devices: &BTreeSet<DeviceNumber>) {
        let folder = proc.join(pid.to_string());
        let namespace = match fs::read_link(folder.join("ns/mnt")) {
            Ok(link) => namespace_number(link.as_os_str().as_bytes()),
            // It has ended meanwhile; or it is a zombie, which has no namespace any more.
            Err(error) if is_gone(&error) => return,
            Err(_) => None,
        };
        let Some(namespace) = namespace else {
            self.refused += 1;
            return;
        };
        if self.read.contains(&namespace) {
            return;
        }
        // A process in a changed root is shown only the mounts below it.
        let at_root = fs::read_link(folder.join("root")).is_ok_and(|root| root == Path::new("/"));
        if !at_root {
            let others = self.chrooted.entry(namespace).or_default();
            if others.len() < MOST_PER_DEVICE {
                others.push(pid);
            }
        } else if self.read.len() >= MOST_NAMESPACES {
            self.cut = true;
        } else if self.list(proc, pid, namespace, devices) {
            self.read.insert(namespace);
        }
    }

    /// Reads what a process sees mounted. False when it could not be read: another one of its namespace may do.
    fn list(&mut self, proc: &Path, pid: u32, namespace: u64, devices: &BTreeSet<DeviceNumber>) -> bool {
        let folder = proc.join(pid.to_string());
        let mut bytes = Vec::new();
        let room = LONGEST_TOTAL.saturating_sub(self.bytes).min(LONGEST_LIST);
        let read =
            File::open(folder.join("mountinfo")).and_then(|file| file.take(room).read_to_end(&mut bytes));
        match read {
            // Empty when the process ended between the two (`mounts_open_common` has its namespace, or EINVAL).
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if is_gone(&error) => return false,
            Err(_) => {
                self.refused += 1;
                return false;
            }
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        self.cut |= length >= room;
        let name = fs::read(folder.join("comm")).unwrap_or_default();
        let process = Untrusted::from_bytes(name.trim_ascii_end()).to_string();
        for text in bytes.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            let Some(line) = parse(text) else {
                self.strange += 1;
                continue;
            };
            if line.file_system == b"nsfs" {
                self.bound.extend(namespace_number(line.root));
            }
            let Some(device) = self.device_of(&line, devices) else {
                continue;
            };
            let mounts = self.by_device.entry(device).or_default();
            if mounts.len() < MOST_PER_DEVICE {
                mounts.push(Mount {
                    namespace,
                    pid,
                    process: process.clone(),
                    path: Untrusted::from_bytes(&unescape(line.mount_point)).to_string(),
                });
            }
        }
        true
    }

    /// The device of ours that a line shows. The number is the block device's for ext4, ext2 and xfs. File systems that
    /// keep a number of their own (btrfs) have major 0, and name the device as their source.
    fn device_of(&mut self, line: &Line<'_>, devices: &BTreeSet<DeviceNumber>) -> Option<DeviceNumber> {
        if devices.contains(&line.device) {
            return Some(line.device);
        }
        if line.device.major != 0 {
            return None;
        }
        let source = unescape(line.source);
        // Only names straight in the kernel's own file system of devices: looking these up can not hang.
        let name = source.strip_prefix(b"/dev/mapper/").or_else(|| {
            source
                .strip_prefix(b"/dev/")
                .filter(|name| name.starts_with(b"dm-"))
        })?;
        if name.contains(&b'/') || self.sources.len() >= MOST_NAMESPACES {
            return None;
        }
        let device = *self.sources.entry(source).or_insert_with_key(|source| {
            let found = fs::metadata(std::ffi::OsStr::from_bytes(source)).ok()?;
            (found.rdev() != 0).then(|| DeviceNumber::from_huge(found.rdev()))
        });
        device.filter(|device| devices.contains(device))
    }

    fn finish(self) -> Mounts {
        let mut lacks = Vec::new();
        if self.refused > 0 {
            lacks.push(format!(
                "the mounts of {} can not be read: run suture as root, in the machine's own process namespace",
                match self.refused {
                    1 => "one process".to_owned(),
                    more => format!("{more} processes"),
                }
            ));
        }
        let hidden = self.bound.difference(&self.read).count();
        if hidden > 0 {
            lacks.push(format!(
                "{} without a process, kept only by a bind mount, can not be looked into: what is mounted there is not seen",
                counted(hidden, "mount namespace")
            ));
        }
        if self.strange > 0 {
            lacks.push(format!(
                "{} of mountinfo {} not as the kernel writes them",
                counted(self.strange, "line"),
                one_or(self.strange, "is", "are")
            ));
        }
        if self.cut {
            lacks.push(
                "there are more mounts than are read, or namespaces with only processes in a changed root"
                    .to_owned(),
            );
        }
        Mounts {
            by_device: self.by_device,
            incomplete: (!lacks.is_empty()).then(|| lacks.join("; ")),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ESRCH, libc::EINVAL];
    error.raw_os_error().is_some_and(|code| gone.contains(&code))
}

/// The number in `mnt:[4026531841]`.
fn namespace_number(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"mnt:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: any number of fields before the dash.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let device = std::str::from_utf8(device).ok()?.parse().ok()?;
    let (root, mount_point, _options) = (fields.next()?, fields.next()?, fields.next()?);
    fields.find(|field| *field == b"-")?;
    Some(Line {
        device,
        root,
        mount_point,
        file_system: fields.next()?,
        source: fields.next()?,
    })
}

/// Undoes the kernel's escapes (`mangle_path`, `fs/seq_file.c`): a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*first));
        rest = escaped.map_or(behind, |_| rest.get(4..).unwrap_or_default());
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    const OURS: DeviceNumber = DeviceNumber { major: 253, minor: 1 };

    /// A process as `/proc` shows it.
    fn process(proc: &Path, pid: u32, namespace: &str, root: &str, mountinfo: &[u8]) {
        let folder = proc.join(pid.to_string());
        fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(namespace, folder.join("ns/mnt")).unwrap();
        symlink(root, folder.join("root")).unwrap();
        fs::write(folder.join("comm"), b"web\x1b\n").unwrap();
        fs::write(folder.join("mountinfo"), mountinfo).unwrap();
    }

    fn line(device: &str, point: &str) -> Vec<u8> {
        format!("40 32 {device} / {point} rw,relatime - ext4 /dev/mapper/tp-snap-4 rw,stripe=64\n")
            .into_bytes()
    }

    fn ours() -> BTreeSet<DeviceNumber> {
        BTreeSet::from([OURS])
    }

    #[test]
    fn each_namespace_is_read_once_and_names_are_made_printable() {
        let proc = tempfile::tempdir().unwrap();
        let host = [line("253:1", "/run/a\\040b\\134c\\012d"), line("253:2", "/other")].concat();
        for pid in [1, 2] {
            process(proc.path(), pid, "mnt:[100]", "/", &host);
        }
        process(
            proc.path(),
            3,
            "mnt:[200]",
            "/",
            &[
                &line("253:1", "/")[..],
                b"1 2 253:1 / /\xff\xfe rw - ext4 none rw\n",
            ]
            .concat(),
        );
        fs::create_dir(proc.path().join("4")).unwrap();
        let mounts = read_below(proc.path(), &ours());
        assert_eq!(mounts.incomplete, None);
        let mut found: Vec<_> = mounts.by_device[&OURS]
            .iter()
            .map(|mount| (mount.namespace, mount.path.as_str(), mount.process.as_str()))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                (100, "/run/a b\\\\c\\nd", "web\\x1b"),
                (200, "/", "web\\x1b"),
                (200, "/\\xff\\xfe", "web\\x1b"),
            ]
        );
        assert_eq!(mounts.by_device.len(), 1, "only what was asked for");
        assert_eq!(read_below(proc.path(), &BTreeSet::new()), Mounts::default());
    }

    #[test]
    fn what_can_not_be_seen_is_said() {
        let proc = tempfile::tempdir().unwrap();
        let bound = b"9 1 0:4 mnt:[100] /run/a rw - nsfs nsfs rw\n9 1 0:4 mnt:[999] /run/b rw - nsfs nsfs rw\n9 1 0:4 net:[5] /run/n rw - nsfs nsfs rw\nnonsense\n";
        process(proc.path(), 1, "mnt:[100]", "/", bound);
        process(proc.path(), 2, "mnt:[300]", "/srv/jail", &line("253:1", "/data"));
        // No namespace of mounts.
        process(proc.path(), 3, "strange", "/", b"");
        let mounts = read_below(proc.path(), &ours());
        assert_eq!(mounts.by_device[&OURS][0].path, "/data", "better than nothing");
        let why = mounts.incomplete.unwrap();
        for part in [
            "of one process can",
            "1 mount namespace without a process",
            "1 line of mountinfo is",
            "changed root",
        ] {
            assert!(why.contains(part), "{part}: {why}");
        }
        let nowhere = read_below(Path::new("/nowhere"), &ours());
        assert!(nowhere.incomplete.unwrap().contains("/nowhere"));
    }

    #[test]
    fn a_process_in_a_changed_root_does_not_stand_for_its_namespace() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 1, "mnt:[100]", "/srv/jail", b"");
        process(proc.path(), 2, "mnt:[100]", "/", &line("253:1", "/data"));
        let mounts = read_below(proc.path(), &ours());
        assert_eq!(mounts.incomplete, None);
        assert_eq!(mounts.by_device[&OURS].len(), 1);
    }

    #[test]
    fn a_device_with_a_thousand_mounts_is_told_with_some() {
        let proc = tempfile::tempdir().unwrap();
        process(
            proc.path(),
            1,
            "mnt:[100]",
            "/",
            &line("253:1", "/x").repeat(1000),
        );
        let mounts = read_below(proc.path(), &ours());
        assert_eq!(mounts.by_device[&OURS].len(), MOST_PER_DEVICE);
        assert_eq!(mounts.incomplete, None, "it is known to be mounted");
    }

    #[test]
    fn this_very_machine_has_a_root() {
        let root = fs::metadata("/proc").unwrap().dev();
        let device = DeviceNumber::from_huge(root);
        let mounts = read(&BTreeSet::from([device]));
        assert!(
            mounts.by_device[&device]
                .iter()
                .any(|mount| mount.path == "/proc"),
            "{mounts:?}"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_name_drives_a_terminal(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'\\'), Just(b'-'), b'0'..=b'9'], 0..200)) {
            let _ = parse(&bytes);
            prop_assert!(unescape(&bytes).len() <= bytes.len());
            let proc = tempfile::tempdir().unwrap();
            process(proc.path(), 1, "mnt:[100]", "/", &[b"1 2 253:1 / /".as_slice(), &bytes, b" rw - ext4 s rw\n"].concat());
            let mounts = read_below(proc.path(), &ours());
            for mount in mounts.by_device.into_values().flatten() {
                prop_assert!(mount.path.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }

        #[test]
        fn the_kernels_escapes_come_undone(name in proptest::collection::vec(any::<u8>(), 0..50)) {
            let escape = |byte: &u8| match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                other => vec![*other],
            };
            let escaped: Vec<u8> = name.iter().flat_map(escape).collect();
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}
