//! What a suture in the VM tells, shown and waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::{Process, Signal};

/// How long one step may take: emulation is slow, and the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// Shows what suture tells, as it tells it.
pub(super) struct Relay {
    process: Process,
    shown: usize,
}

impl Relay {
    /// Of a suture that was started just now and tells in lines for people.
    pub(super) fn of(process: Process) -> Self {
        Self { process, shown: 0 }
    }

    /// Ends suture in order; gives every line that it told.
    pub(super) fn end(mut self) -> Result<Vec<String>> {
        self.process.kill(Signal::TERM)?;
        let output = self.process.wait(PATIENCE).context("ending suture")?;
        Ok(output.stdout.lines().map(str::to_owned).collect())
    }

    /// Shows line after line until one contains `text`, and the lines that belong to that one.
    pub(super) fn until(&mut self, text: &str) -> Result<()> {
        let begun = Instant::now();
        let mut found = false;
        loop {
            let lines = self.process.lines_so_far()?.to_vec();
            for line in lines.iter().skip(self.shown) {
                // Evidence and guards come as indented lines below their report.
                if found && !line.starts_with(' ') {
                    return Ok(());
                }
                println!("   suture | {line}");
                self.shown += 1;
                found |= line.contains(text);
            }
            if found {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("suture did not tell of `{text}`");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
