//! How much memory and processor time a process has used, from what /proc says of it.

/// Of one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// `VmRSS`, in MiB: rings that are shared with the kernel count too.
    pub(crate) resident_mib: f64,
    /// `RssAnon`, in MiB: what is the process's own.
    pub(crate) own_mib: f64,
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
}

/// Processor time of a process on this machine, in seconds, as the scheduler measured it: ticks of 10 ms would count a
/// thread that wakes with the tick as one that never sleeps.
pub(crate) fn exact_cpu_seconds(pid: u32) -> Option<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds / 1e9)
}

/// From `/proc/PID/status` and `/proc/PID/stat`.
pub(crate) fn usage(status: &str, stat: &str) -> Usage {
    let mebibytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kibibytes.unwrap_or_default() / 1024.0
    };
    // Behind the name in brackets, which may hold anything: state is field 3, utime 14, stime 15, in ticks of 10 ms.
    let fields = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = |field: usize| {
        let word = fields.split_whitespace().nth(field - 3);
        word.and_then(|word| word.parse::<f64>().ok()).unwrap_or_default()
    };
    Usage {
        resident_mib: mebibytes("VmRSS:"),
        own_mib: mebibytes("RssAnon:"),
        cpu_seconds: (ticks(14) + ticks(15)) / 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_found() {
        let status = "Name:\tsuture\nVmRSS:\t   20480 kB\nRssAnon:\t    5120 kB\n";
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 100 1 1";
        let usage = usage(status, stat);
        assert!((usage.resident_mib - 20.0).abs() < 0.01 && (usage.own_mib - 5.0).abs() < 0.01);
        assert!((usage.cpu_seconds - 2.0).abs() < 0.01);
    }
}
