//! Scripted histories of every operation, in the order of the ioctls and transactions of containerd's own code, with what
//! each step leaves behind written down by hand: not derived from the chains that they test.

mod cuts;
mod failures;
mod lost;
mod recordings;
mod table;
mod together;

use super::*;
use crate::{
    correlate::Correlator,
    model::{
        DeviceRecord, DeviceState, Observation, Saga, ThinId, TxId, Untrusted, Window, World,
        commit::{Commit, DatabaseKind, EntryChange},
        databases::{SnapshotKind, SnapshotRow},
        dm::{DmCommand, DmFlags, Payload, Target},
    },
    testing::*,
};

use DeviceState as D;
use NodeFound as F;
use SnapshotKind as K;
use Window as W;

/// Something that is observed.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Record(Option<D>, Option<D>, &'static str),
    Parent(Option<D>, Option<D>),
    Message(String, i32),
    Call(Whose, DmCommand, u32),
    Load,
    LoadError,
    Row(Option<K>, Option<K>),
    Named,
    /// Nothing tells of it.
    Unseen,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    Own,
    Parents,
}

/// What is found of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) record: Option<D>,
    pub(super) thin: bool,
    pub(super) node: F,
    pub(super) row: Option<K>,
}

/// One step of a script.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) window: W,
    pub(super) event: Event,
    pub(super) left: Left,
    pub(super) parent: Option<(D, F)>,
}

/// The last number that was handed out in every world here.
const SEQUENCE: u64 = 1999;

/// Which devices a script is about: its snapshot, and one of a number between 1000 and 1100 as its parent. Thin ids are
/// 10000 more.
#[derive(Debug, Clone, Copy)]
pub(super) struct On {
    pub(super) snapshot: u64,
    pub(super) with_parent: bool,
}

impl On {
    pub(super) fn name(self) -> String {
        format!("tp-snap-{}", self.snapshot)
    }

    pub(super) fn parent(self) -> String {
        format!("tp-snap-{}", self.parents_snapshot())
    }

    fn parents_snapshot(self) -> u64 {
        self.snapshot % 100 + 1000
    }

    pub(super) fn id(self) -> u32 {
        u32::try_from(self.snapshot).unwrap() + 10_000
    }

    pub(super) fn parent_id(self) -> u32 {
        u32::try_from(self.parents_snapshot()).unwrap() + 10_000
    }

    fn key(self) -> String {
        format!("default/{}/key", self.snapshot)
    }

