//! Thin devices in the pool that no record names.

use super::{
    scene::{Case, Scene, leave_alone},
    spare::Spare,
    words,
};
use crate::model::{
    Act, Condition, Diagnosis, FindingClass, IdState, Provenance, Severity, Subject, ThinId, Treat,
    Treatment, Users, When, survey::Claim,
};

/// Numbers that are passed over, at most, to keep containerd from drawing one that is taken in the pool: further away it
/// does not get in years.
const MOST_PASSED: u64 = 65_536;

const GUARDS: [Condition; 8] = [
    Condition::StillFound,
    Condition::PoolWritable,
    Condition::Provenance,
    Condition::ThinThere,
    Condition::NoRecord,
    Condition::NotOpen,
    Condition::NobodyAtWork,
    Condition::SameTransaction,
];

/// Every thin device without a record, in the order of their ids.
pub(super) fn findings(scene: &Scene<'_>, spare: &Spare) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    // Up to here the numbers are spoken for, by containerd's own sequence or by the remedy of a device before.
    let mut passed = scene.survey.pool_db.id_sequence;
    for id in scene.survey.thin.iter().flat_map(|thin| thin.keys().copied()) {
        if scene.index.carriers.has(&id) {
            continue;
        }
        let state = scene.survey.id_state(id);
        match scene.claim(id).filter(|_| state == Some(IdState::Faulty)) {
            Some(claim) => found.push(leaked(scene, id, claim)),
            None => found.push(foreign(scene, id, state, spare, &mut passed)),
        }
    }
    found
}

fn case(scene: &Scene<'_>, id: ThinId, class: FindingClass) -> Case {
    let mut evidence = vec![
        words::in_pool(scene.survey, id),
        format!("no record in containerd's pool database carries thin id {id}"),
        words::id_state(scene.survey, id),
    ];
    evidence.extend(
        scene
            .index
            .holders_of(id)
            .map(|node| words::node(scene.survey, node)),
    );
    Case {
        class,
        mark: id.to_string(),
        subject: Subject::ThinDevice { thin_id: id },
        provenance: Provenance::Unknown,
        severity: Severity::Space,
        summary: String::new(),
        evidence,
        consequence: "Its space is never given back; with enough of these the pool runs full.".to_owned(),
        users: Users::default(),
        remedy: leave_alone(""),
        may_be_in_flight: false,
    }
}

fn leaked(scene: &Scene<'_>, id: ThinId, claim: &Claim) -> Diagnosis {
    let mut case = case(scene, id, FindingClass::LeakedThin);
    case.provenance = Provenance::SeenByProbe {
        operation: claim.operation.clone(),
    };
    case.evidence.push(format!(
        "suture saw containerd make and abandon it (operation {}), and it is that very device: its mappings still begin at block {} of the pool's metadata",
        claim.operation, claim.mark.mapping_root
    ));
    case.summary = format!(
        "containerd made thin device {id}, was stopped half way, and has forgotten its name: nothing will ever use or delete it."
    );
    // A left-over dm device of a snapshot's name is a finding of its own, and is removed before.
    let held = scene.index.holders_of(id).find(|node| {
        let left_over = scene
            .survey
            .pool_name
            .snapshot_of(node.name.as_str())
            .is_some_and(|snapshot| {
                scene.index.record(snapshot).is_none() && !scene.index.rows.has(&snapshot)
            });
        node.unreadable || !left_over || scene.node_is_busy(node).is_some()
    });
    case.remedy = match (held, scene.pool_refuses()) {
        (Some(node), _) => leave_alone(format!(
            "dm device {} maps it, or may do so, and a device that somebody uses is not deleted. Check again once that is gone.",
            node.name
        )),
        (None, Some(why)) => leave_alone(format!("{why}. Check again once that is mended.")),
        (None, None) => Treat {
            action: Treatment::DeleteThin,
            when: When::Online,
            guards: GUARDS.to_vec(),
            acts: vec![Act::DeleteThin { thin_id: id }],
            why: format!(
                "containerd never gives out an id again that it has marked faulty, and no record names it. By hand: `dmsetup message {} 0 'delete {id}'`.",
                words::name(scene.survey.pool_name.as_str())
            ),
        },
    };
    scene.diagnosis(case)
}

