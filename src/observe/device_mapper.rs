//! The pool and the dm devices on it, asked of device-mapper without changing or flushing anything.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use devicemapper::{DM, DevId, DmError, DmFlags, DmName, DmNameBuf, DmOptions};

use super::pool_status;
use crate::model::{DeviceNumber, Node, Pool, PoolActivation, PoolName, PoolUsage, Sectors, Untrusted};

/// Why device-mapper could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceMapperError {
    /// `/dev/mapper/control` could not be opened.
    #[error("opening /dev/mapper/control; is suture running as root and the dm_mod module loaded?")]
    Control(#[source] DmError),
    /// There is no such pool.
    #[error(
        "there is no device-mapper device `{0}`; is the pool set up, and its name right in containerd's configuration?"
    )]
    NoPool(PoolName),
    /// The device is something else.
    #[error("the device-mapper device `{pool}` is not a thin pool, its table says `{table}`")]
    NotAPool {
        /// Its name.
        pool: PoolName,
        /// Its first target.
        table: String,
    },
    /// The name can not be a dm name.
    #[error("`{0}` can not be the name of a device-mapper device")]
    BadName(PoolName),
    /// A request failed.
    #[error("asking device-mapper for {what}")]
    Ask {
        /// For what.
        what: String,
        /// Why it failed.
        source: DmError,
    },
    /// The kernel's answer could not be understood.
    #[error("understanding what the kernel says of {what}: `{text}`")]
    Answer {
        /// Of what.
        what: String,
        /// What it says.
        text: String,
    },
    /// sysfs could not be read.
    #[error("reading {path}")]
    Sysfs {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DeviceMapperError {
    /// The errno that device-mapper answered with, where it answered with one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Control(source) | Self::Ask { source, .. } => errno(source),
            _ => None,
        }
    }
}

/// The errno inside an error of the devicemapper crate.
#[must_use]
pub fn errno(error: &DmError) -> Option<i32> {
    match error {
        DmError::Core(devicemapper::errors::Error::Ioctl(.., errno)) => Some(**errno as i32),
        _ => None,
    }
}

/// A dm device's number and name, and its event number.
pub(super) type NumberedEvent = ((DeviceNumber, Vec<u8>), Option<u32>);
/// One target of a table: first sector, sectors, kind, parameters.
pub type TableLine = (u64, u64, String, String);

/// A handle on device-mapper's control device.
pub struct DeviceMapper {
    dm: DM,
}

impl DeviceMapper {
    /// Opens the control device.
    pub fn open() -> Result<Self, DeviceMapperError> {
        DM::new()
            .map(|dm| Self { dm })
            .map_err(DeviceMapperError::Control)
    }

    /// The pool as it is. Asked without flushing: a plain `status` would commit the pool's metadata.
    pub fn pool(&self, name: &PoolName) -> Result<Pool, DeviceMapperError> {
        let id = dm_name(name)?;
        let ask = |flags| {
            self.dm
                .table_status(&DevId::Name(id), DmOptions::default().set_flags(flags))
        };
        let failed = |source: DmError| match errno(&source) {
            Some(libc_enxio) if libc_enxio == nix::errno::Errno::ENXIO as i32 => {
                DeviceMapperError::NoPool(name.clone())
            }
            _ => DeviceMapperError::Ask {
                what: format!("pool {name}"),
                source,
            },
        };
        let (info, table) = ask(DmFlags::DM_STATUS_TABLE | DmFlags::DM_NOFLUSH).map_err(failed)?;
        let (kind, parameters) = match table.first() {
            Some((_, _, kind, parameters)) => (kind.clone(), parameters.clone()),
            None => (String::new(), String::new()),
        };
        if kind != "thin-pool" {
            return Err(DeviceMapperError::NotAPool {
                pool: name.clone(),
                table: format!("{kind} {parameters}"),
            });
        }
        let not_understood = |text: &str| DeviceMapperError::Answer {
            what: format!("pool {name}"),
            text: text.to_owned(),
        };
        let metadata_device = pool_status::metadata_device(&parameters);
        let metadata_device = metadata_device.ok_or_else(|| not_understood(&parameters))?;
        let device = number(info.device());
        let activation = activation(device, metadata_device)?;
        let (_, status) = ask(DmFlags::DM_NOFLUSH).map_err(failed)?;
        let status = status.first().map(|(.., text)| text.clone()).unwrap_or_default();
        let (mode, needs_check) = pool_status::mode(&status).ok_or_else(|| not_understood(&status))?;
        Ok(Pool {
            name: name.clone(),
            device,
            metadata_device,
            activation,
            table: parameters,
            mode,
            needs_check,
        })
    }

