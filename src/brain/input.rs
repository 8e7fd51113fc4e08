//! What happens to a brain, beside the worlds that it is shown. Each with its time; all of it can be recorded.

use serde::{Deserialize, Serialize};

use crate::model::{GuardReading, Observation, Outcome, Plan, PoolView, Timestamp, sense::Sense};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// A fact was seen.
    Observed {
        /// Which.
        observation: Observation,
    },
    /// Whoever reads the kernel's events did not catch up in time: some may have been missed.
    Behind {
        /// When that was noticed.
        at: Timestamp,
    },
    /// It is known which containerds run: an operation of any other is nobody's any more.
    HoldersKnown {
        /// When.
        at: Timestamp,
    },
    /// It can not be told which process is containerd.
    Blind {
        /// Since when.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// What can be seen, at the start and when it changes.
    Senses {
        /// When.
        at: Timestamp,
        /// Every sense.
        senses: Vec<Sense>,
    },
    /// The world could not be read.
    Unreadable {
        /// When it was given up.
        at: Timestamp,
        /// Why; nothing where containerd was only busy with its databases.
        why: Option<String>,
    },
    /// What is left when the world can not be read: the pool alone.
    PoolRead {
        /// When it is judged.
        at: Timestamp,
        /// What was read.
        view: PoolView,
    },
    /// It was asked what the next read of the world is to answer.
    Asked {
        /// When.
        at: Timestamp,
    },
    /// A plan was carried out, or refused by a guard.
    Remedied {
        /// When.
        at: Timestamp,
        /// Which.
        plan: Plan,
        /// Its guards as they were read.
        guards: Vec<GuardReading>,
        /// What came of it.
        outcome: Outcome,
    },
    /// A plan could not be carried out, for reasons that are not the world's.
    NotDone {
        /// When.
        at: Timestamp,
        /// Which.
        plan: Plan,
        /// Why.
        why: String,
    },
    /// A plan was not carried out, because the policy does not let it be now.
    Held {
        /// When.
        at: Timestamp,
        /// Which.
        plan: Plan,
        /// When it is worth while to ask again.
        until: Timestamp,
        /// Why, as people read it.
        why: String,
    },
    /// Somebody, or a new policy, may have changed what may be done.
    Reconsider {
        /// When.
        at: Timestamp,
    },
    /// What an earlier suture intended and did not conclude was settled by looking.
    Settled {
        /// When.
        at: Timestamp,
        /// What was intended.
        plan: Plan,
        /// What was seen.
        outcome: Outcome,
    },
}

impl Input {
    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Observed { observation } => observation.at(),
            Self::Behind { at }
            | Self::HoldersKnown { at }
            | Self::Blind { at, .. }
            | Self::Senses { at, .. }
            | Self::Unreadable { at, .. }
            | Self::PoolRead { at, .. }
            | Self::Asked { at }
            | Self::Remedied { at, .. }
            | Self::NotDone { at, .. }
            | Self::Held { at, .. }
            | Self::Reconsider { at }
            | Self::Settled { at, .. } => *at,
        }
    }
}
