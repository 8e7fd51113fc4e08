//! Repairs on real bbolt files, with a pool and dm devices in memory that answer as the kernel does (held against it by the VM
//! tests), and a suture that can be killed at every step.

mod guarded;
mod killed;
mod undo;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use super::*;
use crate::{
    decide::{self, RepairPolicy, Selection},
    diagnose,
    model::{
        ContainerdState, DeviceNumber, DeviceRecord, DeviceState, Diagnoses, FindingClass, IdState,
        Incarnation, Node, OperationId, Pool, PoolDb, PoolName, Severity, SnapshotDb, ThinDetails, Timestamp,
        TxId,
        survey::{Claim, Mounts},
    },
    remedy::{
        HandsError, NodeNow,
        bbolt_editor::{Edit, Editor},
    },
    testing::{self, at, containerd, details},
};

/// The fixture's pool name.
const POOL: &str = "pool";

/// Something that happens to a node.
type Happens = Box<dyn Fn(&Stage)>;

/// A node: real databases, everything else in memory.
struct Stage {
    folder: tempfile::TempDir,
    places: Places,
    thin: RefCell<BTreeMap<ThinId, ThinDetails>>,
    nodes: RefCell<Vec<Node>>,
    pool: RefCell<Option<Pool>>,
    holder: RefCell<Option<Incarnation>>,
    at_work: RefCell<Vec<String>>,
    /// What a running sidecar sees at work.
    seen_at_work: RefCell<BTreeMap<ThinId, OperationId>>,
    knowledge: RefCell<Knowledge>,
    selection: RefCell<Selection>,
    /// Steps so far, and the one before which suture is killed.
    steps: Cell<u32>,
    kill_before: Cell<Option<u32>>,
    /// What suture said it was doing.
    told: RefCell<Vec<String>>,
    /// What happens when it says this.
    on: RefCell<Option<(&'static str, Happens)>>,
    /// What the kernel was made to do.
    calls: RefCell<Vec<String>>,
    busy: Cell<bool>,
    takes_back: Cell<bool>,
}

fn record(snapshot: u64, id: u32, state: DeviceState) -> DeviceRecord {
    testing::record(&format!("{POOL}-snap-{snapshot}"), id, state)
}

fn node(snapshot: u64, id: u32) -> Node {
    let device = DeviceNumber {
        major: 253,
        minor: u32::try_from(snapshot).unwrap(),
    };
    testing::node(&format!("{POOL}-snap-{snapshot}"), id, device)
}

fn put_record(record: &DeviceRecord) -> Edit {
    Edit::Put {
        bucket: vec![b"devices".to_vec()],
        key: record.name.clone().into_bytes(),
        value: serde_json::to_vec(record).unwrap(),
    }
}

fn put_id(id: u32, state: u8) -> Edit {
    Edit::Put {
        bucket: vec![b"device_ids".to_vec()],
        key: id.to_string().into_bytes(),
        value: vec![state],
    }
}

impl Stage {
    /// Two snapshots, both whole, and containerd stopped.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
        let places = Places {
            pool: PoolName::new(POOL),
            root: folder.path().to_owned(),
        };
        fs::copy(fixtures.join("pool.db"), places.pool_db()).unwrap();
        fs::copy(fixtures.join("metadata.db"), places.snapshot_db()).unwrap();
        let stage = Self {
            places,
            thin: RefCell::default(),
            nodes: RefCell::new(vec![node(2, 2)]),
            pool: RefCell::new(Some(Pool {
                name: PoolName::new(POOL),
                ..testing::world(1).pool
            })),
            holder: RefCell::new(None),
            at_work: RefCell::default(),
            seen_at_work: RefCell::default(),
            knowledge: RefCell::default(),
            selection: RefCell::new(Selection::all(RepairMode::Offline, RepairPolicy::default())),
            steps: Cell::new(0),
            kill_before: Cell::new(None),
            told: RefCell::default(),
            on: RefCell::new(None),
            calls: RefCell::default(),
            busy: Cell::new(false),
            takes_back: Cell::new(false),
            folder,
        };
        stage.thin(1);
        stage.thin(2);
        stage
    }

    fn thin(&self, id: u32) {
        self.thin.borrow_mut().insert(ThinId(id), details(u64::from(id)));
    }

    fn edit(&self, edits: &[Edit]) {
        Editor::open(&self.places.pool_db())
            .unwrap()
            .commit(edits)
            .unwrap();
    }

    fn sequence(&self, sequence: u64) {
        let edit = Edit::SetSequence {
            bucket: vec![b"v1".to_vec(), b"snapshots".to_vec()],
            sequence,
        };
        Editor::open(&self.places.snapshot_db())
            .unwrap()
            .commit(&[edit])
            .unwrap();
    }

