//! Which death of a containerd left what was found, where the sagas have it.

use crate::{
    correlate::Sagas,
    model::{Finding, PoolName, Saga, Subject, saga::Death},
};

/// Notes the death that left it. Only the newest operation on the device counts: an earlier one's remains are overwritten.
pub fn note_death(finding: &mut Finding, sagas: &Sagas) {
    if let Some(death) = death(&finding.subject, &finding.pool, sagas) {
        finding.died_in = Some(death);
    }
}

fn death(subject: &Subject, pool: &PoolName, sagas: &Sagas) -> Option<Death> {
    let named = |saga: &&Saga, name: &str| {
        saga.device.as_deref() == Some(name) || saga.parent.as_deref() == Some(name)
    };
    // In the order in which they were first heard of.
    let newest = |is: &dyn Fn(&&Saga) -> bool| sagas.all().filter(is).last();
    let saga = match subject {
        Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => {
            newest(&|saga| saga.thin_id == Some(*thin_id))
        }
        Subject::Record { name, thin_id } => {
            let by_id = |saga: &&Saga| saga.device.is_none() && saga.thin_id == Some(*thin_id);
            // What is known under the name with another thin id is another device.
            newest(&|saga| named(saga, name) || by_id(saga)).filter(|saga| {
                let of_parent = saga.parent.as_ref() == Some(name);
                of_parent || saga.thin_id.is_none_or(|known| known == *thin_id)
            })
        }
        Subject::Node { name, .. } => newest(&|saga| named(saga, name)),
        Subject::Snapshot { id, .. } => {
            let name = format!("{pool}-snap-{id}");
            newest(&|saga| named(saga, &name))
        }
        Subject::Device { .. } | Subject::Pool | Subject::BlockDevice { .. } => None,
    };
    saga?.death()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlate::Correlator,
        diagnose,
        model::{
            DeviceState, FindingClass, IdState, World,
            dm::{DmCommand, Payload},
        },
        testing::{self, Fill as _, at, by_containerd, call, gone, load, message, pool, up},
    };

    /// A containerd that was seen to make thin device 1, and to die.
    fn died() -> Correlator {
        let mut known = Correlator::new(pool(), at(0));
        known.observe(&up(1));
        // From here on nothing was missed.
        known.world(&testing::world(2));
        known.observe(&message(9, "create_thin 1", 0, by_containerd()));
        known.observe(&load(9, "tp-snap-1", 1, by_containerd()));
        known.observe(&call(
            9,
            DmCommand::DevSuspend,
            "tp-snap-1",
            Payload::Nothing,
            0,
            by_containerd(),
        ));
        known.observe(&gone(11));
        known
    }

    fn found(known: &mut Correlator, world: &World, class: FindingClass) -> Finding {
        known.world(world);
        let mut found = diagnose::all(world, known, world.begun).into_iter();
        found.find(|one| one.class == class).unwrap()
    }

    #[test]
    fn a_wedge_says_in_which_window_its_containerd_died_and_between_which_steps() {
        let world = testing::world(12)
            .thin(1)
            .id(1, IdState::Taken)
            .record("tp-snap-1", 1, DeviceState::Activated)
            .node("tp-snap-1", 1);
        let wedge = found(&mut died(), &world, FindingClass::Wedge);
        let death = wedge.died_in.clone().unwrap();
        assert_eq!(death.windows.to_string(), "B7 or B8 or B9");
        let told = wedge.sentences().last().unwrap();
        assert!(
            told.starts_with(
                "containerd [500] died while it was making a snapshot without a parent, between \"record Activated\" and \"the snapshot's row is stored\" (windows B7 or B8 or B9)"
            ),
            "{told}"
        );
        // A survey finds the same thing, and is told the same.
        let mut of_survey = Finding {
            died_in: None,
            ..wedge.clone()
        };
        note_death(&mut of_survey, died().sagas());
        assert!(of_survey.died_in.is_some());
    }

    #[test]
    fn a_leak_is_of_its_own_death_although_its_name_is_anothers_by_now() {
        let mut known = died();
        known.world(&testing::world(12).thin(1).id(1, IdState::Taken).record(
            "tp-snap-1",
            1,
            DeviceState::Activating,
        ));
        known.observe(&up(13));
        known.observe(&message(14, "create_thin 2", 0, by_containerd()));
        known.observe(&load(14, "tp-snap-1", 2, by_containerd()));
        let world = testing::world(20)
            .thin(1)
            .thin(2)
            .id(1, IdState::Faulty)
            .id(2, IdState::Taken)
            .record("tp-snap-1", 2, DeviceState::Activated)
            .snapshot(1);
        let leak = found(&mut known, &world, FindingClass::LeakedThin);
        let windows = leak.died_in.unwrap().windows;
        assert!(windows.to_string().starts_with("B6"), "{windows}");
        // What bears the name now did not die.
        let subject = Subject::Record {
            name: "tp-snap-1".to_owned(),
            thin_id: crate::model::ThinId(2),
        };
        assert_eq!(death(&subject, &pool(), known.sagas()), None);
    }

    #[test]
    fn what_nobody_died_in_says_nothing_of_a_death() {
        let world = testing::world(12).thin(77);
        let foreign = found(&mut died(), &world, FindingClass::ForeignThin);
        assert_eq!(foreign.died_in, None);
        assert_eq!(foreign.sentences().count(), foreign.evidence.len());
    }
}
