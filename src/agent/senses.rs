//! What the agent itself sees, beside what the kernel tells.

use crate::model::sense::{Quality, Sense, SenseKind};

/// How it is known which process holds the pool database.
pub(super) fn holder() -> Sense {
    Sense {
        sense: SenseKind::Holder,
        quality: Quality::Full,
        means: "the lock on the pool database and a pidfd".to_owned(),
        why: Vec::new(),
    }
}
