//! Whether each condition of a remedy holds at this moment, read as a repair reads it (`decide::Evidence`), in the survey that
//! the finding is made from. A repair reads each of them anew.

use crate::{
    cli::look::Look,
    decide::{self, Evidence},
    model::{Condition, ConditionReading, Diagnoses, Diagnosis},
};

/// What is known of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// What a repair would read now.
    Now(ConditionReading),
    /// Only the repair itself can tell.
    Later(Condition, &'static str),
}

/// All that a repair of this finding would read, in its order. None where its remedy does nothing.
pub(super) fn read(one: &Diagnosis, look: &Look) -> Vec<Reading> {
    let plan = decide::whole(one);
    let found = look.diagnoses.found.iter().chain(&look.in_flight).cloned();
    let diagnoses = Diagnoses {
        found: found.collect(),
        ..Diagnoses::default()
    };
    let life = look.survey.pool.as_ref().map(|pool| &pool.activation);
    let evidence = Evidence::new(&look.survey, &diagnoses, &look.knowledge, life);
    let mut now = evidence.read(&plan);
    let readings = plan.conditions.iter().filter_map(|condition| match condition {
        Condition::BackedUp => Some(Reading::Later(
            *condition,
            "the repair makes the backup, before the first edit",
        )),
        Condition::SameTransaction => Some(Reading::Later(
            *condition,
            "the repair looks once more, as the last thing before it acts",
        )),
        Condition::Named => Some(Reading::Later(
            *condition,
            "a person has to name it on the command line",
        )),
        condition => {
            let place = now.iter().position(|reading| reading.condition == *condition)?;
            Some(Reading::Now(now.swap_remove(place)))
        }
    });
    readings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::check::look_with_everything, model::ContainerdState};

    fn wedge(look: &Look) -> &Diagnosis {
        let found = &look.diagnoses.found;
        found
            .iter()
            .find(|one| one.finding.class.name() == "wedge")
            .unwrap()
    }

    fn reading(look: &Look, condition: Condition) -> ConditionReading {
        let read = read(wedge(look), look).into_iter();
        let mut now = read.filter_map(|reading| match reading {
            Reading::Now(reading) => Some(reading),
            Reading::Later(..) => None,
        });
        now.find(|reading| reading.condition == condition).unwrap()
    }

    #[test]
    fn what_is_told_is_what_a_repair_would_read_word_for_word() {
        let look = look_with_everything();
        let plan = decide::whole(wedge(&look));
        let life = look.survey.pool.as_ref().map(|pool| &pool.activation);
        let evidence = Evidence::new(&look.survey, &look.diagnoses, &look.knowledge, life);
        let mut expected = evidence.read(&plan);
        expected.retain(|one| one.condition != Condition::Named);
        assert!(expected.len() > 5 && expected.iter().any(|one| !one.holds));
        let told = read(wedge(&look), &look);
        let conditions: Vec<_> = told
            .iter()
            .map(|reading| match reading {
                Reading::Now(reading) => {
                    assert!(expected.contains(reading), "{reading}");
                    expected.retain(|one| one != reading);
                    reading.condition
                }
                Reading::Later(condition, _) => *condition,
            })
            .collect();
        assert_eq!(expected, [], "each is told");
        assert_eq!(conditions, plan.conditions, "in the order of the repair");
    }

    #[test]
    fn what_speaks_against_a_remedy_now_is_told() {
        let mut look = look_with_everything();
        let runs = reading(&look, Condition::ContainerdStopped);
        assert!(!runs.holds && runs.detail.contains("containerd"), "{runs}");
        look.survey.containerd = ContainerdState::Stopped {
            at_work: vec!["mkfs.ext4 /dev/mapper/tp-snap-7".to_owned()],
        };
        assert!(reading(&look, Condition::ContainerdStopped).holds);
        let busy = reading(&look, Condition::NobodyAtWork);
        assert!(!busy.holds && busy.detail.contains("mkfs.ext4"), "{busy}");
        look.survey.pool = None;
        assert!(!reading(&look, Condition::PoolWritable).holds);
    }

    #[test]
    fn a_finding_that_nothing_is_done_about_has_nothing_to_read() {
        let look = look_with_everything();
        let found = &look.diagnoses.found;
        let told = found.iter().find(|one| one.remedy.acts.is_empty()).unwrap();
        assert_eq!(read(told, &look), []);
    }
}
