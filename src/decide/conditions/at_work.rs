//! Whether nobody is at work on what a repair is about: programs that containerd started, and what a running sidecar sees.

use std::collections::BTreeSet;

use super::{Evidence, record_name};
use crate::model::{Act, ContainerdState, OperationId, RepairPlan, Subject, ThinId};

impl Evidence<'_> {
    pub(super) fn nobody_at_work(&self, plan: &RepairPlan) -> Result<String, String> {
        let programs = match &self.survey.containerd {
            ContainerdState::Running { at_work, .. } | ContainerdState::Stopped { at_work } => at_work,
            ContainerdState::Unknown { why } => {
                return Err(format!("it is not known whether containerd runs: {why}"));
            }
        };
        if let Some(program) = programs.first() {
            return Err(format!("{} works on devices", program.escape_debug()));
        }
        if self.knowledge.at_work.is_empty() {
            return Ok("nobody is at work".to_owned());
        }
        for id in touched_ids(plan) {
            if let Some(operation) = self.knowledge.at_work.get(&id) {
                return Err(format!("operation {operation} is at work on thin device {id}"));
            }
        }
        for name in self.touched_names(plan) {
            if let Some(operation) = self.works_on(&name) {
                return Err(format!(
                    "operation {operation} is at work on {}",
                    name.escape_debug()
                ));
            }
        }
        Ok("nobody is at work on it".to_owned())
    }

    /// The operation that a sidecar sees at work on the thin device of a record or dm device.
    fn works_on(&self, name: &str) -> Option<&OperationId> {
        let record = self
            .survey
            .pool_db
            .devices
            .get(name)
            .map(|record| record.device_id);
        let nodes = self.survey.nodes.iter().filter(|node| node.name.as_str() == name);
        let mapped = nodes.flat_map(|node| node.thin_ids.iter().copied());
        let mut ids = record.into_iter().chain(mapped);
        ids.find_map(|id| self.knowledge.at_work.get(&id))
    }

    /// Records and dm devices that a plan is about.
    fn touched_names(&self, plan: &RepairPlan) -> BTreeSet<String> {
        let of_subject = match &plan.subject {
            Subject::Record { name, .. } | Subject::Node { name, .. } => Some(name.clone()),
            Subject::Snapshot { id, .. } => Some(format!("{}-snap-{id}", self.survey.pool_name)),
            _ => None,
        };
        let of_acts = plan.acts.iter().filter_map(|act| match act {
            Act::ResumeNode { name, .. } => Some(name.as_str()),
            act => record_name(act),
        });
        of_acts.map(str::to_owned).chain(of_subject).collect()
    }
}

/// Thin ids that a plan names.
fn touched_ids(plan: &RepairPlan) -> BTreeSet<ThinId> {
    let of_subject = match &plan.subject {
        Subject::ThinId { thin_id } => Some(*thin_id),
        subject => subject.thin_id(),
    };
    let of_acts = plan.acts.iter().filter_map(|act| match act {
        Act::DeleteThin { thin_id }
        | Act::SetId { thin_id, .. }
        | Act::InsertRemovedRecord { thin_id, .. } => Some(*thin_id),
        Act::MarkFaulty { record } | Act::ForgetRecord { record } | Act::RestoreRecord { record, .. } => {
            Some(record.device_id)
        }
        Act::ResumeNode { .. } | Act::RemoveNode { .. } | Act::RaiseIdSequence { .. } => None,
    });
    of_acts.chain(of_subject).collect()
}
