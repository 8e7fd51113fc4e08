//! Where metadata blocks come from: the live metadata device, past the page cache, or a copy in a file.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use super::error::ThinMetadataError;
use crate::model::DeviceNumber;

/// Bytes of a metadata block (`THIN_METADATA_BLOCK_SIZE`, drivers/md/dm-thin-metadata.h).
pub const BLOCK_SIZE: usize = 4096;

/// How long a file must have been left alone for its time of change to tell whether it is: many ticks of any clock.
const STILL: Duration = Duration::from_secs(1);

/// One metadata block.
pub type Block = [u8; BLOCK_SIZE];

/// How much was ever written to a device, or when a file changed last: equal before and after means that no write began or
/// ended between, as far as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Field 5 of the device's `stat` (Documentation/block/stat.rst): writes completed. For devices without a request
    /// queue, kernels before 6.3 count a write when it begins; either serves. Of a file, the nanosecond in which it was
    /// changed last.
    pub writes: u64,
    /// Field 9: requests in flight, reads among them.
    pub in_flight: u64,
}

/// Random access to blocks that the kernel may be writing meanwhile.
pub trait BlockSource {
    /// Reads block `number`, of what is on the device now, not of a cache.
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()>;

    /// How many whole blocks there are.
    fn blocks(&self) -> u64;

    /// What was written so far; none where nobody counts. See [`super::read`] for what follows from that.
    fn generation(&self) -> io::Result<Option<Generation>>;

    /// How errors call it: the path.
    fn name(&self) -> String;
}

/// A metadata device, or an image of one in a regular file.
#[derive(Debug)]
pub struct DeviceSource {
    file: File,
    path: PathBuf,
    blocks: u64,
    /// Where sysfs counts the device's writes; none for a regular file.
    statistics: Option<PathBuf>,
    /// Twice a block, so that an aligned block lies within: `O_DIRECT` asks for memory aligned to sectors.
    buffer: Vec<u8>,
}

impl DeviceSource {
    /// Opens the metadata device of that number, for reading only and without claiming it.
    pub fn open_device(number: DeviceNumber) -> Result<Self, ThinMetadataError> {
        let node = device_node(number)?;
        let wrong = |detail: String| ThinMetadataError::WrongNode {
            number,
            node: node.display().to_string(),
            detail,
        };
        let found = match std::fs::metadata(&node) {
            Ok(metadata) => metadata,
            Err(error) => return Err(wrong(format!(": {error}"))),
        };
        let is = DeviceNumber::from_huge(found.rdev());
        if !found.file_type().is_block_device() || is != number {
            return Err(wrong(format!(", it is {is}")));
        }
        Self::open(&node)
    }