    /// How full the pool is, and where the reserved snapshot of its metadata begins. Asked without flushing. Nothing
    /// where the kernel counts nothing: the pool failed.
    pub fn usage(&self, pool: &Pool) -> Result<Option<PoolUsage>, DeviceMapperError> {
        let id = dm_name(&pool.name)?;
        let options = DmOptions::default().set_flags(DmFlags::DM_NOFLUSH);
        let asked = self.dm.table_status(&DevId::Name(id), options);
        let (_, status) = asked.map_err(|source| DeviceMapperError::Ask {
            what: format!("how full pool {} is", pool.name),
            source,
        })?;
        let status = status.first().map(|(.., text)| text.as_str()).unwrap_or_default();
        if matches!(status, "Fail" | "Error") {
            return Ok(None);
        }
        let usage = pool_status::usage(status, pool.data_block_sectors().map(Sectors));
        usage.map(Some).ok_or_else(|| DeviceMapperError::Answer {
            what: format!("pool {}", pool.name),
            text: status.to_owned(),
        })
    }

    /// The dm devices that lie on the pool or bear a name of the snapshotter's.
    pub fn nodes(&self, pool: &Pool) -> Result<Vec<Node>, DeviceMapperError> {
        let on_pool: BTreeSet<String> = holders(pool.device)?.into_iter().collect();
        self.nodes_where(&pool.name, Some(pool.device), |device| {
            on_pool.contains(&device.sysfs_name())
        })
    }

    /// The dm devices that bear a name of the snapshotter's, where the pool is not set up.
    pub fn nodes_named(&self, pool: &PoolName) -> Result<Vec<Node>, DeviceMapperError> {
        self.nodes_where(pool, None, |_| false)
    }

    fn nodes_where(
        &self,
        pool: &PoolName,
        on: Option<DeviceNumber>,
        also: impl Fn(&Listed) -> bool,
    ) -> Result<Vec<Node>, DeviceMapperError> {
        let mut nodes = Vec::new();
        for device in self.listed()? {
            let name = std::str::from_utf8(&device.name);
            if name.is_ok_and(|name| pool.snapshot_of(name).is_some()) || also(&device) {
                nodes.extend(self.node(on, &device)?);
            }
        }
        Ok(nodes)
    }

    /// All dm devices. One whose name is not ASCII makes the list unreadable for the library: then sysfs gives them, at
    /// three files for each, and without those that have no table yet.
    fn listed(&self) -> Result<Vec<Listed>, DeviceMapperError> {
        let Ok(list) = self.dm.list_devices() else {
            return dm_devices();
        };
        let listed = list.into_iter().map(|(name, device, _)| Listed {
            name: name.as_bytes().to_vec(),
            number: number(device),
        });
        Ok(listed.collect())
    }

    /// Makes [`DeviceMapper::events`] not ready until the next event of any dm device.
    pub(super) fn arm_poll(&self) -> Result<(), DeviceMapperError> {
        let armed = self.dm.arm_poll();
        armed.map(|_| ()).map_err(|source| DeviceMapperError::Ask {
            what: "its next event".to_owned(),
            source,
        })
    }

    /// Ready to be read from once any dm device had an event since [`DeviceMapper::arm_poll`].
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.dm.file().as_fd()
    }

    /// Number and name of every dm device with its event number, where that can be had. A name that is not ASCII makes
    /// the list unreadable for the library: then sysfs gives the names, and each device that can be named is asked. A
    /// device without any table is not in sysfs.
    pub(super) fn event_numbers(&self) -> Result<Vec<NumberedEvent>, DeviceMapperError> {
        if let Ok(list) = self.dm.list_devices() {
            let numbered = |(name, device, event): (DmNameBuf, _, _)| {
                ((number(device), name.as_bytes().to_vec()), event)
            };
            return Ok(list.into_iter().map(numbered).collect());
        }
        let event_of = |name: &[u8]| {
            let name = DmName::new(std::str::from_utf8(name).ok()?).ok()?;
            let info = self.dm.device_info(&DevId::Name(name)).ok()?;
            Some(info.event_nr())
        };
        let devices = dm_devices()?.into_iter();
        Ok(devices
            .map(|listed| {
                let event = event_of(&listed.name);
                ((listed.number, listed.name), event)
            })
            .collect())
    }

    /// The live table of a device: start, length, kind and parameters of each target. Nothing when there is no such
    /// device, or it has a name that no tool can pass on.
    pub fn live_table(&self, name: &[u8]) -> Result<Option<Vec<TableLine>>, DeviceMapperError> {
        let known = std::str::from_utf8(name)
            .ok()
            .and_then(|name| DmName::new(name).ok());
        let Some(known) = known else { return Ok(None) };
        let flags = DmFlags::DM_STATUS_TABLE | DmFlags::DM_NOFLUSH;
        match self
            .dm
            .table_status(&DevId::Name(known), DmOptions::default().set_flags(flags))
        {
            Ok((_, table)) => Ok(Some(table)),
            Err(error) if errno(&error) == Some(nix::errno::Errno::ENXIO as i32) => Ok(None),
            Err(source) => Err(DeviceMapperError::Ask {
                what: format!("the table of {}", Untrusted::from_bytes(name)),
                source,
            }),
        }
    }

    /// One device; nothing when it went away meanwhile.
    fn node(&self, pool: Option<DeviceNumber>, device: &Listed) -> Result<Option<Node>, DeviceMapperError> {
        let mut node = Node {
            name: Untrusted::from_bytes(&device.name),
            device: device.number,
            thin_ids: Vec::new(),
            suspended: false,
            open_count: 0,
            unreadable: true,
            live: true,
            deferred_remove: false,
            error_table: false,
        };
        let name = std::str::from_utf8(&device.name)
            .ok()
            .and_then(|name| DmName::new(name).ok());
        let Some(name) = name else { return Ok(Some(node)) };
        // The loaded table counts like the live one: both hold the thin device open. Most devices have none, and the
        // kernel says so with the live one.
        let mut loaded = true;
        for which in [DmFlags::empty(), DmFlags::DM_QUERY_INACTIVE_TABLE] {
            if !loaded {
                break;
            }
            let flags = DmFlags::DM_STATUS_TABLE | DmFlags::DM_NOFLUSH | which;
            match self
                .dm
                .table_status(&DevId::Name(name), DmOptions::default().set_flags(flags))
            {
                Ok((info, table)) => {
                    if which.is_empty() {
                        loaded = info.flags().contains(DmFlags::DM_INACTIVE_PRESENT);
                        node.suspended = info.flags().contains(DmFlags::DM_SUSPEND);
                        node.deferred_remove = info.flags().contains(DmFlags::DM_DEFERRED_REMOVE);
                        node.live = !table.is_empty();
                        node.error_table = table.iter().any(|(.., kind, _)| kind == "error");
                        node.open_count = u32::try_from(info.open_count()).unwrap_or(0);
                    }
                    node.thin_ids.extend(
                        table
                            .iter()
                            .filter_map(|(.., kind, text)| pool_status::thin_id(pool, kind, text)),
                    );
                }
                Err(error) if errno(&error) == Some(nix::errno::Errno::ENXIO as i32) => {
                    // Gone, or renamed a moment ago: then nobody knows what it maps.
                    let there = Path::new("/sys/block").join(device.sysfs_name()).exists();
                    return Ok(there.then_some(node));
                }
                Err(source) => {
                    return Err(DeviceMapperError::Ask {
                        what: format!("the table of {}", node.name),
                        source,
                    });
                }
            }
        }
        node.unreadable = false;
        node.thin_ids.sort_unstable();
        node.thin_ids.dedup();
        Ok(Some(node))
    }
}

