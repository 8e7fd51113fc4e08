use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use super::{recorder::numbered, tests::header, *};
use crate::{
    brain::{Brain, Input, Rules},
    decide::Policy,
    testing::{at, by_containerd, message, pool, up},
};

fn brain() -> Brain {
    let rules = Rules {
        policy: Policy {
            act: false,
            grace: Duration::ZERO,
        },
        ledger: false,
        verbose: false,
    };
    Brain::new(pool(), rules, at(0))
}

fn options(folder: &tempfile::TempDir) -> RecordingOptions {
    RecordingOptions {
        file: folder.path().join("r"),
        max_bytes: 1500,
        keep: 3,
    }
}

fn steps(path: &Path) -> Vec<Step> {
    let mut reader = Reader::open(File::open(path).unwrap()).unwrap();
    std::iter::from_fn(|| reader.step().unwrap()).collect()
}

#[test]
fn files_follow_one_another_and_each_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let mut brain = brain();
    let mut recorder = Recorder::start(options.clone(), header(), &brain).unwrap();
    let mut observations = vec![up(1)];
    observations
        .extend((10..60).map(|second| message(second, &format!("create_thin {second}"), 0, by_containerd())));
    for observation in observations {
        let input = Input::Observed { observation };
        recorder.input(&brain, at(99), &input).unwrap();
        recorder.flush().unwrap();
        brain.take(&input);
    }
    recorder.end().unwrap();
    let names = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["r", "r.1", "r.2"]);
    // Each goes on where the older one ended: its beginning is what the other one's inputs lead to.
    let mut before: Option<Brain> = None;
    for number in (0..3).rev() {
        let steps = steps(&numbered(&options.file, number));
        let Some((Step::Brain(began), rest)) = steps.split_first() else {
            panic!("no beginning in {steps:?}")
        };
        if let Some(before) = &before {
            assert_eq!(**began, *before);
        }
        let mut now = (**began).clone();
        for step in rest {
            let Step::Input(input) = step else {
                panic!("{step:?}")
            };
            now.take(input);
        }
        before = Some(now);
    }
    assert_eq!(before, Some(brain));
}

#[test]
fn what_suture_did_not_write_is_neither_moved_nor_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    fs::write(&options.file, "somebody's").unwrap();
    let refused = Recorder::start(options.clone(), header(), &brain()).unwrap_err();
    assert!(matches!(refused, RecordError::InTheWay { .. }), "{refused}");
    assert_eq!(fs::read(&options.file).unwrap(), b"somebody's");

    fs::remove_file(&options.file).unwrap();
    for _ in 0..2 {
        Recorder::start(options.clone(), header(), &brain())
            .unwrap()
            .end()
            .unwrap();
    }
    fs::write(numbered(&options.file, 2), "somebody's").unwrap();
    let refused = Recorder::start(options.clone(), header(), &brain()).unwrap_err();
    assert!(refused.to_string().contains("r.2"), "{refused}");
    assert_eq!(steps(&options.file).len(), 1);
}

#[test]
fn a_new_recording_keeps_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    for began in 1..=5 {
        let header = Header {
            began: at(began),
            ..header()
        };
        Recorder::start(options.clone(), header, &brain())
            .unwrap()
            .end()
            .unwrap();
    }
    let began = |number| {
        let file = File::open(numbered(&options.file, number)).unwrap();
        Reader::open(file).unwrap().header().began
    };
    assert_eq!([began(0), began(1), began(2)], [at(5), at(4), at(3)]);
    assert!(!numbered(&options.file, 3).exists());
}
