//! The running sidecar after every crash: rounds of its engine once containerd was started again, beside a containerd that
//! goes on after an operation failed, and while it is stopped. It dies at every step of its own and starts again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use suture::{
    decide::HealingPolicy,
    ledger::PlanState,
    model::{
        Act, FindingClass, Mode, PlanId, PoolMode, Provenance, RepairMode, RepairOutcome, RepairPlan,
        Severity, Verdict, When,
    },
};

use crate::{
    containerd::Failure,
    dice::long_lane,
    machine::{Crash, Machine, Program, State, run},
    one::states,
    recovery::{KEPT, Way, at_rest, guarded, guarded_pass, nothing_is_lost, person, start, works},
    scenes::{SCENES, Scene, advance, commit, node, prepare},
    sidecar::{Round, Sidecar, shipped},
    suture::Suture,
};

/// Among what the rounds are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hour {
    /// containerd was started again, and its client tried the same once more.
    Started,
    /// containerd went on after an operation failed.
    LeftRunning,
    /// containerd is stopped, and is started later.
    Stopped,
}

/// Whether a person approves what waits for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Person {
    Approves,
    IsAway,
}

/// What a series of rounds came to.
#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(crate) last: Round,
    /// Everything that was done in this life of suture.
    pub(crate) done: Vec<(RepairPlan, RepairOutcome)>,
    /// How many plans a person approved.
    pub(crate) approved: usize,
}

/// A sidecar starts, and makes rounds until nothing is left to be done by itself.
fn series(suture: &Suture<'_>, who: Person, context: &str) -> Series {
    let mut sidecar = Sidecar::start(suture, shipped());
    let mut last = sidecar.rounds();
    let mut done = std::mem::take(&mut last.done);
    for (plan, _) in &done {
        is_safe_alone(plan, suture, context);
    }
    let mut approved = 0;
    // One after the other, as people do.
    while let (Person::Approves, Some(id)) = (who, last.waits_for_a_person().first()) {
        sidecar.approve(id);
        let mut next = sidecar.rounds();
        let row = sidecar.ledger().plan(id.as_str()).unwrap().unwrap();
        assert_eq!(
            row.state,
            PlanState::Done,
            "{context}: {id} was approved: {row:#?}"
        );
        done.append(&mut next.done);
        last = next;
        approved += 1;
    }
    is_decided(&last, &sidecar, who, context);
    is_sober(&sidecar, context);
    Series { last, done, approved }
}

/// What suture does without a word: what can lose nothing, and what it saw itself; or what a person said before it died.
pub(crate) fn is_safe_alone(plan: &RepairPlan, suture: &Suture<'_>, context: &str) {
    let deletes = plan.acts.iter().any(|act| matches!(act, Act::DeleteThin { .. }));
    let saw_it = matches!(plan.provenance, Provenance::SeenByProbe { .. });
    let said = suture.approved.borrow().contains(&PlanId::of(plan));
    assert!(!deletes || saw_it || said, "{context}: nobody said so: {plan:#?}");
}

/// Every finding that is left has its verdict, and a reason in the shipped policy why it is left.
fn is_decided(round: &Round, sidecar: &Sidecar<'_, '_>, who: Person, context: &str) {
    let verdicts: BTreeMap<_, _> = round.verdicts.iter().collect();
    for one in &round.found.found {
        let id = &one.finding.id;
        let verdict = verdicts
            .get(id)
            .unwrap_or_else(|| panic!("{context}: {id} was not decided"));
        let mode = |plan| shipped().mode_of(one, plan);
        let fits = match verdict {
            Verdict::Observe { .. } => {
                one.finding.class == FindingClass::ForeignThin || one.remedy.when == When::Never
            }
            Verdict::LeftToContainerd { .. } => true,
            Verdict::AwaitApproval { plan, .. } => who == Person::IsAway && mode(plan) == Mode::Approve,
            Verdict::RestartAndRepair { plan, approved, .. } => {
                who == Person::IsAway && !approved && mode(plan) >= Mode::Approve
            }
            Verdict::Offline { arm, .. } => *arm,
            Verdict::Propose { .. }
            | Verdict::Wait { .. }
            | Verdict::Act { .. }
            | Verdict::Blocked { .. } => false,
        };
        assert!(fits, "{context}: {verdict:#?} for {one:#?}");
        // What a person may have done is there to be approved.
        if let Some((plan, name)) = verdict.plan() {
            let row = sidecar.ledger().plan(name.as_str()).unwrap();
            let row = row.unwrap_or_else(|| panic!("{context}: {name} is not stored"));
            assert!(row.state.is_live() && row.plan == *plan, "{context}: {row:#?}");
        }
    }
}

