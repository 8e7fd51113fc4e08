//! The list of free pages as the readers of a survey see it, against what bbolt says of the same file: where bbolt can not
//! open one, or would give away a page in use, no reader calls it sound.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use suture::model::{PoolDb, SnapshotDb};
use suture::observe::bbolt::{BboltError, Database};
use suture::observe::pool_db::PoolDbError;

use crate::bbolt_file::dump_all;
use crate::damage::{newer, relist};
use crate::peer::{self, Options, Order};

const OPTIONS: Options = Options {
    page_size: 4096,
    freelist: true,
};

/// A pool database with some free pages.
fn pool(folder: &Path) -> PathBuf {
    let file = folder.join("pool.db");
    peer::pool_db(&file, 15, OPTIONS);
    for large in [
        Order::new("put", &["device_ids"], "large").zeros(20_000),
        Order::new("delete", &["device_ids"], "large"),
    ] {
        peer::apply(&file, &[large], OPTIONS);
    }
    file
}

fn list_page(bytes: &[u8]) -> usize {
    usize::try_from(newer(bytes, 32)).unwrap()
}

/// The error of a damaged list; panics where that is anything else.
fn refusal(file: &Path) -> Option<String> {
    match PoolDb::read(file) {
        Ok(_) => None,
        Err(PoolDbError::Database(error @ BboltError::Damaged { reading, .. })) => {
            assert_eq!(reading, "the list of free pages", "{error}");
            Some(error.to_string())
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_byte_of_the_list_is_seen_or_bbolt_has_nothing_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let sound = std::fs::read(&file).unwrap();
    let answer = PoolDb::read(&file).unwrap();
    let begin = list_page(&sound) * 4096;
    let listed = usize::from(sound[begin + 10]);
    assert!(listed > 3, "{listed} free pages");
    let open = std::fs::File::options().write(true).open(&file).unwrap();
    let mut refused = 0;
    for at in 0..4096 {
        let old = sound[begin + at];
        let values: Vec<u8> = if at < 16 + 8 * (listed + 2) {
            (0..8).map(|bit| old ^ 1 << bit).chain([0, 3, 0xff]).collect()
        } else {
            vec![1]
        };
        let put = |value: u8| open.write_all_at(&[value], (begin + at) as u64).unwrap();
        for value in values.into_iter().filter(|value| *value != old) {
            put(value);
            if refusal(&file).is_some() {
                refused += 1;
                continue;
            }
            let about = format!("byte {at} is {value:#04x}, was {old:#04x}");
            assert_eq!(PoolDb::read(&file).unwrap(), answer, "{about}");
            if let Err(problem) = peer::check(&file) {
                panic!("{about}: bbolt says {problem}");
            }
        }
        put(old);
    }
    assert_eq!(std::fs::read(&file).unwrap(), sound);
    assert!(refused > 4000, "{refused} refused");
}

#[test]
fn containerds_own_files_with_the_list_zeroed_cut_off_or_of_a_page_in_use() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, file: &Path| match name {
        "pool.db" => PoolDb::read(file).map(drop).map_err(|error| error.to_string()),
        _ => SnapshotDb::read(file)
            .map(drop)
            .map_err(|error| error.to_string()),
    };
    for name in ["pool.db", "metadata.db"] {
        let sound = std::fs::read(fixtures.join(name)).unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, &sound).unwrap();
        read(name, &file).unwrap();
        peer::check(&file).unwrap();
        let list = list_page(&sound);
        let place = list * 4096..(list + 1) * 4096;
        let mut zeroed = sound.clone();
        zeroed[place.clone()].fill(0);
        let mut of_another = sound.clone();
        of_another[place.start + 8] = 0x02;
        let (mut in_use, mut itself, mut outside) = (sound.clone(), sound.clone(), sound.clone());
        relist(&mut in_use, &[newer(&sound, 16)]);
        relist(&mut itself, &[list as u64]);
        relist(&mut outside, &[newer(&sound, 40)]);
        for (bytes, problem) in [
            (zeroed, "its header says it is page 0"),
            (of_another, "page flags 0x0002"),
            (sound[..place.start].to_vec(), "the file was cut"),
            (sound[..place.start + 100].to_vec(), "the file was cut"),
            (in_use, "stands there and is in use"),
            (itself, "stands there and is in use"),
            (outside, "outside of the data pages"),
        ] {
            std::fs::write(&file, &bytes).unwrap();
            let said = read(name, &file).unwrap_err();
            let place = format!("{} is damaged: page {list}, while reading", file.display());
            assert!(said.contains(&place) && said.contains(problem), "{said}");
            assert!(said.contains("the list of free pages"), "{said}");
            // Behind the end of a file, but on its last page, memory is zeros: bbolt reads those.
            let inside = bytes.len() % 4096 > 0;
            assert!(inside || peer::check(&file).is_err(), "bbolt accepts: {said}");
        }
    }
}

