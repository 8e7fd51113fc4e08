//! The senses that are left where the kernel takes no probes (no privilege, an old kernel, lockdown): the list of dm
//! devices and its event (`devices`), and the kernel's log (`kernel_log`, understood by `log_line`); `watcher` drives
//! both on a thread. Less is seen, and later; who made a device is never seen, so nothing is deleted on what this tells.

mod devices;
mod error;
mod kernel_log;
mod log_line;
mod watcher;

pub use error::WithoutBpfError;
pub use watcher::start;

use self::{devices::Devices, kernel_log::KernelLog};
use crate::model::sense::{Sense, SenseKind};

/// What each sense that would use probes is worth without them, on this machine as it is now: opens the control node
/// and the kernel's log to find out, and closes them again. The two senses that never use probes
/// ([`SenseKind::Holder`], [`SenseKind::Databases`]) are not in here.
#[must_use]
pub fn senses() -> Vec<Sense> {
    let devices = Devices::open().err().map(|error| crate::words::explain(&error));
    let log = KernelLog::open().err().map(|error| crate::words::explain(&error));
    SenseKind::ALL
        .into_iter()
        .filter_map(|kind| describe(kind, devices.as_deref(), log.as_deref()))
        .collect()
}

/// One sense; `no_devices` and `no_log` say why the list and the log can not be had, where they can not.
fn describe(sense: SenseKind, no_devices: Option<&str>, no_log: Option<&str>) -> Option<Sense> {
    const NO_BPF: &str = "the kernel takes no probes";
    let by = |means: &str, lacks: &str, missing: Option<&str>| {
        Some(match missing {
            Some(why) => Sense::new(sense, "", vec![NO_BPF.to_owned(), why.to_owned()]),
            None => Sense::new(sense, means, vec![format!("{NO_BPF}: {lacks}")]),
        })
    };
    let nothing = |lacks: &str| by("", lacks, None);
    match sense {
        SenseKind::DeviceMapperCalls => by(
            "DM_DEV_ARM_POLL and the list of devices each second",
            "devices are seen to come, go and change, not who called for it, and no message to a pool",
            no_devices,
        ),
        SenseKind::DeviceEnds => by(
            "DM_DEV_ARM_POLL and the list of devices each second",
            "not why a device ended, and not one that came back meanwhile",
            no_devices,
        ),
        SenseKind::PoolInternals => by(
            "the pool's status each second",
            "only what the pool's mode has become, not what led to it",
            no_devices,
        ),
        SenseKind::BlockRequests => by(
            "/dev/kmsg",
            "the kernel logs only some of many errors, and no length",
            no_log,
        ),
        SenseKind::BlockBios => by(
            "/dev/kmsg",
            "only what fails on its way through the page cache is logged; direct I/O is not",
            no_log,
        ),
        SenseKind::Lineage => nothing("without a caller there is nobody to ask the parents of"),
        SenseKind::ProcessStarts => {
            nothing("a new containerd is known once it holds the pool database, half a second later")
        }
        SenseKind::ProcessEnds => by("a pidfd of containerd", "that it ended, not how", None),
        SenseKind::OutOfMemory => nothing("the end of a containerd does not tell that memory ran out"),
        SenseKind::Holder | SenseKind::Databases => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sense::Quality;

    #[test]
    fn every_sense_that_probes_serve_is_told_and_none_is_full() {
        let all: Vec<Sense> = SenseKind::ALL
            .into_iter()
            .filter_map(|kind| describe(kind, None, None))
            .collect();
        assert_eq!(all.len(), SenseKind::ALL.len() - 2);
        for sense in &all {
            assert_ne!(sense.quality, Quality::Full, "{sense}");
            assert_eq!(
                sense.quality == Quality::Missing,
                sense.means.is_empty(),
                "{sense}"
            );
            assert!(!sense.why.is_empty(), "{sense}");
        }
    }

    #[test]
    fn a_control_node_that_can_not_be_opened_leaves_the_log_and_says_why() {
        let quality = |kind| describe(kind, Some("no node"), None).map(|sense| sense.quality);
        assert_eq!(quality(SenseKind::DeviceMapperCalls), Some(Quality::Missing));
        assert_eq!(quality(SenseKind::PoolInternals), Some(Quality::Missing));
        assert_eq!(quality(SenseKind::BlockRequests), Some(Quality::Degraded));
        let told = describe(SenseKind::DeviceEnds, Some("no node"), None).map(|sense| sense.to_string());
        assert_eq!(
            told.unwrap_or_default(),
            "ends of dm devices: missing (the kernel takes no probes; no node)"
        );
    }
}
