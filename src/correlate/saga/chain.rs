//! What containerd does in each operation, step by step, in its own order (`plugins/snapshots/devmapper/snapshotter.go`
//! and `pool_device.go`), and the window that begins with each step.

use crate::model::{
    DeviceState,
    databases::SnapshotKind,
    saga::{NodeCall, SagaKind},
    window::Window,
};

/// Whose device a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The one that the operation is about.
    Subject,
    /// Its parent's.
    Parent,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// A transaction of the pool database moves a record.
    Record(Role, DeviceState),
    /// A transaction adds the subject's record, with a new thin id.
    Add,
    /// A transaction takes the subject's record away.
    Drop,
    /// A call to device-mapper.
    Call(Role, NodeCall),
    /// Something that nothing tells of: `mkfs`, or a mount.
    Unseen,
    /// The snapshot's row is of this kind from now on, or gone.
    Row(Option<SnapshotKind>),
    /// containerd's own database names the snapshot.
    Named,
}

/// Whether a step is always made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It is.
    Always,
    /// All steps of this number are, or none.
    Together(u8),
    /// It may be left out by itself.
    Perhaps,
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// The window from this step on.
    pub(super) window: Window,
    /// What it does.
    pub(super) does: Does,
    /// Whether it is always made.
    pub(super) need: Need,
}

const fn link(window: Window, does: Does) -> Link {
    Link {
        window,
        does,
        need: Need::Always,
    }
}

const fn group(window: Window, number: u8, does: Does) -> Link {
    Link {
        window,
        does,
        need: Need::Together(number),
    }
}

const fn perhaps(window: Window, does: Does) -> Link {
    Link {
        window,
        does,
        need: Need::Perhaps,
    }
}

use DeviceState as D;
use Does::{Add, Call, Drop, Named, Record, Row, Unseen};
use NodeCall as N;
use Role::{Parent, Subject};
use Window as W;

/// The kind of a stored row says nothing here: a View or an Active one.
const STORED: Does = Row(Some(SnapshotKind::Active));
const COMMITTED: Does = Row(Some(SnapshotKind::Committed));

const CREATE: &[Link] = &[
    link(W::B1, Add),
    link(W::B2, Record(Subject, D::Creating)),
    link(W::B3, Call(Subject, N::MakeThin)),
    link(W::B4, Record(Subject, D::Created)),
    link(W::B5, Record(Subject, D::Activating)),
    link(W::B6Half, Call(Subject, N::Create)),
    link(W::B6Half, Call(Subject, N::Load)),
    link(W::B6, Call(Subject, N::Resume)),
    link(W::B7, Record(Subject, D::Activated)),
    link(W::B8, Unseen),
    link(W::B9, Unseen),
    link(W::B10, STORED),
    link(W::B11, Named),
];

const SNAPSHOT: &[Link] = &[
    link(W::B1, Add),
    link(W::B2, Record(Subject, D::Creating)),
    link(W::B3, Call(Subject, N::MakeSnapshot)),
    link(W::B4, Record(Subject, D::Created)),
    link(W::B5, Record(Subject, D::Activating)),
    link(W::B6Half, Call(Subject, N::Create)),
    link(W::B6Half, Call(Subject, N::Load)),
    link(W::B6, Call(Subject, N::Resume)),
    link(W::B7, Record(Subject, D::Activated)),
    link(W::B9, Unseen),
    link(W::B10, STORED),
    link(W::B11, Named),
];

