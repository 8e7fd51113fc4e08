//! Records of `/dev/kmsg` and the lines among them that tell of block errors. Pure. The kernel writes the lines, but disk
//! names and words in them may be anything, and user space may write records too.

use nix::errno::Errno;

use crate::model::{Untrusted, observation::Direction};

/// Disks have shorter names (`DISK_NAME_LEN`, include/linux/blkdev.h); partitions of them a little longer ones.
const MAX_NAME: usize = 64;

/// One record (`info_print_ext_header`, kernel/printk/printk.c): `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,..];TEXT`, then
/// lines that begin with a blank.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Which one since boot; the next one has the next number.
    pub(super) sequence: u64,
    /// When it was written, by a clock that drifts away from `CLOCK_MONOTONIC`.
    pub(super) microseconds: u64,
    /// What the kernel itself wrote; nothing where user space did: that can not claim the kernel's facility
    /// (`devkmsg_write`).
    pub(super) text: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// Reads one record; nothing where it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (header, text) = text.split_once(';')?;
        let mut fields = header.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        let microseconds = fields.next()?.parse().ok()?;
        let by_kernel = priority >> 3 == 0;
        Some(Self {
            sequence,
            microseconds,
            text: by_kernel.then(|| text.lines().next().unwrap_or_default()),
        })
    }
}

/// What a line says about block errors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// One failed.
    Failed(Failed<'a>),
    /// So many lines like that were not written, because there were too many of them.
    Suppressed(u64),
}

/// A failed block operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed<'a> {
    /// The device's name, as sysfs has it but for a slash.
    pub(super) device: &'a str,
    /// Where.
    pub(super) place: Place,
    /// Errno, positive.
    pub(super) errno: i32,
    pub(super) direction: Direction,
    /// The log's own words.
    pub(super) words: Untrusted,
}

/// Where on the device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From this sector of 512 bytes on.
    Sector(u64),
    /// In this block; how large a block is, is not told.
    Block(u64),
}

/// The functions whose lines are read here; the limiter tells their names.
const LIMITED: [&str; 4] = [
    "blk_print_req_error",
    "print_req_error",
    "blk_update_request",
    "buffer_io_error",
];

/// Reads a line of the kernel's; nothing where it does not tell of block errors.
pub(super) fn block_line(text: &str) -> Option<Line<'_>> {
    suppressed(text)
        .map(Line::Suppressed)
        .or_else(|| request(text).map(Line::Failed))
        .or_else(|| buffer(text).map(Line::Failed))
}

/// `___ratelimit`, lib/ratelimit.c: `FUNCTION: COUNT callbacks suppressed`.
fn suppressed(text: &str) -> Option<u64> {
    let (function, count) = text.strip_suffix(" callbacks suppressed")?.split_once(": ")?;
    LIMITED.contains(&function).then(|| count.parse().ok())?
}

/// `blk_print_req_error`, block/blk-mq.c of 5.16 and later:
/// `I/O error, dev sda, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0`. Before that the line began with the
/// function's name; long before that it ended after the sector.
fn request(text: &str) -> Option<Failed<'_>> {
    let (cause, rest) = text.split_once(" error, dev ")?;
    let cause = LIMITED
        .iter()
        .find_map(|function| cause.strip_prefix(function)?.strip_prefix(": "))
        .unwrap_or(cause);
    // With a colon it is a driver's line.
    if cause.contains(':') {
        return None;
    }
    let (device, rest) = rest.split_once(", sector ")?;
    let (sector, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let operation = rest
        .split_once(":(")
        .and_then(|(_, behind)| behind.split_once(')'))
        .map_or("", |(name, _)| name);
    let words = if operation.is_empty() {
        format!("{cause} error")
    } else {
        format!("{cause} error, {operation}")
    };
    Some(Failed {
        device: name(device)?,
        place: Place::Sector(sector.parse().ok()?),
        errno: errno_of(cause),
        direction: direction_of(operation),
        words: Untrusted::from_bytes(words.as_bytes()),
    })
}

