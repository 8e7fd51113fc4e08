//! What a repair looks at by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use crate::{
    model::{Incarnation, OperationId, Survey, ThinId, Timestamp, TxId},
    observe::{
        containerd::holder_of,
        survey::{SurveyPlaces, Surveys},
        world::{self, Places, WorldError},
    },
    words::explain,
};

/// Looks at a node.
pub trait Sight {
    /// A new consistent read of everything; of these thin devices also what tells them from others of their ids.
    fn survey(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError>;
    /// Transaction ids of containerd's databases at this moment.
    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError>;
    /// The process that holds the lock on the pool database.
    fn holder(&self) -> Result<Option<Incarnation>, String>;
    /// Thin devices that a running sidecar sees somebody at work on at this moment; none where nobody can be asked.
    fn at_work(&self) -> BTreeMap<ThinId, OperationId> {
        BTreeMap::new()
    }
    /// The time.
    fn now(&self) -> Timestamp;
}

/// Looks at this node.
#[derive(Debug)]
pub struct RealSight(pub Surveys);

impl RealSight {
    /// Looks at what is at these places.
    #[must_use]
    pub fn new(places: SurveyPlaces) -> Self {
        Self(Surveys::new(places))
    }

    /// The same for who tells nobody of users.
    #[must_use]
    pub fn without_users(places: SurveyPlaces) -> Self {
        Self(Surveys::new(places).without_users())
    }

    fn places(&self) -> &Places {
        &self.0.places().places
    }
}

impl Sight for RealSight {
    fn survey(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        self.0.read(roots, None)
    }

    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        world::transactions(self.places())
    }

    fn holder(&self) -> Result<Option<Incarnation>, String> {
        holder_of(&self.places().pool_db()).map_err(|error| explain(&error))
    }

    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}