    /// The observation of an event, at a second.
    #[expect(clippy::too_many_lines, reason = "a kind of event each")]
    pub(super) fn observe(self, event: &Event, second: u64) -> Option<Observation> {
        let bytes = |text: &str| Untrusted::from_bytes(text.as_bytes());
        let commit = |database, changes| {
            Observation::Commit(Box::new(Commit {
                at: at(second),
                since: at(second - 1),
                database,
                from: Some(TxId(second)),
                to: TxId(second + 1),
                changes,
                more: 0,
            }))
        };
        let record = |name: String, id, parent: String, state, error: &str| DeviceRecord {
            device_id: ThinId(id),
            size: crate::model::Bytes(1 << 26),
            name,
            parent_name: parent,
            state,
            error: error.to_owned(),
        };
        let own = |state, error| {
            let parent = if self.with_parent {
                self.parent()
            } else {
                String::new()
            };
            record(self.name(), self.id(), parent, state, error)
        };
        let parents = |state| record(self.parent(), self.parent_id(), String::new(), state, "");
        let row = |kind| SnapshotRow {
            id: crate::model::SnapshotId(self.snapshot),
            kind,
            parent: None,
        };
        Some(match event {
            Event::Record(from, to, error) => commit(
                DatabaseKind::Pool,
                vec![EntryChange::Device {
                    name: bytes(&self.name()),
                    from: from.map(|state| own(state, "")),
                    to: to.map(|state| own(state, error)),
                }],
            ),
            Event::Parent(from, to) => commit(
                DatabaseKind::Pool,
                vec![EntryChange::Device {
                    name: bytes(&self.parent()),
                    from: from.map(parents),
                    to: to.map(parents),
                }],
            ),
            Event::Message(text, result) => message(second, text, *result, by_containerd()),
            Event::Call(whose, command, flags) => {
                let name = match whose {
                    Whose::Own => self.name(),
                    Whose::Parents => self.parent(),
                };
                let mut call = call(second, *command, &name, Payload::Nothing, 0, by_containerd());
                if let Observation::DmIoctl(call) = &mut call {
                    call.flags = *flags;
                }
                call
            }
            Event::Load => load(second, &self.name(), self.id(), by_containerd()),
            Event::LoadError => {
                let target = Target {
                    start: crate::model::Sectors(0),
                    length: crate::model::Sectors(8),
                    kind: bytes("error"),
                    parameters: bytes(""),
                };
                let targets = vec![target];
                call(
                    second,
                    DmCommand::TableLoad,
                    &self.name(),
                    Payload::Table { targets },
                    0,
                    by_containerd(),
                )
            }
            Event::Row(from, to) => {
                let change = |key: String, from: &Option<K>, to: &Option<K>| EntryChange::Snapshot {
                    key: bytes(&key),
                    from: from.map(row),
                    to: to.map(row),
                };
                let changes = match (from, to) {
                    // A commit renames the row.
                    (Some(_), Some(_)) => vec![
                        change(self.key(), from, &None),
                        change(format!("{}-layer", self.key()), &None, to),
                    ],
                    _ => vec![change(self.key(), from, to)],
                };
                commit(DatabaseKind::Snapshots, changes)
            }
            Event::Named => commit(
                DatabaseKind::Core,
                [self.key(), format!("{}-layer", self.key())]
                    .map(|key| EntryChange::Core {
                        namespace: bytes("default"),
                        key: bytes("key"),
                        from: None,
                        to: Some(bytes(&key)),
                    })
                    .to_vec(),
            ),
            Event::Unseen => return None,
        })
    }

    /// Puts what is left into a world.
    pub(super) fn fill(self, mut world: World, line: &Line) -> World {
        world = put(world, &self.name(), self.id(), line.left.record, line.left.node);
        if let Some(record) = world
            .pool_db
            .devices
            .get_mut(&self.name())
            .filter(|_| self.with_parent)
        {
            record.parent_name = self.parent();
        }
        if line.left.thin {
            world = world.thin(self.id());
        }
        if let Some(kind) = line.left.row {
            world = world.snapshot(self.snapshot);
            let key = format!("default/{}/key", self.snapshot);
            world.snapshots.snapshots.get_mut(&key).unwrap().kind = kind;
        }
        let given_out = if line.left.row.is_some() { self.snapshot } else { 0 };
        world.snapshots.sequence = world.snapshots.sequence.max(SEQUENCE).max(given_out);
        if let Some((record, node)) = line.parent {
            let (id, snapshot) = (self.parent_id(), self.parents_snapshot());
            world = put(world, &self.parent(), id, Some(record), node)
                .thin(id)
                .snapshot(snapshot);
            let key = format!("default/{snapshot}/key");
            world.snapshots.snapshots.get_mut(&key).unwrap().kind = K::Committed;
        }
        world
    }
}

fn put(mut world: World, name: &str, id: u32, record: Option<D>, node: F) -> World {
    if let Some(state) = record {
        world = world.record(name, id, state);
    }
    if node != F::Absent {
        world = world.node(name, id);
        let last = world.nodes.last_mut().unwrap();
        last.live = node != F::Half;
        last.suspended = node == F::Suspended;
        last.error_table = node == F::Error;
    }
    world
}

pub(super) fn line(window: W, event: Event, record: Option<D>, thin: bool, node: F, row: Option<K>) -> Line {
    Line {
        window,
        event,
        left: Left {
            record,
            thin,
            node,
            row,
        },
        parent: None,
    }
}

