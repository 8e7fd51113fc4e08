//! Random edits, decided by a seed, and what a file should hold after them.

use suture::remedy::bbolt_editor::Edit;

use crate::bbolt_file::{Item, Tree};

/// Numbers that only the seed decides (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 to below `sides`.
    pub(crate) fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(sides).unwrap()).unwrap()
    }

    pub(crate) fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.below(40) {
            0 => self.below(20_000),
            1..4 => self.below(2000),
            _ => self.below(90),
        };
        let fill = u8::try_from(self.below(256)).unwrap();
        vec![fill; length]
    }
}

/// How many times as many cases the longer lane of the tests has (`cargo xtask test --long`).
pub(crate) fn times() -> u64 {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        10
    } else {
        1
    }
}

type Path = Vec<Vec<u8>>;

fn buckets(tree: &Tree, path: &Path, found: &mut Vec<(Path, Vec<Vec<u8>>)>) {
    let mut values = Vec::new();
    for (key, item) in &tree.items {
        match item {
            Item::Bytes(_) => values.push(key.clone()),
            Item::Bucket(inner) => {
                let below = path.iter().chain([key]).cloned().collect();
                buckets(inner, &below, found);
            }
        }
    }
    if !path.is_empty() {
        found.push((path.clone(), values));
    }
}

/// Edits of a tree that are allowed.
pub(crate) fn edits(tree: &Tree, dice: &mut Dice) -> Vec<Edit> {
    let mut places = Vec::new();
    buckets(tree, &Vec::new(), &mut places);
    let mut edits = Vec::new();
    for _ in 0..=dice.below(4) {
        let Some((bucket, keys)) = dice.pick(&places).cloned() else {
            return edits;
        };
        if dice.one_in(6) {
            edits.push(Edit::SetSequence {
                bucket: bucket.clone(),
                sequence: dice.roll(),
            });
        }
        // All of a bucket, much of it, or a few.
        let (share, new) = match dice.below(6) {
            0 => (1, 0),
            1 => (2, dice.below(400)),
            _ => (1 + keys.len() / 4, dice.below(12)),
        };
        let touched: Vec<_> = keys.iter().filter(|_| dice.one_in(share)).cloned().collect();
        let deletes = dice.below(3);
        for key in touched {
            let bucket = bucket.clone();
            edits.push(if dice.below(3) >= deletes {
                let value = dice.value();
                Edit::Put { bucket, key, value }
            } else {
                Edit::Delete { bucket, key }
            });
        }
        for _ in 0..new {
            edits.push(Edit::Put {
                bucket: bucket.clone(),
                key: format!("key-{}", dice.below(2000)).into_bytes(),
                value: dice.value(),
            });
        }
    }
    edits
}

/// What edits make of a tree.
pub(crate) fn expect(tree: &Tree, edits: &[Edit]) -> Tree {
    let mut tree = tree.clone();
    for edit in edits {
        let (Edit::Put { bucket, .. } | Edit::Delete { bucket, .. } | Edit::SetSequence { bucket, .. }) =
            edit;
        let mut place = &mut tree;
        for name in bucket {
            let Some(Item::Bucket(inner)) = place.items.get_mut(name) else {
                panic!("no such bucket")
            };
            place = inner;
        }
        match edit {
            Edit::Put { key, value, .. } => place.put(key, value),
            Edit::Delete { key, .. } => drop(place.items.remove(key)),
            Edit::SetSequence { sequence, .. } => place.sequence = *sequence,
        }
    }
    tree
}
