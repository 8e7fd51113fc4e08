//! A device-mapper ioctl as a value: what was asked, of which device, by whom, and what came of it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DeviceNumber, PoolName, Sectors, ThinId, Timestamp, numbers, text::Untrusted};

/// A command of device-mapper's control device (`DM_*_CMD`, include/uapi/linux/dm-ioctl.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the kernel's own command of that name")]
pub enum DmCommand {
    Version,
    RemoveAll,
    ListDevices,
    DevCreate,
    DevRemove,
    DevRename,
    DevSuspend,
    DevStatus,
    DevWait,
    TableLoad,
    TableClear,
    TableDeps,
    TableStatus,
    ListVersions,
    TargetMsg,
    DevSetGeometry,
    DevArmPoll,
    GetTargetVersion,
    /// A command of a newer kernel.
    Other(u32),
}

const COMMANDS: [(DmCommand, &str); 18] = [
    (DmCommand::Version, "version"),
    (DmCommand::RemoveAll, "remove_all"),
    (DmCommand::ListDevices, "list_devices"),
    (DmCommand::DevCreate, "dev_create"),
    (DmCommand::DevRemove, "dev_remove"),
    (DmCommand::DevRename, "dev_rename"),
    (DmCommand::DevSuspend, "dev_suspend"),
    (DmCommand::DevStatus, "dev_status"),
    (DmCommand::DevWait, "dev_wait"),
    (DmCommand::TableLoad, "table_load"),
    (DmCommand::TableClear, "table_clear"),
    (DmCommand::TableDeps, "table_deps"),
    (DmCommand::TableStatus, "table_status"),
    (DmCommand::ListVersions, "list_versions"),
    (DmCommand::TargetMsg, "target_msg"),
    (DmCommand::DevSetGeometry, "dev_set_geometry"),
    (DmCommand::DevArmPoll, "dev_arm_poll"),
    (DmCommand::GetTargetVersion, "get_target_version"),
];

impl From<u32> for DmCommand {
    fn from(number: u32) -> Self {
        let known = usize::try_from(number).ok().and_then(|index| COMMANDS.get(index));
        known.map_or(Self::Other(number), |(command, _)| *command)
    }
}

impl DmCommand {
    /// Whether the command only asks.
    #[must_use]
    pub fn is_query(self) -> bool {
        matches!(
            self,
            Self::Version
                | Self::ListDevices
                | Self::DevStatus
                | Self::DevWait
                | Self::TableDeps
                | Self::TableStatus
                | Self::ListVersions
                | Self::DevArmPoll
                | Self::GetTargetVersion
        )
    }
}

impl fmt::Display for DmCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match COMMANDS.iter().find(|(command, _)| command == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(
                f,
                "command {}",
                if let Self::Other(number) = self {
                    *number
                } else {
                    0
                }
            ),
        }
    }
}

bitflags::bitflags! {
    /// Flags of a device-mapper ioctl that change what it does (include/uapi/linux/dm-ioctl.h).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DmFlags: u32 {
        /// Read-only device.
        const READONLY = 1;
        /// With `dev_suspend`: suspend; without it: resume.
        const SUSPEND = 1 << 1;
        /// Do not freeze the file system on it.
        const SKIP_LOCKFS = 1 << 10;
        /// Do not flush outstanding I/O.
        const NOFLUSH = 1 << 11;
        /// Remove when the last user has closed it.
        const DEFERRED_REMOVE = 1 << 17;
    }
}

/// A message to a thin pool (`pool_message`, drivers/md/dm-thin.c), or to another target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// `create_thin ID`: make an empty thin device.
    CreateThin {
        /// The new device.
        id: ThinId,
    },
    /// `create_snap ID ORIGIN`: make a snapshot.
    CreateSnap {
        /// The new device.
        id: ThinId,
        /// What it is a snapshot of.
        origin: ThinId,
    },
    /// `delete ID`: delete a thin device and free its blocks.
    Delete {
        /// The device.
        id: ThinId,
    },
    /// Anything else, as it was sent.
    Other {
        /// The message's text.
        text: Untrusted,
    },
}

