//! Calls of containerd's that fail again and again, while they do: the same error for the same reason is one failure with
//! a count. A failure ends when the same thing goes well, when a read of the world shows that what was in its way is gone, or
//! when it was not seen for a while.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{FindingClass, FindingId, PoolName, ThinId, Timestamp, World, pairs, saga::NodeCall};

/// Failures told apart; more of them are only counted.
const MAX_FAILURES: usize = 64;
/// So long without another one ends a failure.
const QUIET: Duration = Duration::from_mins(10);
/// What containerd takes back and tries anew may fail once: a dm device that an earlier operation left is out of the way then.
const TWICE: u64 = 2;
/// A device in use for a moment is no failure: dmsetup itself tries for 25 times 200 ms (libdm).
const IN_USE_FOR: Duration = Duration::from_secs(5);

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// EEXIST at `create_thin` or `create_snap`: the pool has a number that containerd takes for free.
    IdInPool,
    /// EOPNOTSUPP at a message: the pool is read-only or has failed.
    PoolRefuses,
    /// ENODATA at `create_snap`: the pool does not have the parent.
    ParentMissing,
    /// EBUSY at a removal of a dm device, or at `delete`: somebody has it open.
    InUse,
    /// EBUSY when a dm device is created: one of its name is there.
    NameTaken,
    /// Any other error.
    Other,
}

/// Failures that are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Mark {
    kind: FailureKind,
    call: NodeCall,
    /// The device, where the failure is one device's.
    device: Option<String>,
    thin_id: Option<ThinId>,
    error: String,
}

/// Calls that fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveFailure {
    /// What fails.
    pub kind: FailureKind,
    /// Which call.
    pub call: NodeCall,
    /// How often it failed.
    pub count: u64,
    /// When it failed first.
    pub since: Timestamp,
    /// When it failed last.
    pub last: Timestamp,
    /// Name of the device that the last one was about, where it is known.
    pub device: Option<String>,
    /// The thin id that the last one was about: the missing parent's, where that is what fails.
    pub thin_id: Option<ThinId>,
    /// Errno's name.
    pub error: String,
    /// Backend key of the snapshot whose device it is, once a read of the world showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Set once `dmsetup remove --force` gave the device the `error` table.
    pub error_table: bool,
}

/// One failed or successful call.
#[derive(Debug, Clone)]
pub(super) struct Attempt<'a> {
    pub(super) at: Timestamp,
    pub(super) call: NodeCall,
    pub(super) device: Option<&'a str>,
    pub(super) thin_id: Option<ThinId>,
    pub(super) origin: Option<ThinId>,
    pub(super) error: Option<&'a str>,
}

/// All failures that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveFailures {
    #[serde(with = "pairs")]
    known: BTreeMap<Mark, LiveFailure>,
    /// Failures that found no room.
    others: u64,
}

impl LiveFailures {
    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All that are kept, whether they stand or not.
    pub fn all(&self) -> impl Iterator<Item = &LiveFailure> {
        self.known.values()
    }

    /// Those that stand.
    pub fn standing(&self, now: Timestamp) -> impl Iterator<Item = &LiveFailure> {
        self.known
            .values()
            .filter(move |failure| now.since(failure.last) < QUIET && failure.is_serious())
    }

    /// How many failed calls were not kept because too many failures were known.
    #[must_use]
    pub fn others(&self) -> u64 {
        self.others
    }

    pub(super) fn take_in(&mut self, attempt: &Attempt<'_>) {
        self.known.retain(|_, one| attempt.at.since(one.last) < QUIET);
        match attempt.error {
            // containerd takes it for deleted, or for removed.
            Some("ENODATA") if attempt.call == NodeCall::DeleteThin => {}
            Some("ENXIO") if attempt.call == NodeCall::Remove => {}
            None => self.went_well(attempt),
            Some(error) => self.failed(attempt, error),
        }
    }

    /// Takes in one consistent read of the world: what was in the way may be gone without a call that goes well.
    pub(super) fn world(&mut self, world: &World) {
        self.known
            .retain(|mark, one| one.last >= world.begun || mark.stands_in(world));
        for failure in self.known.values_mut() {
            let name = failure.device.as_deref();
            let Some(id) = name.and_then(|name| world.pool.name.snapshot_of(name)) else {
                continue;
            };
            let mut rows = world.snapshots.snapshots.iter();
            if let Some((key, _)) = rows.find(|(_, row)| row.id == id) {
                failure.key = Some(key.clone());
            }
        }
    }

    fn went_well(&mut self, attempt: &Attempt<'_>) {
        if attempt.call == NodeCall::LoadError {
            let theirs = self
                .known
                .values_mut()
                .filter(|one| one.call == NodeCall::Remove && one.device.as_deref() == attempt.device);
            theirs.for_each(|one| one.error_table = true);
        }
        self.known.retain(|mark, _| !mark.is_over(attempt));
    }

