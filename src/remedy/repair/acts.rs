//! What the kernel does in a repair, act by act: looked at just before, done once, and looked at again.

use crate::{
    model::{Act, DeviceNumber, DeviceState, IdState, PoolName, Survey, ThinId},
    remedy::{Hands, HandsError, NodeNow},
    words::times,
};

/// Why an act was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotDone {
    /// What was seen just before speaks against it.
    Refused(String),
    /// The kernel, or the look after it, says no.
    Failed(String),
}

impl NotDone {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Failed(why) => why,
        }
    }
}

/// Does one act of the kernel's. Edits are not done here.
pub(super) fn act(act: &Act, pool: &PoolName, hands: &dyn Hands) -> Result<(), NotDone> {
    match act {
        Act::ResumeNode { name, device } => resume(name, *device, hands),
        Act::RemoveNode { name, device } => remove(name, *device, hands),
        Act::DeleteThin { thin_id } => delete(*thin_id, pool, hands),
        edit => Err(NotDone::Failed(format!("{edit} is not the kernel's to do"))),
    }
}

fn resume(name: &str, device: DeviceNumber, hands: &dyn Hands) -> Result<(), NotDone> {
    let Some(node) = looked_at(name, device, hands)? else {
        return Ok(());
    };
    if !node.suspended {
        return Ok(());
    }
    // A resume swaps the loaded table in: whoever loaded it has not finished, or meant something else.
    if node.loaded || !node.live {
        return Err(NotDone::Refused(format!(
            "dm device {} has a table loaded that a resume would make its own",
            name.escape_debug()
        )));
    }
    hands.resume_node(name).map_err(failed)?;
    match hands.node(name).map_err(failed)? {
        Some(node) if node.suspended => Err(NotDone::Failed(
            "the kernel said it was resumed, and it is suspended still".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// By its name, although its number is what was found: the kernel takes one or the other, and never both
/// (`__find_device_hash_cell`, drivers/md/dm-ioctl.c). Between the look and the call either may come to be another device's. A
/// number that is given back goes to whatever dm device is made next, be it anybody's (`next_free_minor`, drivers/md/dm.c takes
/// the lowest); a name of the snapshotter's goes to nobody but the same snapshot.
fn remove(name: &str, device: DeviceNumber, hands: &dyn Hands) -> Result<(), NotDone> {
    let Some(node) = looked_at(name, device, hands)? else {
        return Ok(());
    };
    if node.open_count > 0 {
        return Err(NotDone::Refused(format!(
            "dm device {} is open {}",
            name.escape_debug(),
            times(node.open_count)
        )));
    }
    hands.remove_node(name).map_err(failed)?;
    match hands.node(name).map_err(failed)? {
        Some(node) if node.device == device => Err(NotDone::Failed(
            "the kernel said it was removed, and it is there still".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn delete(id: ThinId, pool: &PoolName, hands: &dyn Hands) -> Result<(), NotDone> {
    match hands.delete_thin(pool, id) {
        // That it is gone is looked at with the next survey: the pool's metadata tell, and take longer to read.
        Ok(()) | Err(HandsError::NoSuchDevice) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The dm device of a plan as it is now; nothing where it is gone.
fn looked_at(name: &str, device: DeviceNumber, hands: &dyn Hands) -> Result<Option<NodeNow>, NotDone> {
    let node = hands.node(name).map_err(failed)?;
    match node {
        Some(node) if node.device != device => Err(NotDone::Refused(format!(
            "dm device {} is {} now, another one than was found ({device})",
            name.escape_debug(),
            node.device
        ))),
        other => Ok(other),
    }
}

fn failed(error: HandsError) -> NotDone {
    match error {
        HandsError::Busy => NotDone::Refused(error.to_string()),
        error => NotDone::Failed(error.to_string()),
    }
}

/// Whether a survey shows what an act was to bring about; nothing where it can not tell.
pub(super) fn is_done(act: &Act, survey: &Survey) -> Option<bool> {
    let record = |name: &str| survey.pool_db.devices.get(name);
    match act {
        Act::ResumeNode { name, device } => Some(
            !survey
                .nodes
                .iter()
                .any(|node| node.name.as_str() == name && node.device == *device && node.suspended),
        ),
        Act::RemoveNode { name, device } => Some(
            !survey
                .nodes
                .iter()
                .any(|node| node.name.as_str() == name && node.device == *device),
        ),
        Act::DeleteThin { thin_id } => survey.has_thin(*thin_id).map(|there| !there),
        Act::MarkFaulty { record: before } => Some(
            record(&before.name)
                .is_none_or(|now| now.device_id != before.device_id || now.state == DeviceState::Faulty),
        ),
        Act::ForgetRecord { record: before } => {
            Some(record(&before.name).is_none_or(|now| now.device_id != before.device_id))
        }
        Act::RestoreRecord { record: before, to } => Some(
            record(&before.name).is_some_and(|now| now.state == *to)
                && survey.id_state(before.device_id) == Some(IdState::Taken),
        ),
        Act::InsertRemovedRecord { name, .. } => Some(record(name).is_some()),
        Act::SetId { thin_id, to, .. } => Some(survey.id_state(*thin_id) == Some(*to)),
        Act::RaiseIdSequence { to, .. } => Some(survey.pool_db.id_sequence >= *to),
    }
}
