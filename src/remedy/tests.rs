use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::*;
use crate::{
    decide::guards,
    ledger::Ledger,
    model::{
        Action, FindingId, Guard, GuardReading, IdState, OperationId, Outcome, Plan, PoolName, ThinId,
        Timestamp, TxId, World,
    },
    observe::world::WorldError,
    testing::{Fill, at, mark, pool, world},
};

/// Where the simulated suture is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    BeforeLastLook,
    BeforeCall,
    AfterCall,
    AfterVerify,
}

/// A pool in memory that answers as the kernel does (held against it by the VM tests), and a suture that can be killed.
struct Kernel {
    world: RefCell<World>,
    crash: Crash,
    deletes: Cell<u32>,
    /// containerd commits between intent and act.
    containerd_writes: bool,
    busy: bool,
    takes_back: bool,
}

impl Kernel {
    fn new(crash: Crash) -> Self {
        let world = world(30)
            .thin(1)
            .thin(2)
            .id(1, IdState::Faulty)
            .id(2, IdState::Taken)
            .record("tp-snap-1", 2, crate::model::DeviceState::Activated)
            .snapshot(1);
        Self {
            world: RefCell::new(world),
            crash,
            deletes: Cell::new(0),
            containerd_writes: false,
            busy: false,
            takes_back: false,
        }
    }

    fn reach(&self, point: Crash) {
        if self.crash == point {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

impl Eyes for Kernel {
    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        self.reach(Crash::BeforeLastLook);
        let (pool, snapshots) = self.world.borrow().transactions();
        Ok(if self.containerd_writes {
            (TxId(pool.0 + 1), snapshots)
        } else {
            (pool, snapshots)
        })
    }

    fn world(&self) -> Result<World, WorldError> {
        let world = self.world.borrow().clone();
        self.reach(Crash::AfterVerify);
        Ok(world)
    }

    fn now(&self) -> Timestamp {
        at(31)
    }
}

impl Hands for Kernel {
    fn delete_thin(&self, _pool: &PoolName, id: ThinId) -> Result<(), HandsError> {
        self.reach(Crash::BeforeCall);
        self.deletes.set(self.deletes.get() + 1);
        if self.busy {
            return Err(HandsError::Busy);
        }
        if !self.takes_back && self.world.borrow_mut().thin.remove(&id).is_none() {
            return Err(HandsError::NoSuchDevice);
        }
        self.reach(Crash::AfterCall);
        Ok(())
    }

    fn node(&self, _name: &str) -> Result<Option<NodeNow>, HandsError> {
        Ok(None)
    }

    fn resume_node(&self, name: &str) -> Result<(), HandsError> {
        Err(HandsError::Call(format!("nobody resumes {name}")))
    }

    fn remove_node(&self, name: &str) -> Result<(), HandsError> {
        Err(HandsError::Call(format!("nobody removes {name}")))
    }
}

fn plan() -> Plan {
    Plan {
        finding: FindingId("leaked-thin/tp/1".to_owned()),
        operation: OperationId::new(at(10), ThinId(1)),
        action: Action::DeleteThin {
            pool: pool(),
            pool_device: crate::testing::POOL_DEVICE,
            thin_id: ThinId(1),
            mark: mark(1),
        },
        guards: Guard::DELETE_THIN.to_vec(),
    }
}

fn readings(holds: bool) -> Vec<GuardReading> {
    let all = Guard::DELETE_THIN
        .iter()
        .filter(|guard| **guard != Guard::SameTransaction);
    all.map(|guard| GuardReading {
        guard: *guard,
        holds: holds || *guard != Guard::NotOpen,
        detail: "as read".to_owned(),
    })
    .collect()
}

fn attempt(
    kernel: &Kernel,
    readings: &[GuardReading],
    ledger: &mut Ledger,
) -> Result<(Outcome, Vec<GuardReading>), RemedyError> {
    let basis = kernel.world.borrow().transactions();
    match begin(&plan(), readings, basis, kernel, ledger)? {
        Begun::Refused(outcome, readings) => Ok((outcome, readings)),
        Begun::Intended(id, readings) => {
            let outcome = act(&plan(), kernel, kernel);
            conclude(id, &outcome, kernel.now(), ledger)?;
            Ok((outcome, readings))
        }
    }
}

fn ledger(folder: &Path) -> Ledger {
    Ledger::open(&folder.join("ledger.db")).unwrap()
}

#[test]
fn a_plan_whose_guards_hold_is_done_once_and_the_ledger_knows() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(Crash::Never);
    let mut ledger = ledger(folder.path());
    let (outcome, read) = attempt(&kernel, &readings(true), &mut ledger).unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(guards::first_refusal(&read), None);
    assert_eq!(read.last().unwrap().guard, Guard::SameTransaction);
    assert_eq!(kernel.deletes.get(), 1);
    assert_eq!(
        kernel.world.borrow().thin.keys().copied().collect::<Vec<_>>(),
        [ThinId(2)]
    );
    assert_eq!(ledger.open_intents().unwrap(), []);
    assert_eq!(ledger.last_outcome(&plan().finding).unwrap(), Some(Outcome::Done));
}

#[test]
fn a_guard_that_does_not_hold_stops_it_before_any_intent() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(Crash::Never);
    let mut ledger = ledger(folder.path());
    let (outcome, _) = attempt(&kernel, &readings(false), &mut ledger).unwrap();
    assert!(
        matches!(&outcome, Outcome::Refused { why } if why.contains("not-open")),
        "{outcome}"
    );
    assert_eq!(kernel.deletes.get(), 0);
    assert_eq!(ledger.open_intents().unwrap(), []);
}

