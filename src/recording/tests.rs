use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    brain::{Brain, Input, Report, Rules},
    decide::Policy,
    model::{
        Observation, PoolDb, SnapshotDb, ThinId, Timestamp, World,
        observation::LossKind,
        sense::{Quality, Sense, SenseKind},
    },
    observe::{bbolt::Database, pages::DatabasePages},
    testing::*,
};

fn brain() -> Brain {
    let rules = Rules {
        policy: Policy {
            act: false,
            grace: Duration::from_secs(2),
        },
        ledger: false,
        verbose: true,
    };
    Brain::new(pool(), rules, at(0))
}

pub(super) fn header() -> Header {
    Header {
        suture: "0.1.0".to_owned(),
        pool: pool(),
        boot: "this boot".to_owned(),
        kernel: "6.1.0".to_owned(),
        began: at(0),
    }
}

/// A world whose databases are containerd's own files.
fn real_world(second: u64) -> (World, DatabasePages) {
    let name = Path::new("fixture");
    let pool = Database::keeping(include_bytes!("../../tests/fixtures/pool.db").to_vec());
    let snapshots = Database::keeping(include_bytes!("../../tests/fixtures/metadata.db").to_vec());
    let world = World {
        pool_db: PoolDb::read_from(&pool, name).unwrap(),
        snapshots: SnapshotDb::read_from(&snapshots, name).unwrap(),
        ..world(second)
    };
    let pages = DatabasePages {
        pool_db: pool.into_kept(),
        snapshots: Some(snapshots.into_kept()),
    };
    (world, pages)
}

/// A writer and what was written to it, in order.
struct Story {
    writer: Writer<Vec<u8>>,
    brain: Brain,
    steps: Vec<Step>,
    told: Vec<(Timestamp, Report)>,
}

impl Story {
    fn begin() -> Self {
        let brain = brain();
        Self {
            writer: Writer::begin(Vec::new(), &header(), &brain).unwrap(),
            steps: vec![Step::Brain(Box::new(brain.clone()))],
            told: Vec::new(),
            brain,
        }
    }

    fn tell(&mut self, outputs: Vec<crate::brain::Output>) {
        self.told
            .extend(outputs.into_iter().filter_map(crate::brain::Output::untraced));
    }

    fn take(&mut self, input: Input) {
        self.writer.input(&input).unwrap();
        let outputs = self.brain.take(&input);
        self.tell(outputs);
        self.steps.push(Step::Input(Box::new(input)));
    }

    fn see(&mut self, observation: Observation) {
        self.take(Input::Observed { observation });
    }

    fn look(&mut self, second: u64, fill: impl FnOnce(World) -> World) {
        let (world, pages) = real_world(second);
        let world = fill(world);
        self.writer.world(&world, pages.clone()).unwrap();
        self.writer.judged(at(second)).unwrap();
        let outputs = self.brain.world(&world);
        self.tell(outputs);
        let outputs = self.brain.judge(&world, at(second));
        self.tell(outputs);
        self.steps.push(Step::World(Box::new(world)));
        self.steps.push(Step::Judge { at: at(second) });
    }

    fn end(self) -> (Vec<u8>, Vec<Step>, Vec<(Timestamp, Report)>) {
        (self.writer.end(false).unwrap(), self.steps, self.told)
    }
}

/// Two looks with something of everything between them.
fn story() -> Story {
    let mut story = Story::begin();
    story.take(Input::Senses {
        at: at(1),
        senses: vec![Sense {
            sense: SenseKind::Holder,
            quality: Quality::Full,
            means: "flock".to_owned(),
            why: Vec::new(),
        }],
    });
    story.see(up(1));
    story.take(Input::HoldersKnown { at: at(2) });
    story.look(3, |world| world.thin(1).thin(2).node("tp-snap-1", 1));
    story.see(message(4, "create_snap 7 1", 0, by_containerd()));
    story.see(load(5, "tp-snap-7", 7, by_containerd()));
    story.see(message(6, "delete\x1b 3", -22, by_hand()));
    story.writer.flush().unwrap();
    story.see(lost(7, LossKind::BlockRingFull));
    story.take(Input::Unreadable {
        at: at(8),
        why: Some("no pool".to_owned()),
    });
    story.see(gone(9));
    story.look(10, |world| world.thin(1).thin(7).node("tp-snap-1", 1));
    story
}

