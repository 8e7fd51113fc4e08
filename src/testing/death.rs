//! A finding that a death of containerd's left.

use super::{at, containerd, pool};
use crate::model::{
    Finding, FindingClass, FindingId, Provenance, SagaKind, Subject, ThinId, Window, Windows, saga::Death,
};

/// A wedge of which it was seen in which window its containerd died.
pub(crate) fn after_a_death() -> Finding {
    let thin_id = ThinId(2);
    Finding {
        id: FindingId::of_record(FindingClass::Wedge, &pool(), "tp-snap-2"),
        class: FindingClass::Wedge,
        pool: pool(),
        subject: Subject::Record {
            name: "tp-snap-2".to_owned(),
            thin_id,
        },
        provenance: Provenance::Unknown,
        evidence: vec!["its record says Activated".to_owned()],
        died_in: Some(Death {
            at: at(1),
            who: Some(containerd()),
            operation: [SagaKind::Create].into(),
            windows: Windows([Window::B7].into()),
        }),
    }
}
