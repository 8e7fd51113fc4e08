//! Which operation the steps seen may belong to, and how far it came. What containerd commits is noticed a little later
//! than the kernel's side, several commits may be noticed as one, and either side may be lost; so steps are evidence, in
//! no strict order: a step that was seen proves the ones before it.

use std::collections::BTreeSet;

use super::chain::{Does, Link, Need, Role, Way};
use crate::model::{
    DeviceState,
    commit::DatabaseKind,
    databases::SnapshotKind,
    saga::{NodeCall, Saga, SagaStep, Seen},
    window::Window,
};

/// One way that it may have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hypothesis {
    /// On which chain.
    pub(super) way: Way,
    /// The last step there that is known to be done.
    pub(super) reached: usize,
    /// The steps there that were seen, a bit each.
    seen: u32,
}

/// What steps are read by: whose names they bear, and whether any are missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    /// The subject's.
    pub(super) device: Option<&'a str>,
    /// The parent's.
    pub(super) parent: Option<&'a str>,
    /// Whether steps may have been missed.
    pub(super) gaps: bool,
}

impl Names<'_> {
    fn is(&self, role: Role, name: &str) -> bool {
        let known = match role {
            Role::Subject => self.device,
            Role::Parent => self.parent,
        };
        known == Some(name)
    }
}

/// Every way that all the steps fit; empty where they fit none.
pub(super) fn of(saga: &Saga) -> BTreeSet<Hypothesis> {
    let names = Names {
        device: saga.device.as_deref(),
        parent: saga.parent.as_deref(),
        gaps: saga.gaps,
    };
    let mut steps: Vec<&SagaStep> = saga.steps.iter().collect();
    steps.sort_by_key(|step| step.at);
    let mut left: Option<BTreeSet<Hypothesis>> = None;
    for step in steps {
        left = Some(match left {
            None => begin(&step.seen, names),
            Some(left) => left.iter().flat_map(|one| one.after(&step.seen, names)).collect(),
        });
    }
    let mut left = left.unwrap_or_default();
    left.retain(|one| saga.kinds.is_empty() || saga.kinds.contains(&one.way.kind));
    left
}

/// The ways that may begin with a step, or of which the beginning is not noticed yet. Where nothing is missed, nothing is
/// taken back that was not seen to be begun.
fn begin(seen: &Seen, names: Names<'_>) -> BTreeSet<Hypothesis> {
    Way::all()
        .filter(|way| names.gaps || !way.undo)
        .flat_map(|way| {
            let nowhere = Hypothesis {
                way,
                reached: 0,
                seen: 0,
            };
            nowhere.matches(seen, names)
        })
        .collect()
}

