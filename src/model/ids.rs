//! Identifiers and quantities, each its own type, so that a thin id can not be passed where a snapshot id is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares a number with a meaning: ordered, printable as the bare number, and transparent in JSON.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Id of a thin device inside its pool: 24 bits (`dm_thin_id`, drivers/md/dm-thin-metadata.h).
    ///
    /// It is *not* the snapshot id in a device name such as `pool-snap-7`.
    ThinId(u32)
}
number! {
    /// Id of a snapshot in containerd's snapshot storage (`metadata.db`), the number at the end of `pool-snap-7`.
    SnapshotId(u64)
}
number! {
    /// Transaction id of a bbolt database: grows by one with each commit (bbolt `internal/common/meta.go`).
    TxId(u64)
}
number! {
    /// A count or an address in units of 512 bytes.
    Sectors(u64)
}
number! {
    /// A count of bytes.
    Bytes(u64)
}

impl ThinId {
    /// The largest id that the kernel accepts (`MAX_DEV_ID`, drivers/md/dm-thin.c).
    pub const MAX: ThinId = ThinId((1 << 24) - 1);
}

impl Sectors {
    /// The same quantity in bytes; saturates instead of wrapping.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(512))
    }
}

/// A block device's number, as `major:minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceNumber {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// Decodes the kernel's internal `dev_t` (`MKDEV`, `include/linux/kdev_t.h`): 12 bits of major, 20 of minor.
    /// This is what block tracepoints carry.
    #[must_use]
    pub fn from_kernel(dev: u32) -> Self {
        Self {
            major: dev >> 20,
            minor: dev & 0x000f_ffff,
        }
    }

    /// Decodes `huge_encode_dev` (`include/linux/kdev_t.h`), which is what `struct dm_ioctl` and `stat` carry.
    #[must_use]
    pub fn from_huge(dev: u64) -> Self {
        let major = (dev >> 8) & 0xfff;
        let minor = (dev & 0xff) | ((dev >> 12) & 0xffff_ff00);
        let narrow = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self {
            major: narrow(major),
            minor: narrow(minor),
        }
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The text was not `major:minor`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a device number; expected major:minor, such as 253:3")]
pub struct BadDeviceNumber(String);

impl std::str::FromStr for DeviceNumber {
    type Err = BadDeviceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(major, minor)| {
            Some(Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| BadDeviceNumber(text.to_owned()))
    }
}

impl TryFrom<String> for DeviceNumber {
    type Error = BadDeviceNumber;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceNumber> for String {
    fn from(number: DeviceNumber) -> Self {
        number.to_string()
    }
}

/// The dm name of the thin pool, as containerd's `pool_name` says it (already a dm name: LVM's doubled dashes stay).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolName(String);

impl PoolName {
    /// Wraps a name; whether such a pool exists is for the reader of the world to say.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the snapshot id out of a device name of this pool: `pool-snap-7` gives 7.
    ///
    /// containerd builds the name in `getDeviceName`, plugins/snapshots/devmapper/snapshotter.go.
    #[must_use]
    pub fn snapshot_of(&self, device: &str) -> Option<SnapshotId> {
        let digits = device.strip_prefix(self.as_str())?.strip_prefix("-snap-")?;
        // Go prints ids with %s of a decimal string: no sign, no leading zero. Anything else is somebody else's name.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        if plain {
            digits.parse().ok().map(SnapshotId)
        } else {
            None
        }
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_decode_both_kernel_encodings() {
        let expected = DeviceNumber {
            major: 253,
            minor: 0x12345,
        };
        assert_eq!(DeviceNumber::from_kernel((253 << 20) | 0x12345), expected);
        // huge_encode_dev: minor's low byte, then major, then the rest of minor.
        assert_eq!(
            DeviceNumber::from_huge((0x123 << 20) | (253 << 8) | 0x45),
            expected
        );
        assert_eq!("253:74565".parse::<DeviceNumber>().unwrap(), expected);
        assert!("253".parse::<DeviceNumber>().is_err());
        assert!("a:1".parse::<DeviceNumber>().is_err());
    }

    #[test]
    fn snapshot_ids_are_read_only_from_names_that_containerd_writes() {
        let pool = PoolName::new("vg0-mythinpool");
        assert_eq!(
            pool.snapshot_of("vg0-mythinpool-snap-1083"),
            Some(SnapshotId(1083))
        );
        for foreign in [
            "vg0-mythinpool",
            "vg0-mythinpool-snap-",
            "vg0-mythinpool-snap-+7",
            "vg0-mythinpool-snap-07",
            "other-snap-7",
            "vg0-mythinpool-snap-7x",
        ] {
            assert_eq!(pool.snapshot_of(foreign), None, "{foreign}");
        }
    }
}
