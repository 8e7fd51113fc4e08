//! What a repair looks at: the node as a check reads it, and a running sidecar beside it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use crate::{
    cli::look::{Names, Sources, patiently},
    ledger::RepairRow,
    model::{
        Incarnation, Knowledge, OperationId, PoolName, Survey, ThinId, Timestamp, TxId, outline::Outline,
    },
    observe::{
        survey::SurveyPlaces,
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
            // What is planned and done names no users.
            real: RealSight::without_users(places.clone()),
            reserve,
            hand: ReservedSnapshots::default(),
        }
    }

    /// One look at everything: what is known is asked for first, so that the survey is no older. Where nothing is found nobody
    /// is told of users: then their names need not be read.
    pub(super) fn look(&self, names: Names) -> Result<(Survey, Knowledge), WorldError> {
        let mut knowledge = self.sources.borrow_mut().read(self.pool());
        let survey = self.read(&self.roots(&knowledge), names)?;
        knowledge.claims.extend(claims_left(&self.left_open, &survey));
        Ok((survey, knowledge))
    }

    /// A glance at the numbers of everything; nothing where they do not tell enough.
    pub(super) fn outline(&self) -> Result<Option<(Outline, Knowledge)>, WorldError> {
        let knowledge = self.sources.borrow_mut().read(self.pool());
        let roots = self.roots(&knowledge);
        let outline = self.real.0.read_outline(&roots, Some(self.reserving()))?;
        Ok(outline.map(|outline| (outline, knowledge)))
    }

    /// Reads the names of users into a survey that was read without them; false where that is too late for it.
    pub(super) fn add_names(&self, survey: &mut Survey) -> Result<bool, WorldError> {
        self.real.0.add_names(survey)
    }

    fn read(&self, roots: &BTreeSet<ThinId>, names: Names) -> Result<Survey, WorldError> {
        patiently(|| {
            let reserving = Some(self.reserving());
            match names {
                Names::Always => self.real.0.read(roots, reserving),
                Names::WhenFound => self.real.0.read_without_names(roots, reserving),
            }
        })
    }

    fn reserving(&self) -> Reserving<'_> {
        Reserving {
            when: self.reserve,
            hand: &self.hand,
        }
    }

    /// The thin devices of which it matters whether they are the same as before.
    fn roots(&self, knowledge: &Knowledge) -> BTreeSet<ThinId> {
        let left = self.left_open.iter().flat_map(|row| row.intent.deletes());
        knowledge.claims.keys().copied().chain(left).collect()
    }

    fn pool(&self) -> &PoolName {
        &self.real.0.places().places.pool
    }
}

impl Sight for NodeSight<'_> {
    fn survey(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        // What is judged once more before an act is judged with all there is.
        self.read(roots, Names::Always)
    }

    fn at_work(&self) -> BTreeMap<ThinId, OperationId> {
        self.sources.borrow_mut().read(self.pool()).at_work
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
