//! What a repair looks at: the node as a check reads it, and a running sidecar beside it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use crate::{
    cli::look::{Sources, patiently},
    ledger::RepairRow,
    model::{Incarnation, Knowledge, OperationId, Survey, ThinId, Timestamp, TxId},
    observe::{
        survey::{self, SurveyPlaces},
        thin_metadata::{Reserve, Reserving},
        world::WorldError,
    },
    remedy::{
        ReservedSnapshots,
        repair::{RealSight, Sight, claims_left},
    },
};

/// The node, and what is known beside it.
pub(super) struct NodeSight<'a> {
    real: RealSight,
    sources: RefCell<Sources<'a>>,
    /// What earlier repairs left open.
    left_open: Vec<RepairRow>,
    reserve: Reserve,
    hand: ReservedSnapshots,
}

impl<'a> NodeSight<'a> {
    pub(super) fn new(
        places: &SurveyPlaces,
        ledger: &Path,
        socket: &'a Path,
        patience: Duration,
        reserve: Reserve,
    ) -> Self {
        let mut sources = Sources::new(ledger, socket, patience);
        Self {
            left_open: sources.left_open(&places.places.pool),
            sources: RefCell::new(sources),
            real: RealSight(places.clone()),
            reserve,
            hand: ReservedSnapshots::default(),
        }
    }

    /// One look at everything: what is known is asked for first, so that the survey is no older.
    pub(super) fn look(&self) -> Result<(Survey, Knowledge), WorldError> {
        let mut knowledge = self.sources.borrow_mut().read(&self.real.0.places.pool);
        let mut roots: BTreeSet<_> = knowledge.claims.keys().copied().collect();
        roots.extend(self.left_open.iter().flat_map(|row| row.intent.deletes()));
        let survey = self.survey(&roots)?;
        knowledge.claims.extend(claims_left(&self.left_open, &survey));
        Ok((survey, knowledge))
    }
}

impl Sight for NodeSight<'_> {
    fn survey(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        patiently(|| {
            let reserving = Reserving {
                when: self.reserve,
                hand: &self.hand,
            };
            survey::read_reserving(&self.real.0, roots, Some(reserving))
        })
    }

    fn at_work(&self) -> BTreeMap<ThinId, OperationId> {
        self.sources.borrow_mut().read(&self.real.0.places.pool).at_work
    }

    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        self.real.transactions()
    }

    fn holder(&self) -> Result<Option<Incarnation>, String> {
        self.real.holder()
    }

    fn now(&self) -> Timestamp {
        self.real.now()
    }
}
