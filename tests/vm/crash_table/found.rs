//! What is there when containerd is dead.

use anyhow::Result;
use suture::model::{DeviceRecord, SnapshotId};

use super::scenes::Set;
use crate::stage::*;

impl Set {
    /// What is there of the snapshot, and what is unusual of the layer below it. containerd does not run.
    pub(super) fn found(&self, stage: &Stage<'_>) -> Result<String> {
        let database = stage.pool_db()?;
        let thin = stage.containerd.thin_ids()?;
        let mut words = Vec::new();
        let record = database.devices.get(&format!("tp-snap-{}", self.number));
        words.push(state_of(record));
        if record.is_some_and(|record| thin.contains(&u64::from(record.device_id.0))) {
            words.push("thin device".to_owned());
        }
        words.extend(node(stage, self.number)?);
        let rows = stage.snapshot_db()?.snapshots;
        if let Some((key, _)) = rows.iter().find(|(_, row)| row.id == SnapshotId(self.number)) {
            let is_committed = key.ends_with(&self.key("committed"));
            words.push(if is_committed { "committed row" } else { "row" }.to_owned());
        }
        // A key that nobody used before is in the file only once it was written there.
        let core = stage.containerd.options().core_db();
        if stage
            .vm
            .run(["grep", "-q", &self.key(self.scene.makes()), &core])?
            .status
            .success()
        {
            words.push("known to containerd".to_owned());
        }
        if let Some(layer) = self.layer {
            let below = database.devices.get(&format!("tp-snap-{layer}"));
            let mut of_layer = vec![state_of(below)];
            of_layer.extend(node(stage, layer)?);
            words.push(format!("the layer {}", of_layer.join(", ")));
        }
        Ok(words.join(", "))
    }
}

fn state_of(record: Option<&DeviceRecord>) -> String {
    record.map_or_else(|| "no record".to_owned(), |record| record.state.to_string())
}

/// The state of a snapshot's dm device, if it is there.
fn node(stage: &Stage<'_>, number: u64) -> Result<Option<String>> {
    let name = format!("tp-snap-{number}");
    let info = stage.vm.run([
        "dmsetup",
        "info",
        "--columns",
        "--noheadings",
        "-o",
        "attr",
        &name,
    ])?;
    if !info.status.success() {
        return Ok(None);
    }
    let attributes = info.stdout.trim().to_owned();
    let table = stage.vm.run(["dmsetup", "table", &name])?.stdout;
    let mounted = stage
        .vm
        .sh("cat /proc/mounts")?
        .contains(&format!("/dev/mapper/{name} "));
    // Whether there is a live table comes first, then whether there is one that waits to become it.
    let waits = attributes.chars().nth(1) == Some('I');
    let kind = if !attributes.starts_with('L') && waits {
        "dm device with a table that is not live"
    } else if !attributes.starts_with('L') {
        "dm device without a table"
    } else if waits {
        "dm device with the error table loaded"
    } else if table.contains(" error") {
        "dm device with the error table"
    } else if attributes.contains('s') {
        "suspended dm device"
    } else {
        "dm device"
    };
    Ok(Some(if mounted {
        format!("{kind}, mounted")
    } else {
        kind.to_owned()
    }))
}
