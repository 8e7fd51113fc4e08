//! Two and three operations at once with the running sidecar beside them: its rounds go on among the operations, it is killed
//! now and then and starts again, and people approve or do not. A failure prints its seed; `SUTURE_SEED=N` runs that one alone.

use suture::model::{PoolMode, RepairMode, databases::SnapshotKind};

use crate::{
    dice::{Dice, long_lane},
    machine::{Crash, Machine, POOL, State, run},
    many::{Programs, every_seed, one_step, operation, others_have, somebody, while_they_go_on},
    recovery::{Way, at_rest, guarded_pass, nothing_is_lost, person, start},
    rounds::day,
    scenes::{node, write},
    sidecar::{Sidecar, shipped},
    suture::Suture,
};

/// The sidecar of a node, and how often it was killed.
struct Watch<'s, 'm> {
    suture: &'s Suture<'m>,
    runs: Option<Sidecar<'s, 'm>>,
    kills: usize,
}

impl<'s, 'm> Watch<'s, 'm> {
    fn sidecar(&mut self) -> Sidecar<'s, 'm> {
        let suture = self.suture;
        let runs = self.runs.take();
        runs.unwrap_or_else(|| Sidecar::start(suture, shipped()))
    }

    /// Some rounds. Now and then somebody approves what waits for that, and now and then suture is killed.
    fn rounds(&mut self, dice: &mut Dice, context: &str) {
        let kill = dice.one_in(3).then(|| u32::try_from(dice.below(50)).unwrap());
        let (count, approves) = (1 + dice.below(4), dice.one_in(2));
        let mut sidecar = self.sidecar();
        let suture = self.suture;
        self.runs = suture.killed_before(kill, move || {
            for _ in 0..count {
                let round = sidecar.round();
                for (plan, _) in &round.done {
                    crate::rounds::is_safe_alone(plan, suture, context);
                }
                if let (true, Some(id)) = (approves, round.waits_for_a_person().first()) {
                    sidecar.approve(id);
                }
                let after = round.next.map_or(300_000, |next| next.as_millis());
                suture.pass_time(u64::try_from(after).unwrap());
            }
            sidecar
        });
        self.kills += usize::from(self.runs.is_none());
    }

    /// A kind of remedy is given up only where suture died at it again and again. A person looks, and lets it go on.
    fn resume(&mut self, context: &str) {
        let mut sidecar = self.sidecar();
        sidecar.round();
        let open = sidecar.state().breakers.open().clone();
        assert!(open.is_empty() || self.kills >= 3, "{context}: {open:#?}");
        sidecar.resume();
    }
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    let machine = node(dice.one_in(2), dice.one_in(2));
    let suture = Suture::on(&machine);
    let mut watch = Watch {
        suture: &suture,
        runs: None,
        kills: 0,
    };
    let mut others = std::collections::BTreeSet::new();
    let programs = Programs::default();
    for round in 0..=dice.below(2) {
        let context = format!("seed {seed}, round {round}");
        for number in 0..2 + dice.below(2) {
            let more = operation(&machine, &mut dice, &format!("{round}-{number}"));
            programs.borrow_mut().push(more);
        }
        if dice.one_in(4) {
            others.extend(somebody(&machine, &mut dice));
        }
        let mut left = dice.below(50);
        while left > 0 && !programs.borrow().is_empty() {
            left -= 1;
            match dice.below(24) {
                0 => write(&machine, "container"),
                1 => {
                    let mut own = Dice(seed.wrapping_mul(31).wrapping_add(u64::try_from(left).unwrap()));
                    while_they_go_on(&machine, &suture, &programs, &mut dice, &context, || {
                        watch.rounds(&mut own, &context);
                    });
                    starts_again(&machine, &suture, &programs, &context);
                }
                // The pool takes no messages for a while.
                2 => machine.set(|state| state.kernel.mode = PoolMode::ReadOnly),
                3 => machine.set(|state| state.kernel.mode = PoolMode::ReadWrite),
                _ => one_step(&programs, &mut dice),
            }
            nothing_is_lost(&machine, &context);
            others_have(&machine, &others, &context);
        }
        machine.set(|state| state.kernel.mode = PoolMode::ReadWrite);
        programs.borrow_mut().clear();
        machine.crash(*dice.pick(&Crash::ALL));
        // Before containerd's start, after it, or only later.
        if dice.one_in(4) {
            watch.rounds(&mut dice, &context);
        }
        let dropped_in = dice.one_in(2);
        if dropped_in {
            guarded_pass(&machine, &suture, RepairMode::Offline, None, &context);
        }
        let way = if dropped_in { Way::Before } else { Way::Beside };
        start(&machine, &suture, way, &context);
        for _ in 0..dice.below(3) {
            watch.rounds(&mut dice, &context);
            starts_again(&machine, &suture, &programs, &context);
            if dice.one_in(3) {
                machine.children_end();
            }
            nothing_is_lost(&machine, &context);
        }
        machine.children_end();
    }
    let context = format!("seed {seed}, at the end");
    person(&machine);
    watch.resume(&context);
    starts_again(&machine, &suture, &programs, &context);
    drop(watch);
    machine.stop();
    guarded_pass(&machine, &suture, RepairMode::Offline, None, &context);
    start(&machine, &suture, Way::Before, &context);
    if !others.is_empty() {
        // containerd draws the number of somebody's device once, and is refused; its client tries again.
        for number in 0..3 {
            let _ = run(machine.prepare(format!("drawn-{number}"), None, SnapshotKind::Active));
        }
    }
    day(&machine, &suture, &context);
    let mut left = at_rest(&machine, &suture, &context);
    others_have(&machine, &others, &context);
    for id in others {
        let name = format!("foreign-thin/{POOL}/{id}");
        assert!(left.remove(&name), "{context}: {id} is told of");
    }
    let foreign = left.iter().any(|one| one.starts_with("foreign"));
    let could_see = machine.get(|state| state.watched && state.kernel.boot == 1);
    assert!(!(foreign && could_see), "{context}: {left:?}");
}

/// systemd starts a containerd that was stopped for a repair, and what it was at is broken off.
fn starts_again(machine: &Machine, suture: &Suture<'_>, programs: &Programs<'_>, context: &str) {
    if machine.get(|state: &State| state.containerd.is_none()) {
        programs.borrow_mut().clear();
        start(machine, suture, Way::Beside, context);
    }
}

#[test]
fn rounds_beside_several_operations_bring_the_node_back_whole_whatever_the_order() {
    every_seed(if long_lane() { 10_000 } else { 80 }, history);
}