impl Hypothesis {
    fn links(&self) -> &'static [Link] {
        self.way.links()
    }

    /// What becomes of it with one more step; nothing where the step does not fit.
    fn after(&self, seen: &Seen, names: Names<'_>) -> Vec<Self> {
        if Self::notes_failure(seen, names) {
            return vec![*self];
        }
        let mut after = self.matches(seen, names);
        // What an operation began is taken back: the chain goes on with the one of the undo.
        if self.way.kind.makes() && !self.way.undo {
            let undo = Way {
                undo: true,
                ..self.way
            };
            let begun = Self {
                way: undo,
                reached: 0,
                seen: 0,
            };
            after.extend(begun.matches(seen, names));
        }
        if self.way.undo && Self::of_the_attempt(self.way, seen, names) {
            // Noticed late: a step of what is being taken back.
            after.push(*self);
        }
        after
    }

    /// Whether a step belongs to the attempt that an undo takes back.
    fn of_the_attempt(undo: Way, seen: &Seen, names: Names<'_>) -> bool {
        let attempt = Self {
            way: Way { undo: false, ..undo },
            reached: 0,
            seen: 0,
        };
        !attempt.matches(seen, names).is_empty()
    }

    /// Every place in the chain where the step fits: the hypothesis with it.
    fn matches(&self, seen: &Seen, names: Names<'_>) -> Vec<Self> {
        let links = self.links().iter().enumerate();
        let fitting = links.filter(|(place, link)| self.fits(*place, link, seen, names));
        let places: Vec<_> = fitting.collect();
        // What was done already is done again only where there is nothing else that it can be.
        let is_new = |place: usize| self.seen & bit(place) == 0;
        let any_new = places.iter().any(|(place, _)| is_new(*place));
        places
            .into_iter()
            .filter(|(place, _)| !any_new || is_new(*place))
            .filter_map(|(place, _)| {
                // A call that failed only proves that everything before it was done.
                let done = if is_done(seen) {
                    place
                } else {
                    place.checked_sub(1)?
                };
                Some(Self {
                    way: self.way,
                    reached: self.reached.max(done),
                    seen: if is_done(seen) {
                        self.seen | bit(place)
                    } else {
                        self.seen
                    },
                })
            })
            .collect()
    }

    fn fits(&self, place: usize, link: &Link, seen: &Seen, names: Names<'_>) -> bool {
        match (link.does, seen) {
            (
                Does::Record(role, state),
                Seen::Record {
                    name, from, to, sum, ..
                },
            ) => {
                names.is(role, name)
                    && *to == Some(state)
                    && *from != Some(state)
                    && self.may_be_before(place, role, *from, *sum)
            }
            (Does::Add, Seen::Record { name, from, to, .. }) => {
                names.is(Role::Subject, name) && from.is_none() && *to == Some(DeviceState::Unknown)
            }
            (
                Does::Drop,
                Seen::Record {
                    name, from, to, sum, ..
                },
            ) => {
                names.is(Role::Subject, name)
                    && to.is_none()
                    && self.may_be_before(place, Role::Subject, *from, *sum)
            }
            (Does::Call(role, kind), Seen::Call { name, call, .. }) => {
                let whose = match name {
                    Some(name) => names.is(role, name),
                    // A message to the pool names only ids, and those led here.
                    None => role == Role::Subject,
                };
                // Any device is resumed; only after its table was swapped is that a part of a removal.
                let follows = names.gaps
                    || link.need != Need::Perhaps
                    || kind != NodeCall::Resume
                    || place
                        .checked_sub(1)
                        .is_some_and(|before| self.seen & bit(before) != 0);
                kind == *call && whose && follows
            }
            (Does::Row(kind), Seen::Row { database, to }) => {
                *database == DatabaseKind::Snapshots && same_row(kind, *to)
            }
            (Does::Named, Seen::Row { database, .. }) => *database == DatabaseKind::Core,
            _ => false,
        }
    }

    /// Whether a record may be in a state just before a step, or before one that was noticed together with it.
    fn may_be_before(&self, place: usize, role: Role, from: Option<DeviceState>, sum: bool) -> bool {
        if sum {
            self.way.is_before(place, role, from)
        } else {
            self.way.is_just_before(place, role, from)
        }
    }

    /// Whether containerd only noted that the step it stands at failed.
    fn notes_failure(seen: &Seen, names: Names<'_>) -> bool {
        let Seen::Record {
            name,
            from,
            to,
            error,
            ..
        } = seen
        else {
            return false;
        };
        let known = names.is(Role::Subject, name) || names.is(Role::Parent, name);
        known && ((!error.is_empty() && from == to) || *to == Some(DeviceState::Faulty))
    }

    /// Whether calls are missing that were made if this is how it went.
    pub(super) fn lacks_calls(&self) -> bool {
        let done = self
            .links()
            .iter()
            .enumerate()
            .take(self.reached.saturating_add(1));
        let mut needed = done.filter(|(place, link)| {
            let must = match link.need {
                Need::Always => true,
                Need::Together(group) => self.is_entered(group),
                Need::Perhaps => false,
            };
            must && matches!(link.does, Does::Call(..)) && self.seen & bit(*place) == 0
        });
        needed.next().is_some()
    }

    /// Whether a step of a group was seen.
    fn is_entered(&self, group: u8) -> bool {
        let mut links = self.links().iter().enumerate();
        links.any(|(place, link)| link.need == Need::Together(group) && self.seen & bit(place) != 0)
    }

    /// Whether the last step was seen.
    pub(super) fn is_finished(&self) -> bool {
        self.reached.saturating_add(1) == self.links().len()
    }

    /// The last step known to be done.
    pub(super) fn window(&self) -> Option<Window> {
        self.links().get(self.reached).map(|link| link.window)
    }

    /// The windows that it may stand in: what was seen last, and what may have been done since without being seen. Calls
    /// are seen at once, commits a little later; with `gaps`, nothing need be seen.
    pub(super) fn windows(&self, gaps: bool) -> BTreeSet<Window> {
        let mut windows: BTreeSet<Window> = self.window().into_iter().collect();
        let mut left_out = None;
        for link in self.links().iter().skip(self.reached.saturating_add(1)) {
            let is_call = matches!(link.does, Does::Call(..));
            if gaps {
                windows.insert(link.window);
                continue;
            }
            match link.need {
                Need::Perhaps => continue,
                Need::Together(group) if left_out == Some(group) => continue,
                Need::Together(group) if !self.is_entered(group) => left_out = Some(group),
                Need::Together(_) | Need::Always => {}
            }
            if is_call {
                break;
            }
            windows.insert(link.window);
        }
        if gaps && self.way.kind.makes() && !self.way.undo {
            let undo = Way {
                undo: true,
                ..self.way
            };
            windows.extend(undo.links().iter().map(|link| link.window));
        }
        windows
    }
}

fn bit(place: usize) -> u32 {
    u32::try_from(place)
        .ok()
        .and_then(|place| 1_u32.checked_shl(place))
        .unwrap_or_default()
}

/// Whether the step took effect. Of a device that is not there any more containerd takes `delete` for done.
fn is_done(seen: &Seen) -> bool {
    match seen {
        Seen::Call { call, error, .. } => match error.as_deref() {
            None => true,
            Some(error) => *call == NodeCall::DeleteThin && error == "ENODATA",
        },
        Seen::Record { .. } | Seen::Row { .. } => true,
    }
}

/// A View is stored as an Active snapshot is.
fn same_row(wanted: Option<SnapshotKind>, found: Option<SnapshotKind>) -> bool {
    let layer = Some(SnapshotKind::Committed);
    match (wanted, found) {
        (None, None) => true,
        (Some(_), Some(_)) => (wanted == layer) == (found == layer),
        _ => false,
    }
}
