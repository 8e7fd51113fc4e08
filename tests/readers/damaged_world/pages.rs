//! Pages of the databases: whole ones and their headers in files, and what is inside of them.

use std::{collections::BTreeSet, fs, path::Path};

use suture::{
    model::{CoreDb, DeviceNumber, Pool, PoolActivation, PoolDb, PoolMode, SnapshotDb, Survey, ThinId},
    observe::{bbolt::Database, survey},
    words::explain,
};

use super::{Said, Stage};
use crate::{
    damage::{Damage, every_damage},
    page_map::PageMap,
    small_world::{FINDINGS, PAGE},
};

/// Whether the damage is one of structure to a page as a whole, or to its header: those are read from files.
fn is_coarse(damage: &Damage) -> bool {
    !damage.what.starts_with("element")
}

/// `may_be` says what else may be said than the truth.
fn every_page(stage: &Stage, path: &Path, may_be: impl Fn(&Damage, &Said) -> bool) {
    let bytes = fs::read(path).unwrap();
    let sound = PageMap::of(&bytes, PAGE, None).unwrap();
    let older = {
        let mut without = bytes.clone();
        let at = usize::try_from(sound.meta).unwrap() * PAGE;
        without[at..at + PAGE].fill(0);
        stage.with(path, &without)
    };
    assert!(matches!(older, Said::Told { .. }), "{older:?}");
    let (mut refused, mut unharmed) = (0, 0);
    for damage in every_damage(&bytes, PAGE).into_iter().filter(is_coarse) {
        let case = format!("{}: pages {:?}, {}", path.display(), damage.pages, damage.what);
        let said = stage.with(path, &damage.bytes);
        let in_use = damage
            .pages
            .iter()
            .any(|page| *page < 2 || sound.pages.contains_key(page));
        match &said {
            Said::Refused(text) => {
                refused += 1;
                assert!(in_use, "{case}: nobody reads those: {text}");
                assert!(text.contains(path.to_str().unwrap()), "{case}: {text}");
                let metas = damage.pages.iter().any(|page| *page < 2);
                assert!(
                    metas || text.contains("page ") || text.contains('`'),
                    "{case}: no page and no entry: {text}"
                );
            }
            said if *said == stage.truth => unharmed += 1,
            Said::Told { .. } => assert!(
                damage.pages.contains(&sound.meta) && said == older || may_be(&damage, &said),
                "{case}: {said:#?}"
            ),
        }
    }
    assert!(
        refused > 100 || path.ends_with("meta.db"),
        "{}: {refused} refused",
        path.display()
    );
    assert!(unharmed > 20, "{}: {unharmed} unharmed", path.display());
}

#[test]
fn a_pool_db_with_any_page_damaged_is_refused_or_tells_the_truth() {
    let stage = Stage::new();
    every_page(&stage, &stage.places.places.pool_db(), |_, _| false);
}

#[test]
fn a_metadata_db_with_any_page_damaged_is_refused_or_tells_the_truth() {
    let stage = Stage::new();
    every_page(&stage, &stage.places.places.snapshot_db(), |damage, said| {
        // An empty file is what containerd makes first: it is said that the snapshots are gone, and nothing is touched.
        let Said::Told { diagnoses, .. } = said else {
            return false;
        };
        let explained = diagnoses
            .explanations
            .iter()
            .any(|one| one.contains("metadata.db is gone"));
        // The rows can be read, and their index can not, or says something else: it is told, with the page.
        let doubted = diagnoses
            .not_understood
            .iter()
            .any(|one| one.contains("contradicts itself"));
        let told = damage.bytes.is_empty() && explained || doubted && said.ids() == stage.truth.ids();
        told && !said.is_clean() && said.deletes().is_empty()
    });
}

#[test]
fn a_meta_db_with_any_page_damaged_hides_no_finding_and_gives_no_leave_to_delete() {
    let stage = Stage::new();
    let path = stage.places.core_db.clone().unwrap();
    let truth = stage.truth.ids();
    every_page(&stage, &path, |_, said| {
        let Said::Told { unread, .. } = said else {
            return false;
        };
        let told = unread
            .iter()
            .all(|one| !one.matters && one.why.contains(path.to_str().unwrap()));
        told && said.ids() == truth && said.deletes().is_subset(&stage.truth.deletes())
    });
}

/// The surveys of a sound world, with one database read from other bytes.
pub(super) struct Exchanged {
    pub(super) stage: Stage,
    pub(super) survey: Survey,
}

