//! How a node comes back after a crash, with suture before containerd's start or beside it, and what must hold on the way
//! and at the end.

use std::collections::{BTreeMap, BTreeSet};

use suture::model::{Act, Diagnosis, FindingClass, RepairMode, RepairOutcome, Severity};

use crate::{
    containerd::Failure,
    kernel::Errno,
    machine::{Machine, Program, State, run},
    scenes::{commit, prepare},
    suture::{Pass, Suture},
};

/// When suture acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Before containerd's start, as the drop-in does.
    Before,
    /// Beside the containerd that was started again and tries what it was at once more; offline with the next restart.
    Beside,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Before, Self::Beside];

    pub(crate) fn mode(self) -> RepairMode {
        match self {
            Self::Before => RepairMode::Offline,
            Self::Beside => RepairMode::Online,
        }
    }
}

/// How the node came out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct End {
    /// What suture did first, act by act.
    pub(crate) acts: Vec<&'static str>,
    /// Findings that are left to a person.
    pub(crate) left: BTreeSet<String>,
}

fn in_words(act: &Act) -> &'static str {
    match act {
        Act::ResumeNode { .. } => "resume",
        Act::RemoveNode { .. } => "remove dm device",
        Act::DeleteThin { .. } => "delete thin device",
        Act::MarkFaulty { .. } => "mark faulty",
        Act::ForgetRecord { .. } => "forget record",
        Act::RestoreRecord { .. } => "restore record",
        Act::InsertRemovedRecord { .. } => "insert record",
        Act::SetId { .. } => "set id",
        Act::RaiseIdSequence { .. } => "raise sequence",
    }
}

/// Whatever must not change by suture's doing: what lies on the device of each snapshot, its rows, and the devices of others.
fn treasure(state: &State) -> BTreeMap<u64, Option<String>> {
    // A program that containerd left behind may be about to delete what no client knows any more.
    let alone = state.children.is_empty();
    let known = |key: &String| alone || state.core.snapshots.contains_key(key);
    let rows = state.rows.snapshots.iter().filter(|(key, _)| known(key));
    rows.map(|(_, row)| (row.id.0, state.content_of(row.id.0)))
        .collect()
}

/// A pass that may be killed. Whatever it does, it takes nothing away that a snapshot's row refers to.
pub(crate) fn guarded_pass(
    machine: &Machine,
    suture: &Suture<'_>,
    mode: RepairMode,
    kill_before: Option<u32>,
    context: &str,
) -> Option<Pass> {
    match guarded(machine, suture, context, || suture.pass(mode, kill_before)) {
        None => None,
        Some(Ok(pass)) => Some(pass),
        Some(Err(error)) => panic!("{context}: {error:?}"),
    }
}

/// Whatever suture does, it takes nothing away that a snapshot's row refers to.
pub(crate) fn guarded<T>(
    machine: &Machine,
    suture: &Suture<'_>,
    context: &str,
    work: impl FnOnce() -> T,
) -> T {
    let (before, rows) = machine.get(|state| (treasure(state), state.rows.clone()));
    let done = work();
    let (after, rows_after) = machine.get(|state| (treasure(state), state.rows.clone()));
    assert_eq!(rows, rows_after, "{context}: suture wrote to metadata.db");
    for (id, content) in before.iter().filter(|(_, content)| content.is_some()) {
        assert_eq!(
            Some(content),
            after.get(id),
            "{context}: suture lost snapshot {id}"
        );
    }
    let resumed = suture.resumed_at_work.borrow();
    assert!(
        resumed.is_empty(),
        "{context}: {resumed:?} were resumed under somebody's hands"
    );
    done
}

/// Every snapshot that a client may ask for has its record, its device, and on it what was there.
pub(crate) fn nothing_is_lost(machine: &Machine, context: &str) {
    machine.get(|state| {
        for (key, row) in &state.rows.snapshots {
            if state.core.snapshots.contains_key(key) {
                let expected = state.handed_out.get(&row.id.0);
                assert!(
                    expected.is_some(),
                    "{context}: snapshot {} was handed out",
                    row.id
                );
                let now = state.content_of(row.id.0);
                assert_eq!(now.as_ref(), expected, "{context}: snapshot {} ({key})", row.id);
            }
        }
    });
}