fn foreign(
    scene: &Scene<'_>,
    id: ThinId,
    state: Option<IdState>,
    spare: &Spare,
    passed: &mut u64,
) -> Diagnosis {
    let mut case = case(scene, id, FindingClass::ForeignThin);
    case.summary = format!(
        "The pool has thin device {id}, and nobody can prove that containerd made it: it may be anybody's."
    );
    if state == Some(IdState::Faulty) {
        case.evidence.push(
            "that its id is marked faulty proves nothing: containerd marks it so also when the pool answers `file exists`, because the device was somebody else's"
                .to_owned(),
        );
    }
    if scene.knowledge.claims.contains_key(&id) {
        case.evidence.push(
            "suture saw containerd make a device of this id, but that this is the same device is not shown, or containerd has not marked it faulty"
                .to_owned(),
        );
    }
    let named = format!(
        "It is never deleted unless a person names it. To see what is on it: `dmsetup create look --readonly --table \"0 SECTORS thin /dev/mapper/{} {id}\"`, and mount that read-only. If it is known to be waste: `suture repair --delete-thin {id}`.",
        words::name(scene.survey.pool_name.as_str())
    );
    let acts = reservation(scene, id, state, spare, passed);
    case.remedy = if acts.is_empty() {
        leave_alone(named)
    } else {
        case.severity = Severity::Outage;
        case.consequence = format!(
            "containerd gives out id {id} in a prepare to come, and each that draws such an id fails with `failed to create snapshot ... (dev: {id})`: `file exists`; until all of them are used up, new containers on this node fail. {}",
            case.consequence
        );
        Treat {
            action: Treatment::ReserveId,
            when: When::Offline,
            guards: vec![
                Condition::StillFound,
                Condition::ContainerdStopped,
                Condition::BackedUp,
                Condition::NobodyAtWork,
                Condition::NoRecord,
                Condition::ThinThere,
                Condition::SameTransaction,
            ],
            acts,
            why: format!(
                "An id that is marked faulty is not drawn, so containerd works at once, and the device stays as it is. {named}"
            ),
        }
    };
    scene.diagnosis(case)
}

/// The edits that keep containerd from drawing the id; none where it never would, or not in years.
fn reservation(
    scene: &Scene<'_>,
    id: ThinId,
    state: Option<IdState>,
    spare: &Spare,
    passed: &mut u64,
) -> Vec<Act> {
    let set = |thin_id, from, to| Act::SetId { thin_id, from, to };
    let faulty = set(id, state, IdState::Faulty);
    if id == ThinId(0) || id >= ThinId::MAX {
        return Vec::new();
    }
    match state {
        Some(IdState::Free) => vec![faulty],
        Some(IdState::Taken | IdState::Faulty | IdState::Other(_)) => Vec::new(),
        // containerd draws a free id, or else the next of its sequence (`getNextDeviceID`, metadata.go): one that it has
        // passed and does not know is never drawn.
        None => {
            let number = u64::from(id.0);
            let sequence = scene.survey.pool_db.id_sequence;
            if number <= sequence || number - sequence > MOST_PASSED {
                return Vec::new();
            }
            let mut acts: Vec<_> = (passed.saturating_add(1)..number)
                .filter_map(|skipped| u32::try_from(skipped).ok().map(ThinId))
                .filter(|skipped| {
                    scene.survey.id_state(*skipped).is_none()
                        && scene.survey.has_thin(*skipped) == Some(false)
                        && !scene.index.carriers.has(skipped)
                        && !spare.has(*skipped)
                })
                .map(|skipped| set(skipped, None, IdState::Free))
                .collect();
            acts.push(faulty);
            acts.push(Act::RaiseIdSequence {
                from: sequence,
                to: number,
            });
            *passed = number;
            acts
        }
    }
}