impl Exchanged {
    /// With a pool that is set up: only where there is one does a remedy delete anything.
    pub(super) fn new() -> Self {
        let mut stage = Stage::new();
        let mut survey = survey::read(&stage.places, &BTreeSet::new()).unwrap();
        let (device, metadata_device) = (
            DeviceNumber { major: 253, minor: 2 },
            DeviceNumber { major: 253, minor: 0 },
        );
        survey.pool = Some(Pool {
            name: survey.pool_name.clone(),
            device,
            metadata_device,
            table: "253:0 253:1 128 32768 0".to_owned(),
            mode: PoolMode::ReadWrite,
            activation: PoolActivation {
                boot: "boot".to_owned(),
                disk_sequence: Some(1),
                metadata_device,
            },
            needs_check: false,
        });
        stage.truth = Said::of(&survey);
        assert_eq!(stage.truth.ids(), FINDINGS.into_iter().collect());
        assert_eq!(stage.truth.deletes(), [17, 18, 19].map(ThinId).into());
        Self { stage, survey }
    }

    fn pool_db(&self, bytes: Vec<u8>) -> Said {
        let read = PoolDb::read_from(&Database::new(bytes), Path::new("tp.db"));
        Self::said(read.map(|pool_db| Survey {
            pool_db: pool_db.into(),
            ..self.survey.clone()
        }))
    }

    pub(super) fn snapshot_db(&self, bytes: Vec<u8>) -> Said {
        let read = SnapshotDb::read_from(&Database::new(bytes), Path::new("metadata.db"));
        Self::said(read.map(|snapshots| Survey {
            snapshots: snapshots.into(),
            ..self.survey.clone()
        }))
    }

    fn core_db(&self, bytes: Vec<u8>) -> Said {
        let read = CoreDb::read_from(&Database::new(bytes), Path::new("meta.db"));
        Self::said(read.map(|core| Survey {
            core: Some(core.into()),
            ..self.survey.clone()
        }))
    }

    pub(super) fn said<E: std::error::Error>(read: Result<Survey, E>) -> Said {
        match read {
            Ok(survey) => Said::of(&survey),
            Err(error) => Said::Refused(explain(&error)),
        }
    }
}

/// Wrong positions and sizes inside a page: bbolt never writes them, so they are seen.
#[test]
fn what_is_wrong_inside_a_page_is_refused_or_tells_the_truth() {
    let all = Exchanged::new();
    let hold = |bytes: &[u8], say: &dyn Fn(Vec<u8>) -> Said, least: usize| {
        let mut refused = 0;
        for damage in every_damage(bytes, PAGE)
            .into_iter()
            .filter(|damage| !is_coarse(damage))
        {
            let said = say(damage.bytes);
            refused += usize::from(matches!(said, Said::Refused(_)));
            let same = matches!(said, Said::Refused(_)) || said == all.stage.truth;
            assert!(same, "pages {:?}, {}: {said:#?}", damage.pages, damage.what);
        }
        assert!(refused > least, "{refused}");
    };
    hold(&all.stage.world.pool_db, &|bytes| all.pool_db(bytes), 500);
    hold(&all.stage.world.snapshot_db, &|bytes| all.snapshot_db(bytes), 300);
}

/// A bit here and there in each page that is in use. It is told in other words, or refused, or not at all; the faults that
/// it does not hit are still there.
#[test]
fn no_flipped_bit_makes_a_world_with_faults_clean() {
    let all = Exchanged::new();
    let hold = |bytes: &[u8], say: &dyn Fn(Vec<u8>) -> Said| {
        let sound = PageMap::of(bytes, PAGE, None).unwrap();
        let mut changed = 0;
        let mut harm: Vec<String> = Vec::new();
        for page in sound.pages.keys().chain([&0, &1]) {
            let begin = usize::try_from(*page).unwrap() * PAGE;
            // What is behind the entries is nothing.
            let length = bytes[begin..begin + PAGE]
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            for at in (begin..begin + length).step_by(5) {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << (at % 8);
                let said = say(flipped);
                assert!(!said.is_clean(), "page {page}, byte {}: {said:?}", at - begin);
                let serious = matches!(said, Said::Refused(_)) || said.ids().len() + 2 >= FINDINGS.len();
                assert!(serious, "page {page}, byte {}: {:?}", at - begin, said.ids());
                let more: Vec<_> = said
                    .deletes()
                    .difference(&all.stage.truth.deletes())
                    .copied()
                    .collect();
                if !more.is_empty() {
                    harm.push(format!("page {page}, byte {}: {more:?}", at - begin));
                }
                changed += usize::from(said != all.stage.truth);
            }
        }
        assert_eq!(harm, Vec::<String>::new());
        assert!(changed > 100, "{changed}");
    };
    hold(&all.stage.world.pool_db, &|bytes| all.pool_db(bytes));
    hold(&all.stage.world.snapshot_db, &|bytes| all.snapshot_db(bytes));
    hold(&all.stage.world.core_db, &|bytes| all.core_db(bytes));
}
