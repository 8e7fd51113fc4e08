//! Whether each guard of a remedy holds at this moment, as far as the survey tells that the finding is made from. A repair
//! reads each of them anew.

use crate::{
    cli::{look::Look, paper::safe},
    model::{Act, Condition, ContainerdState, Diagnosis, Node, PoolMode, Provenance, ThinId},
    words::times,
};

/// What is known of a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// It holds, for this reason.
    Holds(String),
    /// It does not, for this reason.
    Refuses(String),
    /// Only the repair itself can tell.
    Later(&'static str),
}

use Reading::{Holds, Later, Refuses};

pub(super) fn read(condition: Condition, one: &Diagnosis, look: &Look) -> Reading {
    match condition {
        Condition::StillFound => Holds("it was found just now".to_owned()),
        Condition::PoolWritable => pool_writable(look),
        Condition::NotOpen => not_open(one, look),
        Condition::Provenance => match &one.finding.provenance {
            Provenance::SeenByProbe { operation } => Holds(format!("suture saw operation {operation}")),
            Provenance::ToldByRecord { name } => Holds(format!("record {} names it", safe(name))),
            Provenance::Unknown => Refuses("nobody can prove who made it".to_owned()),
        },
        // The finding is one because of these; a repair that finds them otherwise finds another thing.
        Condition::NoRow => Holds("no snapshot has its number".to_owned()),
        Condition::NoRecord => Holds("no record carries the id".to_owned()),
        Condition::DatabasesWhole => Holds("neither database speaks against the other".to_owned()),
        Condition::ThinThere => thin(one, look, true),
        Condition::ThinGone => thin(one, look, false),
        Condition::NobodyAtWork => nobody_at_work(one, look),
        Condition::ContainerdStopped => match &look.survey.containerd {
            ContainerdState::Stopped { .. } => Holds("nobody has the pool database's lock".to_owned()),
            ContainerdState::Running { who, .. } => Refuses(format!("{who} runs")),
            ContainerdState::Unknown { why } => Refuses(format!("it can not be told: {}", safe(why))),
        },
        Condition::BackedUp => Later("the repair makes the backup, before the first edit"),
        Condition::SameTransaction => Later("the repair looks once more, as the last thing before it acts"),
        Condition::Named => Later("a person has to name it on the command line"),
    }
}

fn pool_writable(look: &Look) -> Reading {
    match &look.survey.pool {
        None => Refuses("the pool is not set up".to_owned()),
        Some(pool) if pool.needs_check => Refuses("the pool needs a check".to_owned()),
        Some(pool) if matches!(pool.mode, PoolMode::ReadWrite | PoolMode::OutOfDataSpace) => {
            Holds(format!("the pool is {}", pool.mode))
        }
        Some(pool) => Refuses(format!("the pool is {}", pool.mode)),
    }
}

/// Thin devices that the remedy deletes or, where it deletes none, is about.
fn subjects(one: &Diagnosis) -> Vec<ThinId> {
    let acts = one.remedy.acts.iter();
    let deleted: Vec<ThinId> = acts
        .filter_map(|act| match act {
            Act::DeleteThin { thin_id } => Some(*thin_id),
            _ => None,
        })
        .collect();
    if deleted.is_empty() {
        one.finding.subject.thin_id().into_iter().collect()
    } else {
        deleted
    }
}

fn not_open(one: &Diagnosis, look: &Look) -> Reading {
    let is_removed = |node: &Node| {
        one.remedy.acts.iter().any(|act| {
            matches!(act, Act::RemoveNode { name, device }
                if node.name.as_str() == name && node.device == *device)
        })
    };
    let ids = subjects(one);
    for node in &look.survey.nodes {
        let maps = node.unreadable || node.thin_ids.iter().any(|id| ids.contains(id));
        let mounts = look.survey.mounts.by_device.get(&node.device);
        let busy = node.open_count > 0 || mounts.is_some_and(|mounts| !mounts.is_empty());
        if is_removed(node) && busy {
            return Refuses(format!(
                "dm device {node} is in use ({} open)",
                times(node.open_count)
            ));
        }
        if maps && !is_removed(node) && !ids.is_empty() {
            return Refuses(format!("dm device {node} maps it, or may do so"));
        }
    }
    Holds("nobody has it open".to_owned())
}