/// Whether new snapshots can be made, committed and removed.
pub(crate) fn works(machine: &Machine) -> Result<(), Failure> {
    works_beside(machine, 0)
}

/// The same where somebody has taken so many of the numbers that containerd draws next: each fails one try.
fn works_beside(machine: &Machine, mut taken: usize) -> Result<(), Failure> {
    let owned = str::to_owned;
    let active = suture::model::databases::SnapshotKind::Active;
    let mut prepare = |key: &str, parent: Option<&str>| loop {
        match run(machine.prepare(owned(key), parent.map(owned), active)) {
            Err(Failure::Kernel(Errno::Exists)) if taken > 0 => taken -= 1,
            other => return other,
        }
    };
    prepare("probe", Some("layer-2"))?;
    run(machine.commit(owned("probe"), owned("probe-layer")))?;
    prepare("probe-2", None)?;
    run(machine.remove(owned("probe-layer")))?;
    run(machine.remove(owned("probe-2")))?;
    run(machine.collect())
}

/// People end what is left of those who used devices that nobody uses any more. Gives whether there was anything.
pub(crate) fn person(machine: &Machine) -> bool {
    machine.set(|state| {
        let mut any = false;
        let names: Vec<String> = state.kernel.nodes.keys().cloned().collect();
        for name in names {
            let open: Vec<String> = state.kernel.nodes[&name].open.clone();
            for who in open.iter().filter(|who| *who != "/run/container") {
                state.kernel.close(&name, who);
                any = true;
            }
        }
        any
    })
}

/// containerd starts; one that could not load the snapshotter is started once more, with suture before it where it is the
/// drop-in's way.
pub(crate) fn start(machine: &Machine, suture: &Suture<'_>, way: Way, context: &str) {
    for _ in 0..3 {
        let started = run(machine.start());
        machine.set(State::sidecar_starts);
        if started.is_ok() {
            return;
        }
        machine.stop();
        if way == Way::Before {
            guarded_pass(machine, suture, RepairMode::Offline, None, context);
        }
    }
    panic!("{context}: containerd does not load the snapshotter any more");
}

/// What a kill of suture at a step comes to.
pub(crate) enum Reached {
    /// The pass was over before.
    No,
    Yes(End),
}

/// Brings a crashed machine back. suture's first pass is killed before a step, if one is named.
pub(crate) fn recover(
    machine: &Machine,
    suture: &Suture<'_>,
    way: Way,
    again: &dyn for<'m> Fn(&'m Machine) -> Program<'m, Result<(), Failure>>,
    kill_before: Option<u32>,
    context: &str,
) -> Reached {
    let late = machine.get(|state| !state.children.is_empty());
    if way == Way::Beside {
        start(machine, suture, way, context);
        nothing_is_lost(machine, context);
        // Whoever wanted it tries it once more; it may well fail.
        let _ = run(again(machine));
    }
    let first = guarded_pass(machine, suture, way.mode(), kill_before, context);
    if kill_before.is_some() && first.is_some() {
        return Reached::No;
    }
    nothing_is_lost(machine, context);
    let mut end = End::default();
    let pass = first.or_else(|| guarded_pass(machine, suture, way.mode(), None, context));
    if let Some(pass) = pass {
        for (acts, outcome) in &pass.plans {
            let done = match outcome {
                RepairOutcome::Done => acts.len(),
                RepairOutcome::Partly { done, .. } => *done,
                _ => 0,
            };
            end.acts.extend(acts.iter().take(done).map(in_words));
        }
    }
    machine.children_end();
    if way == Way::Before {
        start(machine, suture, way, context);
    }
    nothing_is_lost(machine, context);
    tail(machine, suture, way, late, context);
    end.left = at_rest(machine, suture, context);
    Reached::Yes(end)
}