    fn failed(&mut self, attempt: &Attempt<'_>, error: &str) {
        let kind = FailureKind::of(attempt.call, error);
        // Of a failure that is the pool's each try has another number, and often another device.
        let own = !matches!(kind, FailureKind::IdInPool | FailureKind::PoolRefuses);
        let subject = match kind {
            FailureKind::ParentMissing => attempt.origin,
            _ => attempt.thin_id,
        };
        let by_parent = kind == FailureKind::ParentMissing;
        let mark = Mark {
            kind,
            // To the pool's failures it is all the same what is to be made.
            call: match attempt.call {
                NodeCall::MakeSnapshot if !own => NodeCall::MakeThin,
                call => call,
            },
            device: attempt.device.filter(|_| own && !by_parent).map(str::to_owned),
            thin_id: subject.filter(|_| own),
            error: error.to_owned(),
        };
        let room = self.known.len() < MAX_FAILURES;
        let device = attempt.device.map(str::to_owned);
        if let Some(failure) = self.known.get_mut(&mark) {
            failure.count = failure.count.saturating_add(1);
            failure.last = failure.last.max(attempt.at);
            failure.call = attempt.call;
            failure.thin_id = subject;
            if device.is_some() && device != failure.device {
                (failure.device, failure.key) = (device, None);
            }
        } else if room {
            let failure = LiveFailure {
                kind,
                call: attempt.call,
                count: 1,
                since: attempt.at,
                last: attempt.at,
                device,
                thin_id: subject,
                error: error.to_owned(),
                key: None,
                error_table: false,
            };
            self.known.insert(mark, failure);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }
}

impl Mark {
    /// Whether a world does not show that it can not fail so any more.
    fn stands_in(&self, world: &World) -> bool {
        match self.kind {
            FailureKind::PoolRefuses => world.pool.refuses_deletes().is_some(),
            FailureKind::ParentMissing => self.thin_id.is_none_or(|id| !world.thin.contains_key(&id)),
            FailureKind::InUse | FailureKind::NameTaken => match &self.device {
                Some(name) => world.nodes.iter().any(|node| node.name.as_str() == name),
                None => self.thin_id.is_none_or(|id| world.thin.contains_key(&id)),
            },
            FailureKind::IdInPool | FailureKind::Other => true,
        }
    }

    /// Whether a call that went well shows that this fails no more.
    fn is_over(&self, well: &Attempt<'_>) -> bool {
        let message = |call| {
            matches!(
                call,
                NodeCall::MakeThin | NodeCall::MakeSnapshot | NodeCall::DeleteThin
            )
        };
        let makes = |call| matches!(call, NodeCall::MakeThin | NodeCall::MakeSnapshot);
        match self.kind {
            FailureKind::IdInPool => makes(well.call),
            FailureKind::PoolRefuses => message(well.call),
            FailureKind::ParentMissing => well.call == NodeCall::MakeSnapshot && well.origin == self.thin_id,
            FailureKind::InUse | FailureKind::NameTaken | FailureKind::Other => {
                let same = if self.device.is_some() {
                    self.device.as_deref() == well.device
                } else {
                    self.thin_id == well.thin_id
                };
                self.call == well.call && same
            }
        }
    }
}

impl FailureKind {
    /// Its name, as it stands in the name of a finding.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IdInPool => "id-in-pool",
            Self::PoolRefuses => "pool-refuses",
            Self::ParentMissing => "parent-missing",
            Self::InUse => "in-use",
            Self::NameTaken => "name-taken",
            Self::Other => "other",
        }
    }

    fn of(call: NodeCall, error: &str) -> Self {
        use NodeCall::{Create, DeleteThin, MakeSnapshot, MakeThin, Remove};
        match (call, error) {
            (MakeThin | MakeSnapshot, "EEXIST") => Self::IdInPool,
            (MakeThin | MakeSnapshot | DeleteThin, "EOPNOTSUPP") => Self::PoolRefuses,
            (MakeSnapshot, "ENODATA") => Self::ParentMissing,
            (Remove | DeleteThin, "EBUSY") => Self::InUse,
            (Create, "EBUSY") => Self::NameTaken,
            _ => Self::Other,
        }
    }
}

impl LiveFailure {
    /// Whether it is more than a device that was in use for a moment, or what containerd takes back and tries anew.
    #[must_use]
    pub fn is_serious(&self) -> bool {
        match self.kind {
            FailureKind::IdInPool | FailureKind::PoolRefuses | FailureKind::ParentMissing => true,
            FailureKind::InUse => self.last.since(self.since) >= IN_USE_FOR || self.error_table,
            FailureKind::NameTaken | FailureKind::Other => self.count >= TWICE,
        }
    }

    /// The class of the finding that tells of it.
    #[must_use]
    pub fn class(&self) -> FindingClass {
        match self.call {
            NodeCall::MakeThin
            | NodeCall::MakeSnapshot
            | NodeCall::Create
            | NodeCall::Load
            | NodeCall::Resume
            | NodeCall::Suspend => FindingClass::FailingCreate,
            NodeCall::LoadError | NodeCall::Remove | NodeCall::DeleteThin => FindingClass::FailingRemove,
        }
    }

