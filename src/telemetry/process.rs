//! What suture itself costs, from /proc.

use procfs::{WithCurrentSystemInfo as _, process::Process};

/// suture's own process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) resident_bytes: u64,
    pub(super) cpu_seconds: f64,
    /// Since the epoch.
    pub(super) started_seconds: f64,
}

impl Own {
    /// Nothing where /proc does not tell.
    #[expect(
        clippy::cast_precision_loss,
        reason = "clock ticks stay below 2^53 for millions of years"
    )]
    pub(super) fn read() -> Option<Self> {
        let stat = Process::myself().ok()?.stat().ok()?;
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        Some(Self {
            resident_bytes: stat.rss_bytes().get(),
            cpu_seconds: seconds(stat.utime.saturating_add(stat.stime)),
            started_seconds: procfs::boot_time_secs().ok()? as f64 + seconds(stat.starttime),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_small_started_before_now_and_after_the_epoch() {
        let own = Own::read().unwrap();
        assert!((100_000..1 << 33).contains(&own.resident_bytes), "{own:?}");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        // The boot time is known to the second.
        assert!(
            (now - 86_400.0..now + 2.0).contains(&own.started_seconds),
            "{own:?}"
        );
        assert!(own.cpu_seconds < 86_400.0, "{own:?}");
    }
}
