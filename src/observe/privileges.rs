//! What suture must be allowed to do to read a node, and what it says when it is not.

use std::{error::Error, fs::File, io};

use rustix::thread::{CapabilitySet, capabilities};

use super::device_mapper::DeviceMapperError;

/// Where device-mapper is asked.
const CONTROL: &str = "/dev/mapper/control";

/// A privilege, and what can not be read without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privilege {
    /// `ctl_ioctl`, drivers/md/dm-ioctl.c: "only root can play with this". In the first user namespace, not in a
    /// container's.
    DeviceMapper,
    /// The databases have mode 0600 (`bolt.Open` in plugins/snapshots/devmapper/metadata.go), block devices 0660.
    Files,
    /// `ptrace_may_access` guards /proc/PID/ns and the rest of other users' processes.
    Processes,
}

impl Privilege {
    const ALL: [Self; 3] = [Self::DeviceMapper, Self::Files, Self::Processes];

    fn capability(self) -> (CapabilitySet, &'static str) {
        match self {
            Self::DeviceMapper => (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
            Self::Files => (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
            Self::Processes => (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
        }
    }

    fn without_it(self) -> &'static str {
        match self {
            Self::DeviceMapper => "device-mapper tells nothing of the pool and its devices",
            Self::Files => {
                "containerd's databases and the pool's metadata, which are root's, can not be read"
            }
            Self::Processes => "mounts in the namespaces of other users' processes can not be seen",
        }
    }

    /// A sentence that names it.
    pub(super) fn sentence(self) -> String {
        format!(
            "suture lacks the privilege {}, without which {}; run it as root",
            self.capability().1,
            self.without_it()
        )
    }

    fn is_there(self, effective: CapabilitySet, is_root: bool) -> bool {
        let instead = match self {
            Self::Files => CapabilitySet::DAC_OVERRIDE,
            Self::DeviceMapper | Self::Processes => CapabilitySet::empty(),
        };
        // What is root's is open to root as its owner.
        (self == Self::Files && is_root) || effective.intersects(self.capability().0 | instead)
    }
}

/// What is missing for a full read, in sentences that name each privilege; nothing where nothing is.
#[must_use]
pub fn lacking() -> Option<String> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let is_root = rustix::process::geteuid().is_root();
    let missing = Privilege::ALL
        .into_iter()
        .filter(|privilege| !privilege.is_there(effective, is_root));
    let mut sentences: Vec<String> = missing.map(Privilege::sentence).collect();
    if sentences.is_empty()
        && let Err(error) = control()
        && is_denied(&error)
    {
        sentences.push(format!(
            "suture may not open {CONTROL}, though it has CAP_SYS_ADMIN ({error}): a container needs to be privileged, or \
             this device to be allowed to it"
        ));
    }
    (!sentences.is_empty()).then(|| sentences.join(". "))
}

fn control() -> io::Result<File> {
    File::options().read(true).write(true).open(CONTROL)
}

/// The error in words and, where it is for want of a privilege, a sentence that names that.
pub(super) fn explain_denied(error: &(dyn Error + 'static), privilege: Privilege) -> String {
    let text = crate::words::explain(error);
    if was_denied(error) {
        format!("{text}: {}", privilege.sentence())
    } else {
        text
    }
}

/// Whether the system refused for want of a privilege.
pub fn was_denied(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(is_denied) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<DeviceMapperError>() {
            // The library tells only in words why it could not open the device.
            let unopened = matches!(error, DeviceMapperError::Control(_));
            let errno = error.errno().map(io::Error::from_raw_os_error);
            if errno.as_ref().is_some_and(is_denied)
                || unopened && control().is_err_and(|error| is_denied(&error))
            {
                return true;
            }
        }
        next = error.source();
    }
    false
}

fn is_denied(error: &io::Error) -> bool {
    // EPERM and EACCES both.
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::bbolt::BboltError;

    #[test]
    fn each_privilege_is_missed_by_itself() {
        let all = CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYS_PTRACE;
        for privilege in Privilege::ALL {
            assert!(privilege.is_there(all, false));
            assert!(!privilege.is_there(all - privilege.capability().0, false));
            assert!(privilege.sentence().contains(privilege.capability().1));
        }
        assert!(Privilege::Files.is_there(CapabilitySet::DAC_OVERRIDE, false));
        assert!(Privilege::Files.is_there(CapabilitySet::empty(), true));
        assert!(!Privilege::DeviceMapper.is_there(CapabilitySet::empty(), true));
    }

    #[test]
    fn only_what_was_refused_for_want_of_a_privilege_names_one() {
        let failed = |errno| BboltError::Io {
            doing: "open".to_owned(),
            file: "tp.db".to_owned(),
            source: io::Error::from_raw_os_error(errno),
        };
        for denied in [1, 13] {
            let text = explain_denied(&failed(denied), Privilege::Files);
            assert!(
                text.contains("tp.db") && text.contains("CAP_DAC_READ_SEARCH"),
                "{text}"
            );
        }
        assert!(!explain_denied(&failed(5), Privilege::Files).contains("CAP"));
    }
}