#[test]
fn a_plan_with_a_guard_that_nobody_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for missing in 0..Guard::DELETE_THIN.len() - 1 {
        let kernel = Kernel::new(Crash::Never);
        let mut some = readings(true);
        some.remove(missing);
        let (outcome, _) = attempt(&kernel, &some, &mut ledger(folder.path())).unwrap();
        assert!(matches!(outcome, Outcome::Refused { .. }));
        assert_eq!(kernel.deletes.get(), 0);
    }
}

#[test]
fn a_transaction_of_containerds_between_intent_and_act_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel {
        containerd_writes: true,
        ..Kernel::new(Crash::Never)
    };
    let mut ledger = ledger(folder.path());
    let (outcome, _) = attempt(&kernel, &readings(true), &mut ledger).unwrap();
    assert!(
        matches!(&outcome, Outcome::Refused { why } if why.contains("same-transaction")),
        "{outcome}"
    );
    assert_eq!(kernel.deletes.get(), 0);
    assert_eq!(ledger.open_intents().unwrap(), [], "the intent has its outcome");
}

#[test]
fn the_kernels_no_is_an_answer_and_its_yes_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let busy = Kernel {
        busy: true,
        ..Kernel::new(Crash::Never)
    };
    let (outcome, _) = attempt(&busy, &readings(true), &mut ledger(folder.path())).unwrap();
    assert!(matches!(outcome, Outcome::Refused { .. }));
    assert_eq!(busy.deletes.get(), 1, "a busy device is not fought");

    let gone = Kernel::new(Crash::Never);
    gone.world.borrow_mut().thin.remove(&ThinId(1));
    let (outcome, _) = attempt(&gone, &readings(true), &mut ledger(folder.path())).unwrap();
    assert_eq!(outcome, Outcome::AlreadyDone);

    // An acknowledged delete that a failed commit of the pool took back.
    let forgetful = Kernel {
        takes_back: true,
        ..Kernel::new(Crash::Never)
    };
    let (outcome, _) = attempt(&forgetful, &readings(true), &mut ledger(folder.path())).unwrap();
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome}");
}

/// Killed at every point: afterwards the ledger is settled by looking, and one more attempt leaves the pool right.
#[test]
fn killed_anywhere_it_is_settled_by_looking() {
    for (crash, expected) in [
        (Crash::BeforeLastLook, Outcome::SettledNotDone),
        (Crash::BeforeCall, Outcome::SettledNotDone),
        (Crash::AfterCall, Outcome::SettledDone),
        (Crash::AfterVerify, Outcome::SettledDone),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel::new(crash);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let mut ledger = ledger(folder.path());
            let _ = attempt(&kernel, &readings(true), &mut ledger);
        }));
        assert!(killed.is_err(), "{crash:?} was reached");

        let mut ledger = ledger(folder.path());
        let intents = ledger.open_intents().unwrap();
        assert_eq!(intents.len(), 1, "{crash:?}");
        let before = kernel.deletes.get();
        let outcome = settle(&intents[0], &kernel.world.borrow(), at(40), &mut ledger).unwrap();
        assert_eq!(outcome, expected, "{crash:?}");
        assert_eq!(kernel.deletes.get(), before, "settling only looks");
        assert_eq!(ledger.open_intents().unwrap(), []);
        assert_eq!(ledger.last_outcome(&plan().finding).unwrap(), Some(expected));

        let kernel = Kernel {
            crash: Crash::Never,
            ..kernel
        };
        attempt(&kernel, &readings(true), &mut ledger).unwrap();
        assert_eq!(
            kernel.world.borrow().thin.keys().copied().collect::<Vec<_>>(),
            [ThinId(2)],
            "{crash:?}"
        );
    }
}

#[test]
fn without_a_durable_intent_nothing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(Crash::Never);
    drop(ledger(folder.path()));
    let mut blocked = ledger(folder.path());
    // Another process keeps the ledger's write lock for ever: the intent can not be stored.
    let hog = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    let result = attempt(&kernel, &readings(true), &mut blocked);
    assert!(matches!(result, Err(RemedyError::Intent(_))), "{result:?}");
    assert_eq!(kernel.deletes.get(), 0);
}
