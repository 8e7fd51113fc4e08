//! What a survey shows: every class of inconsistency that can be told from one consistent read, each with what it means,
//! whom it hits and what would heal it. One file for each family of classes; docs/findings.md has the predicates.
//!
//! A thing is named once, by its most specific class. The families run in that order, and each hands on what it named.

mod explain;
mod ids;
mod index;
mod nodes;
mod oddities;
mod pool;
mod records;
mod records_next;
mod rows;
mod scene;
mod settling;
mod settling_at_work;
mod spare;
mod thin;
mod undo;
mod whole;
mod words;

#[cfg(test)]
mod tests;

pub use settling::{Settled, Settling};

use super::outline::shows_nothing;
use scene::Scene;
use spare::Spare;

use crate::model::{Diagnoses, Knowledge, Survey};

/// Everything that a survey shows. What an operation in flight may look like is marked so
/// (`may_be_in_flight`).
#[must_use]
pub fn survey(survey: &Survey, knowledge: &Knowledge) -> Diagnoses {
    if shows_nothing(survey, knowledge) {
        return Diagnoses::default();
    }
    judged(survey, knowledge)
}

/// The same, with no glance before it.
pub(super) fn judged(survey: &Survey, knowledge: &Knowledge) -> Diagnoses {
    judge(&Scene::new(survey, knowledge))
}

fn judge(scene: &Scene<'_>) -> Diagnoses {
    let mut spare = Spare::new(scene.survey);
    let mut found = records::findings(scene);
    found.extend(rows::findings(scene, &mut spare));
    let nodes = nodes::findings(scene, &nodes::part_of(scene, &found));
    found.extend(nodes);
    found.extend(thin::findings(scene, &spare));
    found.extend(ids::findings(scene));
    found.extend(pool::findings(scene));
    // Stable: within a class they stay in the order of their numbers.
    found.sort_by_key(|one| (one.severity, one.finding.class));
    Diagnoses {
        explanations: explain::explanations(scene, &found),
        not_understood: oddities::not_understood(scene),
        found,
    }
}
