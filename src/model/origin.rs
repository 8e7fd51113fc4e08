//! On whose behalf a call was made, as people want to read it. What it goes by are names, which anybody may choose: it
//! tells, and proves nothing. What may be done rests on the lock that containerd holds (`correlate/lineage.rs`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dm::{Caller, Process};

/// Who stands behind a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// containerd.
    Containerd,
    /// containerd's shim, or the runtime under it.
    Shim,
    /// A Longhorn instance manager.
    LonghornInstanceManager,
    /// Somebody at a shell, or a script.
    Shell,
    /// LVM, dmeventd, udev, multipath: the machine's own care for its devices.
    System,
    /// A thread of the kernel.
    Kernel,
    /// Somebody else.
    Other,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Containerd => "containerd",
            Self::Shim => "a containerd shim",
            Self::LonghornInstanceManager => "a Longhorn instance manager",
            Self::Shell => "a shell",
            Self::System => "the system's device tools",
            Self::Kernel => "the kernel",
            Self::Other => "another program",
        })
    }
}

/// Names as the kernel has them: cut to 15 bytes (`TASK_COMM_LEN`). The first that fits counts.
const NAMES: [(&str, Origin); 31] = [
    ("containerd-shim", Origin::Shim),
    ("containerd", Origin::Containerd),
    ("runc", Origin::Shim),
    ("crun", Origin::Shim),
    ("kata-runtime", Origin::Shim),
    ("longhorn-instan", Origin::LonghornInstanceManager),
    ("longhorn-manage", Origin::LonghornInstanceManager),
    ("longhorn", Origin::LonghornInstanceManager),
    ("bash", Origin::Shell),
    ("sh", Origin::Shell),
    ("dash", Origin::Shell),
    ("zsh", Origin::Shell),
    ("fish", Origin::Shell),
    ("ash", Origin::Shell),
    ("busybox", Origin::Shell),
    ("sudo", Origin::Shell),
    ("sshd", Origin::Shell),
    ("login", Origin::Shell),
    ("lvm", Origin::System),
    ("dmeventd", Origin::System),
    ("systemd-udevd", Origin::System),
    ("(udev-worker)", Origin::System),
    ("udevadm", Origin::System),
    ("multipathd", Origin::System),
    ("cryptsetup", Origin::System),
    ("blkdeactivate", Origin::System),
    ("systemd-shutdow", Origin::System),
    ("systemd", Origin::System),
    ("init", Origin::System),
    ("kworker", Origin::Kernel),
    ("kthreadd", Origin::Kernel),
];

fn by_name(process: &Process) -> Option<Origin> {
    let name = process.comm.as_str();
    let exact = NAMES.iter().find(|(known, _)| *known == name);
    exact
        .map(|(_, origin)| *origin)
        // Workers carry what they work on in their names: `kworker/u2:0`.
        .or_else(|| name.starts_with("kworker/").then_some(Origin::Kernel))
}

impl Caller {
    /// Who stands behind it: the nearest process with a name that says it. `dmsetup` says nothing: it is everybody's
    /// tool.
    #[must_use]
    pub fn origin(&self) -> Origin {
        std::iter::once(&self.process)
            .chain(&self.ancestors)
            .find_map(by_name)
            .unwrap_or_else(|| self.by_cgroup())
    }

    /// A process whose name says nothing still lives somewhere.
    fn by_cgroup(&self) -> Origin {
        let path = self.cgroup_path.as_ref().map_or("", |path| path.as_str());
        if path.contains("longhorn") {
            Origin::LonghornInstanceManager
        } else if path.ends_with("/containerd.service") {
            Origin::Containerd
        } else if path.contains("user.slice/") {
            Origin::Shell
        } else {
            Origin::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Untrusted;

    fn caller(names: &[&str], cgroup: Option<&str>) -> Caller {
        let mut processes = names.iter().map(|name| Process {
            pid: 7,
            comm: Untrusted::from_bytes(name.as_bytes()),
        });
        Caller {
            process: processes.next().unwrap(),
            thread: 7,
            cgroup: 1,
            cgroup_path: cgroup.map(|path| Untrusted::from_bytes(path.as_bytes())),
            ancestors: processes.collect(),
        }
    }

    #[test]
    fn the_nearest_telling_name_says_who() {
        for (names, cgroup, origin) in [
            (
                &["dmsetup", "containerd", "systemd"][..],
                None,
                Origin::Containerd,
            ),
            (&["dmsetup", "containerd-shim", "systemd"], None, Origin::Shim),
            (
                &["dmsetup", "longhorn-instan", "containerd-shim"],
                None,
                Origin::LonghornInstanceManager,
            ),
            (&["dmsetup", "bash", "sshd", "systemd"], None, Origin::Shell),
            (&["kworker/u2:0"], None, Origin::Kernel),
            (&["dmeventd", "systemd"], None, Origin::System),
            (&["dmsetup", "containerd-snoop"], None, Origin::Other),
            (
                &["dmsetup"],
                Some("/system.slice/containerd.service"),
                Origin::Containerd,
            ),
            (
                &["spdk_tgt"],
                Some("/kubepods/pod1/longhorn-x"),
                Origin::LonghornInstanceManager,
            ),
            (
                &["dmsetup"],
                Some("/user.slice/user-0.slice/session-3.scope"),
                Origin::Shell,
            ),
            (&["dmsetup"], None, Origin::Other),
        ] {
            assert_eq!(caller(names, cgroup).origin(), origin, "{names:?} {cgroup:?}");
        }
    }
}
