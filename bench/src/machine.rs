//! On which machine a number was measured.

use std::fs;

/// Processor, cores, kernel, memory and how busy it was, in one line.
pub(crate) fn describe() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| field(&text, "model name").map(str::to_owned))
        .unwrap_or_else(|| "an unnamed processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    // The kernel's own number; what follows names a build.
    let kernel = kernel.split('-').next().unwrap_or_default().to_owned();
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let memory = memory
        .as_deref()
        .and_then(|text| field(text, "MemTotal"))
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = memory.unwrap_or_default() / (1024 * 1024);
    let virtual_machine = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"));
    let place = if virtual_machine {
        " (a virtual machine)"
    } else {
        ""
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // More than 0 means that somebody else was busy: nothing of this program's runs yet.
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!(
        "{processor}, {cores} cores, Linux {kernel}, {memory} GiB{place}, load average {load} when it began"
    )
}

/// The value of a line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
