//! Damage in every page and every block of all that a check reads, and what a check then says.
//!
//! What can be proven differs from file to file:
//! - Blocks of the pool's metadata carry a checksum and their own number. Every damage to a block that the walk reads is
//!   told, with the block, and the check is not whole; what is found all the same is true.
//! - A bbolt file has checksums on its two metas only. Damage that breaks the structure of a page in use is an error that
//!   names file and page; where the newest meta is what is broken, bbolt itself and so containerd go back to the
//!   transaction before, and that one's truth is the truth.
//! - Another bit inside a name or a value of a bbolt file is another name or value, and nothing can tell. One such flip
//!   changes what is said of what it hits; it never makes a world with several faults clean.
//! - Of meta.db, names of users may be missing, and with them leave to delete: never a finding.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use suture::{
    diagnose,
    model::{
        Act, CoreDb, Diagnoses, Knowledge, PoolDb, Severity, SnapshotDb, Survey, ThinId, survey::Unread,
    },
    observe::{
        bbolt::Database,
        survey::{self, SurveyPlaces},
        thin_metadata::BLOCK_SIZE,
    },
    words::explain,
};

use crate::{
    damage::{Damage, every_damage},
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

/// Whether the damage is one of structure to a page as a whole, or to its header: those are read from files.
fn is_coarse(damage: &Damage) -> bool {
    !damage.what.starts_with("element")
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

/// `same` says what may be said beside the truth.
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
            said => assert!(
                damage.pages.contains(&sound.meta) && *said == older || may_be(&damage, said),
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
        damage.bytes.is_empty() && !said.is_clean() && said.deletes().is_empty() && explained
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

/// One block of the metadata after the other, and whether what reads it sees it.
#[test]
fn metadata_with_any_block_damaged_are_told_by_the_block() {
    let stage = Stage::new();
    let path = stage.places.metadata_device.clone().unwrap();
    let truth = stage.truth.ids();
    let image = &stage.world.metadata;
    let count = image.len() / BLOCK_SIZE;
    let (mut told, mut unharmed) = (BTreeSet::new(), BTreeSet::new());
    for (number, what, bytes) in block_damages(image) {
        let case = format!("block {number}, {what}");
        let said = stage.with(&path, &bytes);
        let Said::Told { unread, .. } = &said else {
            panic!("{case}: {said:?}")
        };
        if said == stage.truth {
            unharmed.insert(number);
            continue;
        }
        told.insert(number);
        assert!(!said.is_clean(), "{case}");
        let [unread] = unread.as_slice() else {
            panic!("{case}: {unread:?}")
        };
        assert!(
            unread.matters && unread.why.contains(path.to_str().unwrap()),
            "{case}: {unread:?}"
        );
        let block = number == 0 || unread.why.contains(&format!("block {number}"));
        assert!(block, "{case}: {unread:?}");
        assert!(said.ids().is_subset(&truth), "{case}: {:?}", said.ids());
        assert!(said.deletes().is_subset(&stage.truth.deletes()), "{case}");
    }
    // Superblock, and the tree of details: four leaves and what is above them.
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(
        told.iter().all(|block| !unharmed.contains(block)),
        "seen in one way and not in another: {told:?} {unharmed:?}"
    );
    assert_eq!(told.len() + unharmed.len(), count);
}

/// Damage to each block, one way after the other.
fn block_damages(image: &[u8]) -> Vec<(usize, String, Vec<u8>)> {
    let count = image.len() / BLOCK_SIZE;
    let mut all = Vec::new();
    for number in 0..count {
        let at = number * BLOCK_SIZE;
        let old = &image[at..at + BLOCK_SIZE];
        let mut add = |what: String, new: &[u8]| {
            let bytes = [&image[..at], new, &image[at + BLOCK_SIZE..]].concat();
            all.push((number, what, bytes));
        };
        add("zeroed".to_owned(), &[0; BLOCK_SIZE]);
        add("all ones".to_owned(), &[0xff; BLOCK_SIZE]);
        add("shifted".to_owned(), &[&old[1..], &[0]].concat());
        // What another block has, of each kind.
        for other in (0..count).filter(|other| *other != number) {
            add(
                format!("as block {other}"),
                &image[other * BLOCK_SIZE..(other + 1) * BLOCK_SIZE],
            );
        }
        // The header closely, the rest here and there.
        for bit in (0..40 * 8)
            .step_by(7)
            .chain((40 * 8..BLOCK_SIZE * 8).step_by(1997))
        {
            let mut new = old.to_vec();
            new[bit / 8] ^= 1 << (bit % 8);
            add(format!("bit {bit}"), &new);
        }
    }
    all
}

/// A copy that ends too early, as a `dd` without the right count makes it.
#[test]
fn metadata_that_are_cut_anywhere_are_told_or_whole() {
    let stage = Stage::new();
    let path = stage.places.metadata_device.clone().unwrap();
    let image = &stage.world.metadata;
    for length in (0..image.len()).step_by(BLOCK_SIZE / 2) {
        let said = stage.with(&path, &image[..length]);
        let Said::Told { unread, .. } = &said else {
            panic!("{length}: {said:?}")
        };
        // The tree of details comes last in this image: every cut takes something of it.
        assert!(
            !said.is_clean() && unread.iter().any(|one| one.matters),
            "{length}: {said:?}"
        );
        assert!(
            unread[0].why.contains(path.to_str().unwrap()),
            "{length}: {unread:?}"
        );
    }
}

/// `inspect` reads every tree: no block in use may be damaged without being told.
#[test]
fn space_is_never_told_from_a_damaged_block_without_saying_so() {
    let stage = Stage::new();
    let path = stage.places.metadata_device.clone().unwrap();
    let truth = survey::space(&stage.places, None, None).unwrap();
    assert_eq!(truth.0.incomplete, None);
    let mut told = BTreeSet::new();
    for (number, what, bytes) in block_damages(&stage.world.metadata).into_iter().step_by(3) {
        fs::write(&path, &bytes).unwrap();
        let why = match survey::space(&stage.places, None, None) {
            Ok(space) if space == truth => continue,
            Ok((space, _)) => space
                .incomplete
                .unwrap_or_else(|| panic!("block {number}, {what}: told as if whole")),
            Err(why) => why,
        };
        assert!(
            number == 0 || why.contains(&format!("block {number}")),
            "block {number}, {what}: {why}"
        );
        told.insert(number);
    }
    // Superblock; four leaves that devices share; the tree of devices, four leaves and what is above them.
    assert_eq!(told.len(), 10, "{told:?}");
}

/// The surveys of a sound world, with one database read from other bytes.
struct Exchanged {
    stage: Stage,
    survey: Survey,
}

impl Exchanged {
    fn new() -> Self {
        let stage = Stage::new();
        let survey = survey::read(&stage.places, &BTreeSet::new()).unwrap();
        Self { stage, survey }
    }

    fn pool_db(&self, bytes: Vec<u8>) -> Said {
        let read = PoolDb::read_from(&Database::new(bytes), Path::new("tp.db"));
        self.said(read.map(|pool_db| Survey {
            pool_db,
            ..self.survey.clone()
        }))
    }

    fn snapshot_db(&self, bytes: Vec<u8>) -> Said {
        let read = SnapshotDb::read_from(&Database::new(bytes), Path::new("metadata.db"));
        self.said(read.map(|snapshots| Survey {
            snapshots,
            ..self.survey.clone()
        }))
    }

    fn core_db(&self, bytes: Vec<u8>) -> Said {
        let read = CoreDb::read_from(&Database::new(bytes), Path::new("meta.db"));
        self.said(read.map(|core| Survey {
            core: Some(core),
            ..self.survey.clone()
        }))
    }

    fn said<E: std::error::Error>(&self, read: Result<Survey, E>) -> Said {
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
                changed += usize::from(said != all.stage.truth);
            }
        }
        assert!(changed > 100, "{changed}");
    };
    hold(&all.stage.world.pool_db, &|bytes| all.pool_db(bytes));
    hold(&all.stage.world.snapshot_db, &|bytes| all.snapshot_db(bytes));
    hold(&all.stage.world.core_db, &|bytes| all.core_db(bytes));
}

/// Runs `suture check` with little memory and little time.
fn check(stage: &Stage) -> (Option<i32>, String) {
    let root = stage.places.places.root.to_str().unwrap();
    let metadata = stage.places.metadata_device.as_ref().unwrap();
    let nowhere: PathBuf = stage.folder.path().join("nowhere");
    let output = Command::new("timeout")
        // Far more than a file of some pages needs, and far less than a wrong length would ask for.
        .args(["30", "prlimit", "--data=134217728", env!("CARGO_BIN_EXE_suture"), "check"])
        .args(["--pool", "tp", "--root-path", root, "--output", "json"])
        .args([Path::new("--metadata-device"), metadata])
        .args([Path::new("--ledger"), &nowhere, Path::new("--socket"), &nowhere])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// The program itself, whole pages and blocks at a time.
#[test]
fn suture_check_on_a_damaged_file_ends_with_findings_or_an_error_that_names_it() {
    let stage = Stage::new();
    assert_eq!(check(&stage), (Some(4), String::new()));
    let places = &stage.places;
    let files = [
        places.places.pool_db(),
        places.places.snapshot_db(),
        places.core_db.clone().unwrap(),
        places.metadata_device.clone().unwrap(),
    ];
    let mut refused = 0;
    for path in &files {
        let bytes = fs::read(path).unwrap();
        let count = bytes.len() / PAGE;
        for page in 0..count {
            let mut zeroed = bytes.clone();
            zeroed[page * PAGE..(page + 1) * PAGE].fill(0xff);
            for (what, damaged) in [("spoiled", &zeroed[..]), ("cut", &bytes[..page * PAGE + 100])] {
                fs::write(path, damaged).unwrap();
                let (code, told) = check(&stage);
                let case = format!("{} page {page} {what}: {code:?} {told}", path.display());
                match code {
                    Some(8) => {
                        refused += 1;
                        assert!(
                            told.starts_with("suture: ") && told.contains(path.to_str().unwrap()),
                            "{case}"
                        );
                    }
                    code => assert_eq!(code, Some(4), "{case}"),
                }
            }
        }
        fs::write(path, &bytes).unwrap();
    }
    assert!(refused > 30, "{refused}");
}