    /// The name of the finding that tells of it, as long as it lasts.
    #[must_use]
    pub fn finding(&self, pool: &PoolName) -> FindingId {
        let kind = self.kind.name();
        let mark = match (self.kind, &self.device, self.thin_id) {
            (FailureKind::IdInPool | FailureKind::PoolRefuses, ..) => kind.to_owned(),
            (FailureKind::ParentMissing, _, Some(parent)) => format!("{kind}/{parent}"),
            (kind_of, device, thin_id) => {
                let of = match (device, thin_id) {
                    (Some(name), _) => name.escape_debug().to_string(),
                    (None, Some(id)) => id.to_string(),
                    (None, None) => "pool".to_owned(),
                };
                let mark = format!("{kind}/{}/{of}", name_of_call(self.call));
                match kind_of {
                    FailureKind::Other => format!("{mark}/{}", self.error),
                    _ => mark,
                }
            }
        };
        FindingId::new(self.class(), pool, mark)
    }

    /// What containerd answers, where that is known: Go's words for the errno that its dmsetup ended with (`syscall.Errno`).
    #[must_use]
    pub fn answer(&self) -> Option<&'static str> {
        match self.error.as_str() {
            "EEXIST" => Some("file exists"),
            "EOPNOTSUPP" => Some("operation not supported"),
            "ENODATA" => Some("no data available"),
            "EBUSY" => Some("device or resource busy"),
            _ => None,
        }
    }

    /// What a person can do about it, as the rest of a sentence.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.kind {
            FailureKind::IdInPool => {
                "each thin device in the way is a foreign-thin finding of its own, and `suture explain` of it says how containerd is kept from drawing its number"
            }
            FailureKind::PoolRefuses => {
                "mend the pool first: the finding about it (pool-read-only, pool-failed or pool-needs-check) says how; until then let nobody try again and again, because each try uses up a number"
            }
            FailureKind::ParentMissing => "remove the image that the layer is of, and pull it again",
            FailureKind::InUse => {
                "end whoever has the device open or mounted, which `suture inspect` of its name tells; never remove it with --force"
            }
            FailureKind::NameTaken => {
                "end whoever has the dm device open; where nobody has, the orphan-node finding about it is the remedy"
            }
            FailureKind::Other => "the kernel's log says why the call fails",
        }
    }

    /// What comes of it, in whole sentences.
    #[must_use]
    pub fn consequence(&self) -> &'static str {
        match self.kind {
            FailureKind::IdInPool => {
                "The pool has thin devices whose numbers containerd takes for free. Each try to make a snapshot fails and uses up one number, until a number is drawn that the pool does not have; until then no new container starts and no image is pulled."
            }
            FailureKind::PoolRefuses => {
                "The pool takes no messages: it is read-only or has failed. No new container starts, no image is pulled and nothing can be removed; each try to make a snapshot uses up one number for ever."
            }
            FailureKind::ParentMissing => {
                "The pool does not have the thin device of a layer. Each snapshot of it fails and uses up one number, so no container of that image starts; the image must be removed and pulled again."
            }
            FailureKind::InUse if self.error_table => {
                "Somebody has the device open, and containerd has already given it the error table: whoever uses it gets I/O errors. containerd tries on for minutes, and no other snapshot can be made or removed meanwhile."
            }
            FailureKind::InUse => {
                "Somebody has the device open. containerd tries on for minutes, and no other snapshot can be made or removed meanwhile."
            }
            FailureKind::NameTaken => {
                "A dm device that an earlier operation left is in the way. containerd removes it while it takes its own failure back, but not one that somebody has open, nor one without a live table: then each try fails until it is removed."
            }
            FailureKind::Other => "containerd's operation fails, and is taken back as far as containerd can.",
        }
    }
}

/// A call in a word: a message to the pool as the kernel knows it.
fn name_of_call(call: NodeCall) -> &'static str {
    match call {
        NodeCall::MakeThin => "create_thin",
        NodeCall::MakeSnapshot => "create_snap",
        NodeCall::DeleteThin => "delete",
        NodeCall::Create => "create",
        NodeCall::Load => "load",
        NodeCall::LoadError => "load-error",
        NodeCall::Resume => "resume",
        NodeCall::Suspend => "suspend",
        NodeCall::Remove => "remove",
    }
}

/// `create_thin fails with EEXIST (3 times)`
impl fmt::Display for LiveFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.call {
            NodeCall::MakeThin | NodeCall::MakeSnapshot | NodeCall::DeleteThin => name_of_call(self.call),
            NodeCall::Create => "creating a dm device",
            NodeCall::Load | NodeCall::LoadError => "loading a table",
            NodeCall::Resume => "resuming a dm device",
            NodeCall::Suspend => "suspending a dm device",
            NodeCall::Remove => "removing a dm device",
        };
        let times = if self.count == 1 { "time" } else { "times" };
        write!(f, "{what} fails with {} ({} {times})", self.error, self.count)
    }
}
