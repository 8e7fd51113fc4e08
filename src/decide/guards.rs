//! Whether what a plan rests on holds in a world that was read just now.

use crate::{
    correlate::Correlator,
    model::{Action, Guard, GuardReading, IdState, OperationState, Plan, PoolMode, World},
    words::counted,
};

/// Reads every guard of a plan. All but [`Guard::SameTransaction`]: that one is about the moment between this reading
/// and the act, and is read by whoever acts.
#[must_use]
pub fn read(plan: &Plan, world: &World, operations: &Correlator) -> Vec<GuardReading> {
    plan.guards
        .iter()
        .filter(|guard| **guard != Guard::SameTransaction)
        .map(|guard| {
            let (holds, detail) = one(*guard, plan, world, operations);
            GuardReading {
                guard: *guard,
                holds,
                detail,
            }
        })
        .collect()
}

/// The first guard that does not hold.
#[must_use]
pub fn first_refusal(readings: &[GuardReading]) -> Option<&GuardReading> {
    readings.iter().find(|reading| !reading.holds)
}

fn one(guard: Guard, plan: &Plan, world: &World, operations: &Correlator) -> (bool, String) {
    let Action::DeleteThin {
        pool,
        pool_device,
        thin_id: id,
        mark,
    } = &plan.action;
    match guard {
        Guard::NoEventsLost => match operations.gap() {
            None => (
                true,
                "no kernel event was lost since the last full read".to_owned(),
            ),
            Some(gap) => (false, gap.why.clone()),
        },
        Guard::OperationAbandoned => match operations.maker_of(*id) {
            Some(maker) if maker.id != plan.operation => (
                false,
                format!("another operation made id {id} since: {}", maker.id),
            ),
            Some(maker) if matches!(maker.state, OperationState::Abandoned { .. }) => (
                true,
                format!("{} made it and was gone before it was finished", maker.actor),
            ),
            Some(_) => (false, "the operation that made it is not abandoned".to_owned()),
            None => (false, "no operation is known to have made it".to_owned()),
        },
        Guard::SamePool => {
            let same = world.pool.name == *pool && world.pool.device == *pool_device;
            (same, format!("pool {} is {}", world.pool.name, world.pool.device))
        }
        Guard::PoolWritable => {
            let check = if world.pool.needs_check {
                " and needs a check"
            } else {
                ""
            };
            let writable = world.pool.mode == PoolMode::ReadWrite && !world.pool.needs_check;
            (
                writable,
                format!("pool {} is {}{check}", world.pool.name, world.pool.mode),
            )
        }
        Guard::DeviceUnchanged => match world.mark_of(*id) {
            Some(now) if now == *mark => (
                true,
                format!(
                    "its mappings begin at block {} and map {}, as when it was abandoned",
                    now.mapping_root,
                    counted(now.details.mapped_blocks, "block")
                ),
            ),
            Some(_) => (
                false,
                format!("thin device {id} is not as it was when it was abandoned"),
            ),
            None => (false, format!("thin device {id} is not in the pool any more")),
        },
        Guard::IdFaulty => match world.id_state(*id) {
            Some(IdState::Faulty) => (true, format!("containerd has id {id} marked faulty")),
            Some(state) => (false, format!("containerd has id {id} as {state}")),
            None => (false, format!("containerd's database does not know id {id}")),
        },
        Guard::NoRecord => match world.record_of(*id) {
            None => (true, format!("no record of containerd's carries id {id}")),
            Some(record) => (false, format!("the record {} carries id {id}", record.name)),
        },
        Guard::NotOpen => match world.holders(*id).next() {
            None => (true, format!("no dm device maps thin device {id}")),
            Some(node) if node.unreadable => (
                false,
                format!("the dm device {node} can not be read and may map it"),
            ),
            Some(node) => (
                false,
                format!("thin device {id} is open through the dm device {node}"),
            ),
        },
        Guard::SameTransaction => (false, "not read yet".to_owned()),
    }
}
