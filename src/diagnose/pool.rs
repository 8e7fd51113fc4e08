//! Pools that can not do all that containerd needs of them.

use crate::model::{Finding, FindingClass, FindingId, Pool, PoolMode, Provenance, Subject};

/// What the kernel says of the pool, as findings; nothing of a pool that works.
pub(super) fn findings(pool: &Pool) -> Vec<Finding> {
    let by_mode = match pool.mode {
        PoolMode::OutOfDataSpace => Some((
            FindingClass::PoolOutOfSpace,
            "writes to blocks that are not mapped yet wait or fail, and no file system can be made on a new device",
        )),
        PoolMode::ReadOnly => Some((
            FindingClass::PoolReadOnly,
            "it refuses every message: no snapshot can be made or removed, and each try of containerd's burns a thin id",
        )),
        PoolMode::Failed => Some((
            FindingClass::PoolFailed,
            "all I/O to its thin devices fails; it stays so until it is taken down and repaired",
        )),
        PoolMode::ReadWrite | PoolMode::Unknown => None,
    };
    let needs_check = pool.needs_check.then_some((
        FindingClass::PoolNeedsCheck,
        "the kernel has set the needs_check flag in its metadata, and keeps it from write mode until thin_check or \
         thin_repair cleared it",
    ));
    [by_mode, needs_check]
        .into_iter()
        .flatten()
        .map(|(class, means)| Finding {
            id: FindingId::of_pool(class, &pool.name),
            class,
            pool: pool.name.clone(),
            subject: Subject::Pool,
            provenance: Provenance::Unknown,
            evidence: vec![
                format!(
                    "the kernel says that pool {} ({}) is {}",
                    pool.name, pool.device, pool.mode
                ),
                means.to_owned(),
            ],
            died_in: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn each_trouble_of_a_pool_is_a_finding_and_a_pool_that_works_is_none() {
        let of = |mode, needs_check| {
            let mut pool = testing::world(1).pool;
            (pool.mode, pool.needs_check) = (mode, needs_check);
            let found = findings(&pool);
            assert!(
                found
                    .iter()
                    .all(|one| one.id.0 == format!("{}/tp/pool", one.class))
            );
            found.iter().map(|one| one.class).collect::<Vec<_>>()
        };
        assert_eq!(of(PoolMode::ReadWrite, false), []);
        assert_eq!(of(PoolMode::Unknown, false), []);
        assert_eq!(
            of(PoolMode::OutOfDataSpace, false),
            [FindingClass::PoolOutOfSpace]
        );
        assert_eq!(of(PoolMode::Failed, false), [FindingClass::PoolFailed]);
        assert_eq!(
            of(PoolMode::ReadOnly, true),
            [FindingClass::PoolReadOnly, FindingClass::PoolNeedsCheck]
        );
    }
}