/// Everything that can be read, and how the reading ended.
fn read(bytes: &[u8]) -> Result<(Vec<Step>, Option<Damage>), NotARecording> {
    let mut reader = Reader::open(bytes)?;
    let mut steps = Vec::new();
    loop {
        match reader.step() {
            Ok(Some(step)) => steps.push(step),
            Ok(None) => return Ok((steps, None)),
            Err(damage) => return Ok((steps, Some(damage))),
        }
    }
}

fn replayed(bytes: &[u8], options: ReplayOptions) -> Vec<(Timestamp, Report)> {
    let mut told = Vec::new();
    let tell = |at, report: &Report| {
        told.push((at, report.clone()));
        Ok(())
    };
    replay(Reader::open(bytes).unwrap(), options, tell).unwrap();
    told
}

#[test]
fn what_is_written_is_read_and_a_replay_tells_what_was_told_live() {
    let (bytes, steps, told) = story().end();
    let (read, damage) = read(&bytes).unwrap();
    assert!(damage.is_none(), "{damage:?}");
    assert_eq!(read, steps);
    let again = replayed(&bytes, ReplayOptions::default());
    assert!(told.len() > 8, "{told:?}");
    assert_eq!(again[1..again.len() - 1], told);
    assert_eq!(again, replayed(&bytes, ReplayOptions::default()));
    let end = Report::Replayed {
        entries: u64::try_from(steps.len()).unwrap(),
        damage: None,
    };
    assert_eq!(again.last().unwrap().1, end);
}

/// Whatever is cut off, what is read is the beginning of what was written, and that the rest is missing is said.
#[test]
fn a_recording_cut_anywhere_reads_up_to_the_cut_and_says_so() {
    let (bytes, ..) = story().end();
    let (whole, _) = read(&bytes).unwrap();
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Err(refused) => assert!(length < 400, "{length}: {refused}"),
            Ok((steps, damage)) => {
                assert!(damage.is_some(), "{length}");
                assert_eq!(steps, whole[..steps.len()], "{length}");
            }
        }
    }
}

#[test]
fn a_recording_with_any_byte_changed_never_reads_wrong() {
    let (bytes, ..) = story().end();
    let (whole, _) = read(&bytes).unwrap();
    for place in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= change;
            if let Ok((steps, damage)) = read(&damaged) {
                assert!(damage.is_some(), "{place}");
                assert_eq!(steps, whole[..steps.len()], "{place}");
            }
        }
    }
}

#[test]
fn what_comes_after_the_end_mark_is_damage_and_blocks_keep_their_order() {
    let (mut bytes, ..) = story().end();
    bytes.push(0);
    let (_, damage) = read(&bytes).unwrap();
    assert!(damage.unwrap().to_string().contains("after the end mark"));

    let one = Story::begin().end().0;
    let another = story().end().0;
    // The first block of one, and what follows it in the other: the third block follows the first.
    let first =
        MAGIC.len() + 4 + 16 + usize::try_from(u32::from_le_bytes(one[20..24].try_into().unwrap())).unwrap();
    let second = first
        + 16
        + usize::try_from(u32::from_le_bytes(
            another[first + 8..first + 12].try_into().unwrap(),
        ))
        .unwrap();
    let spliced = [&another[..first], &another[second..]].concat();
    let (steps, damage) = read(&spliced).unwrap();
    assert_eq!(steps, []);
    assert!(damage.unwrap().to_string().contains("another number"));
}

