//! bbolt and our writer take turns on the same file.

use std::path::Path;

use suture::model::TxId;
use suture::observe::bbolt::Database;
use suture::remedy::bbolt_editor::{Edit, Editor};

use crate::bbolt_file::{Tree, dump_all};
use crate::dice::{Dice, edits, expect, times};
use crate::peer::{self, Options, Order};

fn read(file: &Path) -> Tree {
    let database = Database::open(file).unwrap().with_free_list();
    database.snapshot(dump_all).unwrap().0
}

/// Our reader, bbolt and the model agree, and bbolt finds nothing wrong.
fn agree(file: &Path, expected: &Tree, about: &str) {
    if let Err(problem) = peer::check(file) {
        panic!("{about}: {problem}");
    }
    assert!(
        peer::dump(file).items == expected.items,
        "{about}: bbolt reads something else"
    );
    assert!(
        read(file).items == expected.items,
        "{about}: our reader reads something else"
    );
}

#[test]
fn bbolt_and_our_writer_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let (mut commits, mut undone) = (0, 0);
    for seed in 0..12 * times() {
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let options = Options {
            page_size: [1024, 4096, 16384, 65536][usize::try_from(seed % 4).unwrap()],
            freelist: seed % 3 != 0,
        };
        let file = folder.path().join(format!("{seed}.db"));
        for turn in 0..5 {
            let about = format!("seed {seed}, turn {turn}, {options:?}");
            // Now and then bbolt begins to write the list of free pages down, or stops to.
            let options = Options {
                freelist: options.freelist != dice.one_in(6),
                ..options
            };
            peer::random(&file, dice.roll(), 10, options);
            let mut tree = read(&file);
            agree(&file, &tree, &about);
            let mut editor = if dice.one_in(2) {
                Editor::look(&file).unwrap().lock().unwrap()
            } else {
                Editor::open(&file).unwrap()
            };
            for part in 0..2 {
                let about = format!("{about}, part {part}");
                let changes = edits(&tree, &mut dice);
                let backup = folder.path().join("backup.db");
                editor.backup(&backup).unwrap();
                let before = editor.txid();
                let after = editor.commit(&changes).unwrap();
                let expected = expect(&tree, &changes);
                assert_eq!(after == before, expected == tree, "{about}");
                if after != before && dice.one_in(4) {
                    assert!(editor.holds_before(after, &backup).unwrap(), "{about}");
                    assert_eq!(editor.undo(after).unwrap(), TxId(after.0 + 1));
                    undone += 1;
                } else {
                    tree = expected;
                    commits += 1;
                }
                std::fs::remove_file(&backup).unwrap();
                assert!(read(&file) == tree, "{about}");
            }
            drop(editor);
            agree(&file, &tree, &format!("{about}, edited"));
        }
    }
    assert!(commits > 50 && undone > 10, "{commits} commits, {undone} undone");
}

/// Whether the list of free pages is of the kind whose count does not fit into its page's header.
fn counts_inside(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap();
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let newer = [0, 1024]
        .into_iter()
        .max_by_key(|page| long(page + 16 + 48))
        .unwrap();
    let list = usize::try_from(long(newer + 16 + 32)).unwrap() * 1024;
    bytes[list + 10..list + 12] == [0xff, 0xff]
}

#[test]
fn a_list_of_more_free_pages_than_a_header_can_count() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.db");
    let options = Options {
        page_size: 1024,
        freelist: true,
    };
    let orders = [
        Order::new("create", &["kept"], ""),
        Order::new("create", &["heap"], ""),
        Order::new("put", &["heap"], "large").zeros(70 << 20),
    ];
    peer::apply(&file, &orders, options);
    peer::apply(&file, &[Order::new("delete", &["heap"], "large")], options);
    let mut tree = read(&file);
    for round in 0..2 {
        let mut editor = Editor::open(&file).unwrap();
        let put = |key: &[u8], value| Edit::Put {
            bucket: vec![b"kept".to_vec()],
            key: key.to_vec(),
            value,
        };
        // The second takes so many that a header can count the rest.
        let large = if round == 0 { 5 } else { 16 << 20 };
        let changes = [put(b"small", vec![round; 9]), put(b"large", vec![round; large])];
        assert!(counts_inside(&file), "round {round}");
        editor.commit(&changes).unwrap();
        assert_eq!(counts_inside(&file), round == 0);
        tree = expect(&tree, &changes);
        drop(editor);
        agree(&file, &tree, &format!("round {round}"));
        if round == 0 {
            let put = Order::new("put", &["heap"], "z").value(b"z");
            peer::apply(&file, &[put], options);
            tree = read(&file);
        }
    }
}

#[test]
fn a_bucket_that_outgrows_its_place_in_the_parent_gets_pages_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.db");
    let options = Options {
        page_size: 4096,
        freelist: true,
    };
    let mut tree = peer::pool_db(&file, 2, options);
    let record = |id: u32| Edit::Put {
        bucket: vec![b"devices".to_vec()],
        key: format!("pool-snap-{id}").into_bytes(),
        value: vec![b'x'; 100],
    };
    let sequence = Edit::SetSequence {
        bucket: vec![b"devices".to_vec()],
        sequence: 99,
    };
    // Inline, a leaf page, branch pages, and back to nothing.
    let steps: [Vec<Edit>; 5] = [
        vec![record(3), sequence],
        (3..30).map(record).collect(),
        (1..3000).map(record).collect(),
        (1..3000)
            .filter(|id| id % 50 != 0)
            .map(|id| Edit::Delete {
                bucket: vec![b"devices".to_vec()],
                key: format!("pool-snap-{id}").into_bytes(),
            })
            .collect(),
        (1..3000)
            .map(|id| Edit::Delete {
                bucket: vec![b"devices".to_vec()],
                key: format!("pool-snap-{id}").into_bytes(),
            })
            .collect(),
    ];
    for (step, changes) in steps.iter().enumerate() {
        let mut editor = Editor::open(&file).unwrap();
        editor.commit(changes).unwrap();
        drop(editor);
        tree = expect(&tree, changes);
        agree(&file, &tree, &format!("step {step}"));
    }
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size < 2 << 20, "{size} bytes for what was never more than 400 KB");
}
