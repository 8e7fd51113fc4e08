//! The calls whose cost is measured: ioctls, refused or answered, in a tight loop or at a steady pace.

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// `DM_VERSION`: `_IOWR(0xfd, 0, struct dm_ioctl)`.
const DM_VERSION: u64 = 0xc138_fd00;
/// `TCGETS`, which neither /dev/null nor device-mapper knows.
const OTHER: u64 = 0x5401;
/// `sizeof(struct dm_ioctl)`.
const REQUEST: usize = 312;
/// Calls between two looks at the clock. As many events fit into the default ring.
pub(crate) const BURST: u32 = 1000;

/// Something to call ioctl on, with a request in hand.
pub(crate) struct Target {
    file: File,
    request: [u8; REQUEST],
}

/// Which ioctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of device-mapper's numbers.
    DeviceMapper,
    /// Not one of device-mapper's.
    Other,
    /// No ioctl at all.
    Unrelated,
}

impl Target {
    /// /dev/null refuses every ioctl (ENOTTY); /dev/mapper/control answers.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let mut request = [0; REQUEST];
        // `version`, `data_size` and `data_start` of `struct dm_ioctl`.
        for (at, value) in [(0, 4_u32), (12, 312), (16, 312)] {
            if let Some(field) = request.get_mut(at..at + 4) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
        Ok(Self {
            file: File::open(path).with_context(|| format!("opening {path}"))?,
            request,
        })
    }

    /// One call; what it returns does not matter.
    #[expect(unsafe_code, reason = "an ioctl with a number of one's own")]
    pub(crate) fn call(&mut self, kind: Kind) {
        let number = match kind {
            Kind::DeviceMapper => DM_VERSION,
            Kind::Other => OTHER,
            Kind::Unrelated => {
                let _ = rustix::process::getppid();
                return;
            }
        };
        // SAFETY: the request is 312 bytes long, as it says and as the number says; for the other number each of the
        // two files refuses before it looks at the argument.
        unsafe { libc::ioctl(self.file.as_raw_fd(), number, self.request.as_mut_ptr()) };
    }

    /// Processor time of one call, in nanoseconds, the kernel's part included.
    pub(crate) fn burst(&mut self, kind: Kind) -> f64 {
        let begun = thread_time();
        for _ in 0..BURST {
            self.call(kind);
        }
        nanoseconds(thread_time().saturating_sub(begun)) / f64::from(BURST)
    }

    /// Calls at `rate` per second for as long as `lasting`; says how many were made. Sleeps in between where there is
    /// time for it. A rate that can not be held is made up for as fast as can be.
    pub(crate) fn pace(&mut self, rate: u32, lasting: Duration) -> u64 {
        let begun = Instant::now();
        let mut made = 0;
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= lasting {
                return made;
            }
            let due = elapsed.as_micros() * u128::from(rate) / 1_000_000;
            if u128::from(made) < due {
                self.call(Kind::DeviceMapper);
                made += 1;
            } else if rate <= 10_000 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Keeps this thread, and those that it starts from now on, on one core. A machine with fewer cores has all on its last.
pub(crate) fn stay_on_core(core: usize) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut set = CpuSet::new();
    set.set(core.min(cores - 1));
    // Where it is not allowed, the numbers are only noisier.
    let _ = sched_setaffinity(None, &set);
}

/// What may be asked of the loop.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to make device-mapper's calls on
    #[arg(long)]
    device: PathBuf,
    /// How often to measure a burst of each kind
    #[arg(long)]
    bursts: u32,
}

/// Prints nanoseconds of a call of another driver's and of device-mapper's, a line for a burst of each.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut target = Target::open(&arguments.device.to_string_lossy())?;
    // The control device's own function would see another driver's number too.
    let mut null = Target::open("/dev/null")?;
    for _ in 0..arguments.bursts {
        let other = null.burst(Kind::Other);
        let device_mapper = target.burst(Kind::DeviceMapper);
        println!("{other} {device_mapper}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What may be asked of the pace.
#[derive(Debug, clap::Args)]
pub(crate) struct PaceArguments {
    /// What to call
    #[arg(long)]
    device: PathBuf,
    /// Calls per second
    #[arg(long)]
    rate: u32,
    /// For how many seconds
    #[arg(long)]
    seconds: u64,
}

/// Makes calls, and prints how many.
pub(crate) fn pace(arguments: &PaceArguments) -> Result<()> {
    let mut target = Target::open(&arguments.device.to_string_lossy())?;
    let made = target.pace(arguments.rate, Duration::from_secs(arguments.seconds));
    println!("{made}");
    Ok(())
}
