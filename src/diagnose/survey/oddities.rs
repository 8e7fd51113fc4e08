//! What was read and is not understood. It is told and never acted on, so that nothing looks clean that was not judged.

use std::fmt::Display;

use super::{scene::Scene, words};
use crate::{
    model::{DeviceState, IdState, PoolMode, SnapshotId, Survey, ThinId, databases::SnapshotKind},
    words::{one_or, thousands},
};

/// Examples that a sentence names.
const EXAMPLES: usize = 4;

/// Each kind of it in one sentence, with a few examples and how many there are.
pub(super) fn not_understood(scene: &Scene<'_>) -> Vec<String> {
    let survey = scene.survey;
    let index = &scene.index;
    let records = survey.pool_db.devices.values();
    let states = records.filter_map(|record| match record.state {
        DeviceState::Other(number) => Some(format!("{} says {number}", words::name(&record.name))),
        _ => None,
    });
    let ids = survey.pool_db.device_ids.iter();
    let id_states = ids.clone().filter_map(|(id, state)| match state {
        IdState::Other(byte) => Some(format!("id {id} says {byte}")),
        _ => None,
    });
    let limits = ids
        .filter(|(id, _)| **id == ThinId(0) || **id > ThinId::MAX)
        .map(|(id, _)| id);
    let kinds = index.rows.iter().filter_map(|(id, row)| match row.row.kind {
        SnapshotKind::Other(kind) => Some(format!("snapshot {id} says {kind}")),
        _ => None,
    });
    let told = [
        sentence(
            [
                "record is in a state that no known containerd writes",
                "records are in a state that no known containerd writes",
            ],
            states,
        ),
        sentence(
            [
                "thin id is in a state that no known containerd writes",
                "thin ids are in a state that no known containerd writes",
            ],
            id_states,
        ),
        sentence(
            [
                "thin id is none that containerd gives out",
                "thin ids are none that containerd gives out",
            ],
            limits,
        ),
        sentence(
            [
                "record carries an id that device_ids has as free, so that containerd may give it out again",
                "records carry an id that device_ids has as free, so that containerd may give it out again",
            ],
            survey
                .pool_db
                .devices
                .values()
                .filter(|record| matches!(index.id_state(record.device_id), Some(IdState::Free) | None))
                .map(|record| words::name(&record.name)),
        ),
        sentence(
            [
                "snapshot is of a kind that no known containerd writes",
                "snapshots are of a kind that no known containerd writes",
            ],
            kinds,
        ),
        sentence(
            [
                "snapshot has the number 0, which containerd never gives out",
                "snapshots have the number 0, which containerd never gives out",
            ],
            index
                .rows
                .of(&SnapshotId(0))
                .iter()
                .map(|(_, row)| words::name(row.key)),
        ),
        sentence(
            [
                "number is borne by more than one snapshot, so which record belongs to which is not known",
                "numbers are borne by more than one snapshot, so which record belongs to which is not known",
            ],
            index.rows.repeated(),
        ),
        sentence(
            [
                "thin id is carried by more than one record, so whose its device is, is not known",
                "thin ids are carried by more than one record, so whose their devices are, is not known",
            ],
            index.carriers.repeated(),
        ),
        sentence(
            [
                "pool is in a mode that the kernel could not tell",
                "pools are in a mode that the kernel could not tell",
            ],
            survey
                .pool
                .iter()
                .filter(|pool| pool.mode == PoolMode::Unknown)
                .map(|pool| words::name(pool.name.as_str())),
        ),
    ];
    let told = told.into_iter().flatten();
    contradiction(survey).into_iter().chain(told).collect()
}

/// That rows do not fit their index. Two rows of one number are told as all others are.
fn contradiction(survey: &Survey) -> Option<String> {
    let why = survey.snapshots.contradiction.as_ref()?;
    Some(format!(
        "containerd's snapshot database metadata.db contradicts itself: {why}. It was damaged, or changed by something else than containerd. Nothing is deleted on the word of records."
    ))
}

/// `2 records are in a state ..: a says 77, b says 78`; nothing where there is none. `what` is said of one, and of more.
pub(super) fn sentence([one, more]: [&str; 2], of: impl Iterator<Item = impl Display>) -> Option<String> {
    let mut count = 0_usize;
    let mut examples = Vec::new();
    for one in of {
        count += 1;
        if examples.len() < EXAMPLES {
            examples.push(one.to_string());
        }
    }
    let cut = if count > examples.len() { ", .." } else { "" };
    let what = one_or(count, one, more);
    (count > 0).then(|| format!("{} {what}: {}{cut}.", thousands(count), examples.join(", ")))
}
