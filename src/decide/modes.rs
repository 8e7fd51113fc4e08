//! What suture may do by itself, class by class. Reading it from a file is `config`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::FindingClass;

/// What is done about the findings of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// They are told of, and nothing is done unless a person names them.
    Observe,
    /// Their remedy is carried out where its conditions hold.
    Auto,
}

/// How each class is handled; what is not named is as shipped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepairPolicy(BTreeMap<FindingClass, Handling>);

impl RepairPolicy {
    /// How a class is handled. As shipped every remedy is carried out, but for devices that nobody can prove
    /// containerd made.
    #[must_use]
    pub fn of(&self, class: FindingClass) -> Handling {
        self.0.get(&class).copied().unwrap_or(shipped(class))
    }

    /// A policy that does nothing by itself.
    #[must_use]
    pub fn nothing() -> Self {
        Self(FindingClass::ALL.map(|class| (class, Handling::Observe)).into())
    }

    /// The same with one class handled differently.
    #[must_use]
    pub fn with(mut self, class: FindingClass, handling: Handling) -> Self {
        if handling == shipped(class) {
            self.0.remove(&class);
        } else {
            self.0.insert(class, handling);
        }
        self
    }
}

fn shipped(class: FindingClass) -> Handling {
    match class {
        FindingClass::ForeignThin => Handling::Observe,
        _ => Handling::Auto,
    }
}