#[test]
fn a_future_version_is_refused_with_both_versions() {
    let (mut bytes, ..) = story().end();
    bytes[MAGIC.len()] = 9;
    let refused = Reader::open(bytes.as_slice()).unwrap_err().to_string();
    assert!(
        refused.contains("version 9") && refused.contains("version 1"),
        "{refused}"
    );
    for nothing in [&b""[..], b"suture", b"SQLite format 3\0 and more of it"] {
        assert!(matches!(Reader::open(nothing), Err(NotARecording::Magic)));
    }
}

proptest! {
    /// Whatever follows a good beginning, even under good checksums, is answered without a panic and within bounds.
    #[test]
    fn hostile_records_are_damage(records in proptest::collection::vec((prop_oneof![Just(b'J'), Just(b'P'), any::<u8>()], any::<Option<u32>>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..5)) {
        let mut writer = Writer::begin(Vec::new(), &header(), &brain()).unwrap();
        for (kind, length, bytes) in &records {
            let length = length.unwrap_or_else(|| u32::try_from(bytes.len()).unwrap());
            writer.blocks.push(&[*kind]).unwrap();
            writer.blocks.push(&length.to_le_bytes()).unwrap();
            writer.blocks.push(bytes).unwrap();
        }
        writer.flush().unwrap();
        let bytes = writer.blocks.into_output();
        let (steps, damage) = read(&bytes).unwrap();
        prop_assert_eq!(steps.len(), 1);
        prop_assert!(damage.is_some());
    }

    /// Runs of pages that nobody wrote, with any number and any bytes.
    #[test]
    fn hostile_pages_are_damage_and_cost_nothing(runs in proptest::collection::vec((any::<bool>(), prop_oneof![0..8_u64, any::<u64>()], 0..4096_usize, any::<u32>()), 0..6)) {
        let (world, mut pages) = real_world(1);
        let size = pages.pool_db.page_size();
        let mut pool = pages.pool_db.clone().into_runs();
        for (whole, page, length, overflow) in runs {
            let mut bytes = pool.get(&page).filter(|_| whole).cloned().unwrap_or_default();
            bytes.resize(length.max(16), 0);
            bytes[..8].copy_from_slice(&page.to_le_bytes());
            bytes[12..16].copy_from_slice(&overflow.to_le_bytes());
            pool.insert(page, bytes);
        }
        pages.pool_db = crate::observe::bbolt::Pages::new(size, pool);
        let mut writer = Writer::begin(Vec::new(), &header(), &brain()).unwrap();
        writer.world(&world, pages.clone()).unwrap();
        let (steps, damage) = read(&writer.end(false).unwrap()).unwrap();
        match steps.get(1) {
            Some(Step::World(read)) => prop_assert_eq!(&**read, &world),
            other => prop_assert!(other.is_none() && damage.is_some()),
        }
    }
}

#[test]
fn maps_are_told_by_what_changed_or_whole_whichever_is_less() {
    let thin = |ids: &[u32]| ids.iter().fold(world(1), |world, id| world.thin(*id));
    let mut writer = Writer::begin(Vec::new(), &header(), &brain()).unwrap();
    let (real, pages) = real_world(1);
    let worlds: Vec<World> = [
        &[1, 2, 3, 4][..],
        &[1, 2, 3, 4],
        &[1, 3, 4, 5],
        &[],
        &[9],
        &[1, 2, 9],
    ]
    .iter()
    .map(|ids| World {
        pool_db: real.pool_db.clone(),
        snapshots: real.snapshots.clone(),
        ..thin(ids)
    })
    .collect();
    for world in &worlds {
        writer.world(world, pages.clone()).unwrap();
    }
    let (steps, damage) = read(&writer.end(true).unwrap()).unwrap();
    assert!(damage.is_none());
    let back: Vec<&World> = steps
        .iter()
        .filter_map(|step| match step {
            Step::World(world) => Some(&**world),
            _ => None,
        })
        .collect();
    assert_eq!(back, worlds.iter().collect::<Vec<_>>());
    assert!(back[2].thin.contains_key(&ThinId(5)));
}
