//! Damage in every page and every block of all that a check reads, and what a check then says.
//!
//! What can be proven differs from file to file:
//! - Blocks of the pool's metadata carry a checksum and their own number. Every damage to a block that the walk reads is
//!   told, with the block, and the check is not whole; what is found all the same is true.
//! - A bbolt file has checksums on its two metas only. Damage that breaks the structure of a page in use is an error that
//!   names file and page; where the newest meta is what is broken, bbolt itself and so containerd go back to the
//!   transaction before, and that one's truth is the truth.
//! - Another bit inside a name or a value of a bbolt file is another name or value, and nothing can tell; but of metadata.db
//!   the rows and their index tell of each other. One such flip changes what is said of what it hits; it never makes a world
//!   with several faults clean.
//! - Of meta.db, names of users may be missing, and with them leave to delete: never a finding.

mod blocks;
mod pages;
mod program;
mod rows;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use suture::{
    diagnose,
    model::{Act, Diagnoses, Knowledge, Severity, Survey, ThinId, survey::Unread},
    observe::survey::{self, SurveyPlaces},
    words::explain,
};

use crate::{
    page_map::PageMap,
    small_world::{FINDINGS, PAGE, SmallWorld},
};

/// What one look may take at most, however the file looks; nothing is to hang.
const A_LOOK: Duration = Duration::from_secs(10);

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Refused(String),
    Told {
        diagnoses: Diagnoses,
        unread: Vec<Unread>,
    },
}

impl Said {
    fn of(survey: &Survey) -> Self {
        let mut unread = survey.unread.clone();
        // Where these tests run there may be no device-mapper at all.
        unread.retain(|one| one.what != "device-mapper");
        Self::Told {
            diagnoses: diagnose::survey(survey, &Knowledge::default()),
            unread,
        }
    }

    fn ids(&self) -> BTreeSet<&str> {
        match self {
            Self::Refused(_) => BTreeSet::new(),
            Self::Told { diagnoses, .. } => {
                let found = diagnoses.found.iter();
                found.map(|one| one.finding.id.0.as_str()).collect()
            }
        }
    }

    /// As `suture check` decides it (exit code 0).
    fn is_clean(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Told { diagnoses, unread } => {
                !unread.iter().any(|one| one.matters)
                    && diagnoses.not_understood.is_empty()
                    && diagnoses.found.iter().all(|one| one.severity == Severity::Notice)
            }
        }
    }

    /// Thin devices that a remedy would delete.
    fn deletes(&self) -> BTreeSet<ThinId> {
        let Self::Told { diagnoses, .. } = self else {
            return BTreeSet::new();
        };
        let acts = diagnoses.found.iter().flat_map(|one| &one.remedy.acts);
        acts.filter_map(|act| match act {
            Act::DeleteThin { thin_id } => Some(*thin_id),
            _ => None,
        })
        .collect()
    }
}

/// The world in a folder, and the truth about it.
struct Stage {
    world: SmallWorld,
    places: SurveyPlaces,
    folder: tempfile::TempDir,
    truth: Said,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = SmallWorld::new();
        let places = world.write(folder.path());
        let truth = look(&places);
        Self {
            world,
            places,
            folder,
            truth,
        }
    }

    /// What is said with other bytes in a file, which are taken back afterwards.
    fn with(&self, path: &Path, bytes: &[u8]) -> Said {
        let before = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        let said = look(&self.places);
        fs::write(path, before).unwrap();
        said
    }
}

fn look(places: &SurveyPlaces) -> Said {
    let begun = Instant::now();
    let said = match survey::read(places, &BTreeSet::new()) {
        Ok(survey) => Said::of(&survey),
        Err(error) => Said::Refused(explain(&error)),
    };
    assert!(begun.elapsed() < A_LOOK, "{:?}", begun.elapsed());
    said
}

#[test]
fn the_sound_world_is_told_as_it_was_made() {
    let stage = Stage::new();
    let Said::Told { diagnoses, unread } = &stage.truth else {
        panic!("{:?}", stage.truth)
    };
    assert_eq!(unread, &[]);
    // Of the foreign device.
    assert_eq!(
        (diagnoses.explanations.len(), &diagnoses.not_understood),
        (1, &vec![])
    );
    assert_eq!(stage.truth.ids(), FINDINGS.into_iter().collect());
    // The pool is not set up: there is nobody who could delete.
    assert_eq!(stage.truth.deletes(), BTreeSet::new());
    for bytes in [
        &stage.world.pool_db,
        &stage.world.snapshot_db,
        &stage.world.core_db,
    ] {
        let pages = PageMap::of(bytes, PAGE, None).unwrap().pages.len();
        assert!(
            pages >= 5 && bytes.len() / PAGE > 2 + pages,
            "{pages} pages in use, and some free"
        );
    }
}
