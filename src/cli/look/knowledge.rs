//! What is known beside the survey: from the ledger, and from a running sidecar. Both may be missing, which is as usual; one
//! that is there and can not be read is told, and done without.

use std::{path::Path, time::SystemTime};

use crate::{
    control::{self, AskError},
    ledger::Ledger,
    model::{
        FindingId, Knowledge, PoolName, Status, ThinId, Timestamp,
        operation::{Operation, OperationState},
        survey::Claim,
    },
    words::explain,
};

/// Where knowledge comes from; what is wrong with it is told once.
pub(super) struct Sources<'a> {
    ledger: Option<Ledger>,
    socket: &'a Path,
    told: Vec<String>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(ledger: &Path, socket: &'a Path) -> Self {
        Self {
            ledger: readable_ledger(ledger),
            socket,
            told: Vec::new(),
        }
    }

    /// Everything that is known now.
    pub(super) fn read(&mut self, pool: &PoolName) -> Knowledge {
        let sidecar = match sidecar(self.socket, pool) {
            Ok(sidecar) => sidecar,
            Err(why) => {
                self.tell(why);
                None
            }
        };
        let operations = match self.ledger.as_ref().map(Ledger::open_operations) {
            None => Vec::new(),
            Some(Ok(rows)) => rows.into_iter().map(|row| row.operation).collect(),
            Some(Err(error)) => {
                self.tell(format!("without what the ledger knows: {}", explain(&error)));
                self.ledger = None;
                Vec::new()
            }
        };
        knowledge(operations, sidecar, pool)
    }

    fn tell(&mut self, what: String) {
        if !self.told.contains(&what) {
            eprintln!("suture: {what}");
            self.told.push(what);
        }
    }
}

/// The ledger, where there is one that can be read.
pub(in crate::cli) fn readable_ledger(path: &Path) -> Option<Ledger> {
    if matches!(path.try_exists(), Ok(false)) {
        return None;
    }
    match Ledger::open_to_read(path) {
        Ok(ledger) => Some(ledger),
        Err(error) => {
            eprintln!("suture: without what the ledger knows: {}", explain(&error));
            None
        }
    }
}

/// What a running sidecar says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sidecar {
    watched: bool,
    open: Vec<FindingId>,
}

/// The running sidecar of this pool; nothing where none runs.
fn sidecar(socket: &Path, pool: &PoolName) -> Result<Option<Sidecar>, String> {
    let told = match control::ask_status(socket) {
        Err(AskError::NotRunning { .. }) => return Ok(None),
        other => other.map_err(|error| format!("without the running suture: {}", explain(&error)))?,
    };
    let status: Status = serde_json::from_value(told).map_err(|error| {
        format!("without the running suture: it answers as another version does: {error}")
    })?;
    Ok(understood(&status, pool, SystemTime::now().into()))
}

fn understood(status: &Status, pool: &PoolName, now: Timestamp) -> Option<Sidecar> {
    // One that hangs knows nothing of this moment.
    (status.pool == *pool && status.staleness(now).is_none()).then(|| Sidecar {
        watched: status.gap.is_none(),
        open: status.findings.iter().map(|one| one.id.clone()).collect(),
    })
}

fn knowledge(operations: Vec<Operation>, sidecar: Option<Sidecar>, pool: &PoolName) -> Knowledge {
    let mut known = Knowledge::default();
    let runs = sidecar.is_some();
    if let Some(sidecar) = sidecar {
        known.watched = sidecar.watched;
        known.confirmed = sidecar.open;
    }
    for operation in operations.into_iter().filter(|one| one.pool == *pool) {
        let id: ThinId = operation.thin_id;
        match operation.state {
            OperationState::Abandoned { mark, .. } => {
                let claim = Claim {
                    operation: operation.id,
                    mark,
                };
                known.claims.insert(id, claim);
            }
            // Without a sidecar that goes on watching, what the ledger has as in flight ended long ago.
            OperationState::InFlight | OperationState::Orphaned { .. } if runs => {
                known.at_work.insert(id, operation.id);
            }
            _ => {}
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::OperationId, testing};

    fn operation(id: u32, state: OperationState) -> Operation {
        Operation {
            id: OperationId::new(testing::at(1), ThinId(id)),
            pool: testing::pool(),
            thin_id: ThinId(id),
            origin: None,
            device_name: None,
            actor: testing::containerd(),
            caller: testing::by_containerd(),
            steps: Vec::new(),
            state,
        }
    }

    fn operations() -> Vec<Operation> {
        let abandoned = OperationState::Abandoned {
            at: testing::at(2),
            record: None,
            mark: testing::mark(1),
        };
        vec![
            operation(1, abandoned.clone()),
            operation(2, OperationState::InFlight),
            operation(3, OperationState::Orphaned { at: testing::at(2) }),
            operation(4, OperationState::Completed { at: testing::at(2) }),
            Operation {
                pool: PoolName::new("other"),
                ..operation(5, abandoned)
            },
        ]
    }

    #[test]
    fn only_a_running_sidecar_makes_an_open_operation_one_in_flight() {
        let alone = knowledge(operations(), None, &testing::pool());
        assert_eq!(alone.claims.keys().copied().collect::<Vec<_>>(), [ThinId(1)]);
        assert!(alone.at_work.is_empty() && !alone.watched);

        let sidecar = Sidecar {
            watched: true,
            open: vec![FindingId("wedge/tp/1".to_owned())],
        };
        let together = knowledge(operations(), Some(sidecar), &testing::pool());
        let at_work: Vec<_> = together.at_work.keys().copied().collect();
        assert_eq!(at_work, [ThinId(2), ThinId(3)]);
        assert_eq!(together.claims, alone.claims);
        assert!(together.watched);
        assert_eq!(together.confirmed.len(), 1);
    }

    #[test]
    fn a_sidecar_of_another_pool_or_one_that_hangs_tells_nothing() {
        let status = testing::status();
        let sidecar = understood(&status, &status.pool, status.at).unwrap();
        assert_eq!(sidecar.open.len(), status.findings.len());
        assert_eq!(sidecar.watched, status.gap.is_none());
        assert_eq!(understood(&status, &PoolName::new("other"), status.at), None);
        let late = status
            .at
            .plus(Status::STALE)
            .plus(std::time::Duration::from_secs(1));
        assert_eq!(understood(&status, &status.pool, late), None);
    }
}
