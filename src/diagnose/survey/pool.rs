//! The pool as a whole.

use super::scene::{Case, Scene, leave_alone};
use crate::model::{Diagnosis, FindingClass, PoolMode, PoolUsage, Provenance, Severity, Subject, Users};

/// Free metadata blocks, 4 KiB each, below which a pool is nearly full however large it is.
const FEW_BLOCKS: u64 = 256;

/// What the kernel says of the pool.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Diagnosis> {
    let survey = scene.survey;
    let mut found = Vec::new();
    let mut tell = |class, severity, [summary, evidence, consequence, why]: [String; 4]| {
        found.push(scene.diagnosis(Case {
            class,
            mark: "pool".to_owned(),
            subject: Subject::Pool,
            provenance: Provenance::Unknown,
            severity,
            summary,
            evidence: vec![evidence],
            consequence,
            users: Users::default(),
            remedy: leave_alone(why),
            // A tool that lists the thin devices holds one for a moment; nothing of the rest passes by itself.
            may_be_in_flight: class == FindingClass::MetadataSnapshotHeld,
        }));
    };
    let outage = Severity::Outage;
    if let Some(pool) = &survey.pool {
        let says = format!("the kernel says that the pool is {}", pool.mode);
        match pool.mode {
            PoolMode::OutOfDataSpace => tell(
                FindingClass::PoolOutOfSpace,
                outage,
                [
                    "The pool has no free data blocks.".to_owned(),
                    says,
                    "Every new container on this node fails when its file system is made or written: writes to new blocks wait 60 s and then fail with `no space left on device`.".to_owned(),
                    "Extend the pool's data device and reload the pool's table (with LVM: `lvextend`), or remove images and containers.".to_owned(),
                ],
            ),
            PoolMode::ReadOnly => tell(
                FindingClass::PoolReadOnly,
                outage,
                [
                    "The pool takes no writes and no messages.".to_owned(),
                    says,
                    "Every new container on this node fails with `operation not supported`, nothing can be removed, and each try burns a thin id.".to_owned(),
                    "Look into the kernel's log for why. Out of metadata space: extend the metadata device. A failed write of metadata: stop containerd, deactivate the pool, `thin_check` and, where it says so, `thin_repair` into another device.".to_owned(),
                ],
            ),
            PoolMode::Failed => tell(
                FindingClass::PoolFailed,
                outage,
                [
                    "The pool has failed: it takes nothing at all.".to_owned(),
                    says,
                    "Every new container on this node fails, and every running one gets I/O errors.".to_owned(),
                    "Stop containerd, deactivate the pool, copy its metadata device, and run `thin_check` and `thin_repair` on it; look into the kernel's log for a failing disk first.".to_owned(),
                ],
            ),
            PoolMode::ReadWrite | PoolMode::Unknown => {}
        }
        if pool.needs_check {
            tell(
                FindingClass::PoolNeedsCheck,
                outage,
                [
                    "The kernel wants the pool's metadata checked before they are written again.".to_owned(),
                    "the pool's status line says needs_check".to_owned(),
                    "The pool can not go back to write mode: every new container on this node fails with `operation not supported`.".to_owned(),
                    "Stop containerd, deactivate the pool, run `thin_check --clear-needs-check-flag` on its metadata device, or `thin_repair` where it finds damage, and activate the pool again.".to_owned(),
                ],
            );
        }
    }
    if let Some(usage) = &survey.usage {
        let free = usage.metadata_total.saturating_sub(usage.metadata_used);
        if is_nearly_full(usage) {
            tell(
                FindingClass::PoolMetadataNearlyFull,
                Severity::Space,
                [
                    "The pool's metadata device is nearly full.".to_owned(),
                    format!(
                        "{} of {} metadata blocks of 4 KiB are in use, {free} are free",
                        usage.metadata_used, usage.metadata_total
                    ),
                    "Once it is full the pool turns read-only, and every new container on this node fails with `operation not supported`.".to_owned(),
                    "Extend the metadata device (with LVM: `lvextend --poolmetadatasize`), or remove images and containers.".to_owned(),
                ],
            );
        }
        if let Some(root) = usage.held_root {
            tell(
                FindingClass::MetadataSnapshotHeld,
                Severity::Notice,
                [
                    "Somebody holds a snapshot of the pool's metadata.".to_owned(),
                    format!("the pool's status line says that it begins at block {root}"),
                    "It pins metadata blocks, and no other tool can make one meanwhile: `thin_ls`, cAdvisor and backups of the metadata fail.".to_owned(),
                    format!(
                        "Whose it is can not be told, so it is not released. If the tool that made it is gone: `dmsetup message {} 0 release_metadata_snap`.",
                        survey.pool_name.as_str().escape_debug()
                    ),
                ],
            );
        }
    }
    found
}

/// Nine tenths, or a few blocks left. What the kernel did not tell is not judged.
fn is_nearly_full(usage: &PoolUsage) -> bool {
    let free = usage.metadata_total.saturating_sub(usage.metadata_used);
    usage.metadata_total > 0
        && (free < FEW_BLOCKS || u128::from(usage.metadata_used) * 10 >= u128::from(usage.metadata_total) * 9)
}
