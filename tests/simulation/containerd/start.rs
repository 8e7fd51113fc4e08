//! containerd's start: the lock on the pool database, and `ensureDeviceStates` (`pool_device.go`).

use suture::model::{DeviceRecord, DeviceState};

use super::{Failure, device::mark_faulty};
use crate::machine::Machine;

impl Machine {
    /// Starts a containerd. It runs also where the devmapper snapshotter fails to load.
    pub(crate) async fn start(&self) -> Result<(), Failure> {
        self.set(|state| {
            state.starts += 1;
            state.containerd = Some(state.starts);
        });
        let records: Vec<DeviceRecord> = self.get(|state| state.pool.devices.values().cloned().collect());
        let mut went = Ok(());
        for record in records.iter().filter(|one| one.state == DeviceState::Activated) {
            if !self.get(|state| state.kernel.is_live(&record.name)) {
                went = went.and(self.activate(&record.name, record.device_id).await);
            }
        }
        for record in records {
            let at_rest = matches!(
                record.state,
                DeviceState::Activated
                    | DeviceState::Suspended
                    | DeviceState::Resumed
                    | DeviceState::Deactivated
                    | DeviceState::Removed
                    | DeviceState::Faulty
            );
            if !at_rest {
                let name = record.name;
                self.pool_tx(format!("MarkFaulty {name}"), |db| mark_faulty(db, &name))
                    .await?;
            }
        }
        self.memory().loaded.set(went.is_ok());
        went
    }
}
