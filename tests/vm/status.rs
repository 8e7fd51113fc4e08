//! How suture says that it is: the socket, the metrics, and a bound that is hit.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xtask::vm::Vm;

use crate::support::*;

const METRICS: &str = "127.0.0.1:9469";

fn status(vm: &Vm) -> Result<(i32, Value)> {
    let output = vm.run(["suture", "status", "--output", "json"])?;
    let code = output.status.code();
    let told = serde_json::from_str(&output.stdout)
        .with_context(|| format!("suture status gave {code}, {output:?}"))?;
    Ok((code, told))
}

/// Waits for a status that `is_it` accepts.
fn status_becomes(vm: &Vm, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let (_, told) = status(vm)?;
        if is_it(&told) {
            return Ok(told);
        }
        if begun.elapsed() > PATIENCE {
            bail!("the status did not become as expected: {told:#}");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn metrics(vm: &Vm) -> Result<String> {
    vm.sh(&format!("busybox wget -q -O - http://{METRICS}/metrics"))
}

/// The value of one series.
fn value(page: &str, series: &str) -> Result<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .with_context(|| format!("no {series} in\n{page}"))?;
    Ok(line.parse()?)
}

fn bound<'a>(status: &'a Value, name: &str) -> &'a Value {
    let bounds = status["bounds"].as_array().into_iter().flatten();
    bounds
        .into_iter()
        .find(|one| one["bound"] == name)
        .unwrap_or(&Value::Null)
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "it is one life of a suture, from its start to its end"
)]
fn a_running_suture_says_how_it_is_and_a_stopped_one_is_not_there() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let nobody = vm.run(["suture", "status"])?;
    ensure!(
        nobody.status.code() == 4 && nobody.stderr.contains("suture run"),
        "{nobody:?}"
    );

    let mut containerd = containerd(&vm)?;
    let suture = Suture::start(&vm, &["--act", "--metrics", METRICS], &[])?;
    containerd.prepare("one", None)?.ok()?;
    let told = status_becomes(&vm, |told| {
        told["containerd"]["up"]["pid"].is_u64() && told["gap"].is_null()
    })?;
    ensure!(
        told["containerd"]["up"]["pid"] == containerd.pid()?
            && told["mode"] == "heals"
            && told["pool"] == "tp",
        "{told:#}"
    );
    ensure!(
        told["world"]["last"]["took_us"]
            .as_u64()
            .is_some_and(|took| took > 0)
            && told["world"]["trouble"].is_null(),
        "{told:#}"
    );
    // The calls of the prepare.
    let told = status_becomes(&vm, |told| {
        told["events"]["dm_ioctl"]
            .as_u64()
            .is_some_and(|count| count >= 4)
    })?;
    let seen = |kind: &str, quality: &str| {
        let senses = told["senses"].as_array().into_iter().flatten();
        senses
            .into_iter()
            .any(|one| one["sense"] == kind && one["quality"] == quality)
    };
    ensure!(seen("lineage", "full") && seen("holder", "full"), "{told:#}");
    let degraded = told["overall"]["quality"] == "degraded";

    let people = vm.run(["suture", "status"])?;
    ensure!(people.status.code() == if degraded { 3 } else { 0 }, "{people:?}");
    let first = people.stdout.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with("DEGRADED: ") == degraded
            && first.contains("watches pool tp; heals what is proven safe"),
        "{people:?}"
    );
    ensure!(!people.stdout.contains('\u{1b}'), "no colours in a pipe");
    ensure!(
        vm.sh("stat -c '%a %U' /run/suture /run/suture/suture.sock")? == "755 root\n600 root\n",
        "{}",
        vm.sh("ls -lR /run/suture")?
    );

    let page = metrics(&vm)?;
    ensure!(value(&page, "suture_containerd_up")? > 0.0, "{page}");
    ensure!(value(&page, "suture_heals")? > 0.0, "{page}");
    ensure!(
        value(&page, "suture_events_total{kind=\"dm_ioctl\"}")? >= 4.0,
        "{page}"
    );
    ensure!(
        value(&page, "suture_sense{sense=\"lineage\",quality=\"full\"}")? > 0.0,
        "{page}"
    );
    let resident = value(&page, "process_resident_memory_bytes")?;
    eprintln!("resident: {:.1} MiB", resident / 1024.0 / 1024.0);
    ensure!((1e6..200e6).contains(&resident), "{page}");
    ensure!(
        vm.sh(&format!("busybox wget -q -O - http://{METRICS}/healthz"))? == "ok\n",
        "not healthy"
    );

    // One of another pool finds both places taken, says so, and watches all the same.
    let other = [
        "--pool",
        "other",
        "--root-path",
        "/tmp/other",
        "--ledger",
        "/tmp/second.db",
    ];
    let mut second = Suture::start_blind(&vm, &[&other[..], &["--metrics", METRICS]].concat(), &[])?;
    for place in ["/run/suture/suture.sock", METRICS] {
        second.expect_ever("not_askable", |report| report["place"] == place)?;
    }
    second.stop()?;
    ensure!(
        status(&vm)?.1["pid"] == told["pid"],
        "the first one still answers"
    );

    // Killed, it leaves a socket behind that nobody answers; the next one takes it over.
    suture.signal(Signal::KILL)?;
    suture.end()?;
    ensure!(
        vm.run(["suture", "status"])?.status.code() == 4
            && vm.sh("ls /run/suture")?.contains("suture.sock\n"),
        "a socket of a dead suture"
    );
    let suture = Suture::start(&vm, &[], &[])?;
    let (_, told) = status(&vm)?;
    ensure!(told["mode"] == "only tells", "{told:#}");
    suture.stop()?;
    ensure!(vm.run(["suture", "status"])?.status.code() == 4, "it is gone");
    ensure!(
        !vm.sh("ls /run/suture")?.contains("suture.sock\n"),
        "and its socket with it"
    );
    Ok(())
}

