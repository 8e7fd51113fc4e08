//! An offline repair, as before every start of containerd: of nothing, and of 10,000 records, with the real bbolt deleting
//! the same keys as the peer. This machine's device-mapper is not asked: the pool's metadata are read from a file.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use suture::{
    decide::{self, RepairPolicy, Selection},
    diagnose::{self, Settled, Settling},
    ledger::Ledger,
    model::{Knowledge, PoolName, RepairMode, RepairOutcome},
    observe::{survey::SurveyPlaces, world::Places},
    remedy::{
        KernelHands,
        repair::{Found, RealSight, Repairer, Results, Sight as _},
    },
};
use xtask::command::output;

use crate::{Setting, report::Row, sample::Sample, world};

/// Records that are left over, and the devices of the pools that they are in.
const RECORDS: u32 = 10_000;
const POOLS: [u32; 2] = [20_000, 100_000];
/// Pools with nothing to repair.
const CLEAN: [u32; 2] = [1_000, 100_000];
const ROUNDS: usize = 7;
const NOTHING_MS: f64 = 100.0;
const REPAIR_MS: f64 = 1000.0;
const LOCK_MS: f64 = 50.0;
/// How long something must stand still, as `suture repair --offline` has it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What this program is asked to repair in a process of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder with the databases, which are edited
    folder: PathBuf,
}

/// What that process tells, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    all: f64,
    lock_held: Vec<f64>,
    done: usize,
    left: usize,
    /// When each step began.
    steps: Vec<(f64, String)>,
}

/// Does what `suture repair --offline` does, but for reading its configuration and printing.
pub(crate) fn once(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.folder;
    let begun = Instant::now();
    let steps = RefCell::new(Vec::new());
    let tell = |what: &str| steps.borrow_mut().push((milliseconds(begun), what.to_owned()));
    let sight = RealSight::without_users(SurveyPlaces {
        places: Places {
            pool: PoolName::new("pool"),
            root: folder.clone(),
        },
        core_db: Some(folder.join("meta.db")),
        async_remove: Some(true),
        metadata_device: Some(folder.join("metadata.thin")),
    });
    ensure!(
        sight.holder() == Ok(None),
        "somebody has the pool database locked"
    );
    tell("opening the ledger");
    let mut ledger = Ledger::open_beside(&folder.join("ledger.db"))?;
    let backups = folder.join("backups");
    let mut repairer = Repairer {
        sight: &sight,
        hands: &KernelHands,
        places: &sight.0.places().places,
        ledger: &mut ledger,
        knowledge: Knowledge::default(),
        backups: &backups,
        tell: &tell,
        until: None,
    };
    repairer.settle(true)?;
    tell("a glance");
    let outline = sight.0.read_outline(&BTreeSet::new(), None)?;
    tell("judging it");
    let many = outline.is_some();
    if outline.is_some_and(|outline| diagnose::glance(&outline, &repairer.knowledge).is_some()) {
        tell("the end");
        return print(begun, &Results::default(), 0, steps.take());
    }
    tell("the first look");
    let mut found = if many {
        sight.survey(&BTreeSet::new())?
    } else {
        sight.0.read_without_names(&BTreeSet::new(), None)?
    };
    tell("diagnosing it");
    let now = SystemTime::now().into();
    let mut settling = Settling::new(PATIENCE);
    let mut settled = settling.look(&found, &repairer.knowledge, now);
    if !many && settled.tells_of_users() {
        tell("reading who uses what was found");
        ensure!(sight.0.add_names(&mut found)?, "somebody wrote to the databases");
        settled = settling.look(&found, &repairer.knowledge, now);
    }
    tell("planning");
    let Settled::Done(diagnoses, _) = settled else {
        bail!("something is at work on this machine's devices");
    };
    let plans = decide::plan(
        &diagnoses,
        &Selection::all(RepairMode::Offline, RepairPolicy::default()),
    );
    let mut results = Results::default();
    let mut left = diagnoses.found.len();
    if plans.iter().any(|plan| !plan.acts.is_empty()) {
        let knowledge = repairer.knowledge.clone();
        let found = Found {
            survey: &found,
            knowledge: &knowledge,
            diagnoses: &diagnoses,
        };
        results = repairer.offline(plans, &found)?;
        tell("looking at what is left");
        let after = results.after.take();
        let survey = after.map_or_else(|| sight.survey(&BTreeSet::new()), Ok)?;
        left = diagnose::survey(&survey, &repairer.knowledge).found.len();
    }
    tell("the end");
    print(begun, &results, left, steps.take())
}

