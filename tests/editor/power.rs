//! The power is cut, or the disk refuses, at any point of a commit and of an undo.

use suture::model::TxId;
use suture::remedy::bbolt_editor::{EditError, Editor};

use crate::bbolt_file::{Tree, fnv1a};
use crate::dice::{Dice, edits, expect, times};
use crate::disk::{Disk, power_cuts, read};
use crate::peer::{self, Options};

/// A file with a random history, its bytes and what is in it.
fn file(folder: &std::path::Path, seed: u64, options: Options) -> (Vec<u8>, Tree) {
    let file = folder.join(format!("{seed}.db"));
    peer::random(&file, seed, 12, options);
    let bytes = std::fs::read(&file).unwrap();
    let (tree, _) = read(&bytes);
    (bytes, tree)
}

/// What a power cut left is the one or the other, to our reader, to our writer and to bbolt.
fn either(image: &[u8], before: (&Tree, u64), after: (&Tree, u64), ask: Option<&std::path::Path>) {
    let (found, txid) = read(image);
    let expected = match txid {
        txid if txid == before.1 => before.0,
        txid if txid == after.1 => after.0,
        other => panic!("transaction {other}"),
    };
    assert!(found == *expected, "transaction {txid} holds something else");
    let editor = Editor::on(Disk::new(image.to_vec())).unwrap();
    assert_eq!(editor.txid(), TxId(txid));
    // Before 1.3.7 bbolt looks for the page size on the first page only, and else takes the system's.
    let found_by_bbolt = image[8 + 16..][..4] == 4096_u32.to_le_bytes() || is_sealed(&image[16..80]);
    if let Some(path) = ask.filter(|_| found_by_bbolt) {
        std::fs::write(path, image).unwrap();
        peer::check(path).unwrap();
        assert!(peer::dump(path).items == expected.items);
    }
}

fn is_sealed(meta: &[u8]) -> bool {
    fnv1a(&meta[..56]).to_le_bytes() == meta[56..]
}

#[test]
fn a_power_cut_at_any_byte_leaves_the_old_or_the_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut asked = 0;
    for seed in 0..8 * times() {
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let options = Options {
            page_size: [1024, 4096][dice.below(2)],
            freelist: !dice.one_in(3),
        };
        let (bytes, before) = file(folder.path(), seed, options);
        let disk = Disk::new(bytes.clone());
        let mut editor = Editor::on(disk.clone()).unwrap();
        let old = editor.txid();
        let changes = edits(&before, &mut dice);
        let after = expect(&before, &changes);
        let new = editor.commit(&changes).unwrap();
        let committed = disk.steps().len();
        let undone = (new != old).then(|| editor.undo(new).unwrap());
        let steps = disk.steps();
        let image = folder.path().join("image.db");
        let mut ask = || {
            asked += 1;
            (asked % 8 == 0).then_some(image.as_path())
        };
        let (commit, undo) = steps.split_at(committed);
        let cuts = power_cuts(&bytes, commit, &mut dice);
        for cut in &cuts {
            either(cut, (&before, old.0), (&after, new.0), ask());
        }
        let whole = cuts.last().unwrap();
        assert_eq!(read(whole), (after.clone(), new.0));
        if let Some(undone) = undone {
            let cuts = power_cuts(whole, undo, &mut dice);
            for cut in &cuts {
                either(cut, (&after, new.0), (&before, undone.0), ask());
            }
            assert_eq!(read(cuts.last().unwrap()), (before, undone.0));
            assert_eq!(*cuts.last().unwrap(), disk.bytes());
        }
    }
    assert!(asked > 300, "{asked}");
}

#[test]
fn what_a_power_cut_left_can_be_edited_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(77);
    let options = Options {
        page_size: 4096,
        freelist: true,
    };
    let (mut bytes, mut tree) = file(folder.path(), 77, options);
    for round in 0..30 {
        let disk = Disk::new(bytes.clone());
        let mut editor = Editor::on(disk.clone()).unwrap();
        editor.commit(&edits(&tree, &mut dice)).unwrap();
        let cuts = power_cuts(&bytes, &disk.steps(), &mut dice);
        bytes = dice.pick(&cuts).unwrap().clone();
        tree = read(&bytes).0;
        let path = folder.path().join("now.db");
        std::fs::write(&path, &bytes).unwrap();
        peer::check(&path).unwrap_or_else(|problem| panic!("round {round}: {problem}"));
    }
}

#[test]
fn a_disk_that_refuses_leaves_the_old_contents_and_says_when_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        page_size: 1024,
        freelist: true,
    };
    let (bytes, before) = file(folder.path(), 5, options);
    let mut dice = Dice(5);
    let changes = edits(&before, &mut dice);
    let after = expect(&before, &changes);
    let disk = Disk::new(bytes.clone());
    Editor::on(disk.clone()).unwrap().commit(&changes).unwrap();
    let steps = disk.steps().len();
    assert!(steps >= 4);
    for fails_after in 0..steps {
        let disk = Disk::new(bytes.clone());
        let mut editor = Editor::on(disk.clone()).unwrap();
        let txid = editor.txid();
        disk.fail_after(fails_after);
        let error = editor.commit(&changes).unwrap_err();
        let found = read(&disk.bytes()).0;
        if fails_after < steps - 2 {
            assert!(matches!(error, EditError::Io { .. }), "{error}");
            assert!(found == before);
            // A full disk that has room again.
            disk.fail_after(1000);
            assert_eq!(editor.commit(&changes).unwrap(), TxId(txid.0 + 1));
            assert!(read(&disk.bytes()).0 == after);
        } else {
            assert!(matches!(error, EditError::Unknown { .. }), "{error}");
            assert!(found == before || found == after);
            disk.fail_after(1000);
            let again = editor.commit(&changes).unwrap_err();
            assert!(matches!(again, EditError::Stale { .. }), "{again}");
        }
    }
}
