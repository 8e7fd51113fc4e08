//! What the pool stands on, from sysfs, the dm tables and the list of mounts. Nothing of it is opened or touched: looking
//! at a dead disk must not wait for it.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use super::device_mapper::{DeviceMapper, TableLine};
use crate::model::{
    DeviceNumber, Node, Pool, Topology, Untrusted,
    topology::{BlockDevice, Layer},
};

/// A dm table of more targets than this is "somewhere on" what it lies on.
const MAX_TARGETS: usize = 256;

/// Reads what the pool's devices lie on, down to the disks, and the tables of those nodes that map no thin device. What can
/// not be read is said in the answer.
#[must_use]
pub fn read(dm: &DeviceMapper, pool: &Pool, nodes: &[Node]) -> Topology {
    let mut topology = Topology::of_pool(pool);
    let look = Look {
        sys: Path::new("/sys"),
        mounts: OnceCell::new(),
        table: |name: &[u8]| dm.live_table(name).map_err(|error| crate::words::explain(&error)),
    };
    let below = pool.data_device().into_iter().chain([pool.metadata_device]);
    look.down(&mut topology, below.collect());
    let bare = nodes.iter().filter(|node| node.thin_ids.is_empty());
    for node in bare.take(Topology::MAX_DEVICES) {
        let device = look.device(&mut topology, node.device);
        topology.devices.entry(node.device).or_insert(device);
    }
    topology
}

/// A mounted file system: where, and the number of its device.
type Mount = (PathBuf, DeviceNumber);

fn mounts() -> Result<Vec<Mount>, String> {
    let all = procfs::process::Process::myself()
        .and_then(|me| me.mountinfo())
        .map_err(|error| {
            format!("the mounts could not be read ({error}), so nobody knows on which disk a file lies")
        })?;
    let mounts = all.into_iter();
    Ok(mounts
        .filter_map(|mount| Some((mount.mount_point, mount.majmin.parse().ok()?)))
        .collect())
}

/// Where to look.
struct Look<'s, T> {
    sys: &'s Path,
    /// Read when a file is met: on a busy node there are thousands.
    mounts: OnceCell<Vec<Mount>>,
    /// Asks for the live table of a dm device of that name.
    table: T,
}

/// A live table; nothing of a device that is gone; in words what went wrong.
type TableAnswer = Result<Option<Vec<TableLine>>, String>;

impl<T: Fn(&[u8]) -> TableAnswer> Look<'_, T> {
    /// Reads devices and all that they lie on.
    fn down(&self, topology: &mut Topology, mut open: VecDeque<DeviceNumber>) {
        while let Some(number) = open.pop_front() {
            if topology.devices.contains_key(&number) {
                continue;
            }
            if topology.devices.len() >= Topology::MAX_DEVICES {
                topology.note_unread(format!(
                    "the pool stands on more than {} devices; the others were not looked at",
                    Topology::MAX_DEVICES
                ));
                return;
            }
            let device = self.device(topology, number);
            open.extend(device.on.iter().map(Layer::lower));
            topology.devices.insert(number, device);
        }
    }

    /// Reads one device.
    fn device(&self, topology: &mut Topology, number: DeviceNumber) -> BlockDevice {
        let folder = self.sys.join("dev/block").join(number.to_string());
        self.described(topology, &folder).unwrap_or_else(|error| {
            topology.note_unread(format!(
                "what {number} lies on could not be read: {}: {error}",
                folder.display()
            ));
            BlockDevice::default()
        })
    }

    fn described(&self, topology: &mut Topology, folder: &Path) -> io::Result<BlockDevice> {
        // A link to where the device really is: a partition's folder lies in its disk's.
        let folder = &fs::canonicalize(folder)?;
        let called = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut device = BlockDevice {
            name: Untrusted::from_bytes(called.unwrap_or_default().as_bytes()),
            ..BlockDevice::default()
        };
        if folder.join("partition").exists() {
            device.is_partition = true;
            device.on.push(Layer::Linear {
                start: 0,
                length: number_in(&folder.join("size"))?,
                lower: number_in(&folder.join("../dev"))?,
                lower_start: number_in(&folder.join("start"))?,
            });
            return Ok(device);
        }
        let slaves = || lowers(folder).map(|all| all.into_iter().map(|lower| Layer::Somewhere { lower }));
        if let Some(mut name) = optional(&folder.join("dm/name"))? {
            name.pop_if(|last| *last == b'\n');
            device.name = Untrusted::from_bytes(&name);
            let table = (self.table)(&name).unwrap_or_else(|why| {
                topology.note_unread(why);
                None
            });
            let table = table.unwrap_or_default();
            let mut kinds: Vec<&str> = table.iter().map(|(_, _, kind, _)| kind.as_str()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            device.targets = kinds
                .iter()
                .map(|kind| Untrusted::from_bytes(kind.as_bytes()))
                .collect();
            device.on = match linear(&table) {
                Some(layers) => layers,
                None => slaves()?.collect(),
            };
        } else if let Some(file) = optional(&folder.join("loop/backing_file"))? {
            let lower = self.disk_of(topology, &file);
            device.on.extend(lower.map(|lower| Layer::Somewhere { lower }));
        } else {
            device.on.extend(slaves()?);
        }
        Ok(device)
    }

    /// The device of the file system that holds a file; nothing for one without a device of its own.
    fn disk_of(&self, topology: &mut Topology, file: &[u8]) -> Option<DeviceNumber> {
        let file = String::from_utf8_lossy(file);
        let file = Path::new(file.trim_end_matches('\n'));
        let mounts = self.mounts.get_or_init(|| {
            mounts().unwrap_or_else(|why| {
                topology.note_unread(why);
                Vec::new()
            })
        });
        let holding = mounts.iter().filter(|(at, _)| file.starts_with(at));
        // The longest one; of those mounted over each other the last.
        let (_, device) = holding.max_by_key(|(at, _)| at.components().count())?;
        (device.major != 0).then_some(*device)
    }
}

