//! Keeps the sagas: leads each step to its saga, and says where each stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    super::lineage::Containerds,
    evidence::{self, Evidence},
    failures::{Attempt, LiveFailures},
    hypotheses::{self, Hypothesis},
    remains::{Remains, snapshot_of},
};
use crate::model::{
    DeviceNumber, DeviceState, Incarnation, Observation, PoolName, Timestamp, Window, World,
    databases::SnapshotKind,
    observation::LossKind,
    pairs,
    saga::{NodeCall, Saga, SagaKind, SagaState, SagaStep, Seen, Windows},
};

/// Sagas kept. Open ones are never dropped for closed ones; beyond this many open ones the oldest goes.
pub const MAX_SAGAS: usize = 1024;
/// Closed sagas that are dropped at once when there are too many.
const DROPPED_AT_ONCE: usize = 128;
/// Records remembered that wait for the clean-up.
const MAX_WAITING: usize = 4096;
/// So long after its end a step of a saga may still be noticed: the two sides are told by different senses.
const LATE: Duration = Duration::from_secs(2);
/// So long a dmsetup may go on after its containerd is gone.
const OUTLIVES: Duration = Duration::from_secs(10);

/// The sagas of one pool. All of it can be recorded and taken up again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sagas {
    #[serde(with = "pairs")]
    known: BTreeMap<u64, Saga>,
    next: u64,
    failures: LiveFailures,
    /// Since when steps may be missed; nothing where none are.
    gap: Option<Timestamp>,
    /// Calls are never seen.
    blind: bool,
    /// Records in the state Removed, and whether their snapshot still has its row.
    waiting: BTreeMap<String, bool>,
    given_up: u64,
}

impl Sagas {
    /// One that has seen nothing before `now`.
    #[must_use]
    pub(in crate::correlate) fn new(now: Timestamp) -> Self {
        Self {
            gap: Some(now),
            ..Self::default()
        }
    }

    /// Every saga that is kept, in the order in which they were first heard of.
    pub fn all(&self) -> impl Iterator<Item = &Saga> {
        self.known.values()
    }

    /// The newest saga about a device of this name.
    #[must_use]
    pub fn newest(&self, device: &str) -> Option<&Saga> {
        let mut all = self.known.values().rev();
        all.find(|saga| saga.device.as_deref() == Some(device))
    }

    /// Calls of containerd's that fail.
    #[must_use]
    pub fn failures(&self) -> &LiveFailures {
        &self.failures
    }

    /// How many open sagas were given up because more than [`MAX_SAGAS`] were kept.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Takes in one observation. `known` has taken it in already.
    pub(in crate::correlate) fn observe(
        &mut self,
        observation: &Observation,
        pool: &PoolName,
        pool_device: Option<DeviceNumber>,
        known: &Containerds,
    ) {
        match observation {
            Observation::DmIoctl(call) => {
                let Some(actor) = known.behind(&call.caller, call.entered).cloned() else {
                    return;
                };
                if let Some(evidence) = evidence::of_call(call, pool, pool_device) {
                    self.attempted(&evidence);
                    self.take_in(&evidence, Some(actor), pool, known);
                }
            }
            Observation::Commit(commit) => {
                for evidence in evidence::of_commit(commit, pool) {
                    let actor = known.holder().filter(|who| known.alive(who)).cloned();
                    self.take_in(&evidence, actor, pool, known);
                }
                if commit.more > 0 {
                    self.missed(commit.at);
                }
            }
            Observation::ContainerdUp { at, who } => {
                self.died(*at, |actor| actor != Some(who) && actor.is_some());
            }
            Observation::ContainerdGone { at, who } => {
                self.died(*at, |actor| actor.is_none_or(|actor| actor == who));
            }
            Observation::Lost { at, what, .. } => {
                self.blind |= *what == LossKind::Polling;
                if what.hides_operations() || matches!(what, LossKind::DatabaseUnread { .. }) {
                    self.missed(*at);
                }
            }
            _ => {}
        }
    }