/// What stays on the node.
pub(crate) const KEPT: [&str; 3] = ["layer-1", "layer-2", "container"];

/// The rest of a node's day: containers are removed, garbage is collected, and containerd is restarted in order.
pub(crate) fn tail(machine: &Machine, suture: &Suture<'_>, way: Way, late: bool, context: &str) {
    guarded_pass(machine, suture, RepairMode::Online, None, context);
    let in_use = person(machine);
    if way == Way::Before {
        // A dm device that somebody had mounted, or that a child made late, is in the way once: containerd's own rollback
        // takes it away.
        let again = in_use || late;
        let works = works(machine).or_else(|failure| if again { works(machine) } else { Err(failure) });
        works.unwrap_or_else(|failure| panic!("{context}: after its start: {failure:?}"));
    }
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
    guarded_pass(machine, suture, RepairMode::Online, None, context);
    // A number that was kept from containerd as long as its device was there is free only after that.
    for _ in 0..2 {
        machine.stop();
        guarded_pass(machine, suture, RepairMode::Offline, None, context);
        start(machine, suture, way, context);
        let _ = run(machine.collect());
        nothing_is_lost(machine, context);
    }
    // What somebody made is told of as an outage to come, and left to a person.
    let found = machine.diagnoses().found;
    let is_taken =
        |one: &&Diagnosis| one.finding.class == FindingClass::ForeignThin && one.severity == Severity::Outage;
    let taken = found.iter().filter(is_taken).count();
    works_beside(machine, taken).unwrap_or_else(|failure| panic!("{context}: at the end: {failure:?}"));
    prepare(machine, "last", Some("layer-1"));
    commit(machine, "last", "layer-9");
    nothing_is_lost(machine, context);
    // What the last snapshots wrote over may have lost its name only now; its number is free one repair later.
    for _ in 0..3 {
        machine.stop();
        let pass = guarded_pass(machine, suture, RepairMode::Offline, None, context);
        start(machine, suture, way, context);
        if pass.is_some_and(|pass| pass.plans.is_empty()) {
            break;
        }
    }
}

/// Nothing is left to be done, by suture or by anybody. Gives what is left to a person all the same.
pub(crate) fn at_rest(machine: &Machine, suture: &Suture<'_>, context: &str) -> BTreeSet<String> {
    let before = machine.get(State::clone);
    for mode in [RepairMode::Online, RepairMode::Offline] {
        if mode == RepairMode::Offline {
            machine.stop();
        }
        suture.calls.borrow_mut().clear();
        let pass = suture.whole_pass(mode);
        assert_eq!(pass.plans, [], "{context}: a second pass, {mode}, does nothing");
        assert_eq!(
            *suture.calls.borrow(),
            [],
            "{context}: nor asks the kernel, {mode}"
        );
        assert_eq!(
            machine.get(|state| (state.pool.clone(), state.kernel.clone())),
            (before.pool.clone(), before.kernel.clone()),
            "{context}: nor changes anything, {mode}"
        );
    }
    let diagnoses = machine.diagnoses();
    assert_eq!(diagnoses.not_understood, Vec::<String>::new(), "{context}");
    let mut left = BTreeSet::new();
    for one in &diagnoses.found {
        let is_a_persons = one.finding.class == FindingClass::ForeignThin;
        assert!(
            is_a_persons || one.severity == Severity::Notice,
            "{context}: left: {one:#?}"
        );
        left.insert(one.finding.id.to_string());
    }
    machine.get(|state| {
        let carried: BTreeSet<u32> = state.pool.devices.values().map(|one| one.device_id.0).collect();
        for id in state.kernel.thin.keys().filter(|id| !carried.contains(id)) {
            let name = format!("foreign-thin/pool/{id}");
            assert!(
                left.contains(&name),
                "{context}: thin device {id} is leaked, and nobody says so"
            );
        }
    });
    left
}
