//! The operations, and what each observation and each read of the world does to them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    block_errors::BlockErrors,
    by_device::ByDevice,
    inside::Inside,
    lineage::{Containerds, Running},
    next_record::{NextRecord, Standing},
    saga::Sagas,
};
use crate::model::{
    DeviceNumber, Incarnation, Observation, Operation, OperationId, OperationState, PoolName, Questions,
    ThinId, Timestamp, Untrusted, World,
    dm::{DmCommand, DmIoctl, Message, Payload},
    kernel::Ending,
    observation::{BlockError, LossKind},
    operation::{Side, Step},
};

/// Operations kept. Open ones are never dropped for closed ones; beyond this many open ones the oldest goes, and with it
/// the right to act on its device.
pub const MAX_OPERATIONS: usize = 4096;
/// Closed operations that are dropped at once when there are too many: finding the oldest means looking at all.
const DROPPED_AT_ONCE: usize = 256;
/// Reasons of one gap that are kept, in bytes; more of them change nothing.
const MAX_WHY: usize = 512;
/// Calls kept of processes whose operation is not known yet (`dev_create` comes before the table that tells the thin id).
const MAX_RECENT: usize = 64;

/// A span of time in which operations can have been missed. Until a full read of the world that began after it has
/// closed it, nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When its end was noticed.
    pub noticed: Timestamp,
    /// Why, as people read it.
    pub why: String,
}

/// What an observation or a world changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An operation began.
    Began(OperationId),
    /// An operation is somewhere else than before.
    Moved(OperationId),
    /// An operation made one more call, and stands where it stood.
    Stepped(OperationId),
    /// Events were lost.
    GapOpened(Gap),
    /// A full read of the world closed a gap.
    GapClosed(Gap),
    /// Block operations failed: it is time to tell of it.
    BlockErrors {
        /// The newest.
        newest: Box<BlockError>,
        /// How many of its kind were not told of before, this one included.
        count: u64,
    },
}

/// Keeps the operations on one pool. All of it can be recorded and taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correlator {
    pub(super) pool: PoolName,
    pool_device: Option<DeviceNumber>,
    pub(super) metadata_device: Option<DeviceNumber>,
    pub(super) containerds: Containerds,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    /// The operation that speaks for a thin id: the newest one that made it.
    pub(super) by_thin_id: BTreeMap<ThinId, OperationId>,
    by_device: ByDevice,
    pub(super) inside: Inside,
    recent: VecDeque<(u32, Step)>,
    gap: Option<Gap>,
    /// Calls are not seen at all: the gap is never closed.
    blind: bool,
    /// Open operations that were given up because too many were open.
    given_up: u64,
    blocks: BlockErrors,
    next_record: NextRecord,
    /// Recordings of before these were kept have none.
    #[serde(default)]
    sagas: Sagas,
}

impl Correlator {
    /// Starts with a gap: what happened before `now` was not seen.
    #[must_use]
    pub fn new(pool: PoolName, now: Timestamp) -> Self {
        Self {
            pool,
            pool_device: None,
            metadata_device: None,
            inside: Inside::default(),
            containerds: Containerds::default(),
            operations: BTreeMap::new(),
            by_thin_id: BTreeMap::new(),
            by_device: ByDevice::default(),
            recent: VecDeque::new(),
            gap: Some(Gap {
                noticed: now,
                why: "suture was not watching before it started".to_owned(),
            }),
            blind: false,
            given_up: 0,
            blocks: BlockErrors::default(),
            next_record: NextRecord::default(),
            sagas: Sagas::new(now),
        }
    }

    /// Takes up an operation that an earlier suture saw; says whether it was on this pool. What happened on another pool
    /// proves nothing about a device of the same id in this one.
    pub fn remember(&mut self, operation: Operation) -> bool {
        let ours = operation.pool == self.pool;
        if ours {
            self.adopt(operation);
        }
        ours
    }

