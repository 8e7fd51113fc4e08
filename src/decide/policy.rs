//! What to do about a finding.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    correlate::{Correlator, LiveFailure},
    model::{
        Action, Decision, Finding, FindingClass, Guard, OperationState, Plan, Provenance, Subject, Timestamp,
        World,
    },
};

/// What suture may do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether it may change anything at all.
    pub act: bool,
    /// How long a finding must have stood unchanged before it is acted on.
    pub grace: Duration,
}

/// Decides about one finding that has stood since `first_seen`.
#[must_use]
pub fn decide(
    finding: &Finding,
    first_seen: Timestamp,
    world: &World,
    operations: &Correlator,
    policy: Policy,
    now: Timestamp,
) -> Decision {
    let tell = |why: &str| Decision::Tell { why: why.to_owned() };
    let (operation, thin_id) = match (finding.class, &finding.provenance, &finding.subject) {
        (
            FindingClass::LeakedThin,
            Provenance::SeenByProbe { operation },
            Subject::ThinDevice { thin_id },
        ) => (operation, *thin_id),
        _ => return tell(left_to_a_person(finding, operations)),
    };
    let Some(maker) = operations.operation(operation) else {
        return tell("the operation that made it is no longer known");
    };
    let OperationState::Abandoned { mark, .. } = &maker.state else {
        return tell("the operation that made it is not abandoned");
    };
    // Waiting would not help: that gap is never closed.
    if operations.is_blind() {
        return tell(
            "without kernel probes nobody sees what else happens to it, so it is not deleted automatically",
        );
    }
    if let Some(gap) = operations.gap() {
        return Decision::Wait {
            until: now.plus(Duration::from_secs(1)),
            why: format!("{}; nothing is deleted before the world was read anew", gap.why),
        };
    }
    let ripe = first_seen.plus(policy.grace);
    if now < ripe {
        return Decision::Wait {
            until: ripe,
            why: format!("it must stand unchanged for {} s", policy.grace.as_secs_f32()),
        };
    }
    let plan = Plan {
        finding: finding.id.clone(),
        operation: operation.clone(),
        action: Action::DeleteThin {
            pool: finding.pool.clone(),
            pool_device: world.pool.device,
            thin_id,
            mark: mark.clone(),
        },
        guards: Guard::DELETE_THIN.to_vec(),
    };
    if policy.act {
        Decision::Act(plan)
    } else {
        Decision::Propose(plan)
    }
}

/// Decides about a finding while the world can not be read: then nothing is done.
#[must_use]
pub fn without_world(finding: &Finding, operations: &Correlator) -> Decision {
    Decision::Tell {
        why: left_to_a_person(finding, operations).to_owned(),
    }
}

/// Why nothing is done about a finding by itself, and what a person can do.
fn left_to_a_person(finding: &Finding, operations: &Correlator) -> &'static str {
    match finding.class {
        FindingClass::FailingCreate | FindingClass::FailingRemove => {
            let mut known = operations.sagas().failures().all();
            let failure = known.find(|failure| failure.finding(&finding.pool) == finding.id);
            failure.map_or("the kernel's log says why the call fails", LiveFailure::advice)
        }
        FindingClass::LeakedThin | FindingClass::ForeignThin => {
            "nobody can prove that containerd made it, so it is never deleted automatically"
        }
        FindingClass::Wedge => {
            "containerd's record must be marked faulty while containerd is stopped; until then no new snapshot can be made"
        }
        FindingClass::BlockErrors => {
            "a disk fails, or was pulled: look after it, and keep what can still be read"
        }
        FindingClass::PoolOutOfSpace => {
            "free space or make the pool larger; deleting what is leaked helps too"
        }
        FindingClass::OrphanRecord
        | FindingClass::FaultyNext
        | FindingClass::FaultyLive
        | FindingClass::SuspendedDevice
        | FindingClass::RowWithoutRecord
        | FindingClass::RowWithoutThin
        | FindingClass::OrphanNode
        | FindingClass::BurnedId
        | FindingClass::StuckCleanup
        | FindingClass::ErrorTable
        | FindingClass::PoolMetadataNearlyFull
        | FindingClass::MetadataSnapshotHeld => "`suture explain` tells what can be done about it",
        FindingClass::PoolReadOnly | FindingClass::PoolFailed | FindingClass::PoolNeedsCheck => {
            "stop containerd, take the pool down, and check its metadata with thin_check and thin_repair"
        }
    }
}
