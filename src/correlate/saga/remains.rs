//! What a death in each window leaves behind, and the other way round: from what is found of a device, the windows that
//! may have left it so. No event is needed for that, only one read of the world.

use std::collections::BTreeSet;

use super::chain::{Does, Need, Role, Way};
use crate::model::{
    DeviceRecord, DeviceState, Node, PoolName, SnapshotId, Survey, World,
    databases::SnapshotKind,
    saga::{NodeCall, SagaKind},
    window::Window,
};

/// A dm device, as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeFound {
    /// There is none of that name.
    Absent,
    /// It is there without a live table.
    Half,
    /// It is there and works.
    Live,
    /// It is suspended.
    Suspended,
    /// Its table is the `error` target.
    Error,
    /// It could not be read.
    Unknown,
}

/// What is found of one device after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// State of its record.
    pub record: Option<DeviceState>,
    /// Whether the pool has its thin device; nothing where that is not known.
    pub thin: Option<bool>,
    /// Its dm device.
    pub node: NodeFound,
    /// Kind of its snapshot's row.
    pub row: Option<SnapshotKind>,
    /// Whether its number was handed out in a transaction that was stored: then its snapshot was complete once.
    pub past: bool,
}

impl Remains {
    /// Of a device of this name in a world.
    #[must_use]
    pub fn in_world(world: &World, name: &str) -> Option<Self> {
        let id = world.pool.name.snapshot_of(name)?;
        let record = world.pool_db.devices.get(name);
        let rows = world.snapshots.snapshots.values();
        Some(Self {
            record: record.map(|record| record.state),
            thin: record.map(|record| world.thin.contains_key(&record.device_id)),
            node: node_of(&world.nodes, name),
            row: rows.clone().find(|row| row.id == id).map(|row| row.kind),
            past: id.0 <= world.snapshots.sequence,
        })
    }

    /// Of a device of this name in a survey.
    #[must_use]
    pub fn in_survey(survey: &Survey, name: &str) -> Option<Self> {
        let id = survey.pool_name.snapshot_of(name)?;
        let record: Option<&DeviceRecord> = survey.pool_db.devices.get(name);
        let mut rows = survey.snapshots.snapshots.values();
        Some(Self {
            record: record.map(|record| record.state),
            thin: record.and_then(|record| survey.has_thin(record.device_id)),
            node: if survey.pool.is_some() {
                node_of(&survey.nodes, name)
            } else {
                NodeFound::Unknown
            },
            row: rows.find(|row| row.id == id).map(|row| row.kind),
            past: id.0 <= survey.snapshots.sequence,
        })
    }

    /// Every window that may have left this; empty where no death of containerd's does.
    #[must_use]
    pub fn windows(&self) -> BTreeSet<Window> {
        let mut windows = BTreeSet::new();
        for way in Way::all() {
            for role in [Role::Subject, Role::Parent] {
                for (window, left) in forecasts(way, role) {
                    if left.then_what().iter().any(|left| left.fits(self)) {
                        windows.insert(window);
                    }
                }
            }
        }
        windows
    }
}

fn node_of(nodes: &[Node], name: &str) -> NodeFound {
    match nodes.iter().find(|node| node.name.as_str() == name) {
        None => NodeFound::Absent,
        Some(node) if node.unreadable => NodeFound::Unknown,
        Some(node) if node.suspended => NodeFound::Suspended,
        Some(node) if node.error_table => NodeFound::Error,
        Some(node) if node.live => NodeFound::Live,
        Some(_) => NodeFound::Half,
    }
}

/// The snapshot that a device belongs to.
pub(super) fn snapshot_of(pool: &PoolName, name: Option<&str>) -> Option<SnapshotId> {
    name.and_then(|name| pool.snapshot_of(name))
}