fn step(from: D, to: D) -> Event {
    Event::Record(Some(from), Some(to), "")
}

fn own(command: DmCommand) -> Event {
    Event::Call(Whose::Own, command, 0)
}

const SUSPEND: u32 = DmFlags::SUSPEND.bits();

/// `prepare` without a parent, facts 2.1.
pub(super) fn create(on: On) -> Vec<Line> {
    let id = on.id();
    vec![
        line(
            W::B1,
            Event::Record(None, Some(D::Unknown), ""),
            Some(D::Unknown),
            false,
            F::Absent,
            None,
        ),
        line(
            W::B2,
            step(D::Unknown, D::Creating),
            Some(D::Creating),
            false,
            F::Absent,
            None,
        ),
        line(
            W::B3,
            Event::Message(format!("create_thin {id}"), 0),
            Some(D::Creating),
            true,
            F::Absent,
            None,
        ),
        line(
            W::B4,
            step(D::Creating, D::Created),
            Some(D::Created),
            true,
            F::Absent,
            None,
        ),
        line(
            W::B5,
            step(D::Created, D::Activating),
            Some(D::Activating),
            true,
            F::Absent,
            None,
        ),
        line(
            W::B6Half,
            own(DmCommand::DevCreate),
            Some(D::Activating),
            true,
            F::Half,
            None,
        ),
        line(W::B6Half, Event::Load, Some(D::Activating), true, F::Half, None),
        line(
            W::B6,
            own(DmCommand::DevSuspend),
            Some(D::Activating),
            true,
            F::Live,
            None,
        ),
        line(
            W::B7,
            step(D::Activating, D::Activated),
            Some(D::Activated),
            true,
            F::Live,
            None,
        ),
        line(W::B8, Event::Unseen, Some(D::Activated), true, F::Live, None),
        line(W::B9, Event::Unseen, Some(D::Activated), true, F::Live, None),
        line(
            W::B10,
            Event::Row(None, Some(K::Active)),
            Some(D::Activated),
            true,
            F::Live,
            Some(K::Active),
        ),
        line(
            W::B11,
            Event::Named,
            Some(D::Activated),
            true,
            F::Live,
            Some(K::Active),
        ),
    ]
}

/// `prepare` or `view` of a parent that is not loaded, facts 2.2.
pub(super) fn snapshot(on: On) -> Vec<Line> {
    let mut lines = create(on);
    lines[2].event = Event::Message(format!("create_snap {} {}", on.id(), on.parent_id()), 0);
    lines.retain(|line| line.window != W::B8);
    lines
}

/// The same of one that is, facts 2.2.
pub(super) fn snapshot_of_loaded(on: On) -> Vec<Line> {
    let none = |window, event| line(window, event, None, false, F::Absent, None);
    let mut lines = vec![
        none(W::S1, Event::Parent(Some(D::Deactivated), Some(D::Suspending))),
        none(W::S2, Event::Call(Whose::Parents, DmCommand::DevSuspend, SUSPEND)),
        none(W::S3, Event::Parent(Some(D::Suspending), Some(D::Suspended))),
    ];
    let names = [
        W::S4,
        W::S5,
        W::S6,
        W::S7,
        W::S8,
        W::S9Half,
        W::S9Half,
        W::S9,
        W::S10,
    ];
    for (window, mut line) in names.into_iter().zip(snapshot(on)) {
        line.window = window;
        lines.push(line);
    }
    let rest = |window, event, row| line(window, event, Some(D::Activated), true, F::Live, row);
    lines.extend([
        rest(W::S11, Event::Parent(Some(D::Suspended), Some(D::Resuming)), None),
        rest(
            W::S12,
            Event::Call(Whose::Parents, DmCommand::DevSuspend, 0),
            None,
        ),
        rest(W::S13, Event::Parent(Some(D::Resuming), Some(D::Resumed)), None),
        rest(W::S14, Event::Unseen, None),
        rest(W::S15, Event::Row(None, Some(K::Active)), Some(K::Active)),
        rest(W::B11, Event::Named, Some(K::Active)),
    ]);
    for line in &mut lines {
        line.parent = Some(match line.window {
            W::S1 => (D::Suspending, F::Live),
            W::S2 => (D::Suspending, F::Suspended),
            W::S11 => (D::Resuming, F::Suspended),
            W::S12 => (D::Resuming, F::Live),
            W::S13 | W::S14 | W::S15 | W::B11 => (D::Resumed, F::Live),
            _ => (D::Suspended, F::Suspended),
        });
    }
    lines
}

