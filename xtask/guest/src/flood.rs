//! A flood of what suture watches: device-mapper calls and failing reads, as fast as they go, until the time is up.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// `struct dm_ioctl`, include/uapi/linux/dm-ioctl.h.
const REQUEST: usize = 312;
/// `_IOWR(0xfd, DM_DEV_STATUS_CMD, struct dm_ioctl)`.
const DM_DEV_STATUS: u32 = 0xc138_fd07;
/// `O_DIRECT` reads need memory and lengths of whole blocks.
const BLOCK: usize = 4096;

/// Floods for so many seconds: one thread asks device-mapper for the status of devices that do not exist, another reads
/// the device, if one is named. Prints how much of each there was.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [seconds, devices @ ..] = arguments else {
        anyhow::bail!("usage: flood SECONDS [DEVICE]");
    };
    let end = Instant::now() + Duration::from_secs(seconds.parse().context("reading the seconds")?);
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/mapper/control")?;
    let calls = thread::spawn(move || calls(&control, end));
    let failed = match devices.first() {
        Some(device) => {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits())?)
                .open(device)
                .with_context(|| format!("opening {device}"))?;
            reads(&file, end)
        }
        None => 0,
    };
    let calls = calls.join().unwrap_or_default();
    println!("{calls} calls, {failed} failed reads");
    Ok(())
}

fn calls(control: &File, end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        for _ in 0..256 {
            let mut request = [0_u8; REQUEST];
            for (at, value) in [
                (0, 4),
                (12, u8::try_from(REQUEST & 0xff).unwrap_or_default()),
                (13, 1),
                (16, 0),
            ] {
                if let Some(byte) = request.get_mut(at) {
                    *byte = value;
                }
            }
            if let Some(name) = request.get_mut(48..52) {
                name.copy_from_slice(b"none");
            }
            status(control, &mut request);
            count += 1;
        }
    }
    count
}

#[expect(
    unsafe_code,
    reason = "an ioctl whose structure no safe crate passes on at this rate"
)]
fn status(control: &File, request: &mut [u8; REQUEST]) {
    // SAFETY: the number is that of an ioctl that reads and writes such a structure.
    let asked = unsafe { rustix::ioctl::Updater::<DM_DEV_STATUS, [u8; REQUEST]>::new(request) };
    // SAFETY: the request is as long as its `data_size` says, which is all that the kernel reads and writes.
    let _ = unsafe { rustix::ioctl::ioctl(control, asked) };
}

fn reads(device: &File, end: Instant) -> u64 {
    let mut memory = vec![0_u8; 2 * BLOCK];
    let skip = memory.as_ptr().align_offset(BLOCK);
    let mut failed = 0;
    let Some(block) = memory.get_mut(skip..skip + BLOCK) else {
        return 0;
    };
    while Instant::now() < end {
        for number in 0..256 {
            failed += u64::from(device.read_at(block, number * BLOCK as u64).is_err());
        }
    }
    failed
}
