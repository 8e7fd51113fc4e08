//! Every page of a real file, damaged in turn: the writer refuses and says where, or bbolt accepts what it wrote.

use suture::observe::bbolt::BboltError;
use suture::remedy::bbolt_editor::{EditError, Editor};

use crate::dice::{Dice, edits, expect, times};
use crate::disk::{Disk, read};
use crate::peer::{self, Options};

/// What is done to a page.
const DAMAGES: [&str; 5] = [
    "zeros",
    "ones",
    "another page",
    "a bit of its header",
    "a bit of its elements",
];

fn damage(bytes: &mut [u8], page: usize, page_size: usize, kind: &str, dice: &mut Dice) {
    let begin = page * page_size;
    let other = dice.below(bytes.len() / page_size) * page_size;
    let flip = |bytes: &mut [u8], at: usize, bit: usize| bytes[begin + at] ^= 1 << bit;
    match kind {
        "zeros" => bytes[begin..begin + page_size].fill(0),
        "ones" => bytes[begin..begin + page_size].fill(0xff),
        "another page" => bytes.copy_within(other..other + page_size, begin),
        "a bit of its header" => flip(bytes, dice.below(16), dice.below(8)),
        _ => flip(bytes, 16 + dice.below(96), dice.below(8)),
    }
}

/// How many pages the newer transaction counts: bbolt makes a file longer than that.
fn high_water(bytes: &[u8]) -> usize {
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let newer = [0, 1024]
        .into_iter()
        .max_by_key(|page| long(page + 16 + 48))
        .unwrap();
    usize::try_from(long(newer + 16 + 40)).unwrap()
}

#[test]
fn a_damaged_page_is_refused_or_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (mut refused, mut accepted) = (0, 0);
    for seed in 0..4 * times() {
        println!("seed {seed}");
        let file = folder.path().join(format!("{seed}.db"));
        let options = Options {
            page_size: 1024,
            freelist: seed % 2 == 0,
        };
        peer::random(&file, 1000 + seed, 9, options);
        let sound = std::fs::read(&file).unwrap();
        let mut dice = Dice(seed);
        let pages = high_water(&sound);
        println!("{pages} pages");
        for (page, kind) in (0..pages).flat_map(|page| DAMAGES.map(|kind| (page, kind))) {
            let about = format!("seed {seed}, page {page}, {kind}");
            let mut bytes = sound.clone();
            damage(&mut bytes, page, 1024, kind, &mut dice);
            let disk = Disk::new(bytes.clone());
            match Editor::on(disk.clone()) {
                Err(EditError::Read(error)) => {
                    assert!(
                        matches!(error, BboltError::Damaged { .. } | BboltError::NoMeta { .. }),
                        "{about}: {error}"
                    );
                    let said = error.to_string();
                    assert!(
                        said.contains("pool.db") && said.contains("page "),
                        "{about}: {said}"
                    );
                    assert!(disk.steps().is_empty() && disk.bytes() == bytes);
                    refused += 1;
                }
                Err(other) => panic!("{about}: {other}"),
                Ok(mut editor) => {
                    let tree = read(&bytes).0;
                    let changes = edits(&tree, &mut dice);
                    editor
                        .commit(&changes)
                        .unwrap_or_else(|error| panic!("{about}: {error}"));
                    if disk.steps().is_empty() {
                        continue;
                    }
                    let image = folder.path().join("image.db");
                    std::fs::write(&image, disk.bytes()).unwrap();
                    if let Err(problem) = peer::check(&image) {
                        panic!("{about}: bbolt says {problem}");
                    }
                    let expected = expect(&tree, &changes);
                    assert!(peer::dump(&image).items == expected.items, "{about}");
                    accepted += 1;
                }
            }
        }
    }
    println!("{refused} refused, {accepted} accepted");
    assert!(
        refused > 100 && accepted > 100,
        "{refused} refused, {accepted} accepted"
    );
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A number of the newer transaction's meta: 16 for the root's page, 32 for the freelist's.
pub(crate) fn newer(bytes: &[u8], number: usize) -> u64 {
    let txid = |page: &usize| long(bytes, page + 16 + 48);
    long(
        bytes,
        [0, 4096].into_iter().max_by_key(txid).unwrap() + 16 + number,
    )
}

/// The list of free pages, made to name only `pages`.
pub(crate) fn relist(bytes: &mut [u8], pages: &[u64]) {
    let list = usize::try_from(newer(bytes, 32)).unwrap() * 4096;
    bytes[list + 10] = u8::try_from(pages.len()).unwrap();
    bytes[list + 16..list + 4096].fill(0);
    for (slot, page) in pages.iter().enumerate() {
        bytes[list + 16 + slot * 8..][..8].copy_from_slice(&page.to_le_bytes());
    }
}

#[test]
fn a_list_of_free_pages_is_believed_only_where_it_makes_sense() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.db");
    let options = Options {
        page_size: 4096,
        freelist: true,
    };
    peer::pool_db(&file, 500, options);
    let put = peer::Order::new("put", &["devices"], "one more").value(b"1");
    peer::apply(&file, &[put], options);
    let sound = std::fs::read(&file).unwrap();
    let root = newer(&sound, 16);
    for (pages, problem) in [
        (vec![root], "is in use"),
        (vec![1], "outside"),
        (vec![1 << 40], "outside"),
    ] {
        let mut bytes = sound.clone();
        relist(&mut bytes, &pages);
        let error = Editor::on(Disk::new(bytes)).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("page "), "{error}");
    }
    // Pages that it forgets harm nobody, and are found again.
    let mut bytes = sound;
    relist(&mut bytes, &[]);
    std::fs::write(&file, &bytes).unwrap();
    assert!(peer::check(&file).unwrap_err().contains("unreachable unfreed"));
    let tree = read(&bytes).0;
    let disk = Disk::new(bytes);
    let changes = edits(&tree, &mut Dice(1));
    Editor::on(disk.clone()).unwrap().commit(&changes).unwrap();
    std::fs::write(&file, disk.bytes()).unwrap();
    peer::check(&file).unwrap();
    assert!(peer::dump(&file).items == expect(&tree, &changes).items);
}