const SNAPSHOT_OF_LOADED: &[Link] = &[
    link(W::S1, Record(Parent, D::Suspending)),
    link(W::S2, Call(Parent, N::Suspend)),
    link(W::S3, Record(Parent, D::Suspended)),
    link(W::S4, Add),
    link(W::S5, Record(Subject, D::Creating)),
    link(W::S6, Call(Subject, N::MakeSnapshot)),
    link(W::S7, Record(Subject, D::Created)),
    link(W::S8, Record(Subject, D::Activating)),
    link(W::S9Half, Call(Subject, N::Create)),
    link(W::S9Half, Call(Subject, N::Load)),
    link(W::S9, Call(Subject, N::Resume)),
    link(W::S10, Record(Subject, D::Activated)),
    link(W::S11, Record(Parent, D::Resuming)),
    link(W::S12, Call(Parent, N::Resume)),
    link(W::S13, Record(Parent, D::Resumed)),
    link(W::S14, Unseen),
    link(W::S15, STORED),
    link(W::B11, Named),
];

const COMMIT: &[Link] = &[
    link(W::C1, Record(Subject, D::Suspending)),
    link(W::C2, Call(Subject, N::Suspend)),
    link(W::C3, Record(Subject, D::Suspended)),
    link(W::C4, Record(Subject, D::Resuming)),
    link(W::C5, Call(Subject, N::Resume)),
    link(W::C6, Record(Subject, D::Resumed)),
    link(W::C7, Record(Subject, D::Deactivating)),
    link(W::C8, Call(Subject, N::Remove)),
    link(W::C9, Record(Subject, D::Deactivated)),
    link(W::C10, COMMITTED),
    link(W::C10, Named),
];

const REMOVE: &[Link] = &[
    group(W::R1, 1, Record(Subject, D::Deactivating)),
    perhaps(W::R1, Call(Subject, N::LoadError)),
    perhaps(W::R1, Call(Subject, N::Resume)),
    group(W::R2, 1, Call(Subject, N::Remove)),
    group(W::R3, 1, Record(Subject, D::Deactivated)),
    link(W::R4, Record(Subject, D::Removing)),
    link(W::R5, Call(Subject, N::DeleteThin)),
    link(W::R6, Record(Subject, D::Removed)),
    link(W::R7, Drop),
    link(W::R8, Row(None)),
];

const REMOVE_LATER: &[Link] = &[link(W::A1, Record(Subject, D::Removed)), link(W::A2, Row(None))];

const CLEAN_UP: &[Link] = &[
    group(W::A3, 1, Record(Subject, D::Deactivating)),
    perhaps(W::A3, Call(Subject, N::LoadError)),
    perhaps(W::A3, Call(Subject, N::Resume)),
    group(W::A4, 1, Call(Subject, N::Remove)),
    group(W::A5, 1, Record(Subject, D::Deactivated)),
    link(W::A6, Record(Subject, D::Removing)),
    link(W::A7, Call(Subject, N::DeleteThin)),
    link(W::A8, Record(Subject, D::Removed)),
    link(W::A9, Drop),
];

const START_UP: &[Link] = &[
    link(W::U1, Record(Subject, D::Activating)),
    link(W::U2Half, Call(Subject, N::Create)),
    link(W::U2Half, Call(Subject, N::Load)),
    link(W::U2, Call(Subject, N::Resume)),
    link(W::U3, Record(Subject, D::Activated)),
];

/// `rollbackActivate` deletes the thin device under the states of a removal, and then `RemoveDevice` goes through them
/// once more; a snapshot whose file system could not be made begins with the latter (seen on containerd 1.6).
const UNDO: &[Link] = &[
    group(W::X1, 1, Record(Subject, D::Removing)),
    group(W::X2, 1, Call(Subject, N::DeleteThin)),
    group(W::X3, 1, Record(Subject, D::Removed)),
    group(W::X4, 2, Record(Subject, D::Deactivating)),
    perhaps(W::X4, Call(Subject, N::LoadError)),
    perhaps(W::X4, Call(Subject, N::Resume)),
    group(W::X5, 2, Call(Subject, N::Remove)),
    group(W::X6, 2, Record(Subject, D::Deactivated)),
    link(W::X7, Record(Subject, D::Removing)),
    link(W::X8, Call(Subject, N::DeleteThin)),
    link(W::X9, Record(Subject, D::Removed)),
    link(W::X10, Drop),
];

