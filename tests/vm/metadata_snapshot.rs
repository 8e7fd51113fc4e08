//! A reserved snapshot of a real pool's metadata: what is read from it, and that it is always released, and by nobody but
//! who holds it. This very test program runs inside the VM, too: as what reserves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use suture::{
    model::{PoolName, Space},
    observe::{
        device_mapper::DeviceMapper,
        thin_metadata::{self, MetadataSnapshots as _, Reserve, Reserving},
    },
    remedy::ReservedSnapshots,
};
use xtask::vm::{Process, Vm};

use crate::support::*;

const MOMENT: Duration = Duration::from_mins(1);
/// Tells the program inside what to do.
const TASK: &str = "SUTURE_METADATA_SNAPSHOT";

/// Does as it is told, inside the VM.
#[test]
#[ignore = "runs inside the VM"]
fn inside() -> Result<()> {
    let Ok(task) = std::env::var(TASK) else {
        return Ok(());
    };
    let dm = DeviceMapper::open()?;
    let pool = dm.pool(&PoolName::new("tp"))?;
    let hand = ReservedSnapshots::default();
    let say = |text: String| {
        // Past what the test harness would keep to itself.
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    };
    match task.as_str() {
        "hold" => hand.with(&pool, &mut |root| {
            say(format!("held {root}"));
            std::thread::sleep(Duration::from_mins(10));
        })?,
        "panic" => hand.with(&pool, &mut |root| panic!("on purpose, with {root} held"))?,
        "nodes" => {
            let begun = Instant::now();
            let nodes = dm.nodes(&pool)?;
            say(format!(
                "nodes {} in {} ms",
                nodes.len(),
                begun.elapsed().as_millis()
            ));
        }
        _ => {
            let with = |when| Some(Reserving { when, hand: &hand });
            let roots = BTreeSet::new();
            let (direct, _) = thin_metadata::read_pool(&pool, &roots, with(Reserve::Never))?;
            match thin_metadata::read_pool(&pool, &roots, with(Reserve::Always)) {
                Ok((reserved, left)) => {
                    ensure!(left.is_none(), "{left:?}");
                    ensure!(
                        reserved.devices == direct.devices,
                        "{reserved:?} is not {direct:?}"
                    );
                }
                Err(error) => say(format!("refused: {}", suture::words::explain(&error))),
            }
            let (space, _) = thin_metadata::space_of_pool(&pool, with(Reserve::IfBusy))?;
            say(format!("space {}", serde_json::to_string(&space)?));
            let usage = dm.usage(&pool)?.context("the pool counts nothing")?;
            say(format!("usage {} {}", usage.data_used, usage.metadata_total));
        }
    }
    Ok(())
}

fn run(vm: &Vm, task: &str) -> Result<Process> {
    let argv = [
        "inside-the-vm",
        "--exact",
        "metadata_snapshot::inside",
        "--ignored",
        "--nocapture",
    ];
    vm.spawn(argv, &[(TASK, task), ("RUST_BACKTRACE", "0")])
}

/// What the status line says of the snapshot.
fn held(vm: &Vm) -> Result<String> {
    Ok(vm
        .sh("dmsetup status --noflush tp | cut -d' ' -f7")?
        .trim()
        .to_owned())
}

fn said(text: &str, word: &str) -> Result<String> {
    let line = text
        .lines()
        .find_map(|line| Some(line.split_once(word)?.1.trim().to_owned()));
    line.with_context(|| format!("`{word}` was not said: {text}"))
}

