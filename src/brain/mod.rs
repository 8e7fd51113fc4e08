//! Everything that suture thinks, without anything that it does: timed inputs in, values out. Pure: no clock, no file, no
//! kernel. The agent is the shell around it on a node; a replay feeds it from a recording, and it thinks the same.
//! `judge` holds findings and what is decided, `input` and `output` what goes in and comes out, `report` what is told.

mod input;
mod judge;
mod output;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use input::Input;
pub use judge::Standing;
pub use output::{Look, Output};
pub use report::Report;

use crate::{
    correlate::{Change, Correlator},
    decide::{Policy, guards},
    model::{
        GuardReading, Observation, Operation, OperationId, OperationState, Plan, PoolName, Questions,
        Timestamp, World, observation::LossKind, sense::Sense,
    },
};
use judge::OpenFinding;

/// What the brain may do, and how much it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// What may be done.
    pub policy: Policy,
    /// Whether there is a ledger: without one there is no durable intent, and without that no act.
    pub ledger: bool,
    /// Whether to tell of operations that go well too.
    pub verbose: bool,
}

/// What suture knows of one pool. All of it can be recorded, and goes on from there in a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brain {
    rules: Rules,
    correlator: Correlator,
    findings: Vec<OpenFinding>,
    /// Operations that were abandoned at some time: what becomes of them is told.
    stories: BTreeSet<OperationId>,
    senses: Vec<Sense>,
    /// Why the world could not be read last time, as it was told.
    trouble: Option<String>,
}

impl Brain {
    /// One that has seen nothing before `now`.
    #[must_use]
    pub fn new(pool: PoolName, rules: Rules, now: Timestamp) -> Self {
        Self {
            rules,
            correlator: Correlator::new(pool, now),
            findings: Vec::new(),
            stories: BTreeSet::new(),
            senses: Vec::new(),
            trouble: None,
        }
    }

    /// Takes up an operation that an earlier suture saw, and whether that one told its story already; says whether it was
    /// on this pool.
    pub fn remember_operation(&mut self, operation: Operation, told: bool) -> bool {
        let id = operation.id.clone();
        let ours = self.correlator.remember(operation);
        if ours && told {
            self.stories.insert(id);
        }
        ours
    }

    /// Takes up a finding that stood open when an earlier suture ended.
    pub fn remember_finding(&mut self, standing: Standing) {
        self.findings.push(OpenFinding::again(standing));
    }

    /// What it may do.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Changes what it may do from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What could be seen when that was last told.
    #[must_use]
    pub fn senses(&self) -> &[Sense] {
        &self.senses
    }

    /// One operation.
    #[must_use]
    pub fn operation(&self, id: &OperationId) -> Option<&Operation> {
        self.correlator.operation(id)
    }

    /// What is known of operations, containerds and failed reads and writes.
    #[must_use]
    pub fn correlator(&self) -> &Correlator {
        &self.correlator
    }