    /// Every operation known, oldest first by name.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values()
    }

    /// One operation.
    #[must_use]
    pub fn operation(&self, id: &OperationId) -> Option<&Operation> {
        self.operations.get(id)
    }

    /// The operation that made a thin id, as far as it was seen and nobody made another of that id since.
    #[must_use]
    pub fn maker_of(&self, id: ThinId) -> Option<&Operation> {
        self.by_thin_id
            .get(&id)
            .and_then(|operation| self.operations.get(operation))
    }

    /// How many open operations were given up because more than [`MAX_OPERATIONS`] were kept.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// The gap that is open, if one is.
    #[must_use]
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    /// Whether device-mapper's calls are not seen at all ([`LossKind::Polling`]): whatever a world says, something else
    /// may have happened before the next one. Then the gap stays open for as long as this correlator lives, and no
    /// claim that was made earlier gives leave to act.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// Failed block operations, of all devices.
    #[must_use]
    pub fn block_errors(&self) -> &BlockErrors {
        &self.blocks
    }

    /// The record of the next snapshot, and since when it stands; nothing where there is none.
    #[must_use]
    pub fn next_record(&self) -> Option<&Standing> {
        self.next_record.standing()
    }

    /// Whether a containerd runs.
    #[must_use]
    pub fn running(&self) -> Running {
        self.containerds.running()
    }

    /// When a containerd was last found gone.
    #[must_use]
    pub fn last_death(&self) -> Option<Timestamp> {
        self.containerds.last_death()
    }

    /// The pool that it is about.
    #[must_use]
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// Every operation of the snapshotter's, and the calls of containerd's that fail.
    #[must_use]
    pub fn sagas(&self) -> &Sagas {
        &self.sagas
    }

    /// Takes in one observation.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Change> {
        let changes = self.take_in(observation);
        self.sagas
            .observe(observation, &self.pool, self.pool_device, &self.containerds);
        changes
    }

    fn take_in(&mut self, observation: &Observation) -> Vec<Change> {
        match observation {
            Observation::DmIoctl(call) => self.call(call),
            Observation::ContainerdUp { who, .. } => {
                self.containerds.up(who);
                Vec::new()
            }
            Observation::ContainerdGone { at, who } => self.gone(who, *at),
            Observation::Lost { at, what, count, .. } if what.hides_operations() => {
                let why = if *count == 0 {
                    what.to_string()
                } else {
                    format!("{count} {what}")
                };
                self.blind |= *what == LossKind::Polling;
                // Block errors were not seen either; before the first one that was, there is no count to be wrong.
                if *what == LossKind::NotWatching && self.blocks.standing(*at).next().is_some() {
                    self.blocks.lost(*at, *count);
                }
                if *what == LossKind::NotWatching
                    && let Some(gap) = &mut self.gap
                {
                    // One gap is enough: it ends when the last of them does.
                    gap.noticed = gap.noticed.max(*at);
                    return Vec::new();
                }
                self.open_gap(*at, why)
            }
            Observation::PoolCall(call) => self.pool_call(call),
            Observation::DeviceEnded(ended) => self.device_ended(ended),
            Observation::Commit(commit) => self.committed(commit),
            Observation::Process(change) => {
                if let Some(ending) = change.ended {
                    self.containerds.ended(change.who.process.pid, change.at, ending);
                }
                Vec::new()
            }
            Observation::Lost { at, what, count, .. } => {
                if matches!(
                    what,
                    LossKind::BlockRingFull | LossKind::BioRingFull | LossKind::KernelLogOverrun
                ) {
                    self.blocks.lost(*at, *count);
                }
                Vec::new()
            }
            Observation::BlockError(error) => {
                let told = self.blocks.take_in(error).map(|count| Change::BlockErrors {
                    newest: Box::new(error.clone()),
                    count,
                });
                told.into_iter().collect()
            }
            Observation::DeviceChange(_) | Observation::PoolStatus(_) => Vec::new(),
        }
    }

    /// Declares that what happened until `noticed` can not be relied on to have been seen.
    pub fn open_gap(&mut self, noticed: Timestamp, why: String) -> Vec<Change> {
        self.sagas.missed(noticed);
        let told = Gap { noticed, why };
        let mut gap = told.clone();
        if let Some(open) = &self.gap {
            // What is told late does not make an open gap end earlier, nor what it was open for forgotten.
            gap.noticed = gap.noticed.max(open.noticed);
            if open.why.contains(&told.why) || open.why.len() >= MAX_WHY {
                gap.why.clone_from(&open.why);
            } else {
                gap.why = format!("{}; {}", open.why, told.why);
            }
        }
        self.gap = Some(gap);
        vec![Change::GapOpened(told)]
    }

    /// What the next world is to answer: where the mappings of those thin devices begin that somebody may have left
    /// behind, and whose data are in the sectors that failed.
    #[must_use]
    pub fn questions(&mut self, now: Timestamp) -> Questions {
        let open = self.operations.values().filter(|one| !one.state.is_closed());
        Questions {
            roots: open.map(|one| one.thin_id).collect(),
            data_ranges: self.blocks.questions(now),
        }
    }

    /// Takes in one consistent read of the world.
    pub fn world(&mut self, world: &World) -> Vec<Change> {
        self.pool_device = Some(world.pool.device);
        self.metadata_device = Some(world.pool.metadata_device);
        self.blocks.world(world);
        self.next_record.world(world);
        self.sagas.world(world);
        // A gap is closed by a world that questions every open operation, and by no older one.
        let questions_all = self
            .operations
            .values()
            .all(|one| last_word(one).is_none_or(|word| word < world.begun));
        let sees = !self.blind;
        let unseen = self
            .gap
            .take_if(|gap| sees && gap.noticed < world.begun && questions_all);
        let mut changes = Vec::new();
        for operation in self.operations.values_mut() {
            if let Some(state) = settle(operation, world, unseen.is_some() || self.gap.is_some()) {
                operation.state = state;
                changes.push(Change::Moved(operation.id.clone()));
            }
        }
        changes.extend(unseen.map(Change::GapClosed));
        changes
    }

    fn gone(&mut self, who: &Incarnation, at: Timestamp) -> Vec<Change> {
        self.containerds.gone(who, at);
        let orphans = self
            .operations
            .values_mut()
            .filter(|one| one.actor == *who && one.state == OperationState::InFlight);
        orphans
            .map(|operation| {
                operation.state = OperationState::Orphaned { at };
                Change::Moved(operation.id.clone())
            })
            .collect()
    }

    /// Operations that an earlier suture left in flight under a containerd that is not running any more. Only to be asked
    /// once it was looked who runs.
    pub fn bury_unknown_actors(&mut self, at: Timestamp) -> Vec<Change> {
        self.containerds.looked();
        self.sagas.bury(at, &self.containerds);
        let strangers: Vec<Incarnation> = self
            .operations
            .values()
            .filter(|one| one.state == OperationState::InFlight && !self.containerds.alive(&one.actor))
            .map(|one| one.actor.clone())
            .collect();
        strangers.iter().flat_map(|who| self.gone(who, at)).collect()
    }

    fn is_ours(&self, call: &DmIoctl) -> bool {
        call.name.as_str() == self.pool.as_str() || (call.device.is_some() && call.device == self.pool_device)
    }

    /// Nothing in the call says that it is another device's.
    fn may_be_ours(&self, call: &DmIoctl) -> bool {
        self.is_ours(call) || (call.name.is_empty() && call.device.is_none())
    }

    /// How a containerd ended, where a probe told.
    #[must_use]
    pub fn ending_of(&self, who: &Incarnation) -> Option<Ending> {
        self.containerds.ending_of(who)
    }

    fn call(&mut self, call: &DmIoctl) -> Vec<Change> {
        self.inside.learn(call);
        match &call.payload {
            Payload::Message(message) if self.is_ours(call) => self.message(call, message),
            Payload::Malformed if self.may_be_ours(call) && call.result.0.is_ok() => self.open_gap(
                call.finished(),
                "a message to the pool that could not be read".to_owned(),
            ),
            _ if self.ends_the_pool(call) => self.pool_ended(call.finished()),
            _ => self.step(call),
        }
    }

    /// The pool itself was removed: what comes back under its name may be another one.
    fn ends_the_pool(&self, call: &DmIoctl) -> bool {
        let removes = match call.command {
            DmCommand::DevRemove | DmCommand::DevRename => self.may_be_ours(call),
            DmCommand::RemoveAll => true,
            _ => false,
        };
        removes && call.result.0.is_ok()
    }

    fn pool_ended(&mut self, at: Timestamp) -> Vec<Change> {
        self.pool_device = None;
        let ids: Vec<ThinId> = self.by_thin_id.keys().copied().collect();
        ids.into_iter()
            .flat_map(|id| self.close_maker(id, OperationState::Superseded { at }))
            .collect()
    }

    fn message(&mut self, call: &DmIoctl, message: &Message) -> Vec<Change> {
        let succeeded = call.result.0.is_ok();
        match message {
            Message::CreateThin { id } => self.created(call, *id, None, succeeded),
            Message::CreateSnap { id, origin } => self.created(call, *id, Some(*origin), succeeded),
            Message::Delete { id } if succeeded => self.deleted(call, *id),
            // It may have been a create or a delete of any id, in words that are not understood here.
            Message::Other { .. } if succeeded && call.truncated => self.open_gap(
                call.finished(),
                "a message to the pool that was too long to be read".to_owned(),
            ),
            Message::Other { text } if succeeded && !is_harmless(text) => self.open_gap(
                call.finished(),
                format!("a message to the pool that was not understood: {text}"),
            ),
            Message::Delete { .. } | Message::Other { .. } => Vec::new(),
        }
    }

    fn created(
        &mut self,
        call: &DmIoctl,
        id: ThinId,
        origin: Option<ThinId>,
        succeeded: bool,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if succeeded {
            changes.extend(self.close_maker(id, OperationState::Superseded { at: call.finished() }));
        }
        let Some(actor) = self.containerds.behind(&call.caller, call.entered).cloned() else {
            // Somebody else's device: that it is not containerd's is all there is to know.
            return changes;
        };
        let state = match call.result.error_name() {
            Some(error) => OperationState::Failed { error },
            None => match self.containerds.death_of(&actor) {
                Some(at) => OperationState::Orphaned { at },
                None => OperationState::InFlight,
            },
        };
        let mut operation = Operation {
            id: OperationId::new(call.entered, id),
            pool: self.pool.clone(),
            thin_id: id,
            origin,
            device_name: None,
            actor,
            caller: call.caller.clone(),
            steps: vec![step_of(call)],
            state,
        };
        // containerd's record said what it was about to do before the kernel was asked.
        for step in self.inside.earlier_transitions(id) {
            operation.push(step);
        }
        changes.push(Change::Began(operation.id.clone()));
        self.adopt(operation);
        changes
    }

    fn deleted(&mut self, call: &DmIoctl, id: ThinId) -> Vec<Change> {
        if let Some(operation) = self
            .by_thin_id
            .get(&id)
            .and_then(|one| self.operations.get_mut(one))
        {
            operation.push(step_of(call));
        }
        self.close_maker(id, OperationState::Deleted { at: call.finished() })
    }

    /// Ends the operation that spoke for a thin id.
    fn close_maker(&mut self, id: ThinId, state: OperationState) -> Vec<Change> {
        let Some(maker) = self.by_thin_id.remove(&id) else {
            return Vec::new();
        };
        let Some(operation) = self.operations.get_mut(&maker) else {
            return Vec::new();
        };
        operation.state = state;
        vec![Change::Moved(maker)]
    }

    /// A call that makes, loads, suspends, resumes or removes a dm device: a step of the operation on that device.
    fn step(&mut self, call: &DmIoctl) -> Vec<Change> {
        if call.command.is_query() {
            return Vec::new();
        }
        let step = step_of(call);
        let process = call.caller.process.pid;
        if let Some(id) = self.thin_id_of_table(call)
            && let Some(operation) = self
                .by_thin_id
                .get(&id)
                .and_then(|one| self.operations.get_mut(one))
            && self.containerds.behind(&call.caller, call.entered) == Some(&operation.actor)
        {
            self.by_device.remove(operation);
            operation.device_name = Some(call.name.to_string());
            self.by_device.add(operation);
            // The same dmsetup created the device a moment ago, before the table told which one.
            let earlier = self
                .recent
                .iter()
                .filter(|(pid, _)| *pid == process)
                .map(|(_, step)| step.clone());
            earlier.for_each(|one| operation.push(one));
            operation.push(step);
            self.recent.retain(|(pid, _)| *pid != process);
            return vec![Change::Stepped(operation.id.clone())];
        }
        let open = |id: &&OperationId| {
            self.operations.get(id).is_some_and(|one| {
                matches!(
                    one.state,
                    OperationState::InFlight | OperationState::Orphaned { .. }
                )
            })
        };
        let by_name = self.by_device.of(call.name.as_str()).find(open).cloned();
        if let Some(operation) = by_name.and_then(|id| self.operations.get_mut(&id)) {
            operation.push(step);
            return vec![Change::Stepped(operation.id.clone())];
        }
        self.recent.push_back((process, step));
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        Vec::new()
    }

    fn thin_id_of_table(&self, call: &DmIoctl) -> Option<ThinId> {
        let Payload::Table { targets } = &call.payload else {
            return None;
        };
        targets
            .iter()
            .find_map(|target| target.thin_on(&self.pool, self.pool_device))
    }

    fn adopt(&mut self, operation: Operation) {
        let speaks = matches!(
            operation.state,
            OperationState::InFlight
                | OperationState::Orphaned { .. }
                | OperationState::Abandoned { .. }
                | OperationState::Completed { .. }
        );
        if speaks {
            self.by_thin_id.insert(operation.thin_id, operation.id.clone());
        }
        self.by_device.add(&operation);
        self.operations.insert(operation.id.clone(), operation);
        if self.operations.len() > MAX_OPERATIONS {
            self.drop_oldest();
        }
    }

    /// Makes room: one operation goes, the oldest of the closed ones or else of all, and with it some more that are
    /// closed.
    fn drop_oldest(&mut self) {
        let ages = self.operations.values();
        let mut ages: Vec<_> = ages
            .map(|one| (!one.state.is_closed(), one.began(), one.id.clone()))
            .collect();
        ages.sort_unstable();
        let oldest = ages.into_iter().enumerate();
        let to_drop =
            oldest.take_while(|(place, (open, ..))| *place == 0 || (!open && *place < DROPPED_AT_ONCE));
        for (_, (_, _, id)) in to_drop {
            let Some(dropped) = self.operations.remove(&id) else {
                continue;
            };
            if !dropped.state.is_closed() {
                self.given_up = self.given_up.saturating_add(1);
            }
            self.by_device.remove(&dropped);
            if self.by_thin_id.get(&dropped.thin_id) == Some(&id) {
                self.by_thin_id.remove(&dropped.thin_id);
            }
        }
    }
}