/// The books are right: nothing is under way, no breaker is open, no approval outlives what it was for, and each intent has its
/// outcome.
fn is_sober(sidecar: &Sidecar<'_, '_>, context: &str) {
    let state = sidecar.state();
    assert!(state.running.is_empty(), "{context}: {:#?}", state.running);
    assert!(
        state.breakers.open().is_empty(),
        "{context}: {:#?}",
        state.breakers.open()
    );
    for id in state.people.approvals.keys() {
        let row = sidecar.ledger().plan(id.as_str()).unwrap().unwrap();
        assert_ne!(
            row.state,
            PlanState::Done,
            "{context}: {id} is done, and approved still"
        );
    }
    let rows = sidecar.ledger().newest_repairs(1000).unwrap();
    for row in rows {
        assert!(row.outcome.is_some(), "{context}: it was not settled: {row:#?}");
    }
}

/// The kernel was asked for nothing twice, and refused nothing.
fn nothing_was_done_twice(suture: &Suture<'_>, context: &str) {
    let calls = suture.calls.borrow();
    let mut known = BTreeSet::new();
    for (call, went) in calls.iter() {
        assert_eq!(*went, Ok(()), "{context}: {call}");
        assert!(known.insert(call.clone()), "{context}: {call} was done twice");
    }
}

/// How a node came out of it; nothing where suture was to be killed later than it ended.
pub(crate) fn healed(
    machine: &Machine,
    suture: &Suture<'_>,
    (hour, who): (Hour, Person),
    scene: &Scene,
    kill_before: Option<u32>,
    context: &str,
) -> Option<(Series, BTreeSet<String>)> {
    let late = machine.get(|state| !state.children.is_empty());
    if hour == Hour::Started {
        start(machine, suture, Way::Beside, context);
        // Whoever wanted it tries it once more; it may well fail.
        let _ = run((scene.operation)(machine));
    }
    nothing_is_lost(machine, context);
    suture.calls.borrow_mut().clear();
    let lives = || {
        let first = suture.killed_before(kill_before, || series(suture, who, context));
        if kill_before.is_none() || first.is_some() {
            return (first, false);
        }
        // systemd starts containerd, whatever became of the repair that it was stopped for.
        if hour != Hour::Stopped && machine.get(|state| state.containerd.is_none()) {
            start(machine, suture, Way::Beside, context);
        }
        (Some(series(suture, who, context)), true)
    };
    let (series_of_rounds, killed) = guarded(machine, suture, context, lives);
    if kill_before.is_some() && !killed {
        return None;
    }
    nothing_is_lost(machine, context);
    nothing_was_done_twice(suture, context);
    let series_of_rounds = series_of_rounds.unwrap_or_default();
    // A second series finds nothing to do.
    suture.calls.borrow_mut().clear();
    let second = guarded(machine, suture, context, || {
        series(suture, Person::IsAway, context)
    });
    assert_eq!(second.done, [], "{context}: a second series does nothing");
    assert_eq!(*suture.calls.borrow(), [], "{context}: nor asks the kernel");
    machine.children_end();
    let in_use = person(machine);
    machine.stop();
    guarded_pass(machine, suture, RepairMode::Offline, None, context);
    start(machine, suture, Way::Before, context);
    nothing_is_lost(machine, context);
    let once_more = |failure| {
        if in_use || late {
            works(machine)
        } else {
            Err(failure)
        }
    };
    works(machine)
        .or_else(once_more)
        .unwrap_or_else(|failure| panic!("{context}: after its start: {failure:?}"));
    if killed && !long_lane() {
        return Some((series_of_rounds, BTreeSet::new()));
    }
    day(machine, suture, context);
    Some((series_of_rounds, at_rest(machine, suture, context)))
}

