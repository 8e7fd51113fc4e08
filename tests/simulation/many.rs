//! Two and three operations at once, in an order that a seed decides, with suture beside them, killed and crashed several
//! times over. A failure prints its seed; `SUTURE_SEED=N` runs that one alone.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use suture::model::{PoolMode, RepairMode, databases::SnapshotKind};

use crate::{
    containerd::Failure,
    dice::{Dice, long_lane},
    kernel::Call,
    machine::{Crash, Machine, POOL, Program, poll, run},
    recovery::{Way, at_rest, guarded_pass, nothing_is_lost, start, tail},
    scenes::{node, open, write},
    suture::{Suture, When},
};

/// Operations under way.
pub(crate) type Programs<'m> = RefCell<Vec<Program<'m, Result<(), Failure>>>>;

fn parent(machine: &Machine, dice: &mut Dice) -> Option<String> {
    let layers: Vec<String> = machine.get(|state| {
        let rows = state.core.snapshots.iter();
        let layers = rows.filter(|(key, _)| {
            let row = state.rows.snapshots.get(*key);
            row.is_some_and(|row| row.kind == SnapshotKind::Committed)
        });
        layers.map(|(_, one)| one.key.clone()).collect()
    });
    (!dice.one_in(4) && !layers.is_empty()).then(|| dice.pick(&layers).clone())
}

/// One more operation, with what it needs before.
pub(crate) fn operation<'m>(
    machine: &'m Machine,
    dice: &mut Dice,
    name: &str,
) -> Program<'m, Result<(), Failure>> {
    let active = SnapshotKind::Active;
    let (fresh, layer) = (format!("fresh-{name}"), format!("layer-{name}"));
    match dice.below(5) {
        0 | 1 => {
            let above = parent(machine, dice);
            Box::pin(machine.prepare(format!("new-{name}"), above, active))
        }
        2 => {
            let above = parent(machine, dice);
            Box::pin(machine.prepare(format!("view-{name}"), above, SnapshotKind::View))
        }
        3 => {
            let above = parent(machine, dice);
            let _ = run(machine.prepare(fresh.clone(), above, active));
            write(machine, &fresh);
            if dice.one_in(2) {
                open(machine, &fresh, "/run/unpacker");
            }
            Box::pin(machine.commit(fresh, layer))
        }
        _ => {
            let above = parent(machine, dice);
            let _ = run(machine.prepare(fresh.clone(), above, active));
            if dice.one_in(3) {
                let _ = run(machine.commit(fresh.clone(), layer.clone()));
            }
            if dice.one_in(6) {
                open(machine, &fresh, "/run/left over");
            }
            let _ = run(machine.remove(fresh));
            let _ = run(machine.remove(layer));
            Box::pin(machine.collect())
        }
    }
}

/// Lets one of them go on.
pub(crate) fn one_step(programs: &Programs<'_>, dice: &mut Dice) {
    let mut programs = programs.borrow_mut();
    if programs.is_empty() {
        return;
    }
    let at = dice.below(programs.len());
    if poll(&mut programs[at]).is_some() {
        drop(programs.remove(at));
    }
}

/// Lets each of them go on.
fn all_step(programs: &Programs<'_>) {
    programs
        .borrow_mut()
        .retain_mut(|program| poll(program).is_none());
}

/// Somebody makes a thin device of his own, now and then of the very number that containerd draws next.
pub(crate) fn somebody(machine: &Machine, dice: &mut Dice) -> Option<u32> {
    machine.set(|state| {
        let next = u32::try_from(state.pool.id_sequence).unwrap() + 1;
        let id = *dice.pick(&[next, next + 1, 1000]);
        state.kernel.call(&Call::CreateThin(id)).ok()?;
        state.kernel.write(id, "somebody's");
        Some(id)
    })
}

