//! Thin ids that are marked faulty, with nothing in the pool: only the number is lost.

use super::{
    scene::{Case, Scene},
    undo::EDIT_GUARDS,
    words,
};
use crate::model::{
    Act, Condition, Diagnosis, FindingClass, IdState, Provenance, Severity, Subject, ThinId, Treat,
    Treatment, Users, When,
};

/// Every such id, in their order.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Diagnosis> {
    let ids = scene.survey.pool_db.device_ids.iter();
    ids.filter(|(id, state)| **state == IdState::Faulty && (ThinId(1)..ThinId::MAX).contains(*id))
        .filter(|(id, _)| {
            scene.survey.has_thin(**id) == Some(false)
                && !scene.index.carriers.has(id)
                // A device that maps it shows that what was read does not fit together.
                && !scene.index.holders.has(id)
        })
        .map(|(id, _)| burned(scene, *id))
        .collect()
}

fn burned(scene: &Scene<'_>, id: ThinId) -> Diagnosis {
    let mut guards = EDIT_GUARDS.to_vec();
    guards.extend([Condition::NoRecord, Condition::ThinGone]);
    scene.diagnosis(Case {
        class: FindingClass::BurnedId,
        mark: id.to_string(),
        subject: Subject::ThinId { thin_id: id },
        provenance: Provenance::Unknown,
        severity: Severity::Notice,
        summary: format!("containerd never gives out thin id {id} again, and nothing has it."),
        evidence: vec![
            words::id_state(scene.survey, id),
            words::in_pool(scene.survey, id),
            format!("no record in containerd's pool database carries thin id {id}"),
        ],
        consequence: "Nobody is hurt: of 16.7 million numbers one is lost.".to_owned(),
        users: Users::default(),
        remedy: Treat {
            action: Treatment::FreeId,
            when: When::Offline,
            guards,
            acts: vec![Act::SetId {
                thin_id: id,
                from: Some(IdState::Faulty),
                to: IdState::Free,
            }],
            why: "Nothing in the pool and no record has this number, so it may be given out again. It may as well stay for ever.".to_owned(),
        },
        may_be_in_flight: false,
    })
}
