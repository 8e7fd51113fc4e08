//! What is in flight, and what stands still.

use std::time::Duration;

use super::*;
use crate::{
    diagnose::{Settled, Settling},
    model::{FindingId, Incarnation, Timestamp},
    testing::at,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn wedge() -> Stage {
    stage().sequence(4).thin(7).record(5, 7, Activated).running()
}

fn later() -> Incarnation {
    Incarnation {
        pid: 501,
        ..testing::containerd()
    }
}

fn at_work(stage: Stage, programs: &[&str]) -> Stage {
    let programs: Vec<_> = programs.iter().map(ToString::to_string).collect();
    stage.with(|survey| match &mut survey.containerd {
        ContainerdState::Running { at_work, .. } | ContainerdState::Stopped { at_work } => {
            *at_work = programs;
        }
        ContainerdState::Unknown { .. } => {}
    })
}

impl Stage {
    fn look(&self, settling: &mut Settling, now: Timestamp) -> Settled {
        settling.look(&self.survey, &self.knowledge, now)
    }
}

/// Ids of what was found and of what is in flight; nothing while it is to be looked again.
fn done(settled: Settled) -> Option<(Vec<String>, Vec<String>)> {
    let ids = |all: Vec<Diagnosis>| all.into_iter().map(|one| one.finding.id.0).collect();
    match settled {
        Settled::Done(diagnoses, in_flight) => Some((ids(diagnoses.found), ids(in_flight))),
        Settled::LookAgain { .. } => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what `done` gives")]
fn found(id: &str) -> Option<(Vec<String>, Vec<String>)> {
    Some((vec![id.to_owned()], Vec::new()))
}

#[expect(clippy::unnecessary_wraps, reason = "it is what `done` gives")]
fn in_flight(id: &str) -> Option<(Vec<String>, Vec<String>)> {
    Some((Vec::new(), vec![id.to_owned()]))
}

const WEDGE: &str = "wedge/tp/tp-snap-5";

#[test]
fn what_stands_still_for_the_patience_is_a_finding_and_not_before() {
    let mut settling = Settling::new(PATIENCE);
    for second in 0..10 {
        assert_eq!(done(wedge().look(&mut settling, at(second))), None, "{second}");
    }
    assert_eq!(done(wedge().look(&mut settling, at(10))), found(WEDGE));
}

#[test]
fn what_is_never_in_flight_needs_no_second_look() {
    let foreign = stage().thin(7).id(7, IdState::Faulty).running();
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(
        done(foreign.look(&mut settling, at(0))),
        found("foreign-thin/tp/7")
    );
}

#[test]
fn what_goes_away_is_no_finding() {
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(wedge().look(&mut settling, at(0))), None);
    let finished = wedge().row(5, Active, None);
    assert_eq!(done(finished.look(&mut settling, at(1))), Some((vec![], vec![])));
    // And begins anew when it comes back.
    assert_eq!(done(wedge().look(&mut settling, at(10))), None);
}

#[test]
fn each_change_of_the_subject_begins_its_patience_anew() {
    let changes: [fn(Stage) -> Stage; 6] = [
        |one| one.error(5, "busy"),
        |one| one.record(5, 7, Deactivated),
        |one| one.node(&name(5), 7),
        |one| one.with(|survey| survey.thin.as_mut().unwrap().clear()),
        |one| one.id(7, IdState::Faulty),
        |one| one.node(&name(5), 7).but(|node| node.suspended = true),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut settling = Settling::new(PATIENCE);
        assert_eq!(done(wedge().look(&mut settling, at(0))), None);
        assert_eq!(done(change(wedge()).look(&mut settling, at(9))), None);
        assert_eq!(done(change(wedge()).look(&mut settling, at(18))), None, "{index}");
        assert_eq!(done(change(wedge()).look(&mut settling, at(19))), found(WEDGE));
    }
    // Who looks at a device has it open for a moment.
    let open = |count| wedge().node(&name(5), 7).but(|node| node.open_count = count);
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(open(0).look(&mut settling, at(0))), None);
    assert_eq!(done(open(1).look(&mut settling, at(5))), None);
    assert_eq!(done(open(0).look(&mut settling, at(10))), found(WEDGE));
}

#[test]
fn a_row_that_comes_or_goes_is_a_change() {
    let stage = || {
        stage()
            .good(2, Committed, Deactivated)
            .row(3, Committed, None)
            .id(9, IdState::Free)
            .running()
    };
    let id = "row-without-record/tp/3";
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(stage().look(&mut settling, at(0))), None);
    assert_eq!(done(stage().row(3, View, None).look(&mut settling, at(9))), None);
    assert_eq!(done(stage().row(3, View, None).look(&mut settling, at(10))), None);
    assert_eq!(
        done(stage().row(3, View, None).look(&mut settling, at(19))),
        found(id)
    );
}

#[test]
fn a_change_of_something_else_changes_nothing() {
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(wedge().look(&mut settling, at(0))), None);
    let busy = wedge()
        .good(2, Committed, Deactivated)
        .with(|survey| survey.pool_db.txid = TxId(99));
    assert_eq!(done(busy.look(&mut settling, at(10))), found(WEDGE));
}

#[test]
fn while_no_containerd_runs_and_no_program_of_one_nothing_is_in_flight() {
    let stopped = || stage().sequence(4).thin(7).record(5, 7, Activated);
    assert_eq!(
        done(stopped().look(&mut Settling::new(PATIENCE), at(0))),
        found(WEDGE)
    );
    let left = at_work(stopped(), &["mkfs.ext4 -F /dev/mapper/tp-snap-5"]);
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(left.look(&mut settling, at(0))), None);
    assert_eq!(done(left.look(&mut settling, at(10))), in_flight(WEDGE));
}

