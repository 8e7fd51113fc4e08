//! suture at work on a machine: the real diagnosis, plan and repair, on a real pool database and a real ledger, with the
//! machine's kernel as its hands. It can be killed before each of its steps, and anything may happen at one.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use suture::{
    decide::{self, RepairPolicy, Selection},
    diagnose::{self, Settled, Settling},
    ledger::{Ledger, PlanFilter, PlanState},
    model::{
        Act, Condition, ContainerdState, DeviceNumber, Diagnoses, Incarnation, Knowledge, PlanId, PoolDb,
        PoolName, RepairMode, RepairOutcome, Survey, ThinId, Timestamp, TxId,
    },
    observe::world::{Places, WorldError},
    remedy::{
        Hands, HandsError, NodeNow,
        bbolt_editor::{Edit, Editor},
        repair::{Found, OnlyOne, RepairError, Repairer, Sight, life_of},
    },
};

use crate::{
    kernel::{Call, Errno},
    machine::{Machine, POOL, State},
};

/// How long `suture repair` lets stand still what may be in flight.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that happens to a machine.
pub(crate) type Happens<'m> = Box<dyn Fn(&Machine) + 'm>;

/// When it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the step of this number.
    Step(u32),
    /// Before the first step that is told so.
    Told(&'static str),
}

/// suture on a machine, with its own files.
pub(crate) struct Suture<'m> {
    machine: &'m Machine,
    places: Places,
    steps: Cell<u32>,
    kill_before: Cell<Option<u32>>,
    /// Set while it only waits, looking again and again: a kill then is the same as one before the next step.
    only_waits: Cell<bool>,
    happens: RefCell<Option<(When, Happens<'m>)>>,
    /// What the others do while it waits.
    meanwhile: RefCell<Option<Box<dyn Fn() + 'm>>>,
    /// Set while the pool database on disk is the true one.
    on_file: Cell<bool>,
    pub(crate) selection: RefCell<Selection>,
    /// Guards that are left out: of the plans, and of what looks at the moment itself.
    pub(crate) without: RefCell<BTreeSet<Condition>>,
    /// The transactions of the last look.
    last: Cell<(TxId, Option<TxId>)>,
    /// containerd's lock on the pool database.
    lock: RefCell<Option<fs::File>>,
    /// Set once suture wrote to the pool database of a containerd that runs.
    pub(crate) two_writers: Cell<bool>,
    /// What was resumed while a program of containerd's was at work.
    pub(crate) resumed_at_work: RefCell<Vec<String>>,
    /// What the kernel was made to do, and what it answered.
    pub(crate) calls: RefCell<Vec<(String, Result<(), Errno>)>>,
    /// Plans that a person approved, whichever suture was told.
    pub(crate) approved: RefCell<BTreeSet<PlanId>>,
    folder: tempfile::TempDir,
}

/// What came of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pass {
    /// What was found, by its class and what it is about.
    pub(crate) found: Vec<String>,
    /// The acts of each plan that had some, and what came of it.
    pub(crate) plans: Vec<(Vec<Act>, RepairOutcome)>,
}