    /// Findings that stand open.
    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.findings.iter().map(OpenFinding::standing)
    }

    /// What the next read of the world is to answer. Asking forgets what is too old to ask about, so it is an input too:
    /// [`Input::Asked`].
    pub fn questions(&mut self, at: Timestamp) -> Questions {
        self.correlator.questions(at)
    }

    /// What a plan rests on, read in a world that was taken in already.
    #[must_use]
    pub fn guards(&self, plan: &Plan, world: &World) -> Vec<GuardReading> {
        guards::read(plan, world, &self.correlator)
    }

    /// Takes in one thing that happened.
    pub fn take(&mut self, input: &Input) -> Vec<Output> {
        match input {
            Input::Observed { observation } => self.observe(observation),
            Input::Behind { at } => {
                let why = "the kernel's events could not be read in time".to_owned();
                let changes = self.correlator.open_gap(*at, why);
                self.changed(*at, changes)
            }
            Input::HoldersKnown { at } => {
                let buried = self.correlator.bury_unknown_actors(*at);
                self.changed(*at, buried)
            }
            Input::Blind { at, why } => vec![Output::tell(
                *at,
                Report::Trouble {
                    what: format!(
                        "whether containerd runs can not be told, so nothing it does is known to be its own: {why}"
                    ),
                },
            )],
            Input::Senses { senses, .. } => {
                Sense::renew(&mut self.senses, senses);
                Vec::new()
            }
            Input::PoolRead { at, view } => self.judge_pool(view, *at),
            Input::Asked { at } => {
                self.questions(*at);
                Vec::new()
            }
            Input::Unreadable { at, why } => self.unreadable(*at, why.as_ref()),
            Input::Remedied {
                at,
                plan,
                guards,
                outcome,
            } => self.remedied(*at, plan, guards, outcome),
            Input::NotDone { at, plan, why } => self.not_done(*at, plan, why),
            Input::Held { at, plan, until, why } => self.held(*at, plan, *until, why),
            Input::Reconsider { at } => self.reconsider(*at),
            Input::Settled { at, plan, outcome } => vec![Output::Remedied {
                at: *at,
                plan: Box::new(plan.clone()),
                guards: Vec::new(),
                outcome: outcome.clone(),
            }],
        }
    }

    /// Takes in one consistent read of everything: what it does to the operations.
    pub fn world(&mut self, world: &World) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.trouble.take().is_some() {
            outputs.push(Output::tell(world.begun, Report::TroubleOver));
        }
        let changes = self.correlator.world(world);
        outputs.extend(self.changed(world.begun, changes));
        let known = &self.correlator;
        self.stories.retain(|id| known.operation(id).is_some());
        outputs
    }

    fn observe(&mut self, observation: &Observation) -> Vec<Output> {
        let at = observation.at();
        let changes = self.correlator.observe(observation);
        let mut outputs = Vec::new();
        let mut look = (!changes.is_empty()).then_some(Look::Soon);
        match observation {
            Observation::Lost { what, .. } if !what.hides_operations() || *what == LossKind::NotWatching => {
                outputs.push(Output::observed(observation));
            }
            Observation::Commit(_) if self.rules.verbose => outputs.push(Output::observed(observation)),
            Observation::DeviceChange(_) => {
                if self.rules.verbose {
                    outputs.push(Output::observed(observation));
                }
                look = Some(Look::Soon);
            }
            // Without probes a pool's status is all there is to know that something happened.
            Observation::ContainerdUp { .. } | Observation::PoolStatus(_) => {
                outputs.push(Output::observed(observation));
                look = Some(Look::Soon);
            }
            Observation::ContainerdGone { .. } => {
                outputs.push(Output::observed(observation));
                // At once: the next containerd overwrites what this one was at.
                look = Some(Look::Now);
            }
            _ => {}
        }
        outputs.extend(self.changed(at, changes));
        if let Observation::DmIoctl(call) = observation
            && !call.command.is_query()
            && self.has_failures()
        {
            outputs.extend(self.judge_live(at));
        }
        outputs.extend(look.map(Output::Look));
        outputs
    }

    /// Trouble is told once, until it changes or ends. Without a reason it is none: the next look comes soon enough.
    fn unreadable(&mut self, at: Timestamp, why: Option<&String>) -> Vec<Output> {
        let Some(why) = why.filter(|why| self.trouble.as_ref() != Some(why)) else {
            return Vec::new();
        };
        self.trouble = Some(why.clone());
        vec![Output::tell(at, Report::Trouble { what: why.clone() })]
    }

    /// What is to be told and stored of what changed among the operations.
    fn changed(&mut self, at: Timestamp, changes: Vec<Change>) -> Vec<Output> {
        let mut outputs = Vec::new();
        for change in changes {
            match change {
                Change::GapOpened(gap) => outputs.push(Output::tell(at, Report::GapOpened { why: gap.why })),
                Change::GapClosed(gap) => outputs.push(Output::tell(at, Report::GapClosed { why: gap.why })),
                Change::BlockErrors { newest, count } => {
                    let newest = *newest;
                    outputs.push(Output::tell(at, Report::BlockErrors { newest, count }));
                }
                Change::Began(id) | Change::Moved(id) => self.operation_moved(at, &id, &mut outputs),
                Change::Stepped(id) => {
                    if let Some(operation) = self.correlator.operation(&id).filter(|_| self.rules.verbose) {
                        outputs.push(Output::operation(at, operation));
                    }
                    outputs.push(Output::KeepLater(id));
                }
            }
        }
        outputs
    }

    fn operation_moved(&mut self, at: Timestamp, id: &OperationId, outputs: &mut Vec<Output>) {
        let Some(operation) = self.correlator.operation(id) else {
            return;
        };
        if matches!(operation.state, OperationState::Abandoned { .. }) && self.stories.insert(id.clone()) {
            outputs.push(Output::Story(Box::new(operation.clone())));
        }
        let is_story = self.stories.contains(id);
        // What ended well and was never a story is nobody's concern any more.
        outputs.push(if operation.state.is_closed() && !is_story {
            Output::Forget(id.clone())
        } else {
            Output::Keep(Box::new(operation.clone()))
        });
        if self.rules.verbose || is_story || operation.state.is_noteworthy() {
            outputs.push(Output::operation(at, operation));
        }
    }
}
