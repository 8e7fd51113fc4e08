//! What explains several findings together: a database that was lost or put back, a pool that others use too.

use super::{oddities::sentence, scene::Scene, words};
use crate::{
    model::{Diagnosis, FindingClass, Treatment, databases::Presence},
    words::{counted, one_or, thousands},
};

/// The sentences, the weightiest first.
pub(super) fn explanations(scene: &Scene<'_>, found: &[Diagnosis]) -> Vec<String> {
    let survey = scene.survey;
    let whole = &scene.whole;
    let pool = words::name(survey.pool_name.as_str());
    let foreign = |one: &&Diagnosis| one.finding.class == FindingClass::ForeignThin;
    let strangers = found.iter().filter(foreign).count();
    let in_the_way = found
        .iter()
        .filter(|one| foreign(one) && one.remedy.action == Treatment::ReserveId)
        .count();
    let records = survey.pool_db.devices.len();
    let rows = survey.snapshots.snapshots.len();
    let mut told = Vec::new();
    let rescue = "The devices are untouched: each can be mapped read-only with `dmsetup create` and looked at. With a backup of the databases from before: stop containerd and put both back together. What is known to be waste can be deleted by name with `suture repair --delete-thin ID`. Nothing is deleted without being named.";
    if strangers > 0 && records == 0 && rows == 0 {
        told.push(format!(
            "containerd's databases are empty, and the pool {pool} has {}: the databases were deleted or wiped and the pool was kept (containerd#4790), or the pool is not containerd's alone. containerd draws thin ids from 1 again, and fails with `file exists` on each that the pool has. {rescue}",
            counted(strangers, "thin device")
        ));
    } else if in_the_way > 0 {
        told.push(format!(
            "containerd is about to give out {} that the pool {pool} has already: its databases were wiped or put back from an older backup while the pool was kept (containerd#4790), or somebody else makes devices in it. {rescue}",
            counted(in_the_way, "thin id")
        ));
    } else if strangers > 0 {
        told.push(format!(
            "{} in the pool {pool} {} in no record: left by interrupted operations, or made by somebody else who uses the pool. Nobody can tell which, so none is deleted without being named.",
            counted(strangers, "thin device"),
            one_or(strangers, "is", "are")
        ));
    }
    if whole.storage_lost {
        told.push(format!(
            "metadata.db is gone while {pool}.db has {}: containerd has lost all snapshots, and their devices still hold the data. With a backup of metadata.db from the same time: stop containerd and put it back.",
            counted(records, "record")
        ));
    } else if whole.beyond > 0 {
        let kept = match survey.snapshots.presence {
            Presence::Complete => "is older than",
            Presence::NoBuckets | Presence::NoFile => "is empty, and does not belong to",
        };
        told.push(format!(
            "metadata.db {kept} {pool}.db: {} of {} that it has not given out yet (it stands at {}). It was wiped or put back from an older backup; nothing is deleted on the word of records.",
            counted(whole.beyond, "record"),
            one_or(whole.beyond, "a snapshot", "snapshots"),
            survey.snapshots.sequence
        ));
    }
    if whole.undrawn > 0 {
        told.push(format!(
            "metadata.db contradicts itself: {} {} above its own sequence, {}. Nothing is deleted on the word of records.",
            counted(whole.undrawn, "snapshot"),
            one_or(whole.undrawn, "has a number", "have numbers"),
            survey.snapshots.sequence
        ));
    }
    if whole.records_lost {
        told.push(format!(
            "{} of {} {} no record of {} device: {pool}.db was lost or put back from an older backup while metadata.db was kept. Their data may still be in the pool. With a backup of {pool}.db from the same time: stop containerd and put it back.",
            thousands(whole.rows_without),
            counted(rows, "snapshot"),
            one_or(whole.rows_without, "has", "have"),
            one_or(whole.rows_without, "its", "their"),
        ));
    }
    told.extend(sentence(
        [
            "record bears a name that is not of this pool; it is left alone, and so is its device",
            "records bear names that are not of this pool; they are left alone, and so are their devices",
        ],
        scene
            .index
            .strangers
            .iter()
            .map(|record| words::name(&record.name)),
    ));
    told
}
