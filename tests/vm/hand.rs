//! What containerd can not be brought to write, written by hand while it is stopped.

use anyhow::{Result, ensure};
use suture::{
    model::{DeviceRecord, DeviceState, IdState, ThinId},
    remedy::bbolt_editor::{Edit, Editor},
};

use crate::stage::Stage;

fn devices() -> Vec<Vec<u8>> {
    vec![b"devices".to_vec()]
}

/// A record as containerd writes it.
pub(crate) fn put_record(record: &DeviceRecord) -> Result<Edit> {
    Ok(Edit::Put {
        bucket: devices(),
        key: record.name.clone().into_bytes(),
        value: serde_json::to_vec(record)?,
    })
}

/// A record is gone.
pub(crate) fn forget_record(name: &str) -> Edit {
    Edit::Delete {
        bucket: devices(),
        key: name.as_bytes().to_vec(),
    }
}

/// The state of a thin id.
pub(crate) fn put_id(id: ThinId, state: IdState) -> Edit {
    let byte = match state {
        IdState::Free => 0,
        IdState::Taken => 1,
        IdState::Faulty => 2,
        IdState::Other(byte) => byte,
    };
    Edit::Put {
        bucket: vec![b"device_ids".to_vec()],
        key: id.to_string().into_bytes(),
        value: vec![byte],
    }
}

/// A record for a device that nobody made a snapshot of.
pub(crate) fn record(name: &str, thin_id: u32, state: DeviceState) -> DeviceRecord {
    DeviceRecord {
        device_id: ThinId(thin_id),
        size: suture::model::Bytes(64 << 20),
        name: name.to_owned(),
        parent_name: String::new(),
        state,
        error: String::new(),
    }
}

impl Stage<'_> {
    /// Changes the pool database as one transaction. containerd must not run.
    pub(crate) fn edit_pool_db(&self, edits: &[Edit]) -> Result<()> {
        ensure!(!self.containerd.is_up(), "containerd would not see it");
        let path = self.containerd.options().pool_db();
        let copy = self.copy(&path)?;
        Editor::open(copy.path())?.commit(edits)?;
        self.vm.write_file(&path, std::fs::read(copy.path())?, 0o600)
    }
}
