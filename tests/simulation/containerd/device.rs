//! The pool of devices: records, ids, and the kernel calls between their transactions (`pool_device.go`, metadata.go).

use suture::model::{Bytes, DeviceRecord, DeviceState, IdState, PoolDb, ThinId};

use super::Failure;
use crate::{
    kernel::{Call, Errno, Table},
    machine::{Machine, POOL},
};

/// `getNextDeviceID`: the first free number in the order of their texts, or else the next one.
fn next_id(db: &mut PoolDb) -> ThinId {
    let free = db.device_ids.iter().filter(|(_, state)| **state == IdState::Free);
    let id = free
        .map(|(id, _)| *id)
        .min_by_key(ToString::to_string)
        .unwrap_or_else(|| {
            db.id_sequence += 1;
            ThinId(u32::try_from(db.id_sequence).unwrap())
        });
    db.device_ids.insert(id, IdState::Taken);
    id
}

/// `MarkFaulty`: the record and its id.
pub(super) fn mark_faulty(db: &mut PoolDb, name: &str) -> Result<(), Failure> {
    let record = db.devices.get_mut(name).ok_or(Failure::NotFound)?;
    record.state = DeviceState::Faulty;
    let id = record.device_id;
    db.device_ids.insert(id, IdState::Faulty);
    Ok(())
}

impl Machine {
    pub(super) fn record(&self, name: &str) -> Result<DeviceRecord, Failure> {
        self.get(|state| state.pool.devices.get(name).cloned())
            .ok_or(Failure::NotFound)
    }

    /// `AddDevice`: one that is there and faulty is written over, and its id has lost its name.
    async fn add_device(&self, name: &str, parent: &str) -> Result<ThinId, Failure> {
        self.pool_tx(format!("AddDevice {name}"), |db| {
            if let Some(known) = db.devices.get(name)
                && known.state != DeviceState::Faulty
            {
                return Err(Failure::AlreadyThere(known.state));
            }
            let device_id = next_id(db);
            let record = DeviceRecord {
                device_id,
                size: Bytes(67_108_864),
                name: name.to_owned(),
                parent_name: parent.to_owned(),
                state: DeviceState::Unknown,
                error: String::new(),
            };
            db.devices.insert(name.to_owned(), record);
            Ok(device_id)
        })
        .await
    }

    pub(super) async fn set_state(&self, name: &str, to: DeviceState, error: String) -> Result<(), Failure> {
        self.pool_tx(format!("{to} {name}"), |db| {
            let record = db.devices.get_mut(name).ok_or(Failure::NotFound)?;
            record.state = to;
            record.error = error;
            Ok(())
        })
        .await
    }

    /// `transition`: the state that is tried, the work, and the state that it led to, or why it did not.
    async fn transition(
        &self,
        name: &str,
        [trying, success]: [DeviceState; 2],
        what: String,
        calls: Vec<Call>,
        also_fine: Option<Errno>,
    ) -> Result<(), Failure> {
        self.set_state(name, trying, self.record(name)?.error).await?;
        let went = match self.child(what, calls).await {
            Err(errno) if Some(errno) == also_fine => Ok(()),
            went => went,
        };
        match went {
            Ok(()) => self.set_state(name, success, String::new()).await,
            Err(errno) => {
                // The state stays at what was tried, and the error is noted.
                self.set_state(name, trying, format!("{errno:?}")).await?;
                Err(errno.into())
            }
        }
    }

    pub(super) async fn activate(&self, name: &str, id: ThinId) -> Result<(), Failure> {
        let calls = vec![
            Call::Create(name.to_owned()),
            Call::Load(name.to_owned(), Table::Thin(id.0)),
            Call::Resume(name.to_owned()),
        ];
        let states = [DeviceState::Activating, DeviceState::Activated];
        let what = format!("dmsetup create {name} --table '0 131072 thin /dev/mapper/{POOL} {id}'");
        self.transition(name, states, what, calls, None).await
    }

    pub(super) async fn suspend(&self, name: &str) -> Result<(), Failure> {
        let states = [DeviceState::Suspending, DeviceState::Suspended];
        let calls = vec![Call::Suspend(name.to_owned())];
        self.transition(name, states, format!("dmsetup suspend {name}"), calls, None)
            .await
    }