/// `commit`, facts 2.3.
pub(super) fn commit(_: On) -> Vec<Line> {
    let at = |window, event, record, node| line(window, event, Some(record), true, node, Some(K::Active));
    vec![
        at(W::C1, step(D::Activated, D::Suspending), D::Suspending, F::Live),
        at(
            W::C2,
            Event::Call(Whose::Own, DmCommand::DevSuspend, SUSPEND),
            D::Suspending,
            F::Suspended,
        ),
        at(
            W::C3,
            step(D::Suspending, D::Suspended),
            D::Suspended,
            F::Suspended,
        ),
        at(W::C4, step(D::Suspended, D::Resuming), D::Resuming, F::Suspended),
        at(W::C5, own(DmCommand::DevSuspend), D::Resuming, F::Live),
        at(W::C6, step(D::Resuming, D::Resumed), D::Resumed, F::Live),
        at(W::C7, step(D::Resumed, D::Deactivating), D::Deactivating, F::Live),
        at(W::C8, own(DmCommand::DevRemove), D::Deactivating, F::Absent),
        at(
            W::C9,
            step(D::Deactivating, D::Deactivated),
            D::Deactivated,
            F::Absent,
        ),
        line(
            W::C10,
            Event::Row(Some(K::Active), Some(K::Committed)),
            Some(D::Deactivated),
            true,
            F::Absent,
            Some(K::Committed),
        ),
    ]
}

/// `remove` of a snapshot whose device is there, facts 2.4.
pub(super) fn remove(on: On) -> Vec<Line> {
    removal(
        on,
        D::Activated,
        Some(K::Active),
        &[W::R1, W::R2, W::R3, W::R4, W::R5, W::R6, W::R7],
        Some(line(
            W::R8,
            Event::Row(Some(K::Active), None),
            None,
            false,
            F::Absent,
            None,
        )),
    )
}

/// The clean-up of one that was removed before, facts 2.4.
pub(super) fn clean_up(on: On) -> Vec<Line> {
    let names = [W::A3, W::A4, W::A5, W::A6, W::A7, W::A8, W::A9];
    removal(on, D::Removed, None, &names, None)
}

fn removal(on: On, from: D, row: Option<K>, names: &[W], last: Option<Line>) -> Vec<Line> {
    let delete = Event::Message(format!("delete {}", on.id()), 0);
    let steps = [
        (step(from, D::Deactivating), Some(D::Deactivating), true, F::Live),
        (own(DmCommand::DevRemove), Some(D::Deactivating), true, F::Absent),
        (
            step(D::Deactivating, D::Deactivated),
            Some(D::Deactivated),
            true,
            F::Absent,
        ),
        (
            step(D::Deactivated, D::Removing),
            Some(D::Removing),
            true,
            F::Absent,
        ),
        (delete, Some(D::Removing), false, F::Absent),
        (step(D::Removing, D::Removed), Some(D::Removed), false, F::Absent),
        (Event::Record(Some(D::Removed), None, ""), None, false, F::Absent),
    ];
    let lines = names.iter().zip(steps);
    let mut lines: Vec<Line> = lines
        .map(|(window, (event, record, thin, node))| line(*window, event, record, thin, node, row))
        .collect();
    // `remove --force` swaps the table first; a death there leaves the window it was in.
    lines.insert(
        1,
        line(
            lines[0].window,
            Event::LoadError,
            Some(D::Deactivating),
            true,
            F::Live,
            row,
        ),
    );
    let resume = own(DmCommand::DevSuspend);
    lines.insert(
        2,
        line(
            lines[0].window,
            resume,
            Some(D::Deactivating),
            true,
            F::Error,
            row,
        ),
    );
    lines.extend(last);
    lines
}