    /// Declares that steps may have been missed until `at`.
    pub(in crate::correlate) fn missed(&mut self, at: Timestamp) {
        self.gap = Some(self.gap.map_or(at, |gap| gap.max(at)));
        for saga in self.known.values_mut().filter(|saga| saga.state.is_open()) {
            saga.gaps = true;
            restate(saga);
        }
    }

    /// Those who are not running have died. Only to be asked once it was looked who runs.
    pub(in crate::correlate) fn bury(&mut self, at: Timestamp, known: &Containerds) {
        self.died(at, |actor| actor.is_none_or(|actor| !known.alive(actor)));
    }

    fn died(&mut self, at: Timestamp, is_dead: impl Fn(Option<&Incarnation>) -> bool) {
        for saga in self.known.values_mut() {
            if saga.state == SagaState::Running && is_dead(saga.actor.as_ref()) {
                saga.state = SagaState::Died {
                    at,
                    windows: Windows::default(),
                    settled: false,
                };
                restate(saga);
            }
        }
    }

    /// Takes in one consistent read of the world: it tells what the steps seen do not.
    pub(in crate::correlate) fn world(&mut self, world: &World) {
        if !self.blind {
            self.gap.take_if(|gap| *gap < world.begun);
        }
        self.failures.world(world);
        let records = world.pool_db.devices.values();
        let waiting = records.filter(|record| record.state == DeviceState::Removed);
        self.waiting = waiting
            .take(MAX_WAITING)
            .filter_map(|record| {
                let id = world.pool.name.snapshot_of(&record.name)?;
                Some((record.name.clone(), world.has_snapshot(id)))
            })
            .collect();
        for saga in self.known.values_mut() {
            if saga.last() >= world.begun {
                continue;
            }
            match &saga.state {
                SagaState::Running => ends_unseen(saga, world),
                SagaState::Died {
                    at, settled: false, ..
                } if *at < world.begun => settle(saga, world),
                _ => {}
            }
        }
    }

    fn attempted(&mut self, evidence: &Evidence) {
        let Seen::Call { call, error, .. } = &evidence.step.seen else {
            return;
        };
        let by_id = || {
            let mut all = self.known.values().rev();
            let saga = all.find(|saga| saga.thin_id.is_some() && saga.thin_id == evidence.thin_id);
            saga.and_then(|saga| saga.device.clone())
        };
        let device = evidence.device.clone().or_else(by_id);
        self.failures.take_in(&Attempt {
            at: evidence.step.at,
            call: *call,
            device: device.as_deref(),
            thin_id: evidence.thin_id,
            origin: evidence.origin,
            error: error.as_deref(),
        });
    }

    /// Leads a step to its saga, or begins one.
    fn take_in(
        &mut self,
        evidence: &Evidence,
        actor: Option<Incarnation>,
        pool: &PoolName,
        known: &Containerds,
    ) {
        let candidates: Vec<u64> = self
            .known
            .iter()
            .rev()
            .filter(|(_, saga)| may_be_of(saga, evidence, actor.as_ref()))
            .map(|(number, _)| *number)
            .collect();
        let mut found: Option<(u64, Saga)> = None;
        for number in candidates {
            let Some(with) = self.known.get(&number).and_then(|saga| joined(saga, evidence)) else {
                continue;
            };
            if let Some((first, saga)) = &found {
                // Two that were begun apart are one: the parent's side and the new device's.
                if let Some(both) = merged(saga, &with) {
                    let first = *first;
                    self.known.remove(&number);
                    found = Some((first, both));
                }
            } else {
                found = Some((number, with));
            }
        }
        if let Some((number, mut saga)) = found {
            self.note_waiting(evidence, &saga);
            advance(&mut saga, evidence, known);
            self.known.insert(number, saga);
        } else {
            self.begin(evidence, actor, pool);
        }
    }

