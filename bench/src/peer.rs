//! The same events by bpftrace, which is what one would use otherwise.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::calls::{Kind, Target};

/// The name is `name` of `struct dm_ioctl`, 48 bytes in.
pub(crate) const ONE_LINER: &str = r#"tracepoint:syscalls:sys_enter_ioctl /((args->cmd >> 8) & 0xff) == 0xfd/ { @begun[tid] = nsecs; printf("%d %s %d %s\n", pid, comm, args->cmd & 0xff, str(args->arg + 48)); } tracepoint:syscalls:sys_exit_ioctl /@begun[tid]/ { printf("%d %d %d\n", tid, args->ret, nsecs - @begun[tid]); delete(@begun[tid]); }"#;
/// How long it may take to attach.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running bpftrace.
pub(crate) struct Peer {
    child: Child,
    lines: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Peer {
    /// Starts it, and waits until it sees calls.
    pub(crate) fn start() -> Result<Self> {
        let mut child = xtask::setup::bpftrace()?
            .args(["-B", "line", "-e", ONE_LINER])
            .env("BPFTRACE_STRLEN", "128")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting bpftrace")?;
        let output = child.stdout.take().context("bpftrace has no output")?;
        let lines = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for _ in BufReader::new(output).split(b'\n') {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let peer = Self {
            child,
            lines,
            reader: Some(reader),
        };
        let mut target = Target::open("/dev/null")?;
        let begun = Instant::now();
        // Its first line only says that it is about to attach.
        while peer.lines() < 3 {
            if begun.elapsed() > PATIENCE {
                bail!("bpftrace saw nothing for {PATIENCE:?}");
            }
            target.call(Kind::DeviceMapper);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    /// Lines it has printed: two for each call, and one that it begins with.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