impl Message {
    /// Reads a message's text. The kernel splits on white space, takes the verb in any case and reads decimal ids; what is not exactly such a
    /// message stays `Other`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let other = || Self::Other {
            text: Untrusted::from_bytes(bytes),
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return other();
        };
        let words: Vec<&str> = text.split_ascii_whitespace().take(4).collect();
        let id = |word: &str| word.parse().ok().map(ThinId).filter(|id| *id <= ThinId::MAX);
        let known = match words.as_slice() {
            [verb, new] if verb.eq_ignore_ascii_case("create_thin") => {
                id(new).map(|id| Self::CreateThin { id })
            }
            [verb, new, origin] if verb.eq_ignore_ascii_case("create_snap") => id(new)
                .zip(id(origin))
                .map(|(id, origin)| Self::CreateSnap { id, origin }),
            [verb, old] if verb.eq_ignore_ascii_case("delete") => id(old).map(|id| Self::Delete { id }),
            _ => None,
        };
        known.unwrap_or_else(other)
    }

    /// The thin id that the message makes or deletes.
    #[must_use]
    pub fn subject(&self) -> Option<ThinId> {
        match self {
            Self::CreateThin { id } | Self::CreateSnap { id, .. } | Self::Delete { id } => Some(*id),
            Self::Other { .. } => None,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateThin { id } => write!(f, "create_thin {id}"),
            Self::CreateSnap { id, origin } => write!(f, "create_snap {id} {origin}"),
            Self::Delete { id } => write!(f, "delete {id}"),
            Self::Other { text } => text.fmt(f),
        }
    }
}

/// One line of a table being loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// First sector of the device that this target maps.
    pub start: Sectors,
    /// How many.
    pub length: Sectors,
    /// `linear`, `thin`, `thin-pool`, `error`, …
    pub kind: Untrusted,
    /// The target's own parameters.
    pub parameters: Untrusted,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {}",
            self.start, self.length, self.kind, self.parameters
        )
    }
}

impl Target {
    /// For a `thin` target on this pool: the thin id (`thin_ctr`, drivers/md/dm-thin.c). A request may name the pool by
    /// number or by path; containerd writes `/dev/mapper/<pool>`.
    #[must_use]
    pub fn thin_on(&self, pool: &PoolName, device: Option<DeviceNumber>) -> Option<ThinId> {
        let mut words = self.parameters.as_str().split_ascii_whitespace();
        let named = words.next()?;
        let id = words.next()?.parse().ok().map(ThinId)?;
        let by_path = named.strip_prefix("/dev/mapper/") == Some(pool.as_str());
        let by_number = device.is_some() && named.parse().ok() == device;
        (self.kind.as_str() == "thin" && (by_path || by_number)).then_some(id)
    }
}

/// What a request carried beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "carries", rename_all = "snake_case")]
pub enum Payload {
    /// Nothing that is looked at.
    Nothing,
    /// A message to a target.
    Message(Message),
    /// A table to load.
    Table {
        /// As many of its lines as were carried.
        targets: Vec<Target>,
    },
    /// The request could not be read as what its command says.
    Malformed,
}

/// A process in an observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the host's namespace.
    pub pid: u32,
    /// Its name (`comm`): anybody may choose it, so it proves nothing by itself.
    pub comm: Untrusted,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.comm, self.pid)
    }
}

/// Who made a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The calling process.
    pub process: Process,
    /// The calling thread.
    pub thread: u32,
    /// Id of its cgroup (v2).
    pub cgroup: u64,
    /// Path of that cgroup, where it could still be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<Untrusted>,
    /// Who forked it, and who forked that one: the nearest first, as far as known.
    pub ancestors: Vec<Process>,
}

/// What a call returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallResult(pub Result<(), i32>);

