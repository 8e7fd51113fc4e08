//! Operations by the dm name of their device: a call on a device is looked up among thousands of operations.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Operation, OperationId};

/// As many entries as there are operations with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ByDevice(BTreeMap<String, BTreeSet<OperationId>>);

impl ByDevice {
    /// Takes in an operation that is known from now on, or has a name from now on.
    pub(super) fn add(&mut self, operation: &Operation) {
        if let Some(name) = &operation.device_name {
            let others = self.0.entry(name.clone()).or_default();
            others.insert(operation.id.clone());
        }
    }

    /// Forgets an operation. To be called before its name changes.
    pub(super) fn remove(&mut self, operation: &Operation) {
        let Some(name) = &operation.device_name else {
            return;
        };
        if let Some(others) = self.0.get_mut(name) {
            others.remove(&operation.id);
            if others.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// Every operation on a device of this name, in the order of their ids.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &OperationId> {
        self.0.get(name).into_iter().flatten()
    }
}
