//! What follows from an input: to be told, stored, traced or done by whoever has hands.

use super::{Report, Standing};
use crate::model::{Finding, GuardReading, Observation, Operation, OperationId, Outcome, Plan, Timestamp};

/// When to look at the world again. The earliest wish holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At once.
    Now,
    /// When the burst of events is over.
    Soon,
    /// At this time.
    By(Timestamp),
}

/// One thing that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To be told.
    Tell {
        /// The time that it is about.
        at: Timestamp,
        /// What.
        report: Box<Report>,
    },
    /// An operation was abandoned: its story begins, and comes before what else follows about it.
    Story(Box<Operation>),
    /// Where an operation stands is to be stored at once: it is the provenance of a device.
    Keep(Box<Operation>),
    /// An operation made one more call, to be stored with the next look.
    KeepLater(OperationId),
    /// An operation ended well and need not be stored any more.
    Forget(OperationId),
    /// A new finding, to be told with the trace that it belongs to.
    Found {
        /// When.
        at: Timestamp,
        /// Which.
        finding: Box<Finding>,
    },
    /// A finding as it stands now, to be stored.
    Standing(Box<Standing>),
    /// What came of a plan, to be told with the trace of its finding.
    Remedied {
        /// When.
        at: Timestamp,
        /// Which.
        plan: Box<Plan>,
        /// Its guards as they were read.
        guards: Vec<GuardReading>,
        /// What came of it.
        outcome: Outcome,
    },
    /// To be carried out, if its guards hold in a world that is read anew. Always the last: what is done changes what
    /// everything else rests on.
    Act(Box<Plan>),
    /// Look at the world again.
    Look(Look),
}

impl Output {
    pub(super) fn tell(at: Timestamp, report: Report) -> Self {
        Self::Tell {
            at,
            report: Box::new(report),
        }
    }

    pub(super) fn observed(observation: &Observation) -> Self {
        Self::tell(
            observation.at(),
            Report::Observed {
                observation: observation.clone(),
            },
        )
    }

    pub(super) fn operation(at: Timestamp, operation: &Operation) -> Self {
        Self::tell(
            at,
            Report::Operation {
                operation: Box::new(operation.clone()),
            },
        )
    }

    /// As it is told where nobody traces; nothing where there is nothing to tell.
    #[must_use]
    pub fn untraced(self) -> Option<(Timestamp, Report)> {
        match self {
            Self::Tell { at, report } => Some((at, *report)),
            Self::Found { at, finding } => Some((
                at,
                Report::Found {
                    finding: *finding,
                    traceparent: None,
                },
            )),
            Self::Remedied {
                at,
                plan,
                guards,
                outcome,
            } => Some((
                at,
                Report::Remedy {
                    plan: *plan,
                    guards,
                    outcome,
                    traceparent: None,
                },
            )),
            _ => None,
        }
    }
}