/// `buffer_io_error`, fs/buffer.c: `Buffer I/O error on dev dm-3, logical block 5, async page read`; `lost async page
/// write` and `lost sync page write` are writes. Up to 3.19 it said `device`, and nothing after the block.
fn buffer(text: &str) -> Option<Failed<'_>> {
    let rest = text.strip_prefix("Buffer I/O error on dev")?;
    let (device, rest) = rest
        .strip_prefix("ice")
        .unwrap_or(rest)
        .strip_prefix(' ')?
        .split_once(", logical block ")?;
    let (block, what) = rest.split_once(", ").unwrap_or((rest, ""));
    let direction = if what.ends_with("write") {
        Direction::Write
    } else if what.ends_with("read") {
        Direction::Read
    } else {
        Direction::Other
    };
    Some(Failed {
        device: name(device)?,
        place: Place::Block(block.parse().ok()?),
        // The line says no more; this is what the page cache hands on.
        errno: Errno::EIO as i32,
        direction,
        words: Untrusted::from_bytes(format!("logical block {rest}").as_bytes()),
    })
}

/// A name that can be looked up in sysfs.
fn name(text: &str) -> Option<&str> {
    let fits = !text.is_empty() && text.len() <= MAX_NAME && !text.contains(['\0', ' ', ',']);
    (fits && text != "." && text != "..").then_some(text)
}

/// `blk_errors`, block/blk-core.c; EIO where a later kernel has other words.
fn errno_of(cause: &str) -> i32 {
    let errno = match cause {
        "operation not supported" => Errno::EOPNOTSUPP,
        "timeout" => Errno::ETIMEDOUT,
        "critical space allocation" => Errno::ENOSPC,
        "recoverable transport" => Errno::ENOLINK,
        "critical target" => Errno::EREMOTEIO,
        "critical nexus" | "reservation conflict" => Errno::EBADE,
        "critical medium" => Errno::ENODATA,
        "protection" => Errno::EILSEQ,
        "kernel resource" => Errno::ENOMEM,
        "device resource" => Errno::EBUSY,
        "nonblocking retry" => Errno::EAGAIN,
        "device offline" => Errno::ENODEV,
        "dm internal retry" => Errno::EREMCHG,
        "open zones exceeded" => Errno::ETOOMANYREFS,
        "active zones exceeded" => Errno::EOVERFLOW,
        "command duration limit exceeded" | "duration limit exceeded" => Errno::ETIME,
        "invalid" => Errno::EINVAL,
        _ => Errno::EIO,
    };
    errno as i32
}