    pub(super) async fn resume(&self, name: &str) -> Result<(), Failure> {
        let states = [DeviceState::Resuming, DeviceState::Resumed];
        let calls = vec![Call::Resume(name.to_owned())];
        self.transition(name, states, format!("dmsetup resume {name}"), calls, None)
            .await
    }

    /// `DeactivateDevice`; deferred for a commit, by force for a removal.
    pub(super) async fn deactivate(&self, name: &str, deferred: bool) -> Result<(), Failure> {
        if !self.get(|state| state.kernel.is_loaded(name)) {
            return Ok(());
        }
        let (option, calls) = if deferred {
            ("--deferred", vec![Call::RemoveDeferred(name.to_owned())])
        } else {
            let calls = vec![
                Call::Load(name.to_owned(), Table::Error),
                Call::Resume(name.to_owned()),
                Call::Remove(name.to_owned()),
            ];
            ("--force", calls)
        };
        let states = [DeviceState::Deactivating, DeviceState::Deactivated];
        let what = format!("dmsetup remove --retry {option} {name}");
        self.transition(name, states, what, calls, None).await
    }

    async fn delete(&self, name: &str, id: ThinId) -> Result<(), Failure> {
        let states = [DeviceState::Removing, DeviceState::Removed];
        let what = format!("dmsetup message {POOL} 0 delete {id}");
        let calls = vec![Call::Delete(id.0)];
        self.transition(name, states, what, calls, Some(Errno::NoData))
            .await
    }

    /// `RemoveDevice`: dm device, thin device, record and id.
    pub(super) async fn remove_device(&self, name: &str) -> Result<(), Failure> {
        let id = self.record(name)?.device_id;
        self.deactivate(name, false).await?;
        self.delete(name, id).await?;
        self.pool_tx(format!("RemoveDevice {name}"), |db| {
            let record = db.devices.remove(name).ok_or(Failure::NotFound)?;
            db.device_ids.insert(record.device_id, IdState::Free);
            Ok(())
        })
        .await
    }

    async fn faulty(&self, name: &str) -> Result<(), Failure> {
        self.pool_tx(format!("MarkFaulty {name}"), |db| mark_faulty(db, name))
            .await
    }

    /// `CreateThinDevice` and `CreateSnapshotDevice`.
    pub(super) async fn create_device(&self, name: &str, parent: Option<&str>) -> Result<(), Failure> {
        let base = parent.map(|parent| self.record(parent)).transpose()?;
        let loaded = parent.filter(|parent| self.get(|state| state.kernel.is_live(parent)));
        if let Some(parent) = loaded {
            self.suspend(parent).await?;
        }
        let made = self.make(name, base.as_ref()).await;
        if let Some(parent) = loaded {
            // Deferred after the rollback was, and so run before it. That it fails is only logged.
            let _ = self.resume(parent).await;
        }
        match made {
            Ok(()) => Ok(()),
            Err(Undo::Nothing(failure)) => Err(failure),
            Err(Undo::Creation(failure)) => {
                let _ = self.faulty(name).await;
                Err(failure)
            }
            Err(Undo::Activation(failure)) => {
                self.roll_back(name).await;
                Err(failure)
            }
        }
    }

    /// `rollbackActivate`.
    async fn roll_back(&self, name: &str) {
        let Ok(record) = self.record(name) else { return };
        let _ = if self.delete(name, record.device_id).await.is_err() {
            self.faulty(name).await
        } else {
            self.remove_device(name).await
        };
    }
}

/// What is to be undone of a device that could not be made.
enum Undo {
    Nothing(Failure),
    Creation(Failure),
    Activation(Failure),
}

impl Machine {
    async fn make(&self, name: &str, base: Option<&DeviceRecord>) -> Result<(), Undo> {
        let parent = base.map_or("", |base| base.name.as_str());
        let id = self.add_device(name, parent).await.map_err(Undo::Nothing)?;
        let (message, call) = match base {
            None => (format!("create_thin {id}"), Call::CreateThin(id.0)),
            Some(base) => (
                format!("create_snap {id} {}", base.device_id),
                Call::CreateSnap(id.0, base.device_id.0),
            ),
        };
        let states = [DeviceState::Creating, DeviceState::Created];
        let what = format!("dmsetup message {POOL} 0 {message}");
        self.transition(name, states, what, vec![call], None)
            .await
            .map_err(Undo::Creation)?;
        self.activate(name, id).await.map_err(Undo::Activation)
    }
}