/// Whether a message to a pool makes and deletes nothing (`pool_message`, drivers/md/dm-thin.c, and
/// `message_for_md`, dm-ioctl.c).
fn is_harmless(text: &Untrusted) -> bool {
    const HARMLESS: [&str; 3] = [
        "set_transaction_id",
        "reserve_metadata_snap",
        "release_metadata_snap",
    ];
    let verb = text.as_str().split(' ').next().unwrap_or_default();
    // With an @ it is for the dm device as such, not for the pool.
    verb.starts_with('@') || HARMLESS.iter().any(|one| one.eq_ignore_ascii_case(verb))
}

/// When an open operation was last heard of; nothing of a closed one. What was read before says nothing about it.
fn last_word(operation: &Operation) -> Option<Timestamp> {
    match &operation.state {
        OperationState::InFlight => Some(
            operation
                .steps
                .last()
                .map_or_else(Timestamp::default, |step| step.finished),
        ),
        OperationState::Orphaned { at } | OperationState::Abandoned { at, .. } => Some(*at),
        _ => None,
    }
}

/// Where an operation stands, now that the databases were read; nothing when that is where it stood. `unseen` says that
/// something may have happened since the last world that was not seen.
fn settle(operation: &Operation, world: &World, unseen: bool) -> Option<OperationState> {
    let at = world.begun;
    let noticed = last_word(operation)?;
    if world.begun <= noticed {
        return None;
    }
    let id = operation.thin_id;
    if !world.thin.contains_key(&id) {
        return Some(OperationState::Deleted { at });
    }
    let record = world.record_of(id);
    let snapshot = record.and_then(|record| world.pool.name.snapshot_of(&record.name));
    if snapshot.is_some_and(|id| world.has_snapshot(id)) {
        return Some(OperationState::Completed { at });
    }
    // As long as containerd's own record names the device, it is containerd's whatever happened unseen. Without one the
    // device must be the very one that was seen before.
    match &operation.state {
        OperationState::Abandoned {
            mark, record: known, ..
        } => match (record, world.mark_of(id)?) {
            (Some(record), now) if now != *mark => Some(OperationState::Abandoned {
                at: noticed,
                record: Some(record.state),
                mark: now,
            }),
            (None, now) if now != *mark => Some(OperationState::Superseded { at }),
            (Some(record), now) if known.is_none() => Some(OperationState::Abandoned {
                at: noticed,
                record: Some(record.state),
                mark: now,
            }),
            _ => None,
        },
        _ if unseen && record.is_none() => Some(OperationState::Superseded { at }),
        OperationState::Orphaned { .. } => {
            let mark = world.mark_of(id)?;
            Some(OperationState::Abandoned {
                at: noticed,
                record: record.map(|one| one.state),
                mark,
            })
        }
        _ => None,
    }
}

fn step_of(call: &DmIoctl) -> Step {
    Step {
        side: Side::Call,
        entered: call.entered,
        finished: call.finished(),
        request: call.request(),
        error: call.result.error_name(),
        process: call.caller.process.clone(),
    }
}