    fn begin(&mut self, evidence: &Evidence, actor: Option<Incarnation>, pool: &PoolName) {
        let may_begin = match &evidence.step.seen {
            // What containerd marks at its start, or notes of a failure, is the end of a story.
            Seen::Record { from, to, .. } => from != to && *to != Some(DeviceState::Faulty),
            Seen::Call { .. } => true,
            Seen::Row { .. } => false,
        };
        if !may_begin {
            return;
        }
        let by_parent = may_be_parents(&evidence.step.seen);
        let parent = evidence
            .parent
            .clone()
            .or_else(|| evidence.device.clone().filter(|_| by_parent));
        let mut saga = Saga {
            kinds: BTreeSet::new(),
            device: evidence.device.clone(),
            thin_id: evidence.thin_id,
            parent_id: evidence.origin.or(evidence.thin_id.filter(|_| by_parent)),
            parent,
            actor,
            key: None,
            steps: vec![evidence.step.clone()],
            gaps: self.gap.is_some() || self.blind,
            stands_at: Windows::default(),
            state: SagaState::Running,
        };
        let mut kinds: BTreeSet<SagaKind> = hypotheses::of(&saga).iter().map(|one| one.way.kind).collect();
        // A base device's record has no parent, and every other one has.
        if evidence::adds(&evidence.step.seen) {
            kinds.retain(|kind| (*kind == SagaKind::Create) == saga.parent.is_none());
        }
        if let Some(has_row) = saga.device.as_ref().and_then(|name| self.waiting.get(name)) {
            kinds.remove(if *has_row {
                &SagaKind::CleanUp
            } else {
                &SagaKind::Remove
            });
        }
        if kinds.is_empty() || snapshot_of(pool, saga.device.as_deref()).is_none() && saga.thin_id.is_none() {
            return;
        }
        saga.kinds = kinds;
        resolve(&mut saga);
        restate(&mut saga);
        if saga.kinds.contains(&SagaKind::RemoveLater) {
            self.remember_waiting(saga.device.clone(), true);
        }
        self.known.insert(self.next, saga);
        self.next = self.next.saturating_add(1);
        if self.known.len() > MAX_SAGAS {
            self.drop_oldest();
        }
    }

    /// A record that was left to the clean-up has no row from now on.
    fn note_waiting(&mut self, evidence: &Evidence, saga: &Saga) {
        let Seen::Row { to: None, .. } = &evidence.step.seen else {
            return;
        };
        if saga.kinds.contains(&SagaKind::RemoveLater) && evidence.device.is_some() {
            self.remember_waiting(saga.device.clone(), false);
        }
    }

    fn remember_waiting(&mut self, device: Option<String>, has_row: bool) {
        let Some(device) = device else { return };
        if self.waiting.len() < MAX_WAITING || self.waiting.contains_key(&device) {
            self.waiting.insert(device, has_row);
        }
    }

    fn drop_oldest(&mut self) {
        let closed = self.known.iter().filter(|(_, saga)| !saga.state.is_open());
        let mut dropped: Vec<u64> = closed.map(|(number, _)| *number).take(DROPPED_AT_ONCE).collect();
        if dropped.is_empty() {
            dropped.extend(self.known.keys().next());
            self.given_up = self.given_up.saturating_add(1);
        }
        for number in dropped {
            self.known.remove(&number);
        }
    }
}

/// Whether a step may be one on a parent: then whose it is is not known yet.
fn may_be_parents(seen: &Seen) -> bool {
    match seen {
        Seen::Record { to, .. } => matches!(
            to,
            Some(
                DeviceState::Suspending
                    | DeviceState::Suspended
                    | DeviceState::Resuming
                    | DeviceState::Resumed
            )
        ),
        Seen::Call { call, .. } => matches!(call, NodeCall::Suspend | NodeCall::Resume),
        Seen::Row { .. } => false,
    }
}

/// Whether what a step says of its device leads to a saga, and the saga still takes steps.
fn may_be_of(saga: &Saga, evidence: &Evidence, actor: Option<&Incarnation>) -> bool {
    let at = evidence.step.at;
    let takes = match &saga.state {
        SagaState::Running => saga.actor.is_none() || actor.is_none() || saga.actor.as_ref() == actor,
        SagaState::Failed { .. } => saga.actor.as_ref() == actor,
        SagaState::Completed { at: end } | SagaState::RolledBack { at: end } => {
            evidence.since <= *end && at.since(*end) < LATE
        }
        SagaState::Died { at: end, .. } => match &evidence.step.seen {
            Seen::Call { .. } => saga.actor.as_ref() == actor && at.since(*end) < OUTLIVES,
            Seen::Record { .. } | Seen::Row { .. } => evidence.since <= *end && at.since(*end) < OUTLIVES,
        },
    };
    takes && is_about(saga, evidence)
}

