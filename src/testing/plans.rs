//! A plan that waits for a person.

use crate::model::{
    Act, Condition, DeviceNumber, FindingClass, FindingId, PlanId, Provenance, RepairPlan, Severity, Subject,
    ThinId, Treat, Treatment, When, healing::PlanStatus, policy::Mode,
};

/// Of this name, about this finding.
pub(crate) fn plan_status(id: &str, finding: &str) -> PlanStatus {
    let acts = vec![
        Act::RemoveNode {
            name: "tp-snap-7".to_owned(),
            device: DeviceNumber { major: 254, minor: 3 },
        },
        Act::DeleteThin { thin_id: ThinId(7) },
    ];
    let conditions = vec![Condition::StillFound, Condition::NotOpen, Condition::Provenance];
    PlanStatus {
        id: PlanId::typed(id),
        finding: FindingId(finding.to_owned()),
        mode: Some(Mode::Approve),
        verdict: "await-approval".to_owned(),
        asks: true,
        plan: RepairPlan {
            finding: FindingId(finding.to_owned()),
            class: FindingClass::Wedge,
            severity: Severity::Outage,
            subject: Subject::ThinDevice { thin_id: ThinId(7) },
            provenance: Provenance::Unknown,
            remedy: Treat {
                action: Treatment::UndoHalfDone,
                when: When::Online,
                guards: conditions.clone(),
                acts: acts.clone(),
                why: "nobody will finish it".to_owned(),
            },
            acts,
            conditions,
            left_out: None,
        },
    }
}