impl<'m> Suture<'m> {
    pub(crate) fn on(machine: &'m Machine) -> Self {
        let folder = if Path::new("/dev/shm").is_dir() {
            tempfile::tempdir_in("/dev/shm").unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
        let places = Places {
            pool: PoolName::new(POOL),
            root: folder.path().to_owned(),
        };
        fs::copy(fixtures.join("pool.db"), places.pool_db()).unwrap();
        fs::copy(fixtures.join("metadata.db"), places.snapshot_db()).unwrap();
        Self {
            machine,
            places,
            steps: Cell::new(0),
            kill_before: Cell::new(None),
            only_waits: Cell::new(false),
            happens: RefCell::new(None),
            meanwhile: RefCell::new(None),
            on_file: Cell::new(false),
            selection: RefCell::new(Selection::all(RepairMode::Offline, RepairPolicy::default())),
            without: RefCell::default(),
            last: Cell::new((TxId(0), None)),
            lock: RefCell::default(),
            two_writers: Cell::new(false),
            resumed_at_work: RefCell::default(),
            calls: RefCell::default(),
            approved: RefCell::default(),
            folder,
        }
    }

    pub(crate) fn happens(&self, when: When, what: impl Fn(&Machine) + 'm) {
        self.happens.replace(Some((when, Box::new(what))));
    }

    pub(crate) fn meanwhile(&self, what: impl Fn() + 'm) {
        self.meanwhile.replace(Some(Box::new(what)));
    }

    /// Nobody else does anything any more.
    pub(crate) fn alone(&self) {
        self.happens.replace(None);
        self.meanwhile.replace(None);
    }

    fn is_without(&self, guard: Condition) -> bool {
        self.without.borrow().contains(&guard)
    }

    /// Where backups are looked for when they are needed.
    pub(crate) fn backups(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }

    pub(crate) fn step(&self, what: &str) {
        if self.only_waits.get() {
            return self.machine.set(|state| state.clock += 1);
        }
        let step = self.steps.get();
        if self.kill_before.get() == Some(step) {
            std::panic::resume_unwind(Box::new("killed"));
        }
        self.steps.set(step + 1);
        self.machine.set(|state| state.clock += 1);
        let is_now = |(when, _): &mut (When, Happens<'m>)| match when {
            When::Step(wanted) => *wanted == step,
            When::Told(text) => what.contains(*text),
        };
        let happens = self.happens.borrow_mut().take_if(is_now);
        if let Some((_, happens)) = happens {
            // Whoever else changes the database changes the one file that there is.
            let on_file = self.on_file.get();
            if on_file {
                self.take_from_file();
            }
            happens(self.machine);
            if on_file {
                self.put_on_file();
            }
        }
        let runs = self.machine.get(|state| state.containerd.is_some());
        if runs && self.on_file.get() {
            if what.starts_with("committing to") {
                self.two_writers.set(true);
            }
            if !self.is_without(Condition::ContainerdStopped) {
                let file = fs::File::open(self.places.pool_db()).unwrap();
                file.try_lock().unwrap_or_default();
                self.lock.replace(Some(file));
            }
        }
    }

    /// A pass that ends by itself, or is killed before a step; gives nothing where it was.
    pub(crate) fn pass(
        &self,
        mode: RepairMode,
        kill_before: Option<u32>,
    ) -> Option<Result<Pass, RepairError>> {
        self.killed_before(kill_before, || self.undisturbed(mode))
    }

    /// Anything that suture does, which is killed before a step where one is named; gives nothing where it was.
    pub(crate) fn killed_before<T>(&self, step: Option<u32>, work: impl FnOnce() -> T) -> Option<T> {
        self.kill_before.set(step);
        self.steps.set(0);
        let went = catch_unwind(AssertUnwindSafe(work));
        self.kill_before.set(None);
        self.only_waits.set(false);
        self.let_go();
        match went {
            Ok(went) => Some(went),
            Err(panic) if panic.is::<&str>() && step.is_some() => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A pass as a part of something else that may be killed.
    pub(crate) fn undisturbed(&self, mode: RepairMode) -> Result<Pass, RepairError> {
        self.selection.borrow_mut().mode = mode;
        if mode == RepairMode::Offline {
            self.put_on_file();
        }
        let went = self.work(mode);
        self.let_go();
        went
    }

    fn let_go(&self) {
        self.lock.replace(None);
        if self.on_file.get() {
            self.take_from_file();
        }
    }

    /// A pass that nothing disturbs.
    pub(crate) fn whole_pass(&self, mode: RepairMode) -> Pass {
        match self.pass(mode, None) {
            Some(Ok(pass)) => pass,
            other => panic!("a pass went wrong: {other:?}"),
        }
    }

    /// What `suture repair` does.
    fn work(&self, mode: RepairMode) -> Result<Pass, RepairError> {
        let path = self.ledger();
        let _only_one = OnlyOne::take(&self.places, &path)?;
        // One that goes nowhere.
        let nowhere = self.folder.path().join("nowhere");
        let backups = if self.is_without(Condition::BackedUp) {
            nowhere
        } else {
            self.backups()
        };
        let tell = |what: &str| self.step(what);
        let mut knowledge = self.machine.get(State::knowledge);
        let open = || Ledger::open_beside(&path).map_err(RepairError::Ledger);
        let mut ledger = path.exists().then(open).transpose()?;
        if let Some(ledger) = &mut ledger {
            let mut repairer = self.repairer(ledger, knowledge, &backups, &tell);
            repairer.settle(true)?;
            knowledge = repairer.knowledge;
        }
        let (found, diagnoses) = self.look(mode, &knowledge, PATIENCE).map_err(RepairError::Look)?;
        let approved = approved(ledger.as_ref());
        let selection = Selection {
            approved: decide::still_approved(&diagnoses, mode, &approved),
            ..self.selection.borrow().clone()
        };
        let mut plans = decide::plan(&diagnoses, &selection);
        for plan in &mut plans {
            let without = self.without.borrow();
            plan.conditions.retain(|condition| !without.contains(condition));
        }
        let ids = diagnoses.found.iter().map(|one| one.finding.id.to_string());
        let mut pass = Pass {
            found: ids.collect(),
            plans: Vec::new(),
        };
        if plans.iter().all(|plan| plan.acts.is_empty()) {
            return Ok(pass);
        }
        let ledger = match &mut ledger {
            Some(ledger) => ledger,
            none => none.insert(open()?),
        };
        let mut repairer = self.repairer(ledger, knowledge, &backups, &tell);
        let results = match mode {
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
        let plans = results.plans.into_iter();
        pass.plans = plans
            .filter_map(|result| Some((result.plan.acts, result.outcome?)))
            .collect();
        Ok(pass)
    }

    /// Looks until what may be in flight has stood still.
    pub(crate) fn look(
        &self,
        mode: RepairMode,
        knowledge: &Knowledge,
        patience: Duration,
    ) -> Result<(Survey, Diagnoses), WorldError> {
        let roots: BTreeSet<_> = knowledge.claims.keys().copied().collect();
        let mut settling = Settling::new(patience);
        loop {
            let survey = self.survey(&roots)?;
            match settling.look(&survey, knowledge, self.now()) {
                Settled::Done(_, in_flight) if mode == RepairMode::Offline && !in_flight.is_empty() => {
                    let all = diagnose::survey(&survey, knowledge);
                    return Ok((survey, all));
                }
                Settled::Done(diagnoses, _) => return Ok((survey, diagnoses)),
                Settled::LookAgain { after } => {
                    let passed = u64::try_from(after.as_millis()).unwrap();
                    self.pass_time(passed);
                }
            }
        }
    }

    /// It waits for so many milliseconds, and the others go on.
    pub(crate) fn pass_time(&self, milliseconds: u64) {
        self.machine.set(|state| state.clock += milliseconds);
        if let Some(meanwhile) = &*self.meanwhile.borrow() {
            meanwhile();
        }
    }

    /// Looks that are no steps of their own.
    pub(crate) fn only_waits(&self, so_it_is: bool) {
        self.only_waits.set(so_it_is);
    }

    pub(crate) fn machine(&self) -> &'m Machine {
        self.machine
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn repairer<'a>(
        &'a self,
        ledger: &'a mut Ledger,
        knowledge: Knowledge,
        backups: &'a Path,
        tell: &'a dyn Fn(&str),
    ) -> Repairer<'a> {
        Repairer {
            sight: self,
            hands: self,
            places: &self.places,
            ledger,
            knowledge,
            backups,
            tell,
            until: None,
        }
    }

    /// Makes the file what containerd has written, its transaction included.
    fn put_on_file(&self) {
        let wanted = self.machine.get(|state| state.pool.clone());
        let path = self.places.pool_db();
        let now = PoolDb::read(&path).unwrap();
        if now != wanted {
            let edits = edits(&now, &wanted);
            let written = Editor::open(&path).unwrap().commit(&edits).unwrap();
            set_transaction(&path, written, wanted.txid);
        }
        self.on_file.set(true);
    }

    fn take_from_file(&self) {
        let now = PoolDb::read(self.places.pool_db()).unwrap();
        self.machine.set(|state| state.pool = now);
        self.on_file.set(false);
    }
}

/// What a person approved, or the sidecar by its policy.
fn approved(ledger: Option<&Ledger>) -> BTreeSet<PlanId> {
    let live = ledger.map(|ledger| ledger.plans(&PlanFilter::Live).unwrap());
    let live = live.into_iter().flatten();
    live.filter(|row| row.state == PlanState::Approved)
        .map(|row| PlanId::typed(&row.id))
        .collect()
}

/// What makes one database of another.
fn edits(now: &PoolDb, wanted: &PoolDb) -> Vec<Edit> {
    let devices = || vec![b"devices".to_vec()];
    let ids = || vec![b"device_ids".to_vec()];
    let mut edits = Vec::new();
    for name in now
        .devices
        .keys()
        .filter(|name| !wanted.devices.contains_key(*name))
    {
        edits.push(Edit::Delete {
            bucket: devices(),
            key: name.clone().into_bytes(),
        });
    }
    for id in now
        .device_ids
        .keys()
        .filter(|id| !wanted.device_ids.contains_key(*id))
    {
        edits.push(Edit::Delete {
            bucket: ids(),
            key: id.to_string().into_bytes(),
        });
    }
    for (name, record) in &wanted.devices {
        if now.devices.get(name) != Some(record) {
            edits.push(Edit::Put {
                bucket: devices(),
                key: name.clone().into_bytes(),
                value: serde_json::to_vec(record).unwrap(),
            });
        }
    }
    for (id, state) in &wanted.device_ids {
        if now.device_ids.get(id) != Some(state) {
            edits.push(Edit::Put {
                bucket: ids(),
                key: id.to_string().into_bytes(),
                value: vec![match state {
                    suture::model::IdState::Free => 0,
                    suture::model::IdState::Taken => 1,
                    suture::model::IdState::Faulty => 2,
                    suture::model::IdState::Other(byte) => *byte,
                }],
            });
        }
    }
    edits.push(Edit::SetSequence {
        bucket: ids(),
        sequence: wanted.id_sequence,
    });
    edits
}

/// Gives the newest transaction of a bbolt file another number, as if so many had been made (bbolt, internal/common/meta.go:
/// the number is at 48 of the meta that follows the page's header, and its checksum after it).
fn set_transaction(path: &Path, from: TxId, to: TxId) {
    if from == to {
        return;
    }
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, from.0 % 2 * 4096).unwrap();
    page[..8].copy_from_slice(&(to.0 % 2).to_le_bytes());
    page[64..72].copy_from_slice(&to.0.to_le_bytes());
    let hash = page[16..72].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    page[72..80].copy_from_slice(&hash.to_le_bytes());
    file.write_all_at(&page, to.0 % 2 * 4096).unwrap();
    // The other one is of an older transaction, and must stay so.
    assert_eq!(PoolDb::read(path).unwrap().txid, to);
}

impl Sight for Suture<'_> {
    fn survey(&self, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        self.step("looking");
        let mut survey = self.machine.get(|state| state.survey(roots));
        if self.on_file.get() {
            survey.pool_db = PoolDb::read(self.places.pool_db())?.into();
        }
        if self.is_without(Condition::ContainerdStopped) {
            survey.containerd = ContainerdState::Stopped { at_work: Vec::new() };
        }
        self.last.set(survey.transactions());
        Ok(survey)
    }

    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        if self.is_without(Condition::SameTransaction) {
            return Ok(self.last.get());
        }
        let (pool, snapshots) = self.machine.get(|state| (state.pool.txid, state.rows.txid));
        if self.on_file.get() {
            return Ok((PoolDb::read(self.places.pool_db())?.txid, snapshots));
        }
        Ok((pool, snapshots))
    }

    fn holder(&self) -> Result<Option<Incarnation>, String> {
        let nobody = self.is_without(Condition::ContainerdStopped);
        Ok(self.machine.get(State::who).filter(|_| !nobody))
    }

    fn now(&self) -> Timestamp {
        self.machine.get(State::now)
    }
}

