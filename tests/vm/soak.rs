//! Containers come and go without a pause while containerd is killed at random and the disk below the pool fails and comes
//! back. In the end everything runs, nothing is lost, nothing is left over, and the sidecar is as small as before.
//!
//! What happens, and when, is decided by a seed, which is told; `SUTURE_SOAK_SEED` sets it. `SUTURE_SOAK_SECONDS` sets how long
//! it goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::vm::{
    Process, Vm,
    containerd::{Containerd, break_disk, swap_table},
};

use crate::{healing::*, stage::*, support::*};

/// How long it goes on: in every run, and in the long lane.
const SHORT: Duration = Duration::from_secs(45);
const LONG: Duration = Duration::from_mins(10);
/// How long whoever starts containers may take to come to an end, once nothing is broken any more.
const TO_END: Duration = Duration::from_mins(4);
/// How much more memory of its own suture may have in the end, in KiB: its ledger and its operations have bounds that a soak
/// of minutes does not reach.
const GROWTH: u64 = 3 * 1024;

/// As shipped, but for how much and how often: in ten minutes here more breaks than on a node in years.
const POLICY_OF_SOAK: &str = r#"
[policy.budget.node]
actions-per-hour = 1000
[policy.budget.pool]
actions-per-hour = 1000
[policy.back-off]
first = "2s"
longest = "10s"
[policy.breaker]
failures = 100
"#;

/// What all of those have who keep containerd busy. A containerd that does not answer is asked again.
const ASK: &str = r"
image=$2; me=$1; number=0; done=0
c() { timeout 60 ctr --connect-timeout 2s --timeout 40s $* > /dev/null 2>> /run/soak-errors; }
there() { [ $(timeout 60 ctr --connect-timeout 2s containers ls -q 2>> /run/soak-errors | grep -cx $1) != 0 ]; }
up() { c version; }
start() { c run --detach --null-io --snapshotter devmapper $image $1 /bin/sleep 100000; }
drop() {
    until up && c containers rm $1 || { up && ! there $1; }; do
        c tasks kill --signal KILL $1; c tasks rm --force $1; sleep 0.2
    done
    # What a containerd left that died before there was a container of it.
    c snapshots --snapshotter devmapper rm $1
}
";

/// Containers, one after the other; one that stays in the end.
const CONTAINERS: &str = r"
while [ ! -e /run/soak-ends ]; do
    up || { sleep 0.3; continue; }
    number=$((number + 1))
    if start soak-$me-$number; then done=$((done + 1)); fi
    drop soak-$me-$number
    echo $done of $number > /run/soak-done-$me
done
until start last-$me; do drop last-$me; done
";

/// Devices with a file system of their own.
const BASES: &str = r"
snapshots='snapshots --snapshotter devmapper'
while [ ! -e /run/soak-ends ]; do
    up || { sleep 0.3; continue; }
    number=$((number + 1))
    if c $snapshots prepare soak-$me-$number; then done=$((done + 1)); fi
    c $snapshots rm soak-$me-$number
    echo $done of $number > /run/soak-done-$me
done
for key in $(ctr $snapshots ls | grep -o soak-$me-[0-9]*); do c $snapshots rm $key; done
";

/// An image that is unpacked and removed.
const IMAGES: &str = r"
while [ ! -e /run/soak-ends ]; do
    up || { sleep 0.3; continue; }
    number=$((number + 1))
    if c images import --snapshotter devmapper /run/image-3.tar; then done=$((done + 1)); fi
    c images rm --sync $image
    echo $done of $number > /run/soak-done-$me
done
until c images import --snapshotter devmapper /run/image-3.tar && c images rm --sync $image; do sleep 0.2; done
";

/// Numbers that only the seed decides (splitmix64).
struct Dice(u64);

impl Dice {
    fn of_environment() -> Result<Self> {
        let seed = match std::env::var("SUTURE_SOAK_SEED") {
            Ok(seed) => seed.parse().context("SUTURE_SOAK_SEED is no number")?,
            Err(_) => u64::from(
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)?
                    .subsec_nanos(),
            ),
        };
        eprintln!("soak: SUTURE_SOAK_SEED={seed}");
        Ok(Self(seed))
    }

    /// From 0 to below `sides`.
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % sides
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

fn lasting() -> Result<Duration> {
    let said = std::env::var("SUTURE_SOAK_SECONDS").ok();
    let said = said.map(|text| text.parse().map(Duration::from_secs));
    let said = said.transpose().context("SUTURE_SOAK_SECONDS is no number")?;
    Ok(said.unwrap_or(if long_lane() { LONG } else { SHORT }))
}