/// Mapped and exclusive blocks by device, as `thin_ls` counts them.
fn thin_ls(vm: &Vm) -> Result<BTreeMap<u32, (u64, u64)>> {
    let table = vm.sh("
        number=$(dmsetup table tp | cut -d' ' -f4)
        name=$(sed -n s/^DEVNAME=//p /sys/dev/block/$number/uevent)
        dmsetup message tp 0 reserve_metadata_snap
        thin_ls -m --no-headers --format DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS /dev/$name
        dmsetup message tp 0 release_metadata_snap")?;
    let row = |line: &str| -> Result<_> {
        let words: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(words.len() == 3, "{line}");
        Ok((u32::try_from(words[0])?, (words[1], words[2])))
    };
    table
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(row)
        .collect()
}

#[test]
fn a_reserved_snapshot_tells_the_same_and_is_always_released() -> Result<()> {
    let vm = Vm::builder()
        .time_limit(Duration::from_mins(8))
        .file(std::env::current_exe()?, "inside-the-vm")
        .boot()?;
    let containerd = containerd(&vm)?;
    containerd.prepare("base", None)?.ok()?;
    containerd.commit("layer", "base")?.ok()?;
    for key in ["one", "two", "three"] {
        containerd.prepare(key, Some("layer"))?.ok()?;
    }
    vm.sh("
        mkdir -p /mnt/one; mount /dev/mapper/tp-snap-2 /mnt/one
        dd if=/dev/urandom of=/mnt/one/data bs=1M count=3 2>/dev/null
        sync; umount /mnt/one")?;

    // The same as the direct way, and as thin_ls.
    let told = run(&vm, "ids")?.finish()?.ok()?.stdout;
    ensure!(!told.contains("refused"), "{told}");
    ensure!(held(&vm)? == "-", "it was not released");
    let space: Space = serde_json::from_str(&said(&told, "space ")?)?;
    ensure!(
        space.incomplete.is_none() && space.devices.len() == 4,
        "{space:?}"
    );
    let ours: BTreeMap<_, _> = space
        .devices
        .iter()
        .map(|(id, space)| (id.0, (space.mapped, space.exclusive)))
        .collect();
    let theirs = thin_ls(&vm)?;
    ensure!(ours == theirs, "{ours:?} is not {theirs:?}");
    ensure!(
        ours.values().any(|(_, exclusive)| *exclusive >= 48),
        "3 MiB were written: {ours:?}"
    );
    ensure!(
        ours.values().any(|(mapped, exclusive)| mapped > exclusive),
        "nothing is shared: {ours:?}"
    );
    ensure!(
        said(&told, "usage ")? == format!("{} 16384", space.mapped),
        "{told}"
    );

    // However it ends, it is released.
    for signal in [Signal::TERM, Signal::HUP] {
        let mut holder = run(&vm, "hold")?;
        holder.wait_for_line(|line| line.contains("held "), MOMENT)?;
        ensure!(held(&vm)? != "-", "it was not reserved");
        // A suture that comes meanwhile leaves it, and says so.
        let other = run(&vm, "ids")?.finish()?.ok()?.stdout;
        ensure!(
            other.contains("refused") && other.contains("another suture"),
            "{other}"
        );
        holder.kill(signal)?;
        ensure!(
            !holder.wait(MOMENT)?.status.success(),
            "it was to be ended by the signal"
        );
        ensure!(held(&vm)? == "-", "it was not released after {signal:?}");
    }
    ensure!(!run(&vm, "panic")?.finish()?.status.success(), "it was to panic");
    ensure!(held(&vm)? == "-", "it was not released after a panic");

    // Killed outright: the next one knows it as a dead suture's.
    let mut holder = run(&vm, "hold")?;
    holder.wait_for_line(|line| line.contains("held "), MOMENT)?;
    holder.kill(Signal::KILL)?;
    holder.wait(MOMENT)?;
    ensure!(held(&vm)? != "-", "nobody can have released it");
    let next = run(&vm, "ids")?.finish()?.ok()?.stdout;
    ensure!(!next.contains("refused"), "{next}");
    ensure!(held(&vm)? == "-", "what was left was not released");

    // Somebody else's is left alone.
    vm.sh("dmsetup message tp 0 reserve_metadata_snap")?;
    let theirs = held(&vm)?;
    let told = run(&vm, "ids")?.finish()?.ok()?.stdout;
    ensure!(
        told.contains("refused") && told.contains("somebody else holds"),
        "{told}"
    );
    ensure!(
        held(&vm)? == theirs && theirs != "-",
        "somebody else's was touched"
    );
    vm.sh("dmsetup message tp 0 release_metadata_snap")?;

    // A node with very many devices.
    vm.sh("
        for batch in 1 2; do
            i=0; list=
            while [ $i -lt 1000 ]; do i=$((i + 1)); list=\"$list;tp-snap-$batch$((i + 1000)),,,,0 1 error\"; done
            dmsetup create --concise \"${list#;}\"
        done")?;
    let told = run(&vm, "nodes")?.finish()?.ok()?.stdout;
    eprintln!("{}", said(&told, "nodes ")?);
    ensure!(told.contains("nodes 2003 in"), "{told}");
    Ok(())
}
