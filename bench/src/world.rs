//! A pool of 100,000 devices: `suture check` from start to end, and each of its readers by itself, against the real bbolt
//! walking the same files and `thin_ls` listing the same metadata.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use suture::{
    model::{CoreDb, PoolDb, SnapshotDb, ThinId},
    observe::thin_metadata::{self, DeviceSource},
};
use xtask::command::output;

use crate::{Setting, ended, report::Row, sample::Sample};

const DEVICES: u32 = 100_000;
const SEED: u32 = 1;
const ROUNDS: usize = 7;
const TARGET_MS: f64 = 250.0;
const TARGET_MIB: f64 = 200.0;
/// Room for a tree of mappings for each device, and the rest.
const METADATA_BYTES: u64 = 1 << 30;

/// What this program is asked to read in a process of its own, so that its memory is counted by itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder with the databases
    folder: PathBuf,
}

/// What that process tells, in milliseconds and MiB.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    pool_db: f64,
    snapshots: f64,
    core: f64,
    thin: f64,
    all: f64,
    peak: f64,
    devices: usize,
}

/// Where the files of a pool are kept between runs: making them takes longer than all else. `orphans` of the records are
/// left over from snapshots and devices that are gone.
pub(crate) fn made(devices: u32, orphans: u32) -> Result<PathBuf> {
    let name = match orphans {
        0 => format!("bench/pool-{devices}"),
        orphans => format!("bench/pool-{devices}-{orphans}"),
    };
    let folder = xtask::target_dir().join(name);
    let stamp = folder.join("complete");
    let generator = xtask::setup::pool_generator()?;
    let recipe = fs::read_to_string(generator.with_file_name(".made-from")).unwrap_or_default();
    if fs::read_to_string(&stamp).is_ok_and(|of| of == recipe) {
        return Ok(folder);
    }
    eprintln!("bench: making a pool of {devices} devices");
    fs::create_dir_all(&folder)?;
    let _ = fs::remove_file(&stamp);
    output(
        Command::new(generator)
            .arg(&folder)
            .args([devices, SEED, orphans].map(|number| number.to_string())),
        "writing the databases of a large pool",
    )?;
    let metadata = folder.join("metadata.thin");
    File::create(&metadata)?.set_len(METADATA_BYTES)?;
    let xml = folder.join("thin.xml");
    output(
        xtask::setup::thin_tool("thin_restore")?
            .arg("-i")
            .arg(&xml)
            .arg("-o")
            .arg(&metadata),
        "writing the metadata of a large pool",
    )?;
    fs::remove_file(xml)?;
    fs::write(stamp, recipe)?;
    Ok(folder)
}

/// Puts containerd's own database where containerd has it, seen from the snapshotter's folder.
fn place_core_db(folder: &Path) -> Result<()> {
    let core = folder.with_file_name("io.containerd.metadata.v1.bolt");
    fs::create_dir_all(&core)?;
    let core = core.join("meta.db");
    if fs::canonicalize(&core).ok() != fs::canonicalize(folder.join("meta.db")).ok() {
        let _ = fs::remove_file(&core);
        symlink(folder.join("meta.db"), core)?;
    }
    Ok(())
}

/// Reads everything in this process, as a check does that has found something: what does not depend on each other side by side.
pub(crate) fn read(arguments: &Arguments) -> Result<()> {
    let file = |name: &str| arguments.folder.join(name);
    let begun = Instant::now();
    let (pool_db, snapshots, core, thin) = std::thread::scope(|scope| {
        let pool_db = scope.spawn(|| timed(|| PoolDb::read(file("pool.db"))));
        let snapshots = scope.spawn(|| timed(|| SnapshotDb::read(file("metadata.db"))));
        let core = scope.spawn(|| timed(|| CoreDb::read(file("meta.db"))));
        let thin = timed(|| {
            thin_metadata::read(
                &mut DeviceSource::open(&file("metadata.thin"))?,
                &BTreeSet::<ThinId>::new(),
            )
        });
        (pool_db.join(), snapshots.join(), core.join(), thin)
    });
    let all = begun.elapsed().as_secs_f64() * 1000.0;
    let (Ok((pool_db, pool_ms)), Ok((snapshots, snapshots_ms)), Ok((core, core_ms))) =
        (pool_db, snapshots, core)
    else {
        bail!("a reader panicked");
    };
    let (thin, thin_ms) = thin;
    let (pool_db, snapshots, core, thin) = (pool_db?, snapshots?, core?, thin?);
    let devices = pool_db.devices.len();
    ensure!(
        thin.devices.len() == devices,
        "records and thin devices are not as many"
    );
    ensure!(
        snapshots.snapshots.len() == core.snapshots.len(),
        "rows and snapshots are not as many"
    );
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    let told = Told {
        pool_db: pool_ms,
        snapshots: snapshots_ms,
        core: core_ms,
        thin: thin_ms,
        all,
        peak: peak.unwrap_or_default() / 1024.0,
        devices,
    };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let answer = work();
    (answer, begun.elapsed().as_secs_f64() * 1000.0)
}

