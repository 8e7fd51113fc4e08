//! The recordings of real breaks: what the sagas tell of them.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    brain::{Brain, Input},
    correlate::Remains,
    model::{SagaState, Window, World},
    recording::{Reader, Step},
};

macro_rules! recordings {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/", $name, ".suture")))),*]
    };
}

/// They are in the program: this room reads no files, not even in its tests.
const RECORDINGS: &[(&str, &[u8])] = recordings![
    "leaked-thin",
    "killed-in-mkfs",
    "killed-in-commit",
    "power-cut",
    "databases-gone",
    "data-device-fails",
    "metadata-device-fails",
    "bad-spot",
];

/// The brain at the end of a recording, what failed on the way, and the last world.
fn end_of(name: &str) -> (Brain, BTreeSet<String>, Option<World>) {
    let (_, bytes) = RECORDINGS.iter().find(|(known, _)| *known == name).unwrap();
    let mut reader = Reader::open(*bytes).unwrap();
    let mut brain: Option<Brain> = None;
    let mut failures = BTreeSet::new();
    let mut last = None;
    while let Some(step) = reader.step().unwrap() {
        match (step, &mut brain) {
            (Step::Brain(first), _) => brain = Some(*first),
            (Step::Input(input), Some(brain)) => {
                brain.take(&input);
                if let Input::Observed { observation } = &*input {
                    let all = brain.correlator().sagas().failures().standing(observation.at());
                    failures.extend(all.map(|one| format!("{:?}: {}", one.kind, one.error)));
                }
            }
            (Step::World(world), Some(brain)) => {
                brain.world(&world);
                last = Some(*world);
            }
            (Step::Judge { .. } | Step::Input(_) | Step::World(_), _) => {}
        }
    }
    (brain.unwrap(), failures, last)
}

fn told(brain: &Brain) -> Vec<String> {
    let all = brain.correlator().sagas().all();
    all.map(|saga| {
        let device = saga.device.as_deref().unwrap_or("?");
        let kinds: Vec<String> = saga.kinds.iter().map(ToString::to_string).collect();
        let state = match &saga.state {
            SagaState::Running => format!("stands at {}", saga.stands_at),
            SagaState::Completed { .. } => "completed".to_owned(),
            SagaState::RolledBack { .. } => "rolled back".to_owned(),
            SagaState::Failed { error, .. } => format!("failed: {error}"),
            SagaState::Died { windows, settled, .. } => format!("died in {windows}, settled: {settled}"),
        };
        format!("{device}: {}: {state}", kinds.join("/"))
    })
    .collect()
}

/// The kills are where tests/recordings/README.md says: right after the dm device was made, in `mkfs`, and in the commit
/// after `create_thin`. Of the power cut and of the bad spot no operation was seen.
const EXPECTED: &str = "
leaked-thin
  tp-snap-1: making a snapshot without a parent: completed
  tp-snap-2: making a snapshot without a parent: died in B6, settled: true
  tp-snap-2: making a snapshot without a parent: rolled back
  tp-snap-2: making a snapshot without a parent: completed

killed-in-mkfs
  tp-snap-1: making a snapshot without a parent: completed
  tp-snap-2: making a snapshot without a parent: died in B7 or B8 or B9, settled: true

killed-in-commit
  tp-snap-1: making a snapshot without a parent: completed
  tp-snap-2: making a snapshot without a parent: died in B3, settled: true
  tp-snap-2: making a snapshot without a parent: completed

power-cut

databases-gone
  tp-snap-1: making a snapshot without a parent: failed: file exists

data-device-fails
  tp-snap-1: making a snapshot without a parent: completed
  tp-snap-2: making a snapshot without a parent: rolled back

metadata-device-fails
  tp-snap-1: making a snapshot without a parent: completed
  tp-snap-2: making a snapshot without a parent: failed: operation not supported
  PoolRefuses: EOPNOTSUPP

bad-spot
";

#[test]
fn each_recorded_break_is_told_by_its_window() {
    let mut all = String::new();
    for (name, _) in RECORDINGS {
        let (brain, failures, _) = end_of(name);
        writeln!(all, "\n{name}").unwrap();
        for line in told(&brain).into_iter().chain(failures) {
            writeln!(all, "  {line}").unwrap();
        }
    }
    assert_eq!(all, EXPECTED, "{all}");
}

#[test]
fn what_a_power_cut_left_tells_its_window_without_any_event() {
    let (_, _, world) = end_of("power-cut");
    let remains = Remains::in_world(&world.unwrap(), "tp-snap-2").unwrap();
    let windows = remains.windows();
    assert!(windows.contains(&Window::B8), "{windows:?}");
    let wedges = windows
        .iter()
        .all(|one| one.forecast().containerd.contains("for ever") || one.name().starts_with('S'));
    assert!(wedges && !windows.contains(&Window::B6), "{windows:?}");
}
