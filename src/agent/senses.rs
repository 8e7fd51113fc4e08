//! What the agent itself sees, beside what the kernel tells.

use crate::model::sense::{Sense, SenseKind};

/// How it is known which process holds the pool database.
pub(super) fn holder() -> Sense {
    Sense::new(
        SenseKind::Holder,
        "the lock on the pool database and a pidfd",
        Vec::new(),
    )
}