fn thin(one: &Diagnosis, look: &Look, wanted: bool) -> Reading {
    // What is deleted first is there before, and gone after.
    let deletes = one
        .remedy
        .acts
        .iter()
        .any(|act| matches!(act, Act::DeleteThin { .. }));
    let Some(id) = subjects(one).first().copied() else {
        return Later("the repair looks for it in the pool's metadata");
    };
    match look.survey.has_thin(id) {
        None => Refuses("the pool's metadata could not be read".to_owned()),
        Some(true) if !wanted && deletes => Later("the thin device is deleted first"),
        Some(true) if wanted => Holds(format!("the pool has thin device {id}")),
        Some(false) if !wanted => Holds(format!("the pool has no thin device {id}")),
        Some(true) => Refuses(format!("the pool has thin device {id}")),
        Some(false) => Refuses(format!("the pool has no thin device {id}")),
    }
}

fn nobody_at_work(one: &Diagnosis, look: &Look) -> Reading {
    let programs = match &look.survey.containerd {
        ContainerdState::Running { at_work, .. } | ContainerdState::Stopped { at_work } => at_work,
        ContainerdState::Unknown { why } => return Refuses(format!("it can not be told: {}", safe(why))),
    };
    if let Some(program) = programs.first() {
        return Refuses(format!("`{}` runs", safe(program)));
    }
    let at_work = |id: ThinId| look.knowledge.at_work.get(&id);
    match subjects(one).into_iter().find_map(at_work) {
        Some(operation) => Refuses(format!("operation {operation} is in flight")),
        None => Holds("no program works on devices, and it stood still".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::look_with_everything;

    fn reading(look: &Look, class: &str, condition: Condition) -> Reading {
        let one = look
            .diagnoses
            .found
            .iter()
            .find(|one| one.finding.class.name() == class);
        read(condition, one.unwrap(), look)
    }

    #[test]
    fn what_speaks_against_a_remedy_now_is_told() {
        let mut look = look_with_everything();
        assert!(
            matches!(reading(&look, "wedge", Condition::ContainerdStopped), Refuses(why) if why.contains("containerd"))
        );
        assert!(matches!(
            reading(&look, "wedge", Condition::PoolWritable),
            Holds(_)
        ));
        assert!(matches!(
            reading(&look, "foreign-thin", Condition::Provenance),
            Refuses(_)
        ));
        assert!(matches!(
            reading(&look, "wedge", Condition::NobodyAtWork),
            Holds(_)
        ));
        look.survey.containerd = ContainerdState::Stopped {
            at_work: vec!["mkfs.ext4 /dev/mapper/tp-snap-7".to_owned()],
        };
        assert!(matches!(
            reading(&look, "wedge", Condition::ContainerdStopped),
            Holds(_)
        ));
        assert!(
            matches!(reading(&look, "wedge", Condition::NobodyAtWork), Refuses(why) if why.contains("mkfs.ext4"))
        );
        look.survey.pool = None;
        assert!(matches!(
            reading(&look, "wedge", Condition::PoolWritable),
            Refuses(_)
        ));
    }

    #[test]
    fn a_dm_device_in_use_is_named_and_one_that_the_remedy_removes_is_not_in_its_way() {
        let mut look = look_with_everything();
        assert!(matches!(reading(&look, "wedge", Condition::NotOpen), Holds(_)));
        for node in &mut look.survey.nodes {
            node.open_count = 1;
        }
        assert!(
            matches!(reading(&look, "wedge", Condition::NotOpen), Refuses(why) if why.contains("tp-snap-7"))
        );
    }
}