fn is_about(saga: &Saga, evidence: &Evidence) -> bool {
    if let Some(key) = evidence.key.as_ref().filter(|_| evidence.device.is_none()) {
        return saga.key.as_ref() == Some(key);
    }
    let name = evidence.device.as_deref();
    let by_name = name.is_some() && (saga.device.as_deref() == name || saga.parent.as_deref() == name);
    let by_id = evidence.thin_id.is_some() && saga.thin_id == evidence.thin_id;
    let by_id = by_id && (saga.device.is_none() || name.is_none() || saga.device.as_deref() == name);
    let unborn = saga.device.is_none() || saga.device == saga.parent;
    let by_parent = evidence.parent.is_some() && saga.parent == evidence.parent;
    let by_origin = evidence.origin.is_some() && saga.parent_id == evidence.origin;
    let another = evidence.thin_id.is_some()
        && saga.thin_id.is_some()
        && saga.thin_id != evidence.thin_id
        && by_name
        && saga.device.as_deref() == name
        && !unborn;
    // A parent's id, where only the thin device of its child is known so far.
    let is_origin = name.is_some()
        && saga.parent.is_none()
        && saga.parent_id.is_some()
        && saga.parent_id == evidence.thin_id;
    !another && (by_name || by_id || is_origin || (unborn && (by_parent || by_origin)))
}

/// The saga with one more step; nothing where the step does not fit.
fn joined(saga: &Saga, evidence: &Evidence) -> Option<Saga> {
    let mut with = saga.clone();
    let adds = evidence::adds(&evidence.step.seen);
    let makes = matches!(
        evidence.step.seen,
        Seen::Call {
            call: NodeCall::MakeThin | NodeCall::MakeSnapshot,
            ..
        }
    );
    let is_parents = evidence.device.is_some() && with.parent == evidence.device;
    let unborn = with.device.is_none() || with.device == with.parent;
    let is_origin = with.parent.is_none()
        && with.parent_id.is_some()
        && with.parent_id == evidence.thin_id
        && with.thin_id != evidence.thin_id;
    if is_origin {
        with.parent.clone_from(&evidence.device);
    } else if adds || makes || !is_parents {
        if unborn && (adds || makes) && with.device.is_some() {
            with.device = None;
            with.parent_id = with.parent_id.or(with.thin_id);
            with.thin_id = None;
        }
        if unborn || with.device.is_none() {
            with.device = evidence.device.clone().or(with.device);
        }
        with.thin_id = with.thin_id.or(evidence.thin_id);
        with.parent = with.parent.or_else(|| evidence.parent.clone());
        with.parent_id = with.parent_id.or(evidence.origin);
    } else if with.device == with.parent {
        with.thin_id = with.thin_id.or(evidence.thin_id);
        with.parent_id = with.parent_id.or(evidence.thin_id);
    } else {
        with.parent_id = with.parent_id.or(evidence.thin_id);
    }
    if evidence.device.is_some() && evidence.key.is_some() {
        with.key.clone_from(&evidence.key);
    }
    push(&mut with, evidence.step.clone());
    fits(&mut with).then_some(with)
}

/// Two sagas that are one.
fn merged(one: &Saga, other: &Saga) -> Option<Saga> {
    let mut both = one.clone();
    let named = |saga: &Saga| saga.device.is_some() && saga.device != saga.parent;
    if !named(&both) {
        both.device.clone_from(&other.device);
        both.thin_id = other.thin_id;
    }
    both.parent = both.parent.or_else(|| other.parent.clone());
    both.parent_id = both.parent_id.or(other.parent_id);
    both.gaps |= other.gaps;
    both.kinds = &one.kinds & &other.kinds;
    let more = other.steps.iter().filter(|step| !one.steps.contains(step));
    for step in more {
        push(&mut both, step.clone());
    }
    both.steps.sort_by_key(|step| step.at);
    (!both.kinds.is_empty() && fits(&mut both)).then_some(both)
}