/// The rest of a node's day, with a sidecar: containers are removed, garbage is collected, containerd is restarted in order.
pub(crate) fn day(machine: &Machine, suture: &Suture<'_>, context: &str) {
    let rounds = |who| guarded(machine, suture, context, || series(suture, who, context));
    rounds(Person::IsAway);
    let keys = machine.get(|state| {
        let keys = state.core.snapshots.values().map(|one| one.key.clone());
        keys.filter(|key| !KEPT.contains(&key.as_str()))
            .collect::<Vec<_>>()
    });
    for key in keys {
        let _ = run(machine.remove(key));
    }
    // A record that is lost aborts the collection until the next offline repair.
    let _ = run(machine.collect());
    rounds(Person::IsAway);
    for _ in 0..2 {
        machine.stop();
        guarded_pass(machine, suture, RepairMode::Offline, None, context);
        start(machine, suture, Way::Before, context);
        let _ = run(machine.collect());
        nothing_is_lost(machine, context);
    }
    works(machine).unwrap_or_else(|failure| panic!("{context}: at the end: {failure:?}"));
    prepare(machine, "last", Some("layer-1"));
    commit(machine, "last", "layer-9");
    for _ in 0..3 {
        machine.stop();
        let pass = guarded_pass(machine, suture, RepairMode::Offline, None, context);
        start(machine, suture, Way::Before, context);
        if pass.is_some_and(|pass| pass.plans.is_empty()) {
            break;
        }
    }
    let last = rounds(Person::IsAway);
    assert_eq!(last.done, [], "{context}: at the end");
    for one in &last.last.found.found {
        let is_a_persons = one.finding.class == FindingClass::ForeignThin;
        assert!(
            is_a_persons || one.severity == Severity::Notice,
            "{context}: left: {one:#?}"
        );
    }
}

/// The states that operations leave that fail because the pool takes no messages for a while: containerd goes on.
fn failed(scene: &Scene) -> Vec<(String, State)> {
    let mut found = Vec::new();
    for steps in 0.. {
        let machine = node(scene.async_remove, false);
        (scene.set)(&machine);
        if machine.get(|state| state.containerd.is_none()) {
            break;
        }
        let mut program: Program<'_, Result<(), Failure>> = (scene.operation)(&machine);
        let reached = advance(&machine, &mut program, steps);
        if !reached {
            break;
        }
        machine.set(|state| state.kernel.mode = PoolMode::ReadOnly);
        let went = run(program);
        machine.set(|state| state.kernel.mode = PoolMode::ReadWrite);
        if went.is_err() {
            let name = format!("{}, the pool takes no messages after step {steps}", scene.name);
            found.push((name, machine.get(State::clone)));
        }
    }
    found
}

/// Every state of an hour, with the operation that a client tries again.
fn all_of(hour: Hour, crashes: &[Crash]) -> Vec<(&'static Scene, String, State)> {
    let of = |scene: &'static Scene| {
        let found = match hour {
            Hour::LeftRunning => failed(scene),
            Hour::Started | Hour::Stopped => states(scene, crashes),
        };
        found.into_iter().map(move |(name, state)| (scene, name, state))
    };
    SCENES.iter().flat_map(of).collect()
}

type Came = (Series, BTreeSet<String>);

/// One history from a state on.
fn from(
    state: &State,
    scene: &Scene,
    hour: Hour,
    who: Person,
    kill: Option<u32>,
    name: &str,
) -> Option<Came> {
    let machine = Machine::of(state.clone());
    let suture = Suture::on(&machine);
    let context = format!("{name}, {hour:?}, {who:?}, suture killed before its step {kill:?}");
    let came = healed(&machine, &suture, (hour, who), scene, kill, &context);
    let foreign = |left: &BTreeSet<String>| left.iter().any(|one| one.starts_with("foreign"));
    if let Some((_, left)) = &came {
        assert!(!(state.watched && foreign(left)), "{context}: {left:?}");
    }
    came
}

/// What tells one history from another for the engine: what was done, and what is left for what reason.
fn kind(series: &Series) -> String {
    let done = series.done.iter().map(|(plan, outcome)| {
        let acts: Vec<_> = plan.acts.iter().map(std::mem::discriminant).collect();
        format!("{} {acts:?} {outcome}", plan.class)
    });
    let found = series.last.found.found.iter().map(|one| {
        let verdict = series.last.verdicts.get(&one.finding.id).map(Verdict::name);
        format!("{} {verdict:?}", one.finding.class)
    });
    format!("{:?}", done.chain(found).collect::<Vec<_>>())
}

/// Children that end late, and those that end their work, are for the longer lane; with containerd stopped a power cut too.
fn crashes(hour: Hour) -> &'static [Crash] {
    match hour {
        _ if long_lane() => &Crash::ALL,
        Hour::Stopped => &[Crash::Kill],
        Hour::Started | Hour::LeftRunning => &[Crash::Kill, Crash::Power],
    }
}