    fn claim(&self, id: u32) {
        let mark = self.survey_now([ThinId(id)].into()).mark_of(ThinId(id)).unwrap();
        let claim = Claim {
            operation: OperationId::new(at(3), ThinId(id)),
            mark,
        };
        self.knowledge.borrow_mut().claims.insert(ThinId(id), claim);
    }

    fn step(&self, what: &str) {
        let step = self.steps.get();
        if self.kill_before.get() == Some(step) {
            std::panic::resume_unwind(Box::new(format!("killed before step {step}: {what}")));
        }
        self.steps.set(step + 1);
        let happens = self.on.borrow_mut().take_if(|(when, _)| what.contains(*when));
        if let Some((_, happens)) = happens {
            happens(self);
        }
    }

    fn tell(&self, what: &str) {
        self.told.borrow_mut().push(what.to_owned());
        self.step(what);
    }

    fn database(&self) -> PoolDb {
        PoolDb::read(self.places.pool_db()).unwrap()
    }

    fn survey_now(&self, roots: BTreeSet<ThinId>) -> Survey {
        let thin = self.thin.borrow().clone();
        let at_work = self.at_work.borrow().clone();
        Survey {
            begun: at(10),
            pool_name: PoolName::new(POOL),
            pool: self.pool.borrow().clone(),
            usage: None,
            pool_db: self.database().into(),
            snapshots: SnapshotDb::read(self.places.snapshot_db()).unwrap().into(),
            mapping_roots: roots
                .into_iter()
                .filter(|id| thin.contains_key(id))
                .map(|id| (id, 100 + u64::from(id.0)))
                .collect(),
            thin: Some(thin),
            nodes: self.nodes.borrow().clone(),
            core: Some(crate::model::CoreDb::default().into()),
            mounts: Mounts::default(),
            containerd: match self.holder.borrow().clone() {
                Some(who) => ContainerdState::Running { who, at_work },
                None => ContainerdState::Stopped { at_work },
            },
            async_remove: Some(false),
            unread: Vec::new(),
        }
    }

    fn diagnoses(&self) -> Diagnoses {
        diagnose::survey(&self.survey_now(BTreeSet::new()), &Knowledge::default())
    }

    fn ledger_path(&self) -> PathBuf {
        self.folder.path().join("ledger/ledger.db")
    }

    fn backups(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    fn mode(&self, mode: RepairMode) {
        self.selection.borrow_mut().mode = mode;
        *self.holder.borrow_mut() = (mode == RepairMode::Online).then(containerd);
    }

    /// What `suture repair` does, but for the settling that waits.
    fn repair(&self) -> Result<(Results, Vec<Settlement>), RepairError> {
        let _only_one = OnlyOne::take(&self.places, &self.ledger_path())?;
        let mut ledger = Ledger::open_beside(&self.ledger_path()).map_err(RepairError::Ledger)?;
        self.repair_with(&mut ledger)
    }

    fn repair_with(&self, ledger: &mut Ledger) -> Result<(Results, Vec<Settlement>), RepairError> {
        let backups = self.backups();
        let tell = |what: &str| self.tell(what);
        let mut repairer = self.repairer(ledger, &backups, &tell);
        let settled = repairer.settle(true)?;
        let roots = repairer.knowledge.claims.keys().copied().collect();
        let found = self.survey_now(roots);
        let diagnoses = diagnose::survey(&found, &repairer.knowledge);
        let selection = self.selection.borrow().clone();
        let plans = decide::plan(&diagnoses, &selection);
        let results = match selection.mode {
            RepairMode::Online => repairer.online(plans, life_of(&found).as_ref())?,
            RepairMode::Offline => {
                let knowledge = repairer.knowledge.clone();
                let found = Found {
                    survey: &found,
                    knowledge: &knowledge,
                    diagnoses: &diagnoses,
                };
                repairer.offline(plans, &found)?
            }
        };
        Ok((results, settled))
    }

    fn repairer<'a>(
        &'a self,
        ledger: &'a mut Ledger,
        backups: &'a Path,
        tell: &'a dyn Fn(&str),
    ) -> Repairer<'a> {
        Repairer {
            sight: self,
            hands: self,
            places: &self.places,
            ledger,
            knowledge: self.knowledge.borrow().clone(),
            backups,
            tell,
            until: None,
        }
    }

    /// Repairs; gives what came of the only plan that had acts.
    fn outcome(&self) -> RepairOutcome {
        let (results, _) = self.repair().unwrap();
        let mut outcomes = results.plans.into_iter().filter_map(|result| result.outcome);
        let outcome = outcomes.next().expect("something was planned");
        assert_eq!(outcomes.next(), None);
        outcome
    }

    /// Runs until the step; gives whether it got there.
    fn killed_before(&self, step: u32) -> bool {
        self.kill_before.set(Some(step));
        self.steps.set(0);
        let result = catch_unwind(AssertUnwindSafe(|| self.repair().map(drop)));
        self.kill_before.set(None);
        result.is_err()
    }
}

