//! Single bytes inside the rows of metadata.db and inside their index: each is another number, kind or name, which no page of
//! bbolt tells. The rows and their index tell, together; and where they do, nothing is deleted on the word of records.

use std::{collections::BTreeSet, fs, ops::Range};

use suture::{
    model::{SnapshotDb, Survey, ThinId},
    observe::snapshot_db::SnapshotDbError,
};

use super::{Said, pages::Exchanged};

/// Snapshots that others were made from, and all of them.
const PARENTS: Range<u8> = 1..6;
const ROWS: Range<u8> = 1..17;

fn places_of(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(what.len()).enumerate();
    let found: Vec<_> = windows
        .filter(|(_, window)| *window == what)
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty(), "{}", what.escape_ascii());
    found
}

/// Where the values of a row are, in the pages of today and in those that are free.
fn row(bytes: &[u8], number: u8) -> Vec<usize> {
    places_of(bytes, &[b'i', b'd', number, b'k', b'i', b'n', b'd'])
}

struct Reader(Exchanged);

impl Reader {
    /// With one byte set in all these places: what is said, and how the database says that it contradicts itself.
    fn with(&self, places: &[usize], byte: u8) -> (Said, Option<String>) {
        let mut bytes = self.0.stage.world.snapshot_db.clone();
        for at in places {
            bytes[*at] = byte;
        }
        let path = self.0.stage.places.places.snapshot_db();
        fs::write(&path, &bytes).unwrap();
        let read: Result<_, SnapshotDbError> = SnapshotDb::read(&path);
        let why = read.as_ref().ok().and_then(|read| read.contradiction.clone());
        let said = Exchanged::said(read.map(|snapshots| Survey {
            snapshots: snapshots.into(),
            ..self.0.survey.clone()
        }));
        if let (Said::Told { diagnoses, .. }, Some(why)) = (&said, &why) {
            let told = diagnoses.not_understood.iter().any(|one| one.contains(why));
            assert!(told && !said.is_clean() && said.deletes().is_empty(), "{said:?}");
        }
        (said, why)
    }

    /// It is seen: told, or refused.
    fn seen(&self, places: &[usize], byte: u8, what: &str) -> Option<String> {
        let (said, why) = self.with(places, byte);
        let refused = matches!(said, Said::Refused(_));
        assert!(refused || why.is_some(), "{what} as {byte}: {said:?}");
        assert_eq!(said.deletes(), BTreeSet::new(), "{what} as {byte}");
        why
    }
}

#[test]
fn a_wrong_number_in_any_row_is_seen_and_deletes_nothing() {
    let reader = Reader(Exchanged::new());
    let bytes = reader.0.stage.world.snapshot_db.clone();
    assert_eq!(reader.with(&[], 0), (reader.0.stage.truth.clone(), None));
    for number in ROWS {
        let places: Vec<_> = row(&bytes, number).iter().map(|at| at + 2).collect();
        for other in (0..24)
            .chain([number ^ 0x40, 0x80, 0xff])
            .filter(|other| *other != number)
        {
            let why = reader.seen(&places, other, &format!("the number of row {number}"));
            let Some(why) = why else {
                assert!(other >= 0x80, "{other}");
                continue;
            };
            assert!(why.contains(&format!("the number {other}")), "{why}");
            assert!(why.contains(&format!(" {number}")), "{why}");
        }
    }
    // The rows alone do not tell: a layer that others are built on would be deleted, and suture has nothing against it.
    let mut damaged = bytes.clone();
    for at in row(&bytes, 4) {
        damaged[at + 2] = 17;
    }
    assert!(reader.0.snapshot_db(damaged).deletes().contains(&ThinId(4)));
}

#[test]
fn a_wrong_kind_in_any_row_deletes_nothing_else_and_is_seen_of_what_others_were_made_from() {
    let reader = Reader(Exchanged::new());
    let bytes = reader.0.stage.world.snapshot_db.clone();
    for number in ROWS {
        let places: Vec<_> = row(&bytes, number).iter().map(|at| at + 7).collect();
        for kind in [0, 1, 2, 3, 4, 0x80, 0xff] {
            let what = format!("row {number}, kind {kind}");
            let (said, why) = reader.with(&places, kind);
            assert!(
                said.deletes().is_subset(&reader.0.stage.truth.deletes()),
                "{what}"
            );
            assert!(!said.is_clean(), "{what}");
            assert_eq!(
                why.is_some(),
                matches!(kind, 1 | 2) && PARENTS.contains(&number),
                "{what}: {why:?}"
            );
        }
    }
}

#[test]
fn a_wrong_parent_in_any_row_is_seen_and_deletes_nothing() {
    let reader = Reader(Exchanged::new());
    let bytes = reader.0.stage.world.snapshot_db.clone();
    for number in ROWS.skip(1) {
        let parent = format!("parentdefault/{0}/key-{0}", (number - 1).min(5));
        for at in 6..parent.len() {
            // Behind the row's kind; in the pages that are free as well.
            let places: Vec<_> = row(&bytes, number).iter().map(|row| row + 8 + at).collect();
            assert!(
                places.iter().all(|place| bytes[*place] == parent.as_bytes()[at]),
                "{parent}"
            );
            for bit in [1, 2, 0x80] {
                let what = format!("the parent of row {number}, byte {at}");
                reader.seen(&places, parent.as_bytes()[at] ^ bit, &what);
            }
        }
    }
}

#[test]
fn a_wrong_byte_in_any_entry_of_the_index_is_seen_and_deletes_nothing() {
    let reader = Reader(Exchanged::new());
    let bytes = reader.0.stage.world.snapshot_db.clone();
    for number in ROWS.skip(1) {
        let parent = (number - 1).min(5);
        let entry = [
            &[parent, 0, number][..],
            format!("default/{number}/key-{number}").as_bytes(),
        ]
        .concat();
        let entries = places_of(&bytes, &entry);
        for (at, byte) in entry.iter().enumerate() {
            let places: Vec<_> = entries.iter().map(|entry| entry + at).collect();
            for bit in [1, 2, 0x80] {
                reader.seen(&places, byte ^ bit, &format!("the entry of {number}, byte {at}"));
            }
        }
    }
}
