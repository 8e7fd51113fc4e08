//! One consistent world and the operations known, into findings. Pure.
//! The classes and their predicates are the ones of docs/findings.md.

mod block;
mod death;
mod live;
mod outline;
mod pool;
mod survey;
mod thin;
mod wedge;

pub use death::note_death;
pub use live::live;
pub use outline::glance;
pub use survey::{Settled, Settling, survey};
pub use thin::thin_findings;

use crate::{
    correlate::Correlator,
    model::{Finding, FindingClass, PoolView, Timestamp, World},
};

/// All findings of a world. The correlator has taken in the same world.
#[must_use]
pub fn all(world: &World, known: &Correlator, now: Timestamp) -> Vec<Finding> {
    let mut findings = thin_findings(world, known);
    findings.extend(wedge::finding(world, known, now));
    findings.extend(pool::findings(&world.pool));
    let scene = block::Scene {
        pool: &world.pool,
        nodes: &world.nodes,
        topology: &world.topology,
        world: Some(world),
    };
    findings.extend(block::findings(&scene, known.block_errors(), now));
    findings.extend(live(known, now));
    for finding in &mut findings {
        note_death(finding, known.sagas());
    }
    findings
}

/// The findings that need no more than the pool and what it stands on: those of the classes for which [`is_of_pool`] holds.
/// Of the others this says nothing, not even that they are gone.
#[must_use]
pub fn of_pool(view: &PoolView, known: &Correlator, now: Timestamp) -> Vec<Finding> {
    let mut findings = pool::findings(&view.pool);
    let scene = block::Scene {
        pool: &view.pool,
        nodes: &view.nodes,
        topology: &view.topology,
        world: None,
    };
    findings.extend(block::findings(&scene, known.block_errors(), now));
    findings.extend(live(known, now));
    findings
}

/// Whether what an earlier suture found stands as it stood: a record that it saw nobody at work on, and that nobody took up
/// since. It may take a minute until [`all`] can tell that of its own.
#[must_use]
pub fn is_as_it_was(finding: &Finding, world: &World) -> bool {
    finding.class == FindingClass::Wedge && wedge::is_there(finding, world)
}

/// Whether a finding of this class is found by [`all`], from one world and the kernel's events. The others take a survey.
#[must_use]
pub fn is_of_events(class: FindingClass) -> bool {
    matches!(
        class,
        FindingClass::LeakedThin | FindingClass::ForeignThin | FindingClass::Wedge
    ) || is_of_pool(class)
}

/// Whether the pool and what it stands on are enough to tell that a finding of this class is there, or is gone.
#[must_use]
pub fn is_of_pool(class: FindingClass) -> bool {
    match class {
        FindingClass::BlockErrors
        | FindingClass::PoolOutOfSpace
        | FindingClass::PoolReadOnly
        | FindingClass::PoolFailed
        | FindingClass::PoolNeedsCheck
        | FindingClass::FailingCreate
        | FindingClass::FailingRemove => true,
        FindingClass::LeakedThin
        | FindingClass::ForeignThin
        | FindingClass::OrphanRecord
        | FindingClass::Wedge
        | FindingClass::FaultyNext
        | FindingClass::FaultyLive
        | FindingClass::SuspendedDevice
        | FindingClass::RowWithoutRecord
        | FindingClass::RowWithoutThin
        | FindingClass::OrphanNode
        | FindingClass::BurnedId
        | FindingClass::StuckCleanup
        | FindingClass::ErrorTable
        | FindingClass::PoolMetadataNearlyFull
        | FindingClass::MetadataSnapshotHeld => false,
    }
}