impl CallResult {
    /// From a syscall's return value: negative is an errno.
    #[must_use]
    pub fn from_return(value: i32) -> Self {
        Self(if value < 0 {
            Err(value.saturating_neg())
        } else {
            Ok(())
        })
    }

    /// The errno's name, such as `EEXIST`; nothing on success.
    #[must_use]
    pub fn error_name(self) -> Option<String> {
        self.0.err().map(error_name)
    }
}

/// An errno's name, such as `EEXIST`, or its number where it has none.
#[must_use]
pub fn error_name(number: i32) -> String {
    match numbers::error(number) {
        Some((name, _)) => name.to_owned(),
        None => format!("errno {number}"),
    }
}

/// An errno as people read it: `EEXIST (file exists)`.
#[must_use]
pub fn describe_error(number: i32) -> String {
    match numbers::error(number) {
        Some((name, meaning)) => format!("{name} ({meaning})"),
        None => format!("errno {number}"),
    }
}

impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("ok"),
            Err(number) => f.write_str(&describe_error(number)),
        }
    }
}

/// `null` for success, else the errno's name.
impl Serialize for CallResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.error_name().serialize(serializer)
    }
}

/// The other way round; a name that this suture does not know is an error.
impl<'de> Deserialize<'de> for CallResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(name) = Option::<String>::deserialize(deserializer)? else {
            return Ok(Self(Ok(())));
        };
        let number = error_number(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("`{}` is no errno", name.escape_debug())))?;
        Ok(Self(Err(number)))
    }
}

/// The number of an errno by its name, as [`error_name`] gives it.
fn error_number(name: &str) -> Option<i32> {
    match name.strip_prefix("errno ") {
        Some(number) => number.parse().ok().filter(|number| *number > 0),
        None => numbers::error_by_name(name),
    }
}

/// One finished device-mapper ioctl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmIoctl {
    /// When the call entered the kernel.
    pub entered: Timestamp,
    /// How long it stayed there, in nanoseconds.
    #[serde(rename = "duration_ns", with = "nanoseconds")]
    pub duration: Duration,
    /// What was asked.
    pub command: DmCommand,
    /// dm name in the request or, where that names its device otherwise, in the answer; empty when neither has one.
    pub name: Untrusted,
    /// dm uuid in the request.
    pub uuid: Untrusted,
    /// Device number in the answer, or in the request where the call failed.
    pub device: Option<DeviceNumber>,
    /// Flags of the request (`DM_*_FLAG`).
    pub flags: u32,
    /// Event number of the device after the call.
    pub event_nr: u32,
    /// Message or table.
    pub payload: Payload,
    /// Whether the payload was longer than what is carried.
    pub truncated: bool,
    /// What the call returned.
    #[serde(rename = "error")]
    pub result: CallResult,
    /// Who made it.
    pub caller: Caller,
}

/// A duration as a number of nanoseconds.
pub(super) mod nanoseconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

impl DmIoctl {
    /// Flags that change what the call does.
    #[must_use]
    pub fn known_flags(&self) -> DmFlags {
        DmFlags::from_bits_truncate(self.flags)
    }

    /// When the call returned.
    #[must_use]
    pub fn finished(&self) -> Timestamp {
        self.entered.plus(self.duration)
    }

    /// What was asked, in the words of `dmsetup`: `create_snap 59 6 on vg0-pool0`.
    #[must_use]
    pub fn request(&self) -> String {
        let device = if !self.name.is_empty() {
            self.name.to_string()
        } else if !self.uuid.is_empty() {
            format!("uuid {}", self.uuid)
        } else if let Some(device) = self.device {
            device.to_string()
        } else {
            String::new()
        };
        let flags = self.known_flags();
        let cut = if self.truncated { " (cut)" } else { "" };
        match (self.command, &self.payload) {
            (_, Payload::Message(message)) => format!("{message}{cut} on {device}"),
            (_, Payload::Table { targets }) => {
                let lines: Vec<String> = targets.iter().map(ToString::to_string).collect();
                format!("load table of {device}: {}{cut}", lines.join("; "))
            }
            (DmCommand::DevCreate, _) => format!("create device {device}"),
            (DmCommand::DevRemove, _) if flags.contains(DmFlags::DEFERRED_REMOVE) => {
                format!("remove {device} when closed")
            }
            (DmCommand::DevRemove, _) => format!("remove {device}"),
            (DmCommand::DevSuspend, _) if flags.contains(DmFlags::SUSPEND) => format!("suspend {device}"),
            (DmCommand::DevSuspend, _) => format!("resume {device}"),
            (command, _) if device.is_empty() => command.to_string(),
            (command, _) => format!("{command} of {device}"),
        }
    }
}