/// Everything that keeps containerd busy.
fn load(vm: &Vm, image: &str, other: &str) -> Result<Vec<Process>> {
    let workers = [
        ("a", CONTAINERS, image),
        ("b", CONTAINERS, image),
        ("bases", BASES, image),
        ("images", IMAGES, other),
    ];
    let mut load = Vec::new();
    for (name, what, image) in workers {
        let script = format!("/run/soak-{name}.sh");
        vm.write_file(&script, format!("{ASK}{what}"), 0o755)?;
        load.push(vm.spawn(["sh", &script, name, image], &[])?);
    }
    Ok(load)
}

/// What a service manager does with a containerd that died: the repair of the drop-in, and another start; the drop-in may
/// be missing. A start may fail while the disk does, and is tried again.
fn start(vm: &Vm, containerd: &mut Containerd<'_>, with_repair: bool) -> Result<()> {
    for attempt in 1.. {
        if with_repair {
            let repair = vm.run([
                "suture",
                "repair",
                "--offline",
                "--policy",
                POLICY,
                "--deadline",
                "30",
            ])?;
            if repair.status.code() > 1 {
                eprintln!("soak: the repair before a start: {repair:?}");
            }
        }
        match containerd.start() {
            Ok(()) => break,
            Err(error) if attempt == 5 => return Err(error),
            Err(error) => eprintln!("soak: start {attempt} of containerd failed: {error:#}"),
        }
        end(containerd)?;
    }
    Ok(())
}

/// Kills containerd, unless it has died by itself.
fn end(containerd: &mut Containerd<'_>) -> Result<()> {
    if containerd.is_up() && containerd.kill(Signal::KILL).is_err() {
        containerd.wait_for_death()?;
    }
    Ok(())
}

/// Memory that is the sidecar's own, in KiB.
fn memory(vm: &Vm, suture: &Suture) -> Result<u64> {
    let text = vm.sh(&format!("grep RssAnon /proc/{}/status", suture.pid()))?;
    let word = text.split_whitespace().nth(1).context("no RssAnon")?;
    Ok(word.parse()?)
}

/// Breaks things until the time is over, and gives what memory the sidecar had meanwhile.
fn storm(vm: &Vm, containerd: &mut Containerd<'_>, suture: &Suture, dice: &mut Dice) -> Result<Vec<u64>> {
    let (begun, lasting) = (Instant::now(), lasting()?);
    let (mut kills, mut outages, mut samples) = (0, 0, Vec::new());
    while begun.elapsed() < lasting {
        std::thread::sleep(dice.milliseconds(500, 12_000));
        if dice.below(10) < 7 {
            kills += 1;
            end(containerd)?;
            let with_repair = dice.below(4) != 0;
            start(vm, containerd, with_repair)?;
        } else {
            outages += 1;
            let table = break_disk(vm, "tdata")?;
            std::thread::sleep(dice.milliseconds(200, 3_000));
            // Now and then containerd meets the disk as it is broken.
            if dice.below(3) == 0 {
                kills += 1;
                end(containerd)?;
                swap_table(vm, "tdata", &table)?;
                start(vm, containerd, true)?;
            } else {
                swap_table(vm, "tdata", &table)?;
            }
        }
        samples.push(memory(vm, suture)?);
    }
    eprintln!("soak: containerd was killed {kills} times, the disk failed {outages} times");
    Ok(samples)
}

