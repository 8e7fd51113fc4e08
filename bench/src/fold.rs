//! Taking in one commit to the pool database, against reading all of it, by the number of devices.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use suture::observe::{
    bbolt::{
        Database, FileSource,
        fold::{Fold, Look},
    },
    pool_db::{PoolDb, PoolTables},
};

use crate::{
    Setting,
    bbolt_file::{BboltFile, Item, Layout, Tree, Write},
    report::Row,
    sample::Sample,
};

const SIZES: [u32; 2] = [1_000, 100_000];
const COMMITS: u32 = 15;
const READS: usize = 5;
const LIMIT: usize = 1024;
const LAYOUT: Layout = Layout {
    page_size: 4096,
    fan: 15,
    inline: 1024,
};

struct Measured {
    commit: Sample,
    first: Sample,
    full: Sample,
}

pub(crate) fn run(_: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    for devices in SIZES {
        let measured = measure(devices)?;
        costs.push(measured.commit.median());
        rows.push(Row::new(
            format!("one commit to pool.db folded in, {devices} devices"),
            format!("{} µs", measured.commit),
        ));
        rows.push(Row::new(
            format!("all of pool.db read, {devices} devices"),
            format!("{} ms; to begin a fold {} ms", measured.full, measured.first),
        ));
    }
    // A path is one page longer where there are ten times as many pages.
    let ratio = match costs.as_slice() {
        [few, .., many] if *few > 0.0 => many / few,
        _ => 0.0,
    };
    rows.push(
        Row::new(
            "one commit folded in: 100 times as many devices",
            format!("takes {ratio:.1} times as long"),
        )
        .target("independent of database size", ratio <= 2.0),
    );
    Ok(rows)
}

fn measure(devices: u32) -> Result<Measured> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pool.db");
    let mut tree = Tree::default();
    tree.nest(b"devices", Tree::default());
    tree.nest(b"device_ids", Tree::default());
    for id in 1..=devices {
        set(&mut tree, id, 3);
    }
    let mut file = BboltFile::copy_on_write(LAYOUT, &tree);
    fs::write(&path, &file.bytes)?;
    // Made beforehand: what the writer does to caches and to the heap is not the reader's cost.
    let commits: Vec<Vec<Write>> = (0..COMMITS)
        .map(|number| {
            // Somewhere in the middle, another page each time.
            set(&mut tree, 1 + number * 7919 % devices, 4 + number % 3);
            file.commit(&tree)
        })
        .collect();

    let (mut full, mut first, mut commit) = (Sample::default(), Sample::default(), Sample::default());
    let tables = PoolTables { path: &path };
    let database = Database::<FileSource>::open(&path)?;
    let mut fold = Fold::default();
    for _ in 0..READS {
        let begun = Instant::now();
        let read = PoolDb::read(&path)?;
        full.add(milliseconds(begun.elapsed()));
        ensure!(
            read.devices.len() == usize::try_from(devices)?,
            "a device is missing"
        );

        fold = Fold::default();
        let begun = Instant::now();
        fold.look(&database, &tables, 0)?;
        first.add(milliseconds(begun.elapsed()));
    }
    for writes in &commits {
        write(&path, writes)?;
        let begun = Instant::now();
        let look = fold.look(&database, &tables, LIMIT)?;
        commit.add(milliseconds(begun.elapsed()) * 1000.0);
        let changes = match &look {
            Look::Folded(step) => step.changes.len(),
            Look::Unchanged | Look::Replaced => 0,
        };
        ensure!(changes == 1, "one device was changed, {changes} were told");
    }
    Ok(Measured { commit, first, full })
}

/// Puts containerd's record of a device, and its id.
fn set(tree: &mut Tree, id: u32, state: u32) {
    let name = format!("tp-snap-{id}");
    let record = format!(
        r#"{{"device_id":{id},"size":10737418240,"name":"{name}","parent_name":"tp-snap-1","state":{state},"error":""}}"#
    );
    let entries = [
        ("devices", name.into_bytes(), record.into_bytes()),
        ("device_ids", id.to_string().into_bytes(), vec![1]),
    ];
    for (bucket, key, value) in entries {
        if let Some(Item::Bucket(bucket)) = tree.items.get_mut(bucket.as_bytes()) {
            bucket.put(&key, &value);
        }
    }
}

/// As bbolt: one `pwrite` after the other, the meta page last.
fn write(path: &Path, writes: &[Write]) -> Result<()> {
    let onto = fs::OpenOptions::new().write(true).open(path)?;
    for (offset, bytes) in writes {
        onto.write_all_at(bytes, u64::try_from(*offset)?)?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
