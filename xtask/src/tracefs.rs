//! tracefs on this machine, which the tests that load BPF programs natively need. systemd mounts it; a container or a
//! minimal machine may not have it.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

/// Where everybody looks for it.
const PLACE: &str = "/sys/kernel/tracing";

/// Mounts tracefs unless it is there. Needs root.
pub fn mount_if_missing() -> Result<()> {
    if Path::new(PLACE).join("events").is_dir() {
        return Ok(());
    }
    let options: Option<&std::ffi::CStr> = None;
    mount("tracefs", PLACE, "tracefs", MountFlags::empty(), options)
        .with_context(|| format!("mounting tracefs at {PLACE}; it needs root, and a kernel with tracing"))
}