impl Suture<'_> {
    fn call(&self, call: &Call) -> Result<(), HandsError> {
        self.step("calling the kernel");
        if let (Call::Resume(name), false) = (call, self.machine.get(|state| state.children.is_empty())) {
            self.resumed_at_work.borrow_mut().push(name.clone());
        }
        let went = self.machine.set(|state| state.kernel.call(call));
        self.calls.borrow_mut().push((format!("{call:?}"), went));
        self.step("the kernel was called");
        went.map_err(|errno| match errno {
            Errno::NoData => HandsError::NoSuchDevice,
            Errno::Busy => HandsError::Busy,
            other => HandsError::Call(format!("{other:?}")),
        })
    }
}

impl Hands for Suture<'_> {
    fn delete_thin(&self, _pool: &PoolName, id: ThinId) -> Result<(), HandsError> {
        self.call(&Call::Delete(id.0))
    }

    fn node(&self, name: &str) -> Result<Option<NodeNow>, HandsError> {
        let now = self.machine.get(|state| {
            let node = state.kernel.nodes.get(name)?;
            Some(NodeNow {
                device: DeviceNumber {
                    major: 253,
                    minor: node.minor,
                },
                open_count: u32::try_from(node.open.len()).unwrap(),
                suspended: node.suspended,
                live: node.live.is_some(),
                loaded: node.loaded.is_some(),
            })
        });
        Ok(now)
    }

    fn resume_node(&self, name: &str) -> Result<(), HandsError> {
        self.call(&Call::Resume(name.to_owned()))
    }

    fn remove_node(&self, name: &str) -> Result<(), HandsError> {
        self.call(&Call::Remove(name.to_owned()))
    }
}