/// Which chain a hypothesis is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    /// The operation.
    pub(super) kind: SagaKind,
    /// Set where it failed, and what it did is taken back.
    pub(super) undo: bool,
}

impl Way {
    /// Every way there is.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        SagaKind::ALL.into_iter().flat_map(|kind| {
            let undo = kind.makes().then_some(Way { kind, undo: true });
            std::iter::once(Way { kind, undo: false }).chain(undo)
        })
    }

    /// Its steps.
    pub(super) fn links(self) -> &'static [Link] {
        match (self.undo, self.kind) {
            (true, _) => UNDO,
            (false, SagaKind::Create) => CREATE,
            (false, SagaKind::Snapshot) => SNAPSHOT,
            (false, SagaKind::SnapshotOfLoaded) => SNAPSHOT_OF_LOADED,
            (false, SagaKind::Commit) => COMMIT,
            (false, SagaKind::Remove) => REMOVE,
            (false, SagaKind::RemoveLater) => REMOVE_LATER,
            (false, SagaKind::CleanUp) => CLEAN_UP,
            (false, SagaKind::StartUp) => START_UP,
        }
    }

    /// Whether a record of this role may be in this state when the operation begins with the step at a place; at any
    /// place where that is not told.
    pub(super) fn begins_from(self, place: Option<usize>, role: Role, state: Option<DeviceState>) -> bool {
        let Some(state) = state else {
            // The beginning may be noticed together with what followed.
            return self.kind.makes() && role == Subject && (!self.undo || place.is_none());
        };
        if self.undo {
            let failed_to_activate = place.is_none_or(|place| place == 0);
            return match state {
                D::Unknown | D::Creating | D::Created => place.is_none(),
                D::Activating => failed_to_activate,
                D::Activated => place.is_none_or(|place| place > 0),
                _ => false,
            };
        }
        match (self.kind, role) {
            (SagaKind::SnapshotOfLoaded, Parent) => !matches!(state, D::Activated | D::Other(_)),
            // A commit that failed or was cut is tried again from wherever it stood.
            (SagaKind::Commit, Subject) => matches!(
                state,
                D::Activated
                    | D::Suspending
                    | D::Suspended
                    | D::Resuming
                    | D::Resumed
                    | D::Deactivating
                    | D::Faulty
            ),
            (SagaKind::Remove | SagaKind::RemoveLater, Subject) => !matches!(state, D::Other(_)),
            (SagaKind::CleanUp, Subject) => state == D::Removed,
            (SagaKind::StartUp, Subject) => state == D::Activated,
            _ => false,
        }
    }

    /// Whether a record of this role may be in a state just before the step at a place.
    pub(super) fn is_just_before(self, place: usize, role: Role, from: Option<DeviceState>) -> bool {
        let links = self.links();
        let group = |need| match need {
            Need::Together(group) => Some(group),
            Need::Always | Need::Perhaps => None,
        };
        let own = links.get(place).and_then(|link| group(link.need));
        let mut left_out = None;
        for link in links.iter().take(place).rev() {
            let state = match link.does {
                Record(of, state) if of == role => state,
                Add if role == Subject => D::Unknown,
                _ => continue,
            };
            let its = group(link.need);
            if its.is_some() && its == left_out {
                continue;
            }
            if Some(state) == from {
                return true;
            }
            // Only a whole group before this one may have been left out.
            if its.is_none() || its == own {
                return false;
            }
            left_out = its;
        }
        self.begins_from(Some(place), role, from)
    }

    /// Whether a record of this role may be in a state at any time before the step at a place.
    pub(super) fn is_before(self, place: usize, role: Role, from: Option<DeviceState>) -> bool {
        let mut earlier = self.links().iter().take(place);
        self.begins_from(None, role, from)
            || earlier.any(|link| match link.does {
                Record(of, state) => of == role && Some(state) == from,
                Add => role == Subject && from == Some(D::Unknown),
                _ => false,
            })
    }
}