/// Narrows the kinds to those that all steps fit; says whether there are any.
fn fits(saga: &mut Saga) -> bool {
    let kinds: BTreeSet<SagaKind> = hypotheses::of(saga).iter().map(|one| one.way.kind).collect();
    if kinds.is_empty() {
        return false;
    }
    saga.kinds = kinds;
    resolve(saga);
    true
}

/// Once it is known which operation it is, a name that could be either is one of them.
fn resolve(saga: &mut Saga) {
    if saga.device.is_none() || saga.device != saga.parent {
        return;
    }
    if saga.kinds.iter().all(|kind| kind.makes()) {
        saga.device = None;
        saga.parent_id = saga.parent_id.or(saga.thin_id);
        saga.thin_id = None;
    } else if !saga.kinds.iter().any(|kind| kind.makes()) {
        saga.parent = None;
        saga.parent_id = None;
    }
}

/// Adds a step; the same once more is only counted.
fn push(saga: &mut Saga, step: SagaStep) {
    if let Some(last) = saga.steps.last_mut()
        && last.seen == step.seen
    {
        last.count = last.count.saturating_add(1);
        last.at = last.at.max(step.at);
        return;
    }
    if saga.steps.len() >= Saga::MAX_STEPS {
        // The newest tell most of where it stands.
        saga.steps.remove(1);
        saga.gaps = true;
    }
    saga.steps.push(step);
}

/// Where a saga stands after a step that was joined to it.
fn advance(saga: &mut Saga, evidence: &Evidence, known: &Containerds) {
    let at = evidence.step.at;
    let failure = match &evidence.step.seen {
        Seen::Record { from, to, error, .. } => {
            let alive = saga.actor.as_ref().is_some_and(|actor| known.alive(actor));
            let marked = *to == Some(DeviceState::Faulty) && alive;
            (marked || (!error.is_empty() && from == to)).then(|| error.clone())
        }
        Seen::Call { .. } | Seen::Row { .. } => None,
    };
    match (&saga.state, failure) {
        (SagaState::Running, Some(error)) => {
            let error = if error.is_empty() { said(saga) } else { error };
            saga.state = SagaState::Failed { at, error };
        }
        // What follows on the failed device takes it back; the parent is resumed in any case.
        (SagaState::Failed { .. }, None) if evidence.device.is_none() || evidence.device == saga.device => {
            saga.state = SagaState::Running;
        }
        _ => {}
    }
    restate(saga);
}

/// What the last call that failed said.
fn said(saga: &Saga) -> String {
    let mut errors = saga.steps.iter().rev().filter_map(|step| match &step.seen {
        Seen::Call { error, .. } => error.clone(),
        Seen::Record { .. } | Seen::Row { .. } => None,
    });
    errors
        .next()
        .unwrap_or_else(|| "containerd marked it faulty".to_owned())
}

/// The hypotheses that lack nothing that must have been seen; all of them where each lacks something.
fn likely(saga: &Saga) -> BTreeSet<Hypothesis> {
    let all = hypotheses::of(saga);
    let whole: BTreeSet<_> = all.iter().filter(|one| !one.lacks_calls()).copied().collect();
    if saga.gaps || whole.is_empty() { all } else { whole }
}

/// Says anew at which step a saga stands, or in which window it may have died.
fn restate(saga: &mut Saga) {
    let (all, likely, gaps) = (hypotheses::of(saga), likely(saga), saga.gaps);
    saga.stands_at = Windows(likely.iter().filter_map(Hypothesis::window).collect());
    let at = saga.last();
    match &mut saga.state {
        SagaState::Running if !likely.is_empty() && likely.iter().all(Hypothesis::is_finished) => {
            saga.state = if likely.iter().all(|one| one.way.undo) {
                SagaState::RolledBack { at }
            } else {
                SagaState::Completed { at }
            };
        }
        SagaState::Died { windows, settled, .. } => {
            windows.0 = all.iter().flat_map(|one| one.windows(gaps)).collect();
            *settled = false;
        }
        _ => {}
    }
}