/// `remove` with `async_remove`, facts 2.4.
pub(super) fn remove_later(_: On) -> Vec<Line> {
    vec![
        line(
            W::A1,
            step(D::Deactivated, D::Removed),
            Some(D::Removed),
            true,
            F::Absent,
            Some(K::Committed),
        ),
        line(
            W::A2,
            Event::Row(Some(K::Committed), None),
            Some(D::Removed),
            true,
            F::Absent,
            None,
        ),
    ]
}

/// `ensureDeviceStates`, facts 1.3.
pub(super) fn start_up(_: On) -> Vec<Line> {
    let at = |window, event, record, node| line(window, event, Some(record), true, node, Some(K::Active));
    vec![
        at(W::U1, step(D::Activated, D::Activating), D::Activating, F::Absent),
        at(W::U2Half, own(DmCommand::DevCreate), D::Activating, F::Half),
        at(W::U2Half, Event::Load, D::Activating, F::Half),
        at(W::U2, own(DmCommand::DevSuspend), D::Activating, F::Live),
        at(W::U3, step(D::Activating, D::Activated), D::Activated, F::Live),
    ]
}

/// One of the operations, with what it is about.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    pub(super) lines: fn(On) -> Vec<Line>,
    pub(super) with_parent: bool,
    pub(super) past: bool,
    /// Whether the last line is the end of it.
    pub(super) ends: bool,
    /// Whether it begins with a record that waits for the clean-up.
    pub(super) waits: bool,
}

/// All operations.
pub(super) fn scripts() -> [Script; 8] {
    let script = |lines, with_parent, past, ends| Script {
        lines,
        with_parent,
        past,
        ends,
        waits: false,
    };
    [
        script(create as fn(On) -> Vec<Line>, false, false, true),
        script(snapshot, true, false, true),
        script(snapshot_of_loaded, true, false, true),
        script(commit, true, true, false),
        script(remove, false, true, true),
        script(remove_later, false, true, true),
        Script {
            waits: true,
            ..script(clean_up, false, true, true)
        },
        script(start_up, false, true, true),
    ]
}

impl Script {
    pub(super) fn on(self, snapshot: u64) -> On {
        On {
            snapshot: snapshot + if self.past { 500 } else { 3000 },
            with_parent: self.with_parent,
        }
    }
}

/// One that sees everything from second 3 on.
pub(super) fn watching() -> Correlator {
    watching_over(&[])
}

/// The same, where these operations are about to begin.
pub(super) fn watching_over(scripts: &[(Script, On)]) -> Correlator {
    let mut correlator = Correlator::new(pool(), at(0));
    correlator.observe(&up(1));
    let mut before = world(2);
    for (_, on) in scripts.iter().filter(|(script, _)| script.waits) {
        before = before.record(&on.name(), on.id(), D::Removed).thin(on.id());
    }
    correlator.world(&before);
    correlator
}

/// The saga about a script's devices.
pub(super) fn saga_of(correlator: &Correlator, on: On) -> &Saga {
    let about = |saga: &&Saga| {
        let (name, parent) = (on.name(), on.parent());
        let is = |known: &Option<String>, name: &String| known.as_ref() == Some(name);
        is(&saga.device, &name)
            || is(&saga.device, &parent)
            || is(&saga.parent, &parent)
            || saga.thin_id == Some(ThinId(on.id()))
    };
    let all: Vec<&Saga> = correlator.sagas().all().filter(about).collect();
    let [saga] = all.as_slice() else {
        panic!("not one saga about {on:?}: {all:#?}")
    };
    saga
}
