//! Reads `/dev/kmsg` from now on, without waiting, and makes block errors of its lines.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags, SeekFrom, open, seek},
    io::Errno,
};

use super::{
    WithoutBpfError,
    log_line::{Failed, Line, Place, Record, block_line},
};
use crate::{
    model::{
        DeviceNumber, Observation, Sectors, Timestamp,
        observation::{BlockError, BlockSource, LossKind},
    },
    observe::probes::decode::Clock,
};

/// No record is longer: `CONSOLE_EXT_LOG_MAX`, kernel/printk/internal.h.
const LONGEST_RECORD: usize = 8192;
/// Records read before somebody else has a turn.
const BATCH: usize = 1024;

/// The log, open at its end.
pub(super) struct KernelLog {
    file: OwnedFd,
    buffer: Vec<u8>,
    reading: Reading,
    /// When it was last read to its end.
    caught_up: Timestamp,
    /// Reading it failed, and that was told.
    failed: bool,
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Reading {
    /// Number of the record that comes next, once one was seen.
    next: Option<u64>,
    /// Records that were not read, or were read and told of errors that can not be placed.
    lost: Option<u64>,
}

/// What one reading gave.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) observations: Vec<Observation>,
    /// Whether there may be more already.
    pub(super) more: bool,
}

impl KernelLog {
    /// Opens it; what was written before is not looked at.
    pub(super) fn open() -> Result<Self, WithoutBpfError> {
        let failed = |error: Errno| WithoutBpfError::KernelLog(io::Error::from(error));
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open("/dev/kmsg", flags, Mode::empty()).map_err(failed)?;
        seek(&file, SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            file,
            buffer: vec![0; LONGEST_RECORD],
            reading: Reading::default(),
            caught_up: std::time::SystemTime::now().into(),
            failed: false,
        })
    }

    /// Reads what is new, at most a batch.
    pub(super) fn read(&mut self, clock: Clock, now: Timestamp) -> Read {
        let since = self.caught_up;
        let mut observations = Vec::new();
        let mut more = true;
        for _ in 0..BATCH {
            match rustix::io::read(&self.file, self.buffer.as_mut_slice()) {
                Ok(length) => {
                    self.failed = false;
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    // The log's clock drifts; that the record was not there at the last reading is certain.
                    let when = |microseconds: u64| {
                        clock
                            .wall(microseconds.saturating_mul(1000))
                            .clamp(since.min(now), now)
                    };
                    observations.extend(self.reading.record(bytes, when, number_of, block_sectors));
                }
                Err(Errno::INTR) => {}
                // Records were overwritten before they were read: the next one's number tells how many.
                Err(Errno::PIPE) => self.reading.lose(0),
                // A record that is longer than any; the kernel has gone past it.
                Err(Errno::INVAL) => self.reading.lose(1),
                Err(Errno::AGAIN) => {
                    more = false;
                    break;
                }
                Err(_) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        self.reading.lose(0);
                    }
                    more = false;
                    break;
                }
            }
        }
        if let Some(count) = self.reading.lost.take() {
            observations.push(Observation::Lost {
                since,
                at: now,
                what: LossKind::KernelLogOverrun,
                count,
            });
        }
        if !more {
            self.caught_up = now;
        }
        Read { observations, more }
    }

    /// Whether waiting for it makes sense: a log that can not be read is always ready.
    pub(super) fn can_be_waited_for(&self) -> bool {
        !self.failed
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Reading {
    fn lose(&mut self, count: u64) {
        self.lost = Some(self.lost.unwrap_or_default().saturating_add(count));
    }

    /// Takes in one record. `number_of` gives the number of a device by its name, `block_sectors` the usual size of its
    /// blocks.
    fn record(
        &mut self,
        bytes: &[u8],
        when: impl Fn(u64) -> Timestamp,
        number_of: impl Fn(&str) -> Option<DeviceNumber>,
        block_sectors: impl Fn(&str) -> u64,
    ) -> Option<Observation> {
        let Some(record) = Record::parse(bytes) else {
            self.lose(1);
            return None;
        };
        if let Some(skipped) = self.next.and_then(|next| record.sequence.checked_sub(next))
            && skipped > 0
        {
            self.lose(skipped);
        }
        self.next = Some(record.sequence.saturating_add(1));
        match block_line(record.text?)? {
            Line::Suppressed(count) => {
                self.lose(count);
                None
            }
            Line::Failed(failed) => {
                // A device that is gone again: what failed, and not on what.
                let Some(device) = number_of(failed.device) else {
                    self.lose(1);
                    return None;
                };
                let size = || block_sectors(failed.device);
                let error = block_error(&failed, device, size, when(record.microseconds));
                Some(Observation::BlockError(error))
            }
        }
    }
}

fn block_error(
    failed: &Failed<'_>,
    device: DeviceNumber,
    block_sectors: impl Fn() -> u64,
    at: Timestamp,
) -> BlockError {
    let sector = match failed.place {
        Place::Sector(sector) => sector,
        Place::Block(block) => block.saturating_mul(block_sectors()),
    };
    BlockError {
        at,
        device,
        sector: Sectors(sector),
        // Neither line tells it.
        length: Sectors(0),
        errno: failed.errno,
        direction: failed.direction,
        operation: failed.words.clone(),
        source: BlockSource::KernelLog,
    }
}

/// sysfs writes a slash in a name as an exclamation mark.
fn sysfs(name: &str, file: &str) -> Option<String> {
    let name = name.replace('/', "!");
    let path = PathBuf::from("/sys/class/block").join(name).join(file);
    fs::read_to_string(path).ok()
}

fn number_of(name: &str) -> Option<DeviceNumber> {
    sysfs(name, "dev")?.trim().parse().ok()
}

/// Sectors of a block as the kernel chooses them when a device is opened (`set_init_blocksize`, block/bdev.c): the
/// largest power of two up to a page that divides the device. A mounted file system may have chosen another. Asking the
/// device itself would mean to open it, and that would keep containerd from removing it.
fn block_sectors(name: &str) -> u64 {
    let number = |file: &str| sysfs(name, file).and_then(|text| text.trim().parse::<u64>().ok());
    let logical = number("queue/logical_block_size")
        // A partition has none of its own.
        .or_else(|| number("../queue/logical_block_size"))
        .unwrap_or(512);
    usual_block(logical / 512, number("size").unwrap_or_default())
}

/// `logical` and `size` in sectors.
fn usual_block(logical: u64, size: u64) -> u64 {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096) / 512;
    let mut block = logical.max(1);
    while block < page && size & block == 0 {
        block = block.saturating_mul(2);
    }
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::at;

    const DISK: DeviceNumber = DeviceNumber { major: 8, minor: 0 };

    fn take(reading: &mut Reading, record: &str) -> Option<Observation> {
        let known = |name: &str| (name == "sda").then_some(DISK);
        reading.record(record.as_bytes(), |_| at(7), known, |_| 8)
    }

    #[test]
    fn a_failed_request_reads_as_a_person_would_want() {
        let mut reading = Reading::default();
        let told = take(
            &mut reading,
            "3,10,1,-;critical medium error, dev sda, sector 4660 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0\n",
        );
        let Some(Observation::BlockError(error)) = told else {
            panic!("{told:?}")
        };
        assert_eq!(
            (error.device, error.sector, error.source),
            (DISK, Sectors(4660), BlockSource::KernelLog)
        );
        assert_eq!(
            error.to_string(),
            "read at 4660 on 8:0 failed: ENODATA (no data available), says the kernel's log: critical medium error, READ"
        );
        assert_eq!(reading.lost, None);
    }

    #[test]
    fn a_failed_buffer_is_placed_by_the_usual_size_of_a_block() {
        let told = take(
            &mut Reading::default(),
            "3,10,1,-;Buffer I/O error on dev sda, logical block 5, async page read",
        );
        let Some(Observation::BlockError(error)) = told else {
            panic!("{told:?}")
        };
        assert_eq!(error.sector, Sectors(40));
        assert_eq!(
            error.to_string(),
            "read at 40 on 8:0 failed: EIO (i/o error), says the kernel's log: logical block 5, async page read"
        );
    }

    #[test]
    fn what_was_not_read_or_can_not_be_placed_is_counted() {
        let mut reading = Reading::default();
        assert_eq!(take(&mut reading, "6,10,1,-;hello"), None);
        assert_eq!(reading.lost, None);
        take(&mut reading, "6,14,1,-;three were overwritten");
        assert_eq!(reading.lost, Some(3));
        take(&mut reading, "3,15,1,-;I/O error, dev gone, sector 1");
        take(
            &mut reading,
            "4,16,1,-;blk_print_req_error: 20 callbacks suppressed",
        );
        take(&mut reading, "nonsense");
        assert_eq!(reading.lost, Some(25));
    }

    #[test]
    fn what_user_space_writes_into_the_log_is_no_block_error() {
        let mut reading = Reading::default();
        assert_eq!(take(&mut reading, "11,10,1,-;I/O error, dev sda, sector 1"), None);
        assert_eq!((reading.next, reading.lost), (Some(11), None));
    }

    #[test]
    fn blocks_are_as_large_as_the_device_allows() {
        assert_eq!(usual_block(1, 64), 8);
        assert_eq!(usual_block(1, 66), 2);
        assert_eq!(usual_block(8, 3), 8);
        assert_eq!(usual_block(0, 1), 1);
    }

    proptest! {
        #[test]
        fn hostile_records_never_panic(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..20), numbers in proptest::collection::vec(any::<u64>(), 0..20)) {
            let mut reading = Reading::default();
            for bytes in &records {
                reading.record(bytes, |_| at(7), |_| Some(DISK), |_| u64::MAX);
            }
            for number in &numbers {
                let line = format!("3,{number},{number},-;Buffer I/O error on dev x, logical block {number}");
                reading.record(line.as_bytes(), |_| at(7), |_| Some(DISK), |_| u64::MAX);
            }
        }
    }
}
