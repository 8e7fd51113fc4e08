//! The places where containerd dies in its operations.

use std::fmt;

/// Where containerd dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// After so many commits to its pool database.
    Pool(u32),
    /// After a commit to its snapshot database.
    Rows,
    /// In it, before it takes effect.
    BeforeRows,
    /// After so many commits to its own database.
    Core(u32),
    /// After this call of `dmsetup`'s, given as a pattern of the shell's.
    Call(&'static str),
    /// Before this call.
    Ahead(&'static str),
    /// Half way through a call.
    Within(Half),
    /// After `mkfs`.
    Mkfs,
    /// About to unmount the new file system.
    Unmount,
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(count) => write!(formatter, "after commit {count} of the pool database"),
            Self::Rows => write!(formatter, "after the commit of the snapshot database"),
            Self::BeforeRows => write!(formatter, "in the commit of the snapshot database"),
            Self::Core(count) => write!(formatter, "after commit {count} of its own database"),
            Self::Call(call) => write!(formatter, "after `dmsetup {}`", call.trim_end_matches(" *")),
            Self::Ahead(call) => write!(formatter, "before `dmsetup {}`", call.trim_end_matches(" *")),
            Self::Within(half) => write!(formatter, "within {}", half.name()),
            Self::Mkfs => write!(formatter, "after `mkfs.ext4`"),
            Self::Unmount => write!(formatter, "before `umount`"),
        }
    }
}

/// How far a `dmsetup` came, which makes several calls to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// `create`: the device is there, and has no table.
    Made,
    /// And one that is not live.
    TableLoaded,
    /// `remove --force`: the error table is there, and not live.
    ErrorLoaded,
    /// And live; the device is there.
    ErrorLive,
}

impl Half {
    fn name(self) -> &'static str {
        match self {
            Self::Made => "`dmsetup create`, the device made",
            Self::TableLoaded => "`dmsetup create`, the table loaded",
            Self::ErrorLoaded => "`dmsetup remove`, the error table loaded",
            Self::ErrorLive => "`dmsetup remove`, the error table live",
        }
    }

    /// The whole call, as a pattern of the shell's.
    pub(super) fn call(self) -> &'static str {
        match self {
            Self::Made | Self::TableLoaded => "create *",
            Self::ErrorLoaded | Self::ErrorLive => "remove *",
        }
    }

    /// The shell's commands that come as far. `create` has the name second and the table last, `remove` the name last.
    pub(super) fn commands(self) -> &'static str {
        match self {
            Self::Made => "/usr/sbin/dmsetup create $2 --notable",
            Self::TableLoaded => {
                "/usr/sbin/dmsetup create $2 --notable
                 for table; do :; done
                 /usr/sbin/dmsetup load $2 --table \"$table\""
            }
            Self::ErrorLoaded => {
                "for name; do :; done
                 size=$(/usr/sbin/dmsetup table $name | cut -d ' ' -f 2)
                 /usr/sbin/dmsetup load $name --table \"0 $size error\""
            }
            Self::ErrorLive => {
                "for name; do :; done
                 size=$(/usr/sbin/dmsetup table $name | cut -d ' ' -f 2)
                 /usr/sbin/dmsetup load $name --table \"0 $size error\"
                 /usr/sbin/dmsetup resume $name"
            }
        }
    }
}