impl Sight for Stage {
    fn survey(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        self.step("looking");
        Ok(self.survey_now(roots.clone()))
    }

    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        crate::observe::world::transactions(&self.places)
    }

    fn holder(&self) -> Result<Option<Incarnation>, String> {
        Ok(self.holder.borrow().clone())
    }

    fn at_work(&self) -> BTreeMap<ThinId, OperationId> {
        self.seen_at_work.borrow().clone()
    }

    fn now(&self) -> Timestamp {
        at(20 + u64::from(self.steps.get()))
    }
}

impl Hands for Stage {
    fn delete_thin(&self, _pool: &PoolName, id: ThinId) -> Result<(), HandsError> {
        self.step("deleting");
        self.calls.borrow_mut().push(format!("delete {id}"));
        if self.busy.get() || self.nodes.borrow().iter().any(|node| node.thin_ids.contains(&id)) {
            return Err(HandsError::Busy);
        }
        if !self.takes_back.get() && self.thin.borrow_mut().remove(&id).is_none() {
            return Err(HandsError::NoSuchDevice);
        }
        self.step("deleted");
        Ok(())
    }

    fn node(&self, name: &str) -> Result<Option<NodeNow>, HandsError> {
        let nodes = self.nodes.borrow();
        let node = nodes.iter().find(|node| node.name.as_str() == name);
        Ok(node.map(|node| NodeNow {
            device: node.device,
            open_count: node.open_count,
            suspended: node.suspended,
            live: node.live,
            loaded: false,
        }))
    }

    fn resume_node(&self, name: &str) -> Result<(), HandsError> {
        self.step("resuming");
        self.calls.borrow_mut().push(format!("resume {name}"));
        for node in self.nodes.borrow_mut().iter_mut() {
            if node.name.as_str() == name {
                node.suspended = false;
            }
        }
        self.step("resumed");
        Ok(())
    }

    fn remove_node(&self, name: &str) -> Result<(), HandsError> {
        self.step("removing");
        self.calls.borrow_mut().push(format!("remove {name}"));
        if self.busy.get() {
            return Err(HandsError::Busy);
        }
        self.nodes.borrow_mut().retain(|node| node.name.as_str() != name);
        self.step("removed");
        Ok(())
    }
}

/// The wedge of containerd#5646: the record of the next snapshot says Activated, and nothing else knows of it.
fn wedge(stage: &Stage) {
    stage.edit(&[put_record(&record(3, 3, DeviceState::Activated)), put_id(3, 1)]);
    stage.thin(3);
    stage.nodes.borrow_mut().push(node(3, 3));
}

/// A clean-up that was cut off.
fn orphan_record(stage: &Stage) {
    stage.sequence(3);
    stage.edit(&[put_record(&record(3, 3, DeviceState::Deactivating)), put_id(3, 1)]);
    stage.thin(3);
    stage.nodes.borrow_mut().push(node(3, 3));
}

fn faulty_live(stage: &Stage) {
    stage.edit(&[put_record(&record(1, 1, DeviceState::Faulty)), put_id(1, 2)]);
}

fn row_without_record(stage: &Stage) {
    let delete = Edit::Delete {
        bucket: vec![b"devices".to_vec()],
        key: b"pool-snap-2".to_vec(),
    };
    stage.edit(&[delete, put_id(2, 0)]);
    stage.thin.borrow_mut().remove(&ThinId(2));
    stage.nodes.borrow_mut().clear();
}

fn burned_id(stage: &Stage) {
    stage.edit(&[put_id(3, 2)]);
}

fn leaked_thin(stage: &Stage) {
    stage.edit(&[put_id(3, 2)]);
    stage.thin(3);
    stage.claim(3);
}

fn orphan_node(stage: &Stage) {
    stage.nodes.borrow_mut().push(node(9, 77));
}

fn suspended_device(stage: &Stage) {
    stage.nodes.borrow_mut()[0].suspended = true;
}

/// Somebody else's device.
fn foreign_thin(stage: &Stage) {
    stage.edit(&[put_id(3, 2)]);
    stage.thin(3);
}
