//! What containerd heals by itself, and suture would only be in the way of.

use crate::model::{
    DeviceState, Diagnosis, FindingClass, Provenance, RepairPlan, Severity, Subject, Survey, When,
};

/// How containerd heals it; nothing where it does not.
pub(super) fn to_containerd(diagnosis: &Diagnosis, offline: &RepairPlan, survey: &Survey) -> Option<String> {
    if is_waiting_for_cleanup(diagnosis, survey) {
        return Some(
            "containerd's own clean-up removes what is in the state Removed (async_remove)".to_owned(),
        );
    }
    // The next prepare overwrites the record (`AddDevice`, metadata.go). Only what a record alone proves is lost by that:
    // then the repair before containerd's next start is the last that can tell whose the thin device is.
    let proof_would_be_lost =
        offline.deletes().next().is_some() && matches!(offline.provenance, Provenance::ToldByRecord { .. });
    let next = diagnosis.finding.class == FindingClass::FaultyNext;
    // A dm device without a live table stays in the way of every next one.
    let works = diagnosis.severity != Severity::Outage;
    (next && works && !proof_would_be_lost && diagnosis.remedy.when != When::Online)
        .then(|| "the next new container overwrites the record, and works".to_owned())
}

/// Records in the state Removed wait for `Cleanup` (snapshotter.go), with `async_remove`; without it nobody comes for them.
fn is_waiting_for_cleanup(diagnosis: &Diagnosis, survey: &Survey) -> bool {
    let Subject::Record { name, .. } = &diagnosis.finding.subject else {
        return false;
    };
    let record = survey.pool_db.devices.get(name);
    let removed = record.is_some_and(|record| record.state == DeviceState::Removed);
    let gone = matches!(
        diagnosis.finding.class,
        FindingClass::OrphanRecord | FindingClass::StuckCleanup
    );
    removed && gone && survey.async_remove != Some(false)
}
