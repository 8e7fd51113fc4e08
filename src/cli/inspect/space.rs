//! Whose the pool's blocks are, for `--space`.

use std::collections::BTreeSet;

use crate::{
    cli::{
        CliError,
        look::{Look, LookArguments},
    },
    model::{FindingClass, Reclaimable, Space, ThinId},
    observe::survey,
    remedy::ReservedSnapshots,
};

/// The space of every device, and what would come back with the leaked and orphaned ones; nothing where there are none of
/// those.
pub(super) fn read(
    look: &Look,
    arguments: &LookArguments,
) -> Result<(Option<Space>, Option<Reclaimable>), CliError> {
    let pool = look.survey.pool.as_ref();
    let hand = ReservedSnapshots::default();
    let (space, left) =
        survey::space(&look.at, pool, Some(arguments.reserving(&hand))).map_err(CliError::Space)?;
    if let Some(left) = left {
        eprintln!("suture: {left}");
    }
    let waste = waste(look);
    let reclaimable = if waste.is_empty() {
        None
    } else {
        Some(survey::reclaimable(&look.at, pool, &waste).map_err(CliError::Space)?)
    };
    Ok((Some(space), reclaimable))
}

/// Thin devices that containerd will never use again.
fn waste(look: &Look) -> BTreeSet<ThinId> {
    let is_waste = |class| {
        matches!(
            class,
            FindingClass::LeakedThin | FindingClass::OrphanRecord | FindingClass::StuckCleanup
        )
    };
    let found = look.diagnoses.found.iter();
    found
        .filter(|one| is_waste(one.finding.class))
        .filter_map(|one| one.finding.subject.thin_id())
        .collect()
}