fn print(begun: Instant, results: &Results, left: usize, steps: Vec<(f64, String)>) -> Result<()> {
    let all = milliseconds(begun);
    let done = results.plans.iter();
    let done = done.filter(|one| one.outcome == Some(RepairOutcome::Done));
    let lock_held = results.lock_held.iter();
    let told = Told {
        all,
        lock_held: lock_held.map(|held| held.as_secs_f64() * 1000.0).collect(),
        done: done.count(),
        left,
        steps,
    };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// A node of its own for each round: what is edited is copied, what is only read is the same file.
fn node(of: &Path) -> Result<tempfile::TempDir> {
    let node = tempfile::tempdir_in(of)?;
    for name in ["metadata.db", "meta.db", "metadata.thin"] {
        fs::hard_link(of.join(name), node.path().join(name))?;
    }
    let copy = node.path().join("pool.db");
    fs::copy(of.join("pool.db"), &copy)?;
    fs::File::open(copy)?.sync_all()?;
    drop(Ledger::open_beside(&node.path().join("ledger.db"))?);
    Ok(node)
}

fn told(setting: &Setting, node: &Path) -> Result<Told> {
    let text = output(
        Command::new(&setting.this).arg("repair-once").arg(node),
        "repairing a large pool",
    )?;
    Ok(serde_json::from_str(&text)?)
}

/// Milliseconds that the command takes, from start to end.
fn as_program(setting: &Setting, node: &Path) -> Result<f64> {
    let begun = Instant::now();
    let status = Command::new(&setting.suture)
        .args(["repair", "--offline", "--pool", "pool", "--root-path"])
        .arg(node)
        .arg("--ledger")
        .arg(node.join("ledger.db"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting suture")?;
    // What device-mapper would tell is missing here, and is said so.
    ensure!(matches!(status.code(), Some(0 | 8)), "suture repair: {status}");
    Ok(milliseconds(begun))
}

fn hex(text: &str) -> String {
    let bytes: Vec<_> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}

/// Milliseconds that the real bbolt takes to delete the same records in one transaction, from start to end: opening the
/// file, reading what is to be deleted as JSON lines, and the commit.
fn bbolt(peer: &Path, node: &Path, devices: u32) -> Result<f64> {
    let mut lines = Vec::new();
    for id in devices - RECORDS..devices {
        let record = hex(&format!("pool-snap-{id}"));
        let delete = json!({ "op": "delete", "bucket": [hex("devices")], "key": record });
        let id = hex(&id.to_string());
        let free = json!({ "op": "put", "bucket": [hex("device_ids")], "key": id, "value": "00" });
        lines.extend([delete.to_string(), free.to_string()]);
    }
    let lines = lines.join("\n");
    let begun = Instant::now();
    let mut program = Command::new(peer)
        .arg("apply")
        .arg(node.join("pool.db"))
        .stdin(Stdio::piped())
        .spawn()
        .context("starting the real bbolt")?;
    if let Some(mut input) = program.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    ensure!(program.wait()?.success(), "the real bbolt failed");
    Ok(milliseconds(begun))
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for devices in CLEAN {
        let folder = world::made(devices, 0)?;
        let mut all = Sample::default();
        let mut program = Sample::default();
        for _ in 0..ROUNDS {
            let node = node(&folder)?;
            let told = told(setting, node.path())?;
            ensure!(
                told.done == 0 && told.left == 0,
                "something was found in a clean pool"
            );
            all.add(told.all);
            program.add(as_program(setting, node.path())?);
        }
        let row = Row::new(
            format!("offline repair of nothing, {devices} devices, files in memory"),
            format!("{all} ms"),
        );
        rows.push(row.target(format!("<= {NOTHING_MS} ms"), all.median() <= NOTHING_MS));
        rows.push(Row::new(
            format!("the same by `suture repair --offline`, from start to end, where the pool is not set up: {devices} devices"),
            format!("{program} ms"),
        ));
    }
    let peer = xtask::setup::bbolt_peer(false)?;
    for devices in POOLS {
        let folder = world::made(devices, RECORDS)?;
        let mut all = Sample::default();
        let mut lock = Sample::default();
        let mut theirs = Sample::default();
        for _ in 0..ROUNDS {
            let one = node(&folder)?;
            let told = told(setting, one.path())?;
            let done = u32::try_from(told.done)?;
            ensure!(
                done == RECORDS && told.left == 0,
                "{done} records were repaired, and {} findings are left",
                told.left
            );
            all.add(told.all);
            told.lock_held.iter().for_each(|held| lock.add(*held));
            theirs.add(bbolt(&peer, node(&folder)?.path(), devices)?);
        }
        let row = Row::new(
            format!("offline repair of {RECORDS} records, {devices} devices, files in memory"),
            format!("{all} ms"),
        );
        rows.push(row.target(format!("<= {REPAIR_MS} ms"), all.median() <= REPAIR_MS));
        let row = Row::new(
            format!("the lock on the pool database held meanwhile, {devices} devices"),
            format!("{lock} ms"),
        );
        rows.push(
            row.target(format!("<= {LOCK_MS} ms"), lock.median() <= LOCK_MS)
                .peer(format!("bbolt, one transaction that deletes them: {theirs} ms")),
        );
    }
    Ok(rows)
}
