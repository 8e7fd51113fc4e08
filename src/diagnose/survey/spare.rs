//! Thin ids that a new record may be given: free, in no pool, and in no record.

use std::collections::BTreeSet;

use super::scene::Scene;
use crate::model::{Act, IdState, Survey, ThinId};

/// The ids that were handed out to remedies, so that none is handed out twice.
pub(super) struct Spare {
    used: BTreeSet<ThinId>,
    /// Free ids up to here were looked at.
    looked: Option<ThinId>,
    sequence: u64,
}

impl Spare {
    pub(super) fn new(survey: &Survey) -> Self {
        Self {
            used: BTreeSet::new(),
            looked: None,
            sequence: survey.pool_db.id_sequence,
        }
    }

    /// Whether a remedy has this id.
    pub(super) fn has(&self, id: ThinId) -> bool {
        self.used.contains(&id)
    }

    /// One more id, with the act that keeps containerd from drawing it, where one is needed.
    pub(super) fn next(&mut self, scene: &Scene<'_>) -> Option<(ThinId, Option<Act>)> {
        let survey = scene.survey;
        let unused = |id: ThinId| survey.has_thin(id) == Some(false) && !scene.index.carriers.has(&id);
        let ids = &survey.pool_db.device_ids;
        let from = ThinId(self.looked.map_or(1, |looked| looked.0.saturating_add(1)));
        let free = ids.range(from..=ThinId::MAX.max(from));
        let free = free.filter(|(id, state)| **state == IdState::Free && **id <= ThinId::MAX && unused(**id));
        if let Some((id, _)) = free.map(|(id, state)| (*id, *state)).next() {
            self.looked = Some(id);
            self.used.insert(id);
            return Some((id, None));
        }
        self.looked = Some(ThinId::MAX);
        // Each number that is passed over is in the pool, in a record, or known: there are only so many of those.
        loop {
            // containerd stops drawing before the last (`getNextDeviceID`, metadata.go).
            let number = self
                .sequence
                .checked_add(1)
                .filter(|id| *id < u64::from(ThinId::MAX.0))?;
            self.sequence = number;
            let id = ThinId(u32::try_from(number).ok()?);
            if unused(id) && !ids.contains_key(&id) {
                self.used.insert(id);
                let raise = Act::RaiseIdSequence {
                    from: survey.pool_db.id_sequence,
                    to: number,
                };
                return Some((id, Some(raise)));
            }
        }
    }
}
