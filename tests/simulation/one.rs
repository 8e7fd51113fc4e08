//! Every operation, crashed after every durable step, in every way, with suture before containerd or beside it; and suture
//! killed at every step of its own.

use std::{cell::Cell, collections::BTreeSet, rc::Rc};

use crate::{
    containerd::Failure,
    dice::long_lane,
    machine::{Crash, Machine, Program, State},
    recovery::{Reached, Way, recover},
    scenes::{SCENES, Scene, advance, node},
    suture::{Suture, When},
};

/// A machine in which an operation was crashed after so many steps; nothing where it was over before.
pub(crate) fn crashed(scene: &Scene, watched: bool, steps: usize, crash: Crash) -> Option<(Machine, String)> {
    let machine = node(scene.async_remove, watched);
    (scene.set)(&machine);
    let mut program: Program<'_, Result<(), Failure>> = (scene.operation)(&machine);
    let reached = advance(&machine, &mut program, steps);
    drop(program);
    if !reached && machine.trace.borrow().len() < steps {
        return None;
    }
    let last = machine.trace.borrow().last().cloned().unwrap_or_default();
    machine.crash(crash);
    Some((machine, last))
}

/// Each state that a crash leaves, once, with where it comes from.
pub(crate) fn states(scene: &Scene, crashes: &[Crash]) -> Vec<(String, State)> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for watched in [false, true] {
        for crash in crashes.iter().copied() {
            for steps in 0.. {
                let Some((machine, last)) = crashed(scene, watched, steps, crash) else {
                    break;
                };
                let state = machine.get(State::clone);
                if known.insert(to_be_known(&state)) {
                    let watcher = if watched { "watched" } else { "not watched" };
                    let name = format!("{}, step {steps} ({last}), {crash:?}, {watcher}", scene.name);
                    found.push((name, state));
                }
            }
        }
    }
    found
}

/// What tells states apart for suture: that a sidecar watched makes a difference only where it saw something unfinished.
fn to_be_known(state: &State) -> String {
    let mut state = state.clone();
    let saw = |seen: &crate::machine::Seen, id: &u32| {
        state
            .kernel
            .thin
            .get(id)
            .is_some_and(|thin| thin.root == seen.root)
    };
    if !state.seen.iter().any(|(id, seen)| saw(seen, id)) {
        state.watched = false;
    }
    if !state.watched {
        state.seen.clear();
    }
    format!("{state:?}")
}

/// What is left to a person, and of what crash, for those that leave anything.
fn everywhere(kills: bool, way: Way) -> (usize, Vec<String>) {
    // Children that end are the same as a kill one step later; those that end late are for the longer lane.
    let all = !kills || long_lane();
    let crashes = if all {
        &Crash::ALL[..]
    } else {
        &[Crash::Kill, Crash::Power]
    };
    let mut count = 0;
    let mut left = Vec::new();
    for scene in &SCENES {
        for (name, state) in states(scene, crashes) {
            for kill in 0.. {
                let machine = Machine::of(state.clone());
                let suture = Suture::on(&machine);
                let kill = kills.then_some(kill);
                let context = format!("{name}, {way:?}, suture killed before its step {kill:?}");
                match recover(&machine, &suture, way, &scene.operation, kill, &context) {
                    Reached::No => break,
                    Reached::Yes(end) => {
                        count += 1;
                        let foreign: Vec<_> =
                            end.left.iter().filter(|one| one.starts_with("foreign")).collect();
                        if !foreign.is_empty() {
                            assert!(!state.watched, "{context}: {foreign:?}");
                            left.push(context);
                        }
                    }
                }
                if !kills {
                    break;
                }
            }
        }
    }
    (count, left)
}

#[test]
fn after_every_step_the_node_comes_back_whole() {
    for way in Way::ALL {
        let (count, left) = everywhere(false, way);
        assert!(count > 150, "only {count} crashes");
        assert!(left.len() < count / 4, "left to a person: {left:#?}");
    }
}

#[test]
fn killed_at_every_step_before_containerd_suture_finishes_the_next_time() {
    let (count, _) = everywhere(true, Way::Before);
    assert!(count > 1500, "only {count} kills");
}

#[test]
fn killed_at_every_step_beside_containerd_suture_finishes_the_next_time() {
    let (count, _) = everywhere(true, Way::Beside);
    assert!(count > 500, "only {count} kills");
}

#[test]
fn a_program_that_ends_at_any_moment_of_a_pass_harms_nothing() {
    let mut count = 0;
    for scene in &SCENES {
        let states = states(scene, &[Crash::KillChildrenLate]);
        let with_a_program = states.into_iter().filter(|(_, state)| !state.children.is_empty());
        for (name, state) in with_a_program {
            for way in Way::ALL {
                for moment in 0.. {
                    let machine = Machine::of(state.clone());
                    let suture = Suture::on(&machine);
                    let happened = Rc::new(Cell::new(false));
                    let tells = Rc::clone(&happened);
                    suture.happens(When::Step(moment), move |machine| {
                        tells.set(true);
                        machine.children_end();
                    });
                    let context = format!("{name}, {way:?}, its program ends before step {moment}");
                    let came = recover(&machine, &suture, way, &scene.operation, None, &context);
                    assert!(matches!(came, Reached::Yes(_)));
                    if !happened.get() || (moment > 12 && !long_lane()) {
                        break;
                    }
                    count += 1;
                }
            }
        }
    }
    assert!(count > 300, "only {count} moments");
}