/// The layers of a table of nothing but linear targets (`linear_ctr`, drivers/md/dm-linear.c: device and offset).
fn linear(table: &[TableLine]) -> Option<Vec<Layer>> {
    if table.len() > MAX_TARGETS || table.is_empty() {
        return None;
    }
    let layer = |(start, length, kind, parameters): &TableLine| {
        let (lower, lower_start) = parameters.split_once(' ')?;
        (kind == "linear").then_some(Layer::Linear {
            start: *start,
            length: *length,
            lower: lower.parse().ok()?,
            lower_start: lower_start.trim().parse().ok()?,
        })
    };
    table.iter().map(layer).collect()
}

/// The devices in a device's `slaves` folder.
fn lowers(folder: &Path) -> io::Result<Vec<DeviceNumber>> {
    let slaves = folder.join("slaves");
    let entries = match fs::read_dir(&slaves) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .take(Topology::MAX_DEVICES)
        .map(|entry| number_in(&entry?.path().join("dev")))
        .collect()
}

fn optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number_in<N: std::str::FromStr>(path: &Path) -> io::Result<N> {
    let text = fs::read_to_string(path)?;
    let damaged = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} says `{}`", path.display(), text.trim()),
        )
    };
    text.trim().parse().map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const DATA: DeviceNumber = DeviceNumber { major: 253, minor: 1 };
    const DISK: DeviceNumber = DeviceNumber { major: 8, minor: 0 };
    const PARTITION: DeviceNumber = DeviceNumber { major: 8, minor: 2 };
    const LOOP: DeviceNumber = DeviceNumber { major: 7, minor: 5 };

    fn put(sys: &Path, path: &str, text: &str) {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(sys: &Path, number: DeviceNumber, to: &str) {
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        put(sys, &format!("{to}/dev"), &format!("{number}\n"));
        std::os::unix::fs::symlink(sys.join(to), sys.join("dev/block").join(number.to_string())).unwrap();
    }

    fn look<'s>(
        sys: &'s Path,
        table: &'static [(u64, u64, &str, &str)],
    ) -> Look<'s, impl Fn(&[u8]) -> TableAnswer> {
        Look {
            sys,
            mounts: OnceCell::from(vec![
                ("/".into(), DeviceNumber { major: 0, minor: 22 }),
                ("/var/lib".into(), PARTITION),
                ("/var/lib/x".into(), DeviceNumber { major: 0, minor: 30 }),
            ]),
            table: |name: &[u8]| {
                assert_eq!(name, b"vg-tdata");
                let own = |(start, length, kind, text): &(u64, u64, &str, &str)| {
                    (*start, *length, (*kind).to_owned(), (*text).to_owned())
                };
                Ok(Some(table.iter().map(own).collect()))
            },
        }
    }

    /// A dm device on a loop device on a file on a partition.
    fn sysfs() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let at = sys.path();
        link(at, DATA, "devices/virtual/block/dm-1");
        put(at, "devices/virtual/block/dm-1/dm/name", "vg-tdata\n");
        fs::create_dir_all(at.join("devices/virtual/block/dm-1/slaves")).unwrap();
        link(at, LOOP, "devices/virtual/block/loop5");
        std::os::unix::fs::symlink(
            at.join("devices/virtual/block/loop5"),
            at.join("devices/virtual/block/dm-1/slaves/loop5"),
        )
        .unwrap();
        put(
            at,
            "devices/virtual/block/loop5/loop/backing_file",
            "/var/lib/pool/data (deleted)\n",
        );
        link(at, DISK, "devices/pci/block/sda");
        link(at, PARTITION, "devices/pci/block/sda/sda2");
        for (file, text) in [("partition", "2\n"), ("start", "2048\n"), ("size", "100000\n")] {
            put(at, &format!("devices/pci/block/sda/sda2/{file}"), text);
        }
        sys
    }

    fn read(sys: &Path, table: &'static [(u64, u64, &str, &str)]) -> Topology {
        let mut topology = Topology::default();
        look(sys, table).down(&mut topology, VecDeque::from([DATA]));
        topology
    }

    #[test]
    fn a_pool_is_followed_down_to_its_disk() {
        let sys = sysfs();
        let topology = read(sys.path(), &[(0, 4096, "linear", "7:5 384")]);
        assert_eq!(topology.unread, Vec::<String>::new());
        let on = |number: &DeviceNumber| topology.devices[number].on.clone();
        assert_eq!(
            on(&DATA),
            [Layer::Linear {
                start: 0,
                length: 4096,
                lower: LOOP,
                lower_start: 384
            }]
        );
        assert_eq!(on(&LOOP), [Layer::Somewhere { lower: PARTITION }]);
        assert_eq!(
            on(&PARTITION),
            [Layer::Linear {
                start: 0,
                length: 100_000,
                lower: DISK,
                lower_start: 2048
            }]
        );
        assert_eq!(on(&DISK), []);
        assert_eq!(topology.call(DATA), "253:1 (vg-tdata)");
        assert!(topology.devices[&PARTITION].is_partition);
    }

    #[test]
    fn what_is_not_linear_is_somewhere_and_an_error_table_is_known() {
        let sys = sysfs();
        let striped = read(sys.path(), &[(0, 4096, "striped", "2 128 7:5 0 7:6 0")]);
        assert_eq!(striped.devices[&DATA].on, [Layer::Somewhere { lower: LOOP }]);
        let broken = read(sys.path(), &[(0, 8, "linear", "7:5"), (8, 8, "linear", "7:5 0")]);
        assert_eq!(broken.devices[&DATA].on, [Layer::Somewhere { lower: LOOP }]);
        fs::remove_file(sys.path().join("devices/virtual/block/dm-1/slaves/loop5")).unwrap();
        let failing = read(sys.path(), &[(0, 4096, "error", "")]);
        assert!(failing.is_error_table(DATA) && failing.devices[&DATA].on.is_empty());
        assert!(!striped.is_error_table(DATA));
    }

    #[test]
    fn without_sysfs_the_answer_says_so() {
        let empty = tempfile::tempdir().unwrap();
        let topology = read(empty.path(), &[]);
        assert_eq!(topology.unread.len(), 1);
        assert!(topology.unread[0].contains("253:1"), "{:?}", topology.unread);
        let garbage = sysfs();
        put(garbage.path(), "devices/pci/block/sda/sda2/start", "many");
        let topology = read(garbage.path(), &[(0, 4096, "linear", "7:5 0")]);
        assert!(
            topology.unread[0].contains("says `many`"),
            "{:?}",
            topology.unread
        );
        let pool = testing::world(1).pool;
        assert_eq!(
            Topology::of_pool(&pool).devices[&pool.device].on[0].lower(),
            pool.data_device().unwrap()
        );
    }
}