/// After a death: what is found narrows the windows down.
fn settle(saga: &mut Saga, world: &World) {
    let gaps = saga.gaps;
    let mut windows: BTreeSet<_> = likely(saga).iter().flat_map(|one| one.windows(gaps)).collect();
    narrow_by_child(saga, &mut windows, world);
    for name in [&saga.device, &saga.parent].into_iter().flatten() {
        let record = world.pool_db.devices.get(name);
        let is_subject = saga.device.as_ref() == Some(name);
        // The next operation on the name has begun: what is found is that one's.
        let another = record
            .zip(saga.thin_id)
            .is_some_and(|(record, id)| is_subject && record.device_id != id);
        let Some(remains) = Remains::in_world(world, name).filter(|_| !another) else {
            continue;
        };
        let fitting: BTreeSet<_> = windows.intersection(&remains.windows()).copied().collect();
        if !fitting.is_empty() {
            windows = fitting;
        }
    }
    let SagaState::Died { at, .. } = saga.state else {
        return;
    };
    saga.state = if windows == BTreeSet::from([Window::X10]) {
        SagaState::RolledBack { at }
    } else if !windows.is_empty() && windows.iter().all(|window| window.is_end()) {
        // It was finished before the death, unnoticed.
        SagaState::Completed { at }
    } else {
        SagaState::Died {
            at,
            windows: Windows(windows),
            settled: true,
        }
    };
}

/// Only the parent's side was seen: whether its new child has a record tells how far it came.
fn narrow_by_child(saga: &mut Saga, windows: &mut BTreeSet<Window>, world: &World) {
    let (None, Some(parent)) = (&saga.device, &saga.parent) else {
        return;
    };
    let records = world.pool_db.devices.values();
    let mut children = records.filter(|record| {
        let id = world.pool.name.snapshot_of(&record.name);
        record.parent_name == *parent
            && id.is_some_and(|id| id.0 > world.snapshots.sequence && !world.has_snapshot(id))
    });
    match (children.next(), children.next()) {
        (None, _) => {
            let before: BTreeSet<_> = windows
                .intersection(&BTreeSet::from([Window::S1, Window::S2, Window::S3]))
                .copied()
                .collect();
            if !before.is_empty() {
                *windows = before;
            }
        }
        // A faulty one may be left of an earlier death.
        (Some(child), None) if child.state != DeviceState::Faulty => {
            saga.device = Some(child.name.clone());
            saga.thin_id = Some(child.device_id);
        }
        _ => {}
    }
}

/// A saga of which the end was not seen: the world shows it.
fn ends_unseen(saga: &mut Saga, world: &World) {
    let Some(remains) = saga
        .device
        .as_ref()
        .and_then(|name| Remains::in_world(world, name))
    else {
        return;
    };
    let at = world.begun;
    let Some(kind) = saga.kinds.first().copied() else {
        return;
    };
    let same_way = saga.kinds.iter().all(|one| one.makes() == kind.makes());
    let completed = match kind {
        _ if !same_way => false,
        kind if kind.makes() => remains.row.is_some() && remains.record == Some(DeviceState::Activated),
        SagaKind::Commit => {
            remains.row == Some(SnapshotKind::Committed) && remains.record == Some(DeviceState::Deactivated)
        }
        SagaKind::Remove | SagaKind::CleanUp => remains.row.is_none() && remains.record.is_none(),
        SagaKind::RemoveLater => remains.row.is_none(),
        SagaKind::StartUp => remains.record == Some(DeviceState::Activated),
        SagaKind::Create | SagaKind::Snapshot | SagaKind::SnapshotOfLoaded => false,
    };
    // Before its record is added there is none to be gone.
    let begun = saga
        .steps
        .iter()
        .any(|step| matches!(&step.seen, Seen::Record { name, .. } if saga.device.as_ref() == Some(name)));
    if completed {
        saga.state = SagaState::Completed { at };
    } else if same_way && kind.makes() && begun && remains.record.is_none() && !remains.past {
        saga.state = SagaState::RolledBack { at };
    }
}