/// Which life the pool is in.
fn activation(
    device: DeviceNumber,
    metadata_device: DeviceNumber,
) -> Result<PoolActivation, DeviceMapperError> {
    let boot = PathBuf::from("/proc/sys/kernel/random/boot_id");
    let boot = fs::read_to_string(&boot).map_err(|source| DeviceMapperError::Sysfs { path: boot, source })?;
    // Kernels before 5.15 have none; then the numbers of the devices have to do.
    let sequence = fs::read_to_string(format!("/sys/dev/block/{device}/diskseq")).ok();
    Ok(PoolActivation {
        boot: boot.trim().to_owned(),
        disk_sequence: sequence.and_then(|text| text.trim().parse().ok()),
        metadata_device,
    })
}

fn dm_name(pool: &PoolName) -> Result<&DmName, DeviceMapperError> {
    DmName::new(pool.as_str()).map_err(|_| DeviceMapperError::BadName(pool.clone()))
}

fn number(device: devicemapper::Device) -> DeviceNumber {
    DeviceNumber {
        major: device.major,
        minor: device.minor,
    }
}

/// A dm device.
struct Listed {
    name: Vec<u8>,
    number: DeviceNumber,
}

impl Listed {
    /// As sysfs calls it (`alloc_dev`, drivers/md/dm.c).
    fn sysfs_name(&self) -> String {
        format!("dm-{}", self.number.minor)
    }
}

/// All dm devices that have a table, from sysfs.
fn dm_devices() -> Result<Vec<Listed>, DeviceMapperError> {
    let folder = Path::new("/sys/block");
    let mut devices = Vec::new();
    for sysfs_name in folder_names(folder)? {
        if !sysfs_name.starts_with("dm-") {
            continue;
        }
        let at = folder.join(&sysfs_name);
        let read = |file: &str| match fs::read(at.join(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            // It went away meanwhile.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound)
                    || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) =>
            {
                Ok(None)
            }
            Err(source) => Err(DeviceMapperError::Sysfs {
                path: at.join(file),
                source,
            }),
        };
        let (Some(mut name), Some(device)) = (read("dm/name")?, read("dev")?) else {
            continue;
        };
        name.pop_if(|last| *last == b'\n');
        let device = String::from_utf8_lossy(&device);
        let number = device.trim().parse().map_err(|_| DeviceMapperError::Answer {
            what: sysfs_name.clone(),
            text: device.to_string(),
        })?;
        devices.push(Listed { name, number });
    }
    Ok(devices)
}

/// sysfs names of the block devices on top of a device, by their live or their loaded tables.
fn holders(device: DeviceNumber) -> Result<Vec<String>, DeviceMapperError> {
    folder_names(&PathBuf::from(format!("/sys/dev/block/{device}/holders")))
}

fn folder_names(path: &Path) -> Result<Vec<String>, DeviceMapperError> {
    let failed = |source| DeviceMapperError::Sysfs {
        path: path.to_owned(),
        source,
    };
    let entries = fs::read_dir(path).map_err(failed)?;
    entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}