/// `create_snap 59 6 on vg0-pool0 -> EEXIST (file exists), 0.8 ms, dmsetup [1234] under containerd`
impl fmt::Display for DmIoctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.duration.as_secs_f64() * 1000.0;
        write!(
            f,
            "{} -> {}, {milliseconds:.1} ms, {}",
            self.request(),
            self.result,
            self.caller.process
        )?;
        if let Some(parent) = self.caller.ancestors.first() {
            write!(f, " under {}", parent.comm)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_numbers_are_the_kernels() {
        assert_eq!(DmCommand::from(3), DmCommand::DevCreate);
        assert_eq!(DmCommand::from(9), DmCommand::TableLoad);
        assert_eq!(DmCommand::from(14), DmCommand::TargetMsg);
        assert_eq!(DmCommand::from(17), DmCommand::GetTargetVersion);
        assert_eq!(DmCommand::from(200), DmCommand::Other(200));
    }

    #[test]
    fn only_exact_messages_are_understood() {
        assert_eq!(Message::parse(b"Delete 3"), Message::Delete { id: ThinId(3) });
        assert_eq!(
            Message::parse(b"create_thin 7"),
            Message::CreateThin { id: ThinId(7) }
        );
        assert_eq!(
            Message::parse(b"create_snap 59 6"),
            Message::CreateSnap {
                id: ThinId(59),
                origin: ThinId(6)
            }
        );
        assert_eq!(
            Message::parse(b"delete 16777215"),
            Message::Delete { id: ThinId::MAX }
        );
        for other in [
            &b"delete 16777216"[..],
            b"delete -1",
            b"delete",
            b"delete 1 2",
            b"create_thin x",
            b"\xff\xfe",
            b"",
            b"create_thin 1\x1b",
        ] {
            assert!(
                matches!(Message::parse(other), Message::Other { .. }),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_thin_target_is_known_by_its_pools_number_or_path() {
        let target = |kind: &[u8], parameters: &[u8]| Target {
            start: Sectors(0),
            length: Sectors(131_072),
            kind: Untrusted::from_bytes(kind),
            parameters: Untrusted::from_bytes(parameters),
        };
        let pool = PoolName::new("tp");
        let device = Some(DeviceNumber { major: 253, minor: 2 });
        assert_eq!(
            target(b"thin", b"253:2 59").thin_on(&pool, device),
            Some(ThinId(59))
        );
        assert_eq!(
            target(b"thin", b"/dev/mapper/tp 59").thin_on(&pool, None),
            Some(ThinId(59))
        );
        for (other, device) in [
            (target(b"linear", b"253:2 59"), device),
            (target(b"thin", b"253:3 59"), device),
            (target(b"thin", b"253:2 59"), None),
            (target(b"thin", b"/dev/mapper/tp2 59"), device),
            (target(b"thin", b"/dev/mapper/tp x"), device),
        ] {
            assert_eq!(other.thin_on(&pool, device), None, "{other}");
        }
    }

    #[test]
    fn errors_read_as_people_write_them() {
        assert_eq!(CallResult::from_return(-17).to_string(), "EEXIST (file exists)");
        assert_eq!(CallResult::from_return(0).to_string(), "ok");
        assert_eq!(CallResult::from_return(-9999).error_name().unwrap(), "errno 9999");
    }
}