#[test]
fn a_list_on_a_page_of_somebody_else_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let mut bytes = std::fs::read(&file).unwrap();
    let list = list_page(&bytes) * 4096;
    // So many overflow pages that the list reaches into pages in use, or beyond the end of the data.
    for overflow in 1..=u8::try_from(newer(&bytes, 40)).unwrap() {
        bytes[list + 12] = overflow;
        std::fs::write(&file, &bytes).unwrap();
        let said = refusal(&file).unwrap();
        assert!(
            ["in use twice", "overflow pages", "is in use", "behind its last"]
                .iter()
                .any(|problem| said.contains(problem)),
            "{overflow}: {said}"
        );
    }
}

/// What is recorded is what the answer was read from.
#[test]
fn the_list_is_not_among_the_pages_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let (answer, kept) = PoolDb::read_with_pages(&file).unwrap();
    let list = newer(&std::fs::read(&file).unwrap(), 32);
    assert!(kept.runs().len() > 2 && !kept.runs().contains_key(&list));
    // Recorded pages have none, and are read without it.
    let again = PoolDb::read_from(&Database::new(kept.clone()), &file).unwrap();
    assert_eq!(again, answer);
    let whole = PoolDb::read_from(&Database::new(kept).with_free_list(), &file);
    assert!(matches!(
        whole,
        Err(PoolDbError::Database(BboltError::Damaged { page, .. })) if page == list
    ));
}

#[test]
fn a_file_that_is_opened_without_a_list_has_none_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let options = Options {
        freelist: false,
        ..OPTIONS
    };
    let put = Order::new("put", &["device_ids"], "200").value(&[1]);
    peer::apply(&file, &[put], options);
    assert_eq!(newer(&std::fs::read(&file).unwrap(), 32), u64::MAX);
    assert_eq!(refusal(&file), None);
}

#[test]
fn the_list_of_a_file_under_bbolts_own_hands_is_never_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("busy.db");
    peer::random(&file, 2, 3, OPTIONS);
    let database = Database::open(&file).unwrap().with_free_list();
    let ended = AtomicBool::new(false);
    let read = AtomicUsize::new(0);
    let (mut whole, mut fault) = (std::collections::BTreeSet::new(), None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=30 {
                peer::random(&file, 2 * round, 8, OPTIONS);
                // How often a reader gets between two commits is up to the machine: every other time it is waited for.
                let (before, begin) = (read.load(Ordering::Relaxed), Instant::now());
                while round % 2 == 0
                    && read.load(Ordering::Relaxed) == before
                    && begin.elapsed() < Duration::from_secs(5)
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            ended.store(true, Ordering::Relaxed);
        });
        while !ended.load(Ordering::Relaxed) {
            match database.snapshot(dump_all) {
                Ok((_, txid)) => {
                    whole.insert(txid);
                    read.fetch_add(1, Ordering::Relaxed);
                }
                Err(BboltError::Busy { .. }) => {}
                Err(other) => fault = Some(other.to_string()),
            }
        }
    });
    assert_eq!(fault, None);
    assert!(whole.len() > 10, "{} transactions read", whole.len());
}
