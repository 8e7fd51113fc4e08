//! Thin devices in the pool that containerd's database does not name.

use crate::{
    correlate::Correlator,
    model::{Finding, FindingClass, FindingId, IdState, OperationState, Provenance, Subject, ThinId, World},
    words::{counted, one_or},
};

/// Every thin device without a record, unless somebody is at work on it.
///
/// A device that containerd made, abandoned and marked faulty is `leaked-thin` (rule R1); all others are
/// `foreign-thin`: nobody can prove what they are.
#[must_use]
pub fn thin_findings(world: &World, operations: &Correlator) -> Vec<Finding> {
    world
        .thin
        .keys()
        .filter(|id| world.record_of(**id).is_none())
        .filter_map(|id| classify(world, operations, *id))
        .collect()
}

fn classify(world: &World, operations: &Correlator, id: ThinId) -> Option<Finding> {
    let maker = operations.maker_of(id);
    let id_state = world.id_state(id);
    let abandoned = match maker.map(|maker| &maker.state) {
        // Its own process is at work on it, or died a moment ago: the next read of the world will tell.
        Some(OperationState::InFlight | OperationState::Orphaned { .. }) => return None,
        Some(OperationState::Abandoned { .. }) => maker,
        _ => None,
    };
    let mut evidence = vec![format!(
        "the pool's metadata hold thin device {id}, and no record of containerd's names it"
    )];
    evidence.push(match id_state {
        Some(state) => format!("containerd's database has id {id} as {state}"),
        None => format!("containerd's database has never drawn id {id}"),
    });
    if let Some(details) = world.thin.get(&id) {
        let are = one_or(details.mapped_blocks, "is", "are");
        evidence.push(format!(
            "{} {are} mapped by it",
            counted(details.mapped_blocks, "block")
        ));
    }
    for node in world.holders(id) {
        evidence.push(format!(
            "the dm device {node} maps it, open count {}",
            node.open_count
        ));
    }
    let faulty = id_state == Some(IdState::Faulty);
    let (class, provenance, mark) = if let Some(maker) = abandoned.filter(|_| faulty) {
        let first = maker
            .first_call()
            .map_or("its creation", |step| step.request.as_str());
        let (began, caller, actor) = (maker.began(), &maker.caller.process, &maker.actor);
        evidence.push(format!(
            "suture saw {first} succeed at {began}, called by {caller} for {actor}"
        ));
        if let OperationState::Abandoned { at, .. } = &maker.state {
            let how = match operations.ending_of(actor) {
                Some(ending) => format!("; it {ending}"),
                None => String::new(),
            };
            evidence.push(format!("{actor} was gone at {at} and had not finished it{how}"));
        }
        let provenance = Provenance::SeenByProbe {
            operation: maker.id.clone(),
        };
        (FindingClass::LeakedThin, provenance, maker.id.to_string())
    } else {
        evidence.push("nobody saw containerd make and abandon it".to_owned());
        (FindingClass::ForeignThin, Provenance::Unknown, id.to_string())
    };
    Some(Finding {
        id: FindingId::new(class, &world.pool.name, mark),
        class,
        pool: world.pool.name.clone(),
        subject: Subject::ThinDevice { thin_id: id },
        provenance,
        evidence,
        died_in: None,
    })
}