/// `blk_op_str`, block/blk-core.c.
fn direction_of(operation: &str) -> Direction {
    match operation {
        "READ" => Direction::Read,
        "WRITE" | "WRITE_ZEROES" | "ZONE_APPEND" => Direction::Write,
        "DISCARD" | "SECURE_ERASE" => Direction::Discard,
        "FLUSH" => Direction::Flush,
        _ => Direction::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(text: &str) -> Failed<'_> {
        match block_line(text) {
            Some(Line::Failed(failed)) => failed,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_record_is_read_and_only_the_kernels_own_is_believed() {
        let record = Record::parse(b"3,339,5140900,-,caller=T1;I/O error\n SUBSYSTEM=block\n DEVICE=b8:0\n");
        assert_eq!(
            record,
            Some(Record {
                sequence: 339,
                microseconds: 5_140_900,
                text: Some("I/O error")
            })
        );
        // Facility 1, as whatever user space writes gets.
        let by_user = Record::parse(b"11,340,5140901,-;I/O error, dev sda, sector 1").unwrap();
        assert_eq!((by_user.sequence, by_user.text), (340, None));
        for none in [
            &b""[..],
            b"3,1,2,-",
            b"x,1,2,-;t",
            b"3,1;t",
            b"-1,1,2,-;t",
            b"3,1,2,-;\xff",
        ] {
            assert_eq!(Record::parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn failed_requests_are_read_as_every_kernel_writes_them() {
        let new = failed(
            "critical medium error, dev sda, sector 4660 op 0x0:(READ) flags 0x800 phys_seg 1 prio class 2",
        );
        assert_eq!((new.device, &new.place), ("sda", &Place::Sector(4660)));
        assert_eq!((new.errno, new.direction), (61, Direction::Read));
        assert_eq!(new.words.as_str(), "critical medium error, READ");
        let older = failed(
            "blk_update_request: I/O error, dev nvme0n1, sector 0 op 0x3:(DISCARD) flags 0x800 phys_seg 1 prio class 0",
        );
        assert_eq!(
            (older.device, older.errno, older.direction),
            ("nvme0n1", 5, Direction::Discard)
        );
        let oldest = failed("blk_update_request: I/O error, dev fd0, sector 8");
        assert_eq!(
            (oldest.place, oldest.direction),
            (Place::Sector(8), Direction::Other)
        );
        assert_eq!(oldest.words.as_str(), "I/O error");
        assert_eq!(failed("something new error, dev sda, sector 1").errno, 5);
    }

    #[test]
    fn failed_buffers_tell_a_block_and_its_direction() {
        let read = failed("Buffer I/O error on dev dm-3, logical block 5, async page read");
        assert_eq!(
            (read.device, &read.place, read.direction),
            ("dm-3", &Place::Block(5), Direction::Read)
        );
        assert_eq!(
            (read.errno, read.words.as_str()),
            (5, "logical block 5, async page read")
        );
        let write = failed("Buffer I/O error on dev sda1, logical block 0, lost sync page write");
        assert_eq!(write.direction, Direction::Write);
        let old = failed("Buffer I/O error on device sr0, logical block 7");
        assert_eq!(
            (old.device, old.place, old.direction),
            ("sr0", Place::Block(7), Direction::Other)
        );
    }

    #[test]
    fn what_the_limiter_kept_back_is_counted_for_these_lines_only() {
        assert_eq!(
            block_line("blk_print_req_error: 12 callbacks suppressed"),
            Some(Line::Suppressed(12))
        );
        assert_eq!(
            block_line("buffer_io_error: 3 callbacks suppressed"),
            Some(Line::Suppressed(3))
        );
        assert_eq!(block_line("net_ratelimit: 12 callbacks suppressed"), None);
    }

    #[test]
    fn other_lines_are_none_of_these() {
        for other in [
            "device-mapper: thin: 253:0: metadata operation 'dm_pool_commit_metadata' failed: error = -5",
            "device-mapper: thin: 253:0: aborting current metadata transaction",
            "EXT4-fs error (device dm-1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0",
            "somedriver: I/O error, dev sda, sector 1",
            "I/O error, dev sda, sector -1",
            "I/O error, dev , sector 1",
            "I/O error, dev .., sector 1",
            "sd 0:0:0:0: [sda] tag#0 Sense Key : Medium Error [current]",
            "",
        ] {
            assert_eq!(block_line(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn hostile_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(Record { text: Some(text), .. }) = Record::parse(&bytes) {
                let _ = block_line(text);
            }
        }

        #[test]
        fn hostile_lines_never_panic_and_never_name_a_path_out(start in "(Buffer I/O error on dev(ice)?|I/O error, dev|blk_update_request: timeout error, dev) ", middle in ".{0,80}", end in "(, sector [0-9]{0,30}|, logical block [0-9]{0,30})?.{0,30}") {
            if let Some(Line::Failed(failed)) = block_line(&format!("{start}{middle}{end}")) {
                prop_assert!(failed.device.len() <= MAX_NAME && failed.device != "..");
                prop_assert!(failed.words.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
