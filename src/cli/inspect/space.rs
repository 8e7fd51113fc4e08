//! Whose the pool's blocks are, for `--space`.

use std::collections::BTreeSet;

use crate::{
    cli::{
        CliError,
        look::{Look, LookArguments},
    },
    model::{FindingClass, Reclaimable, Space, ThinId},
    observe::thin_metadata::{self, DeviceSource},
};

/// The space of every device, and what would come back with the leaked and orphaned ones; nothing where there are none of
/// those.
pub(super) fn read(
    look: &Look,
    arguments: &LookArguments,
) -> Result<(Option<Space>, Option<Reclaimable>), CliError> {
    let mut source = match (&arguments.survey.metadata_device, &look.survey.pool) {
        (Some(path), _) => DeviceSource::open(path)?,
        (None, Some(pool)) => DeviceSource::open_device(pool.metadata_device)?,
        (None, None) => {
            return Err(CliError::Named(format!(
                "the pool {} is not set up; name its metadata device with --metadata-device",
                look.survey.pool_name
            )));
        }
    };
    let space = thin_metadata::space(&mut source, thin_metadata::From::Committed)?;
    let waste = waste(look);
    let reclaimable = if waste.is_empty() {
        None
    } else {
        Some(thin_metadata::space_of_set(
            &mut source,
            thin_metadata::From::Committed,
            &waste,
        )?)
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