/// The middle one.
fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// What the sidecar found, and what it did.
fn summary(reports: &[Value]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for report in reports {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let what = match report["report"].as_str() {
            Some("found") => format!("found {}", word(&report["finding"]["class"])),
            Some("remedy" | "repair") => format!("remedy {}", word(&report["outcome"]["outcome"])),
            Some("trouble") => word(&report["what"]),
            Some(kind @ ("gap_opened" | "repair_settled" | "not_done")) => kind.to_owned(),
            _ => continue,
        };
        *counts.entry(what).or_default() += 1;
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{what}: {count}"))
        .collect();
    parts.join(", ")
}

/// Every container there is runs, and can be worked in.
fn expect_containers_run(containerd: &Containerd<'_>, expected: &[&str]) -> Result<()> {
    let listed = containerd.ctr(["containers", "ls", "-q"])?.ok()?.stdout;
    let listed: BTreeSet<&str> = listed.lines().collect();
    ensure!(listed == expected.iter().copied().collect(), "{listed:?}");
    let tasks = containerd.ctr(["tasks", "ls"])?.ok()?.stdout;
    for name in expected {
        let runs = |line: &str| line.starts_with(name) && line.contains("RUNNING");
        ensure!(tasks.lines().any(runs), "{name} does not run: {tasks}");
        let said = containerd
            .ctr(["tasks", "exec", "--exec-id", "look", name, "/bin/cat", "/layer-1"])?
            .ok()?
            .stdout;
        ensure!(said.contains("layer 1"), "in {name}: {said}");
    }
    Ok(())
}

/// Every thin device is one of a record, every record one of a snapshot, and the other way round.
fn expect_all_accounted_for(stage: &Stage<'_>) -> Result<()> {
    let (pool_db, snapshot_db) = (stage.pool_db()?, stage.snapshot_db()?);
    let in_pool: BTreeSet<u64> = stage.containerd.thin_ids()?.into_iter().collect();
    let of_records: BTreeSet<u64> = pool_db
        .devices
        .values()
        .map(|one| one.device_id.0.into())
        .collect();
    ensure!(
        in_pool == of_records,
        "in the pool {in_pool:?}, in the records {of_records:?}"
    );
    let named: BTreeSet<String> = pool_db.devices.keys().cloned().collect();
    let of_snapshots: BTreeSet<String> = snapshot_db
        .snapshots
        .values()
        .map(|snapshot| format!("tp-snap-{}", snapshot.id))
        .collect();
    ensure!(
        named == of_snapshots,
        "records {named:?}, snapshots {of_snapshots:?}"
    );
    Ok(())
}

#[test]
fn whatever_breaks_in_the_end_everything_runs_and_nothing_is_left_over() -> Result<()> {
    let vm = machine().time_limit(Duration::from_mins(40)).boot()?;
    let containerd = Containerd::on_breakable_disks(&vm)?;
    let mut stage = Stage { vm: &vm, containerd };
    let kept = Kept::write(&vm, &stage.containerd, "kept", 1)?;
    let other = stage.containerd.import_image(3)?;
    vm.sh("mv /tmp/image.tar /run/image-3.tar")?;
    stage.containerd.ctr(["images", "rm", "--sync", &other])?.ok()?;
    let image = stage.containerd.import_image(2)?;
    let lives = [
        "run",
        "--detach",
        "--null-io",
        "--snapshotter",
        "devmapper",
        &image,
    ];
    stage
        .containerd
        .ctr(lives.iter().copied().chain(["lives", "/bin/sleep", "100000"]))?
        .ok()?;
    vm.sh("sync")?;
    stage.expect_nothing()?;
    let mut dice = Dice::of_environment()?;
    vm.sh("mkdir -p /run/healing")?;
    write_policy(&vm, POLICY_OF_SOAK)?;
    // Its ledger is where the repair before a start of containerd looks for it.
    let mut suture = Suture::start(&vm, &["--act", "--grace", "1", "--config", POLICY], &[])?;
    let load = load(&vm, &image, &other)?;

    let samples = storm(&vm, &mut stage.containerd, &suture, &mut dice)?;

    // Nothing breaks any more, and containerd comes up once more as a service does.
    end(&mut stage.containerd)?;
    start(&vm, &mut stage.containerd, true)?;
    vm.sh("touch /run/soak-ends")?;
    for mut worker in load {
        worker.wait(TO_END)?.ok()?;
    }
    eprintln!("soak: {}", vm.sh("grep . /run/soak-done-*")?.replace('\n', ", "));
    stage.containerd.collect_after_a_removal()?;
    let told = vm.sh("sort /run/soak-errors | cut -c1-160 | uniq -c | sort -rn | head -40")?;
    eprintln!("soak: what containerd's clients were told:\n{told}");
    // Notes may be left: numbers that are used up wait for the next repair of a stopped containerd.
    let mut last = String::new();
    let clean = vm.wait_until("nothing is left over", TO_END, || {
        let check = stage.check()?;
        last = check.json.to_string();
        Ok(check.code == 0)
    });
    if clean.is_err() || stage.check()?.code != 0 {
        for report in suture.reports()? {
            eprintln!("{}", report.to_string().chars().take(1000).collect::<String>());
        }
    }
    clean.with_context(|| format!("the last check: {last}"))?;
    eprintln!("soak: {}", summary(&suture.reports()?));
    expect_containers_run(&stage.containerd, &["last-a", "last-b", "lives"])?;
    expect_all_accounted_for(&stage)?;
    ensure!(kept.is_whole(&vm)?, "a snapshot that nobody touched has changed");
    let quarter = samples.len() / 4;
    let (early, late) = (
        median(&samples[..=quarter]),
        median(&samples[samples.len() - quarter - 1..]),
    );
    eprintln!(
        "soak: its own memory was {early} KiB in the first quarter and {late} KiB in the last: {samples:?}"
    );
    ensure!(
        late <= early + GROWTH,
        "it grew from {early} to {late} KiB: {samples:?}"
    );
    suture.stop()?;
    stage.containerd.works()
}