    /// Opens a block device's node or a regular file, for reading only.
    ///
    /// A block device is opened with `O_DIRECT`: the kernel writes metadata past the page cache of the device
    /// (dm-bufio submits its own bios), so a cached read could return a state of long ago.
    pub fn open(path: &Path) -> Result<Self, ThinMetadataError> {
        let io = |doing: &str, source| ThinMetadataError::Io {
            doing: doing.to_owned(),
            file: path.display().to_string(),
            source,
        };
        let kind = std::fs::metadata(path)
            .map_err(|source| io("look up", source))?
            .file_type();
        let direct = if kind.is_block_device() {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        if !kind.is_block_device() && !kind.is_file() {
            return Err(ThinMetadataError::NotADevice {
                path: path.display().to_string(),
                what: what_is(kind),
            });
        }
        // NONBLOCK so that a pipe put there meanwhile can not hold the agent.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | direct;
        let mut file = rustix::fs::open(path, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| io("open", errno.into()))?;
        // The end is the size, for devices too, whose stat says 0.
        let size = file
            .seek(SeekFrom::End(0))
            .map_err(|source| io("find the size of", source))?;
        let opened = file.metadata().map_err(|source| io("look up", source))?;
        let statistics = opened
            .file_type()
            .is_block_device()
            .then(|| sys_dev_block(Path::new("/sys"), DeviceNumber::from_huge(opened.rdev())));
        let block = u64::try_from(BLOCK_SIZE).unwrap_or(u64::MAX);
        Ok(Self {
            file,
            path: path.to_owned(),
            blocks: size / block,
            statistics,
            buffer: vec![0; 2 * BLOCK_SIZE],
        })
    }
}

impl BlockSource for DeviceSource {
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()> {
        let size = u64::try_from(BLOCK_SIZE).map_err(io::Error::other)?;
        let offset = number.checked_mul(size).ok_or(io::ErrorKind::UnexpectedEof)?;
        let skip = self.buffer.as_ptr().align_offset(BLOCK_SIZE);
        let aligned = skip
            .checked_add(BLOCK_SIZE)
            .and_then(|end| self.buffer.get_mut(skip..end))
            .ok_or_else(|| io::Error::other("no aligned memory for a direct read"))?;
        self.file.read_exact_at(aligned, offset)?;
        block.copy_from_slice(aligned);
        Ok(())
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn generation(&self) -> io::Result<Option<Generation>> {
        match self.statistics.as_deref() {
            Some(folder) => generation_in(folder),
            None => Ok(changed(&self.file.metadata()?, SystemTime::now())),
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// When a file was changed last, by the time that nobody can set. None where that is too near: a second write in the same tick
/// of the clock would not show.
fn changed(metadata: &Metadata, now: SystemTime) -> Option<Generation> {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    let since_epoch = seconds + Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).ok()?);
    let age = now.duration_since(SystemTime::UNIX_EPOCH.checked_add(since_epoch)?);
    age.is_ok_and(|age| age >= STILL).then_some(Generation {
        writes: u64::try_from(since_epoch.as_nanos()).ok()?,
        in_flight: 0,
    })
}

fn what_is(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a socket"
    }
}

fn sys_dev_block(sys: &Path, number: DeviceNumber) -> PathBuf {
    sys.join("dev/block").join(number.to_string())
}

/// Reads the write counter below a device's folder in sysfs; none when it can not be relied on.
fn generation_in(folder: &Path) -> io::Result<Option<Generation>> {
    // `queue/iostats` switches the counting off. A partition's queue is that of its disk, one folder up.
    let switch = |path: &str| std::fs::read_to_string(folder.join(path)).ok();
    let counts = switch("queue/iostats").or_else(|| switch("../queue/iostats"));
    if counts.is_none_or(|switch| switch.trim() != "1") {
        return Ok(None);
    }
    let text = std::fs::read_to_string(folder.join("stat"))?;
    let field = |nth| {
        text.split_ascii_whitespace()
            .nth(nth)
            .and_then(|field| field.parse::<u64>().ok())
    };
    // Drivers that never count (brd) show zeros; and a metadata device that nobody wrote since boot is read quickly
    // enough in the way that needs no counter.
    Ok(match (field(4), field(8)) {
        (Some(writes), Some(in_flight)) if writes > 0 => Some(Generation { writes, in_flight }),
        _ => None,
    })
}

/// The node of a block device, as the kernel names it: `/dev/` and DEVNAME of its `uevent`. Works without udev, whose
/// links (`/dev/mapper/..`) may not exist where the agent runs.
pub fn device_node(number: DeviceNumber) -> Result<PathBuf, ThinMetadataError> {
    device_node_in(Path::new("/sys"), number)
}

fn device_node_in(sys: &Path, number: DeviceNumber) -> Result<PathBuf, ThinMetadataError> {
    let uevent = sys_dev_block(sys, number).join("uevent");
    let path = || uevent.display().to_string();
    let text = match std::fs::read_to_string(&uevent) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ThinMetadataError::NoDevice { number, path: path() });
        }
        Err(source) => {
            return Err(ThinMetadataError::Io {
                doing: "read".to_owned(),
                file: path(),
                source,
            });
        }
    };
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .filter(|name| !name.is_empty());
    name.map(|name| Path::new("/dev").join(name))
        .ok_or_else(|| ThinMetadataError::Io {
            doing: "find DEVNAME in".to_owned(),
            file: path(),
            source: io::ErrorKind::InvalidData.into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: DeviceNumber = DeviceNumber { major: 253, minor: 3 };

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys_dev_block(sys.path(), NUMBER);
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        sys
    }

    #[test]
    fn a_device_node_is_what_the_kernel_calls_it() {
        let sys = sysfs(&[("uevent", "MAJOR=253\nMINOR=3\nDEVNAME=dm-3\nDEVTYPE=disk\n")]);
        assert_eq!(
            device_node_in(sys.path(), NUMBER).unwrap(),
            Path::new("/dev/dm-3")
        );
        let other = DeviceNumber { major: 253, minor: 4 };
        assert!(matches!(
            device_node_in(sys.path(), other),
            Err(ThinMetadataError::NoDevice { .. })
        ));
        let nameless = sysfs(&[("uevent", "MAJOR=253\nDEVNAME=\n")]);
        assert!(matches!(
            device_node_in(nameless.path(), NUMBER),
            Err(ThinMetadataError::Io { .. })
        ));
    }

    #[test]
    fn the_write_counter_is_trusted_only_when_it_counts() {
        // A line of a real /sys/block/*/stat.
        let stat = "  37158    10463  3000058    17061    66024    66371  3386768   173459        2   100244   197403\n";
        let read = |iostats: &str, stat: &str| {
            let sys = sysfs(&[("queue/iostats", iostats), ("stat", stat)]);
            generation_in(&sys_dev_block(sys.path(), NUMBER)).unwrap()
        };
        assert_eq!(
            read("1\n", stat),
            Some(Generation {
                writes: 66024,
                in_flight: 2
            })
        );
        assert_eq!(read("0\n", stat), None, "switched off");
        assert_eq!(
            read("1\n", "0 0 0 0 0 0 0 0 0 0 0\n"),
            None,
            "a driver that does not count"
        );
        assert_eq!(read("1\n", "garbage\n"), None);
    }

    #[test]
    fn the_change_of_a_file_tells_of_writes_once_it_is_old_enough() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let now = SystemTime::now();
        assert_eq!(changed(&metadata, now), None);
        assert_eq!(changed(&metadata, now - Duration::from_hours(1)), None);
        let later = now + STILL;
        let before = changed(&metadata, later);
        assert!(before.is_some());
        std::thread::sleep(Duration::from_millis(50));
        io::Write::write_all(&mut file, b"x").unwrap();
        let after = changed(&file.as_file().metadata().unwrap(), later + STILL);
        assert!(after.is_some() && after != before, "{after:?}");
    }

    #[test]
    fn files_are_read_block_by_block() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![1; BLOCK_SIZE];
        bytes.extend(vec![2; BLOCK_SIZE]);
        bytes.extend(vec![3; 100]);
        std::fs::write(file.path(), bytes).unwrap();
        let mut source = DeviceSource::open(file.path()).unwrap();
        assert_eq!(source.blocks(), 2);
        assert_eq!(source.generation().unwrap(), None, "it was written a moment ago");
        let mut block = [0; BLOCK_SIZE];
        source.read_block(1, &mut block).unwrap();
        assert_eq!(block, [2; BLOCK_SIZE]);
        assert!(source.read_block(2, &mut block).is_err());
        assert!(source.read_block(u64::MAX, &mut block).is_err());
        assert!(DeviceSource::open(Path::new("/dev/null")).is_err());
    }
}