/// On how many nodes something was done, by the rounds alone and once a person approved it.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    by_itself: usize,
    approved: usize,
    /// How often suture was killed.
    kills: usize,
}

fn everywhere(hour: Hour) -> Count {
    let mut count = Count::default();
    let mut kinds = BTreeSet::new();
    for (scene, name, state) in all_of(hour, crashes(hour)) {
        let came = from(&state, scene, hour, Person::IsAway, None, &name);
        let (mut series, _) = came.unwrap_or_default();
        count.all += 1;
        count.by_itself += usize::from(!series.done.is_empty());
        let waiting = series.last.waits_for_a_person().len();
        if waiting > 0 {
            let came = from(&state, scene, hour, Person::Approves, None, &name);
            series = came.unwrap_or_default().0;
            assert!(series.approved >= waiting, "{name}: {}", series.approved);
            count.approved += 1;
        }
        // Where there is nothing to do, one death is like the next; and one node of a kind is enough for the shorter lane.
        let is_new = kinds.insert(kind(&series)) || long_lane();
        if series.done.is_empty() || !is_new {
            continue;
        }
        for kill in 0.. {
            let came = from(&state, scene, hour, Person::Approves, Some(kill), &name);
            if came.is_none() {
                break;
            }
            count.kills += 1;
        }
    }
    count
}

#[test]
fn once_containerd_was_started_again_rounds_heal_what_the_policy_lets_them() {
    let count = everywhere(Hour::Started);
    assert!(
        count.by_itself > 30 && count.approved > 30 && count.kills > 150,
        "{count:?}"
    );
}

#[test]
fn beside_a_containerd_that_goes_on_rounds_wait_for_a_person() {
    let count = everywhere(Hour::LeftRunning);
    assert!(
        count.by_itself == 0 && count.approved > 5 && count.kills > 15,
        "{count:?}"
    );
}

#[test]
fn while_containerd_is_stopped_rounds_leave_to_its_start_what_only_that_can_heal() {
    let count = everywhere(Hour::Stopped);
    assert!(count.by_itself > 10 && count.kills > 30, "{count:?}");
}

/// Whether a snapshot was made of a layer in use: an operation stands still for a while after it suspended the layer, the rounds
/// go on, and then it goes on too.
fn torn_under(policy: HealingPolicy) -> bool {
    let scene = SCENES
        .iter()
        .find(|one| one.name == "prepare on a layer that is loaded");
    let scene = scene.unwrap();
    let machine = node(scene.async_remove, false);
    (scene.set)(&machine);
    let suture = Suture::on(&machine);
    let mut program: Program<'_, Result<(), Failure>> = (scene.operation)(&machine);
    assert!(advance(&machine, &mut program, 3));
    let mut sidecar = Sidecar::start(&suture, policy);
    let round = sidecar.round();
    assert!(
        round
            .found
            .found
            .iter()
            .any(|one| one.finding.class == FindingClass::SuspendedDevice),
        "{round:#?}"
    );
    run(program).unwrap();
    sidecar.rounds();
    machine.get(|state| !state.kernel.torn.is_empty())
}

#[test]
fn grace_keeps_from_resuming_what_an_operation_stands_still_on() {
    assert!(!torn_under(shipped()));
    let mut parts = shipped().into_parts();
    parts
        .classes
        .values_mut()
        .for_each(|class| class.grace = Duration::ZERO);
    assert!(torn_under(HealingPolicy::new(parts).unwrap()));
}

/// What is lost where a person who puts a backup of metadata.db back comes after the rounds: the record of a clean-up that was
/// cut off says that the thin device is containerd's, and nobody saw it being made.
fn lost_under(policy: HealingPolicy) -> bool {
    let machine = crate::guards::orphan();
    let suture = Suture::on(&machine);
    Sidecar::start(&suture, policy).rounds();
    crate::guards::row_is_put_back(&machine);
    machine.get(|state| state.content_of(4).is_none())
}

#[test]
fn the_word_of_a_person_keeps_from_deleting_what_nobody_saw_being_made() {
    assert!(!lost_under(shipped()));
    let mut parts = shipped().into_parts();
    let of_class = parts.classes.iter_mut();
    of_class
        .filter(|(class, _)| **class != FindingClass::ForeignThin)
        .for_each(|(_, rule)| rule.unseen = Mode::Auto);
    assert!(lost_under(HealingPolicy::new(parts).unwrap()));
}