/// What belongs to others is never touched.
pub(crate) fn others_have(machine: &Machine, others: &BTreeSet<u32>, context: &str) {
    machine.get(|state| {
        for id in others {
            let thin = state.kernel.thin.get(id);
            let whole =
                thin.is_some_and(|thin| thin.content.starts_with("somebody's") || state.kernel.boot > 1);
            assert!(whole, "{context}: somebody's thin device {id}");
        }
    });
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    let machine = node(dice.one_in(2), dice.one_in(2));
    let suture = Suture::on(&machine);
    let mut others = BTreeSet::new();
    let programs = Programs::default();
    for round in 0..=dice.below(3) {
        let context = format!("seed {seed}, round {round}");
        for number in 0..2 + dice.below(2) {
            let more = operation(&machine, &mut dice, &format!("{round}-{number}"));
            programs.borrow_mut().push(more);
        }
        let mut left = dice.below(60);
        if dice.one_in(4) {
            others.extend(somebody(&machine, &mut dice));
        }
        while left > 0 && !programs.borrow().is_empty() {
            left -= 1;
            match dice.below(26) {
                // The pool takes no messages for a while.
                3 => machine.set(|state| state.kernel.mode = PoolMode::ReadOnly),
                4 => machine.set(|state| state.kernel.mode = PoolMode::ReadWrite),
                0 => write(&machine, "container"),
                1 => beside(&machine, &suture, &programs, &mut dice, &context),
                2 => machine.set(|state| {
                    let names: Vec<String> = state.kernel.nodes.keys().cloned().collect();
                    for name in names {
                        state.kernel.close(&name, "/run/unpacker");
                    }
                }),
                _ => one_step(&programs, &mut dice),
            }
            nothing_is_lost(&machine, &context);
            others_have(&machine, &others, &context);
        }
        machine.set(|state| state.kernel.mode = PoolMode::ReadWrite);
        programs.borrow_mut().clear();
        machine.crash(*dice.pick(&Crash::ALL));
        come_back(&machine, &suture, &mut dice, &context);
    }
    let context = format!("seed {seed}, at the end");
    tail(&machine, &suture, Way::Beside, true, &context);
    let mut left = at_rest(&machine, &suture, &context);
    others_have(&machine, &others, &context);
    for id in others {
        assert!(
            left.remove(&format!("foreign-thin/{POOL}/{id}")),
            "{context}: {id} is told of"
        );
    }
    if machine.get(|state| state.watched) {
        let foreign: Vec<_> = left.iter().filter(|one| one.starts_with("foreign")).collect();
        assert!(
            foreign.is_empty() || machine.get(|state| state.kernel.boot > 1),
            "{context}: {foreign:?}"
        );
    }
}

/// suture beside operations that go on while it looks, and between its look and its act.
fn beside<'m>(
    machine: &'m Machine,
    suture: &Suture<'m>,
    programs: &Programs<'m>,
    dice: &mut Dice,
    context: &str,
) {
    let kill = dice.one_in(3).then(|| u32::try_from(dice.below(30)).unwrap());
    let pass = while_they_go_on(machine, suture, programs, dice, context, || {
        suture.pass(RepairMode::Online, kill)
    });
    assert!(!matches!(pass, Some(Err(_))), "{context}: {pass:?}");
}

/// suture's work while operations go on: whenever it waits, and at one of its steps.
pub(crate) fn while_they_go_on<'m, T>(
    machine: &'m Machine,
    suture: &Suture<'m>,
    programs: &Programs<'m>,
    dice: &mut Dice,
    context: &str,
    work: impl FnOnce() -> T,
) -> T {
    let moment = u32::try_from(dice.below(30)).unwrap();
    // They are lent for the pass: the closures live as long as suture does.
    let lent = std::rc::Rc::new(RefCell::new(std::mem::take(&mut *programs.borrow_mut())));
    let (waits, acts) = (std::rc::Rc::clone(&lent), std::rc::Rc::clone(&lent));
    suture.meanwhile(move || all_step(&waits));
    suture.happens(When::Step(moment), move |_| all_step(&acts));
    let torn = machine.get(|state| state.kernel.torn.len());
    let done = work();
    suture.alone();
    // A program may be started between the last look and the ioctl; what it snapshots must be suspended all the same.
    suture.resumed_at_work.borrow_mut().clear();
    assert_eq!(
        machine.get(|state| state.kernel.torn.len()),
        torn,
        "{context}: a torn snapshot"
    );
    programs.borrow_mut().append(&mut lent.borrow_mut());
    nothing_is_lost(machine, context);
    done
}

/// After a crash: suture before containerd or beside it, killed now and then.
fn come_back(machine: &Machine, suture: &Suture<'_>, dice: &mut Dice, context: &str) {
    let way = *dice.pick(&Way::ALL);
    if way == Way::Beside {
        start(machine, suture, way, context);
    }
    for _ in 0..dice.below(3) {
        let kill = dice.one_in(2).then(|| u32::try_from(dice.below(40)).unwrap());
        guarded_pass(machine, suture, way.mode(), kill, context);
        nothing_is_lost(machine, context);
        if dice.one_in(3) {
            machine.children_end();
        }
    }
    if way == Way::Before {
        start(machine, suture, way, context);
    }
    machine.children_end();
    nothing_is_lost(machine, context);
}

#[test]
fn several_operations_at_once_come_back_whole_whatever_the_order() {
    every_seed(if long_lane() { 20_000 } else { 300 }, history);
}

/// Runs so many histories, or the one that the environment names. Those that fail are printed.
pub(crate) fn every_seed(rounds: u64, history: fn(u64)) {
    if let Some(seed) = std::env::var_os("SUTURE_SEED") {
        return history(seed.to_string_lossy().parse().unwrap());
    }
    let mut failed = Vec::new();
    for seed in 0..rounds {
        if catch_unwind(AssertUnwindSafe(|| history(seed))).is_err() {
            failed.push(seed);
            println!("failed with SUTURE_SEED={seed}");
        }
    }
    assert_eq!(
        failed,
        Vec::<u64>::new(),
        "run one of these alone with SUTURE_SEED="
    );
}
