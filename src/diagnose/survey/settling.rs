//! Tells what is in flight from what stands still, by successive surveys. A finding that an operation in flight looks like
//! for a moment is one only once it has stood unchanged, with nobody at work on it.

use std::{collections::BTreeMap, time::Duration};

use super::{judge, scene::Scene, settling_at_work::Work, shows_nothing};
use crate::model::{
    ContainerdState, DeviceNumber, Diagnoses, Diagnosis, FindingId, IdState, Incarnation, Knowledge, Node,
    Subject, Survey, ThinId, Timestamp, databases::SnapshotRow, device_record::DeviceRecord,
};

/// Waits between two looks: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// A load that goes on for ever does not keep an answer away for ever: so many times the patience.
const MOST_PATIENCE: u32 = 6;

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// What the survey shows, without what is in flight; and that.
    Done(Diagnoses, Vec<Diagnosis>),
    /// Something may be in flight: look again.
    LookAgain {
        /// After this time.
        after: Duration,
    },
}

impl Settled {
    /// Whether there is anything of which users are told: only then does it matter that a survey has their names. The same
    /// survey with names settles the same way, looked at once more at the same time.
    #[must_use]
    pub fn tells_of_users(&self) -> bool {
        match self {
            Self::Done(diagnoses, in_flight) => !diagnoses.found.is_empty() || !in_flight.is_empty(),
            Self::LookAgain { .. } => false,
        }
    }
}

/// What successive surveys have shown so far.
#[derive(Debug, Clone)]
pub struct Settling {
    patience: Duration,
    begun: Option<Timestamp>,
    waited: Duration,
    looks: u32,
    stands: BTreeMap<FindingId, Stand>,
}

/// A diagnosis that may be in flight.
#[derive(Debug, Clone)]
struct Stand {
    state: State,
    /// It has stood so since then.
    since: Timestamp,
    /// Nobody was seen at work on it since then.
    quiet: Timestamp,
    /// Who ran when it was first seen so.
    under: Under,
}

/// Whatever of a subject an operation changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    records: Vec<DeviceRecord>,
    rows: Vec<SnapshotRow>,
    /// Open counts aside: whoever looks at a device has it open for a moment.
    nodes: Vec<NodeState>,
    thin: Option<bool>,
    id: Option<IdState>,
    held_root: Option<u64>,
}

/// A dm device: number, thin ids, and whether it is suspended, live, without a table of its own, on its way.
type NodeState = (DeviceNumber, Vec<ThinId>, [bool; 4]);

/// Which containerd ran.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Under {
    Nobody,
    Running(Incarnation),
    Unknown,
}

impl Under {
    fn of(state: &ContainerdState) -> Self {
        match state {
            ContainerdState::Running { who, .. } => Self::Running(who.clone()),
            ContainerdState::Stopped { .. } => Self::Nobody,
            ContainerdState::Unknown { .. } => Self::Unknown,
        }
    }

    /// Whether a containerd started since then. A later one does not go on with what an earlier one began.
    fn was_before(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Nobody, Self::Running(_)) => true,
            (Self::Running(then), Self::Running(now)) => then != now,
            _ => false,
        }
    }
}

/// What is known of a diagnosis that may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stands,
    InFlight,
    Open,
}

