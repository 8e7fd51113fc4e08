//! What a survey shows: every class of inconsistency that can be told from one consistent read, each with what it means,
//! whom it hits and what would heal it. One file for each family of classes; docs/findings.md has the predicates.

use crate::model::{Diagnoses, Knowledge, Survey};

/// Everything that a survey shows. What an operation in flight may look like is marked so
/// (`may_be_in_flight`).
#[must_use]
pub fn survey(survey: &Survey, knowledge: &Knowledge) -> Diagnoses {
    let _ = (survey, knowledge);
    Diagnoses::default()
}