#[test]
fn what_stood_before_a_containerd_started_is_settled() {
    for before in [
        wedge(),
        wedge().with(|survey| {
            survey.containerd = ContainerdState::Stopped {
                at_work: vec!["mkfs".to_owned()],
            }
        }),
    ] {
        let after = wedge().with(|survey| {
            survey.containerd = ContainerdState::Running {
                who: later(),
                at_work: Vec::new(),
            };
        });
        let mut settling = Settling::new(PATIENCE);
        assert_eq!(done(before.look(&mut settling, at(0))), None);
        assert_eq!(done(after.look(&mut settling, at(1))), found(WEDGE));
        // Changed, it is the later one's.
        let mut settling = Settling::new(PATIENCE);
        assert_eq!(done(before.look(&mut settling, at(0))), None);
        assert_eq!(done(after.error(5, "busy").look(&mut settling, at(1))), None);
    }
}

#[test]
fn what_the_sidecar_has_open_is_settled() {
    for (id, settled) in [
        (WEDGE, true),
        ("wedge/tp/tp-snap-5/7", false),
        ("wedge/tp/tp-snap-50", false),
        ("wedge/tp/tp-snap-4", false),
    ] {
        let mut stage = wedge();
        stage.knowledge.confirmed = vec![FindingId(id.to_owned())];
        let seen = done(stage.look(&mut Settling::new(PATIENCE), at(0)));
        assert_eq!(seen, settled.then(|| found(WEDGE)).flatten(), "{id}");
    }
}

#[test]
fn what_somebody_is_at_work_on_is_in_flight() {
    for (programs, is_on) in [
        (vec!["mkfs.ext4 -E nodiscard /dev/mapper/tp-snap-5"], true),
        (vec!["mkfs.ext4 -E nodiscard /dev/mapper/tp-snap-51"], false),
        (vec!["dmsetup remove tp-snap-4", "dmsetup resume tp-snap-5"], true),
        (vec!["dmsetup message tp 0 create_snap 7 3"], true),
        (vec!["dmsetup message tp 0 delete 8"], false),
        // It does not tell on what.
        (vec!["dmsetup"], true),
    ] {
        let stage = at_work(wedge(), &programs);
        let mut settling = Settling::new(PATIENCE);
        assert_eq!(done(stage.look(&mut settling, at(0))), None);
        assert_eq!(done(stage.look(&mut settling, at(9))), None);
        let expected = if is_on { in_flight(WEDGE) } else { found(WEDGE) };
        assert_eq!(done(stage.look(&mut settling, at(10))), expected, "{programs:?}");
    }
    let mut seen = wedge();
    seen.knowledge
        .at_work
        .insert(ThinId(7), OperationId::new(at(1), ThinId(7)));
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(seen.look(&mut settling, at(0))), None);
    assert_eq!(done(seen.look(&mut settling, at(10))), in_flight(WEDGE));
    let unknown = wedge().with(|survey| {
        survey.containerd = ContainerdState::Unknown {
            why: "no right".to_owned(),
        }
    });
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(unknown.look(&mut settling, at(0))), None);
    assert_eq!(done(unknown.look(&mut settling, at(10))), in_flight(WEDGE));
}

#[test]
fn work_on_a_thin_device_is_work_on_the_dm_device_that_maps_it() {
    let orphan = |busy: u32| {
        let mut stage = stage().sequence(5).node(&name(3), 7).running();
        let operation = OperationId::new(at(0), ThinId(busy));
        stage.knowledge.at_work.insert(ThinId(busy), operation);
        stage
    };
    for (busy, expected) in [
        (7, in_flight("orphan-node/tp/tp-snap-3")),
        (8, found("orphan-node/tp/tp-snap-3")),
    ] {
        let mut settling = Settling::new(PATIENCE);
        assert_eq!(done(orphan(busy).look(&mut settling, at(0))), None);
        assert_eq!(done(orphan(busy).look(&mut settling, at(10))), expected, "{busy}");
    }
}

#[test]
fn what_was_at_work_a_moment_ago_may_go_on() {
    let mkfs = at_work(wedge(), &["mkfs.ext4 /dev/mapper/tp-snap-5"]);
    let mut settling = Settling::new(PATIENCE);
    assert_eq!(done(mkfs.look(&mut settling, at(0))), None);
    assert_eq!(done(mkfs.look(&mut settling, at(9))), None);
    assert_eq!(done(wedge().look(&mut settling, at(10))), None);
    assert_eq!(done(wedge().look(&mut settling, at(19))), found(WEDGE));
}

#[test]
fn a_load_that_never_ends_does_not_keep_the_answer_away_for_ever() {
    // A clock that runs, and one that stands.
    for speed in [1, 0] {
        let mut settling = Settling::new(PATIENCE);
        let mut now = at(100);
        let mut looks = 0;
        loop {
            let stage = wedge()
                .error(5, &looks.to_string())
                .thin(99)
                .id(99, IdState::Taken);
            match stage.look(&mut settling, now) {
                Settled::LookAgain { after } => {
                    assert!((Duration::from_millis(100)..=Duration::from_millis(500)).contains(&after));
                    now = now.plus(after * speed);
                }
                settled @ Settled::Done(..) => {
                    let expected = (vec!["foreign-thin/tp/99".to_owned()], vec![WEDGE.to_owned()]);
                    assert_eq!(done(settled), Some(expected));
                    break;
                }
            }
            looks += 1;
            assert!(looks < 200);
        }
        assert!(looks > 100, "{looks}");
    }
}