/// What is left, as far as it is certain.
#[derive(Debug, Clone)]
struct Left {
    /// States that the record may have; none of them where there is no record.
    record: Option<DeviceState>,
    /// Set while the record may be in any state.
    any_record: bool,
    thin: Option<bool>,
    nodes: Vec<NodeFound>,
    row: RowLeft,
    past: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowLeft {
    Gone,
    /// Active, or a View.
    Open,
    Layer,
    /// Either of them.
    Any,
}

/// What is left of the device in a role after each step of a way that leaves anything of it.
fn forecasts(way: Way, role: Role) -> Vec<(Window, Left)> {
    let Some(mut left) = Left::before(way, role) else {
        return Vec::new();
    };
    let mut begun = role == Role::Parent || way.kind != SagaKind::SnapshotOfLoaded || way.undo;
    let mut forecasts = Vec::new();
    for link in way.links() {
        left.after(way, role, link.does, link.need);
        begun |= link.does == Does::Add;
        if begun {
            forecasts.push((link.window, left.clone()));
        }
    }
    forecasts
}

impl Left {
    /// What is there before the first step; nothing where the way has nobody in that role.
    fn before(way: Way, role: Role) -> Option<Self> {
        use NodeFound::{Absent, Error, Half, Live, Suspended};
        let there = Self {
            record: None,
            any_record: true,
            thin: Some(true),
            nodes: vec![Live],
            row: RowLeft::Open,
            past: true,
        };
        let layer = Self {
            row: RowLeft::Layer,
            ..there.clone()
        };
        Some(match (way.kind, role) {
            (SagaKind::SnapshotOfLoaded, Role::Parent) if !way.undo => layer,
            (_, Role::Parent) => return None,
            (kind, Role::Subject) if kind.makes() => Self {
                any_record: way.undo,
                thin: if way.undo { None } else { Some(false) },
                // A dm device in the way is a reason why one could not be made.
                nodes: if way.undo {
                    vec![Absent, Half, Live]
                } else {
                    vec![Absent]
                },
                row: RowLeft::Gone,
                past: false,
                ..there
            },
            (SagaKind::Remove | SagaKind::RemoveLater, Role::Subject) => Self {
                // What was half removed before is removed once more.
                thin: None,
                nodes: vec![Absent, Half, Live, Suspended, Error],
                row: RowLeft::Any,
                ..there
            },
            (SagaKind::CleanUp, Role::Subject) => Self {
                thin: None,
                nodes: vec![Absent, Half, Live, Suspended, Error],
                row: RowLeft::Gone,
                ..there
            },
            (SagaKind::StartUp, Role::Subject) => Self {
                nodes: vec![Absent],
                row: RowLeft::Any,
                ..there
            },
            (_, Role::Subject) => there,
        })
    }

    fn after(&mut self, way: Way, role: Role, does: Does, need: Need) {
        match does {
            Does::Record(of, state) if of == role => {
                self.record = Some(state);
                self.any_record = false;
                if way.undo && state == DeviceState::Deactivating {
                    // Deleted before, or not begun with.
                    self.thin = None;
                }
            }
            Does::Add => {
                if role == Role::Subject {
                    self.record = Some(DeviceState::Unknown);
                    self.any_record = false;
                }
            }
            Does::Drop => {
                self.record = None;
                self.any_record = false;
            }
            Does::Row(kind) => {
                if role == Role::Subject {
                    self.row = match kind {
                        None => RowLeft::Gone,
                        Some(SnapshotKind::Committed) => RowLeft::Layer,
                        Some(_) => RowLeft::Open,
                    };
                    self.past = true;
                }
            }
            Does::Call(of, call) if of == role => self.call(way, call, need),
            Does::Record(..) | Does::Call(..) | Does::Unseen | Does::Named => {}
        }
    }

    fn call(&mut self, way: Way, call: NodeCall, need: Need) {
        let removes_by_force = need == Need::Perhaps;
        match call {
            NodeCall::MakeThin | NodeCall::MakeSnapshot => self.thin = Some(true),
            NodeCall::DeleteThin => self.thin = Some(false),
            NodeCall::Create => self.nodes = vec![NodeFound::Half],
            NodeCall::Resume if removes_by_force => self.nodes.push(NodeFound::Error),
            NodeCall::Resume => self.nodes = vec![NodeFound::Live],
            NodeCall::Suspend => self.nodes = vec![NodeFound::Suspended],
            // A commit lets the last user close it first.
            NodeCall::Remove if way.kind == SagaKind::Commit => {
                self.nodes = vec![NodeFound::Absent, NodeFound::Live];
            }
            NodeCall::Remove => self.nodes = vec![NodeFound::Absent],
            NodeCall::Load | NodeCall::LoadError => {}
        }
    }

    /// The same after a reboot, after containerd's next start, and after both.
    fn then_what(&self) -> [Self; 4] {
        let rebooted = self.rebooted();
        [self.clone(), self.restarted(), rebooted.restarted(), rebooted]
    }

    fn rebooted(&self) -> Self {
        Self {
            nodes: vec![NodeFound::Absent],
            ..self.clone()
        }
    }

    /// `ensureDeviceStates`, `pool_device.go`.
    fn restarted(&self) -> Self {
        use DeviceState as D;
        let mut left = self.clone();
        match self.record {
            Some(D::Activated) => {
                if !left.nodes.contains(&NodeFound::Live) {
                    left.nodes.push(NodeFound::Live);
                }
            }
            None
            | Some(D::Suspended | D::Resumed | D::Deactivated | D::Removed | D::Faulty | D::Other(_)) => {}
            Some(_) => left.record = Some(D::Faulty),
        }
        left
    }

    fn fits(&self, found: &Remains) -> bool {
        let row = match found.row {
            None => self.row == RowLeft::Gone,
            Some(SnapshotKind::Committed) => matches!(self.row, RowLeft::Layer | RowLeft::Any),
            Some(_) => matches!(self.row, RowLeft::Open | RowLeft::Any),
        };
        let thin = match (self.thin, found.thin) {
            (Some(left), Some(found)) => left == found,
            _ => true,
        };
        (self.any_record || self.record == found.record)
            && thin
            && (found.node == NodeFound::Unknown || self.nodes.contains(&found.node))
            && row
            && self.past == found.past
    }
}
