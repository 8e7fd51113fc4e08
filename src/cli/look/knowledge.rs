//! What is known beside the survey: from the ledger, and from a running sidecar. Both may be missing, which is as usual; one
//! that is there and can not be read is told, and done without.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    control::{self, AskError},
    ledger::{Ledger, RepairRow},
    model::{FindingId, Knowledge, PoolName, Status, Timestamp, operation::Operation},
    words::explain,
};

/// Where knowledge comes from; what is wrong with it is told once.
pub(in crate::cli) struct Sources<'a> {
    path: PathBuf,
    ledger: Option<Ledger>,
    /// The ledger of a sidecar that keeps another one than was named.
    sidecars: Option<(PathBuf, Option<Ledger>)>,
    socket: &'a Path,
    patience: Duration,
    /// Set when a sidecar did not answer in time: one that hangs is not asked again.
    silent: bool,
    told: Vec<String>,
}

impl<'a> Sources<'a> {
    /// A sidecar that does not answer within `patience` is done without.
    pub(in crate::cli) fn new(ledger: &Path, socket: &'a Path, patience: Duration) -> Self {
        Self {
            path: ledger.to_owned(),
            ledger: readable_ledger(ledger),
            sidecars: None,
            socket,
            patience,
            silent: false,
            told: Vec::new(),
        }
    }

    /// Everything that is known now.
    pub(in crate::cli) fn read(&mut self, pool: &PoolName) -> Knowledge {
        let sidecar = self.sidecar(pool);
        let mut rows = operations(&mut self.ledger, &mut self.told);
        if let Some(path) = sidecar.as_ref().and_then(|one| one.ledger.as_ref()) {
            rows.extend(self.of_sidecars(path.clone()));
        }
        knowledge(&rows, sidecar, pool)
    }

    /// What repairs of this pool left open, or had begun when they died.
    pub(in crate::cli) fn left_open(&mut self, pool: &PoolName) -> Vec<RepairRow> {
        match self.ledger.as_ref().map(Ledger::unfinished_repairs) {
            None => Vec::new(),
            Some(Ok(rows)) => rows.into_iter().filter(|row| row.intent.pool == *pool).collect(),
            Some(Err(error)) => {
                let why = format!("without what earlier repairs left open: {}", explain(&error));
                tell(&mut self.told, why);
                Vec::new()
            }
        }
    }

    fn sidecar(&mut self, pool: &PoolName) -> Option<Sidecar> {
        if self.silent {
            return None;
        }
        match sidecar(self.socket, self.patience, pool) {
            Ok(sidecar) => sidecar,
            Err(error) => {
                self.silent = matches!(error, NotTold::Asked(AskError::NoAnswer { .. }));
                tell(
                    &mut self.told,
                    format!("without the running suture: {}", explain(&error)),
                );
                None
            }
        }
    }

    /// The operations in the ledger that a running sidecar keeps, where it is another one than was named.
    fn of_sidecars(&mut self, path: PathBuf) -> Vec<Operation> {
        if same_file(&path, &self.path) {
            return Vec::new();
        }
        if self.sidecars.as_ref().is_none_or(|(known, _)| *known != path) {
            let ledger = readable_ledger(&path);
            self.sidecars = Some((path, ledger));
        }
        self.sidecars
            .as_mut()
            .map_or_else(Vec::new, |(_, ledger)| operations(ledger, &mut self.told))
    }
}

/// The operations that a ledger has open.
fn operations(ledger: &mut Option<Ledger>, told: &mut Vec<String>) -> Vec<Operation> {
    match ledger.as_ref().map(Ledger::open_operations) {
        None => Vec::new(),
        Some(Ok(rows)) => rows.into_iter().map(|row| row.operation).collect(),
        Some(Err(error)) => {
            tell(
                told,
                format!("without what the ledger knows: {}", explain(&error)),
            );
            *ledger = None;
            Vec::new()
        }
    }
}