/// `suture check` on these files: a pool that is not set up, with its metadata in a file. It is clean, or this fails.
fn check(setting: &Setting, folder: &Path) -> Command {
    let mut check = Command::new(&setting.suture);
    check
        .args(["check", "--pool", "pool", "--root-path"])
        .arg(folder)
        .arg("--metadata-device")
        .arg(folder.join("metadata.thin"))
        .arg("--ledger")
        .arg(folder.join("no-ledger"))
        .arg("--socket")
        .arg(folder.join("no-socket"));
    check
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let folder = made(DEVICES, 0)?;
    place_core_db(&folder)?;
    let peer = xtask::setup::bbolt_peer(false)?;
    let whole =
        |command: &mut Command, doing: &str| Ok::<_, anyhow::Error>(ended::run(command, doing)?.milliseconds);
    let walk = |name: &str| {
        whole(
            Command::new(&peer).arg("walk").arg(folder.join(name)),
            "bbolt's walk",
        )
    };
    let mut checks: [Sample; 2] = Default::default();
    let mut ours: [Sample; 6] = Default::default();
    let mut theirs: [Sample; 4] = Default::default();
    for _ in 0..ROUNDS {
        let checked = ended::run(&mut check(setting, &folder), "checking a large pool")?;
        checks[0].add(checked.milliseconds);
        checks[1].add(checked.peak_mib);
        let told = output(
            Command::new(&setting.this).arg("read-world").arg(&folder),
            "reading a large pool",
        )?;
        let told: Told = serde_json::from_str(&told)?;
        ensure!(told.devices == usize::try_from(DEVICES)?, "a device is missing");
        for (sample, value) in ours.iter_mut().zip([
            told.all,
            told.peak,
            told.pool_db,
            told.snapshots,
            told.core,
            told.thin,
        ]) {
            sample.add(value);
        }
        let list = whole(
            xtask::setup::thin_tool("thin_ls")?
                .arg("--no-headers")
                .arg(folder.join("metadata.thin")),
            "thin_ls",
        )?;
        for (sample, value) in
            theirs
                .iter_mut()
                .zip([walk("pool.db")?, walk("metadata.db")?, walk("meta.db")?, list])
        {
            sample.add(value);
        }
    }
    Ok(rows(&checks, &ours, &theirs, &folder))
}

fn rows(checks: &[Sample; 2], ours: &[Sample; 6], theirs: &[Sample; 4], folder: &Path) -> Vec<Row> {
    let [check, check_peak] = checks;
    let [all, peak, pool_db, snapshots, core, thin] = ours;
    let mebibytes = |name: &str| fs::metadata(folder.join(name)).map_or(0, |file| file.len() >> 20);
    let part = |name: &str, file: &str, ours: &Sample, theirs: &Sample, who: &str| {
        let ratio = theirs.median() / ours.median().max(0.001);
        Row::new(
            format!(
                "{name} read, {DEVICES} devices, {} MiB, beside the others",
                mebibytes(file)
            ),
            format!("{ours} ms"),
        )
        .peer(format!("{who}: {theirs} ms, {ratio:.1} times as long"))
    };
    let peers: f64 = theirs.iter().map(Sample::median).sum();
    vec![
        Row::new(
            format!("`suture check` from start to end, {DEVICES} devices, files in memory"),
            format!("{check} ms"),
        )
        .target(format!("<= {TARGET_MS} ms"), check.median() <= TARGET_MS)
        .peer(format!("bbolt and thin_ls one after the other: {peers:.0} ms")),
        Row::new("most memory of that", format!("{check_peak} MiB"))
            .target(format!("<= {TARGET_MIB} MiB"), check_peak.median() <= TARGET_MIB),
        Row::new(
            format!("everything read with the names of users, {DEVICES} devices, files in memory"),
            format!("{all} ms"),
        ),
        Row::new("most memory while that is read", format!("{peak} MiB")),
        part("pool.db", "pool.db", pool_db, &theirs[0], "bbolt, decoding"),
        part("metadata.db", "metadata.db", snapshots, &theirs[1], "bbolt"),
        part("meta.db", "meta.db", core, &theirs[2], "bbolt"),
        part(
            "the pool's metadata",
            "metadata.thin",
            thin,
            &theirs[3],
            "thin_ls",
        ),
    ]
}