impl Settling {
    /// For a patience with which something must have stood still.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            begun: None,
            waited: Duration::ZERO,
            looks: 0,
            stands: BTreeMap::new(),
        }
    }

    /// Takes in one more survey.
    #[must_use]
    pub fn look(&mut self, seen: &Survey, knowledge: &Knowledge, now: Timestamp) -> Settled {
        let begun = *self.begun.get_or_insert(now);
        if shows_nothing(seen, knowledge) {
            self.stands.clear();
            return Settled::Done(Diagnoses::default(), Vec::new());
        }
        let scene = Scene::new(seen, knowledge);
        let mut diagnoses = judge(&scene);
        let under = Under::of(&seen.containerd);
        let work = Work::new(seen, knowledge);
        let at_rest = under == Under::Nobody && work.is_none();
        // A clock that was set back does not make it longer.
        let elapsed = now.since(begun).max(self.waited);
        let is_over = elapsed >= self.patience.saturating_mul(MOST_PATIENCE);

        let mut stands = BTreeMap::new();
        let mut verdicts = Vec::with_capacity(diagnoses.found.len());
        for one in &diagnoses.found {
            if !one.may_be_in_flight || at_rest {
                verdicts.push(Verdict::Stands);
                continue;
            }
            let busy = work.is_on(one);
            let stand = self.stand(&scene, one, busy, &under, now);
            let confirmed = is_confirmed(knowledge, &one.finding.id) || stand.under.was_before(&under);
            let verdict = self.verdict(&stand, busy, confirmed, &under, now);
            verdicts.push(match verdict {
                Verdict::Open if is_over => Verdict::InFlight,
                verdict => verdict,
            });
            stands.insert(one.finding.id.clone(), stand);
        }
        self.stands = stands;
        if verdicts.contains(&Verdict::Open) {
            self.looks = self.looks.saturating_add(1);
            let after = FIRST_WAIT.saturating_mul(self.looks).min(LONGEST_WAIT);
            self.waited = self.waited.saturating_add(after);
            return Settled::LookAgain { after };
        }
        let mut in_flight = Vec::new();
        let mut found = Vec::new();
        for (one, verdict) in diagnoses.found.drain(..).zip(verdicts) {
            if verdict == Verdict::Stands {
                found.push(one);
            } else {
                in_flight.push(one);
            }
        }
        diagnoses.found = found;
        Settled::Done(diagnoses, in_flight)
    }

    /// How long it has stood as it does now.
    fn stand(&self, scene: &Scene<'_>, one: &Diagnosis, busy: bool, under: &Under, now: Timestamp) -> Stand {
        let state = State::of(scene, one);
        match self.stands.get(&one.finding.id) {
            Some(known) if known.state == state => Stand {
                quiet: if busy { now } else { known.quiet },
                ..known.clone()
            },
            _ => Stand {
                state,
                since: now,
                quiet: now,
                under: under.clone(),
            },
        }
    }

    fn verdict(&self, stand: &Stand, busy: bool, confirmed: bool, under: &Under, now: Timestamp) -> Verdict {
        let unsure = busy || *under == Under::Unknown;
        if unsure {
            return if now.since(stand.since) >= self.patience {
                Verdict::InFlight
            } else {
                Verdict::Open
            };
        }
        // What was at work a moment ago may go on with the next step.
        if confirmed || now.since(stand.quiet) >= self.patience {
            Verdict::Stands
        } else {
            Verdict::Open
        }
    }
}

/// Whether a running sidecar has it open.
fn is_confirmed(knowledge: &Knowledge, id: &FindingId) -> bool {
    knowledge.confirmed.contains(id)
}

impl State {
    fn of(scene: &Scene<'_>, one: &Diagnosis) -> Self {
        let seen = scene.survey;
        let (name, snapshot, mut thin_id) = match &one.finding.subject {
            Subject::Record { name, thin_id } => {
                (name.clone(), seen.pool_name.snapshot_of(name), Some(*thin_id))
            }
            Subject::Snapshot { id, .. } => (scene.device_name(*id), Some(*id), None),
            Subject::Node { name, .. } | Subject::Device { name } => {
                (name.clone(), seen.pool_name.snapshot_of(name), None)
            }
            Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => {
                (String::new(), None, Some(*thin_id))
            }
            Subject::Pool | Subject::BlockDevice { .. } => (String::new(), None, None),
        };
        let records: Vec<_> = seen.pool_db.devices.get(&name).cloned().into_iter().collect();
        thin_id = thin_id.or(records.first().map(|record| record.device_id));
        let rows = snapshot.map(|id| scene.index.rows.of(&id)).unwrap_or_default();
        let flags = |node: &Node| [node.suspended, node.live, node.error_table, node.deferred_remove];
        Self {
            rows: rows.iter().map(|(_, row)| row.row.clone()).collect(),
            nodes: scene
                .index
                .nodes_of(&name)
                .map(|node| (node.device, node.thin_ids.clone(), flags(node)))
                .collect(),
            thin: thin_id.and_then(|id| seen.has_thin(id)),
            id: thin_id.and_then(|id| seen.id_state(id)),
            held_root: seen
                .usage
                .and_then(|usage| usage.held_root)
                .filter(|_| one.finding.subject == Subject::Pool),
            records,
        }
    }
}