fn tell(told: &mut Vec<String>, what: String) {
    if !told.contains(&what) {
        eprintln!("suture: {what}");
        told.push(what);
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
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
    ledger: Option<PathBuf>,
}

/// Why a running sidecar tells nothing.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error("asking it how it is")]
    Asked(#[from] AskError),
    #[error("it answers as another version does")]
    AnotherVersion(#[from] serde_json::Error),
}

/// The running sidecar of this pool; nothing where none runs.
fn sidecar(socket: &Path, patience: Duration, pool: &PoolName) -> Result<Option<Sidecar>, NotTold> {
    let told = match control::ask_status_within(socket, patience) {
        Err(AskError::NotRunning { .. }) => return Ok(None),
        other => other?,
    };
    let status: Status = serde_json::from_value(told)?;
    Ok(understood(status, pool, SystemTime::now().into()))
}

fn understood(status: Status, pool: &PoolName, now: Timestamp) -> Option<Sidecar> {
    // One that hangs knows nothing of this moment.
    (status.pool == *pool && status.staleness(now).is_none()).then(|| Sidecar {
        watched: status.gap.is_none(),
        open: status.findings.into_iter().map(|one| one.id).collect(),
        ledger: status.places.ledger,
    })
}

fn knowledge(operations: &[Operation], sidecar: Option<Sidecar>, pool: &PoolName) -> Knowledge {
    let mut known = Knowledge::default();
    let runs = sidecar.is_some();
    if let Some(sidecar) = sidecar {
        known.watched = sidecar.watched;
        known.confirmed = sidecar.open;
    }
    for operation in operations.iter().filter(|one| one.pool == *pool) {
        known.note(operation, runs);
    }
    known
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixListener,
    };

    use super::*;
    use crate::{
        model::{OperationId, OperationState, ThinId},
        testing,
    };

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
        let alone = knowledge(&operations(), None, &testing::pool());
        assert_eq!(alone.claims.keys().copied().collect::<Vec<_>>(), [ThinId(1)]);
        assert!(alone.at_work.is_empty() && !alone.watched);

        let sidecar = Sidecar {
            watched: true,
            open: vec![FindingId("wedge/tp/1".to_owned())],
            ledger: None,
        };
        let together = knowledge(&operations(), Some(sidecar), &testing::pool());
        let at_work: Vec<_> = together.at_work.keys().copied().collect();
        assert_eq!(at_work, [ThinId(2), ThinId(3)]);
        assert_eq!(together.claims, alone.claims);
        assert!(together.watched);
        assert_eq!(together.confirmed.len(), 1);
    }

    #[test]
    fn a_sidecar_of_another_pool_or_one_that_hangs_tells_nothing() {
        let status = testing::status();
        let sidecar = understood(status.clone(), &status.pool, status.at).unwrap();
        assert_eq!(sidecar.open.len(), status.findings.len());
        assert_eq!(sidecar.watched, status.gap.is_none());
        assert_eq!(
            understood(status.clone(), &PoolName::new("other"), status.at),
            None
        );
        let late = status.at.plus(Status::STALE).plus(Duration::from_secs(1));
        assert_eq!(understood(status.clone(), &status.pool, late), None);
    }

    /// A sidecar that answers every question with this status, or never.
    fn sidecar_at(path: &Path, status: Option<Status>) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(status) = &status else {
                    silent.push(stream);
                    continue;
                };
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let status = status.clone();
                let answer = serde_json::json!({ "answer": "status", "status": status });
                writeln!(stream, "{answer}").unwrap();
            }
        });
    }

    #[test]
    fn what_a_sidecar_sees_at_work_is_known_whatever_ledger_it_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let (theirs, ours) = (folder.path().join("theirs.db"), folder.path().join("ours.db"));
        let row = crate::ledger::OperationRow {
            operation: operation(2, OperationState::InFlight),
            traceparent: None,
        };
        Ledger::open_beside(&theirs)
            .unwrap()
            .save_operation(&row)
            .unwrap();
        let socket = folder.path().join("socket");
        assert!(
            Sources::new(&theirs, &socket, control::PATIENCE)
                .read(&testing::pool())
                .at_work
                .is_empty(),
            "no sidecar runs"
        );
        let mut status = testing::status();
        status.pool = testing::pool();
        status.at = SystemTime::now().into();
        status.places.ledger = Some(theirs.clone());
        sidecar_at(&socket, Some(status));
        for ledger in [&ours, &theirs] {
            let mut sources = Sources::new(ledger, &socket, control::PATIENCE);
            for _ in 0..2 {
                let known = sources.read(&testing::pool());
                assert_eq!(known.at_work.keys().copied().collect::<Vec<_>>(), [ThinId(2)]);
            }
        }
    }

    #[test]
    fn a_sidecar_that_does_not_answer_is_waited_for_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        sidecar_at(&socket, None);
        let patience = Duration::from_millis(50);
        let mut sources = Sources::new(&folder.path().join("none.db"), &socket, patience);
        for _ in 0..3 {
            assert_eq!(sources.read(&testing::pool()), Knowledge::default());
        }
        assert!(sources.silent);
        assert_eq!(sources.told.len(), 1, "{:?}", sources.told);
    }
}