#[test]
fn a_ring_that_was_full_shows_as_loss_as_gap_and_as_a_bound_that_was_hit() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let _containerd = containerd(&vm)?;
    let arguments = ["--dm-ring-bytes", "4096", "--metrics", METRICS];
    let mut suture = Suture::start(&vm, &arguments, &[])?;
    let (_, told) = status(&vm)?;
    ensure!(bound(&told, "dm_ring_bytes")["limit"] == 4096, "{told:#}");

    suture.signal(Signal::STOP)?;
    vm.sh("for i in 1 2 3 4 5 6 7 8 9 10; do ! dmsetup message tp 0 'delete 999' 2>/dev/null; done")?;
    // It holds its socket and does not answer: that is not "not running".
    let stopped = vm.run(["suture", "status"])?;
    ensure!(
        stopped.status.code() == 1 && stopped.stderr.contains("is it stopped"),
        "{stopped:?}"
    );
    suture.signal(Signal::CONT)?;
    suture.expect("gap_opened", |report| report["why"].to_string().contains("ring"))?;
    suture.expect("gap_closed", |_| true)?;

    let told = status_becomes(&vm, |told| {
        told["gap"].is_null() && bound(told, "dm_ring_bytes")["hits"].as_u64() > Some(0)
    })?;
    // Each program's losses are counted apart; the ring is theirs together.
    let hits = bound(&told, "dm_ring_bytes")["hits"].as_u64();
    let of_the_ring = told["losses"].as_array().into_iter().flatten();
    let of_the_ring = of_the_ring.filter(|loss| {
        loss["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("_ring_full"))
    });
    let sum: u64 = of_the_ring.filter_map(|loss| loss["total"].as_u64()).sum();
    ensure!(Some(sum) == hits, "{told:#}");
    let page = metrics(&vm)?;
    let calls = value(&page, "suture_lost_events_total{kind=\"dm_ring_full\"}")?;
    ensure!(calls >= 6.0, "fewer than ten events fit into the ring: {page}");
    let lost = value(&page, "suture_bound_hits_total{bound=\"dm_ring_bytes\"}")?;
    ensure!(lost >= calls, "{page}");
    ensure!(
        (value(&page, "suture_bound_limit{bound=\"dm_ring_bytes\"}")? - 4096.0).abs() < 0.5,
        "{page}"
    );
    let people = vm.run(["suture", "status"])?;
    ensure!(people.stdout.contains("the ring buffer was full"), "{people:?}");
    suture.stop()
}
