//! The other sides of an operation: what the pool did inside the kernel, which device really ended, and what containerd
//! committed about it. They make a story complete. None of them begins or ends an operation: that rests on the calls, on
//! containerd's death and on reads of the world.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::correlator::{Change, Correlator};
use crate::model::{
    DeviceNumber, Operation, OperationState, Side, ThinId,
    commit::{Commit, DatabaseKind, EntryChange},
    dm::{DmCommand, DmIoctl, Process},
    kernel::{DeviceEnded, PoolCall, PoolFunction},
    operation::Step,
    text::Untrusted,
};

/// dm devices whose names are remembered by their numbers.
const MAX_DEVICES: usize = 4096;
/// Transitions kept of records whose device is not made yet.
const MAX_TRANSITIONS: usize = 64;

/// What is remembered to tell whose a fact is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inside {
    devices: BTreeMap<DeviceNumber, Untrusted>,
    transitions: VecDeque<(ThinId, Step)>,
}

impl Inside {
    /// Which name goes with which number: the kernel tells of a device's end by its number only.
    pub(super) fn learn(&mut self, call: &DmIoctl) {
        let (Some(device), true) = (call.device, call.result.0.is_ok()) else {
            return;
        };
        match call.command {
            DmCommand::DevCreate | DmCommand::DevSuspend if !call.name.is_empty() => {
                if self.devices.len() >= MAX_DEVICES && !self.devices.contains_key(&device) {
                    self.devices.pop_first();
                }
                self.devices.insert(device, call.name.clone());
            }
            DmCommand::DevRename => {
                self.devices.remove(&device);
            }
            _ => {}
        }
    }

    /// What containerd committed about a thin id before the kernel was asked to make it; forgotten with the answer.
    pub(super) fn earlier_transitions(&mut self, id: ThinId) -> Vec<Step> {
        let (of_it, others) = std::mem::take(&mut self.transitions)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(of, _)| *of == id);
        self.transitions = others;
        of_it.into_iter().map(|(_, step)| step).collect()
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.devices.len(), self.transitions.len())
    }

    fn forget(&mut self, id: ThinId) {
        self.transitions.retain(|(of, _)| *of != id);
    }

    fn keep(&mut self, id: ThinId, step: Step) {
        if self.transitions.len() >= MAX_TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back((id, step));
    }
}

impl Correlator {
    /// Something the pool did. What calls ask for is known from the calls; what is new is that a commit failed, that
    /// everything since the last one was rolled back, and in which mode the pool is.
    pub(super) fn pool_call(&mut self, call: &PoolCall) -> Vec<Change> {
        let ours = call.metadata_device.is_some() && call.metadata_device == self.metadata_device;
        let told_by_calls = matches!(
            call.what,
            PoolFunction::CreateThin { .. }
                | PoolFunction::CreateSnap { .. }
                | PoolFunction::DeleteThin { .. }
        );
        if !ours || told_by_calls {
            return Vec::new();
        }
        let step = Step {
            side: Side::Kernel,
            entered: call.entered,
            finished: call.finished(),
            request: format!("pool: {}", call.what),
            error: call.result.error_name(),
            process: call.process.clone(),
        };
        // It concerns whatever is not finished yet. A commit makes a create durable that was acknowledged before it; the
        // kernel acknowledges it all the same when the commit fails (`pool_message`, drivers/md/dm-thin.c).
        self.step_of_each(&step, |operation| {
            matches!(
                operation.state,
                OperationState::InFlight | OperationState::Orphaned { .. }
            )
        })
    }

    /// A dm device really ended.
    pub(super) fn device_ended(&mut self, ended: &DeviceEnded) -> Vec<Change> {
        let Some(name) = ended
            .device
            .and_then(|device| self.inside.devices.remove(&device))
        else {
            return Vec::new();
        };
        let step = Step {
            side: Side::Kernel,
            entered: ended.at,
            finished: ended.at,
            request: if ended.deferred {
                format!("{name} is gone: its deferred removal is complete")
            } else {
                format!("{name} is gone")
            },
            error: None,
            process: ended.process.clone(),
        };
        self.step_of_each(&step, |operation| {
            !operation.state.is_closed() && operation.device_name.as_deref() == Some(name.as_str())
        })
    }

    /// containerd committed something: transitions of the records of devices that it is making.
    pub(super) fn committed(&mut self, commit: &Commit) -> Vec<Change> {
        if commit.database != DatabaseKind::Pool {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for change in &commit.changes {
            let EntryChange::Device { from, to, .. } = change else {
                continue;
            };
            let Some(record) = to.as_ref().or(from.as_ref()) else {
                continue;
            };
            let id = record.device_id;
            let error = to.as_ref().map(|record| record.error.as_str());
            let step = Step {
                side: Side::Database,
                entered: commit.since,
                finished: commit.at,
                request: format!("record {change}"),
                error: error
                    .filter(|error| !error.is_empty())
                    .map(|error| Untrusted::from_bytes(error.as_bytes()).to_string()),
                process: self.writer(),
            };
            let maker = self.by_thin_id.get(&id).cloned();
            let is_maker =
                |operation: &Operation| Some(&operation.id) == maker.as_ref() && !operation.state.is_closed();
            let stepped = self.step_of_each(&step, is_maker);
            if stepped.is_empty() {
                let begins = from.as_ref().is_none_or(|from| from.device_id != id);
                if begins || to.is_none() {
                    // What was committed about an earlier device of this id is another story.
                    self.inside.forget(id);
                }
                if to.is_some() {
                    self.inside.keep(id, step);
                }
            }
            changes.extend(stepped);
        }
        changes
    }

    /// Whoever holds the databases' locks writes them.
    fn writer(&self) -> Process {
        Process {
            pid: self.containerds.holder().map_or(0, |who| who.pid),
            comm: Untrusted::from_bytes(b"containerd"),
        }
    }

    fn step_of_each(&mut self, step: &Step, is_its: impl Fn(&Operation) -> bool) -> Vec<Change> {
        let theirs = self.operations.values_mut().filter(|operation| is_its(operation));
        theirs
            .map(|operation| {
                operation.push(step.clone());
                Change::Stepped(operation.id.clone())
            })
            .collect()
    }
}
