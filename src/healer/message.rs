//! What the agent and its worker say to each other: one JSON value a line, over a socket that only the two have.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    model::{Diagnoses, Knowledge, PoolActivation, RepairPlan, Survey},
    observe::survey::SurveyPlaces,
    remedy::repair::{PlanResult, Settlement},
};

/// Longest line that is taken: a diagnosis has a few KiB, and more than some thousands of them are no use to anybody.
pub(super) const LONGEST: usize = 64 << 20;

/// What a worker needs to know first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Where everything is.
    pub places: SurveyPlaces,
    /// The ledger, which holds its intents and outcomes.
    pub ledger: PathBuf,
    /// Where backups would go; a worker makes none, because it edits nothing.
    pub backups: PathBuf,
}

/// What it is asked. Tagged from outside: serde reads a map of numbers only so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Settle what dead ones left open in the ledger, by looking.
    Settle,
    /// Read everything until what may be in flight has stood still, and diagnose it.
    Look {
        /// What is known beside what can be read.
        knowledge: Knowledge,
        /// How long something that may be in flight must have stood still.
        patience: Duration,
    },
    /// Carry out plans of the last look, each under its conditions in a new one.
    Act {
        /// What is known now.
        knowledge: Knowledge,
        /// Which plans, in their order.
        plans: Vec<RepairPlan>,
        /// The life of the pool in which they were made.
        life: Option<PoolActivation>,
        /// After this time nothing more is begun.
        within: Duration,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Not an answer yet: what it is about to do, for when it hangs in it.
    Doing {
        /// In words.
        what: String,
    },
    /// What had come of what dead ones left open.
    Settled {
        /// One by one.
        settled: Vec<Settlement>,
        /// What only their intents prove, added to nothing else.
        knowledge: Knowledge,
    },
    /// What was seen.
    Looked(Box<Looked>),
    /// What came of each plan.
    Acted {
        /// In the order in which they were asked for.
        results: Vec<PlanResult>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        why: String,
        /// Set where containerd was only too busy: the next round comes soon enough.
        busy: bool,
    },
}

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// What stands.
    pub diagnoses: Diagnoses,
    /// How many findings more there are than are told here; the worst are.
    pub more: usize,
    /// The part of the survey that the findings are about.
    pub survey: Survey,
}

/// One line.
pub(super) fn line<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// What a line says.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(line)
}
