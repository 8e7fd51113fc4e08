//! Things that go wrong around suture: each gives a clear message, nothing is lost, nothing is blocked.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::vm::{
    Vm,
    containerd::{Containerd, Options},
};

use crate::support::*;

const POOL_DB: &str = "/persist/containerd/devmapper/tp.db";

fn what(report: &serde_json::Value) -> String {
    report["what"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_device_name_with_control_characters_is_shown_escaped_and_blinds_nobody() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let _containerd = containerd(&vm)?;
    let mut watch = vm.spawn(["suture", "watch", "--output", "json"], &[])?;
    // Bytes that are not even UTF-8, on a device on the pool: nothing that lists devices by name could pass it on.
    watch.wait_for_line(|line| line.contains("watching"), Duration::from_secs(30))?;
    vm.sh("dmsetup message tp 0 'create_thin 77'")?;
    vm.sh(r#"dmsetup --manglename none create "$(printf 'evil\033[31m\377')" --table "0 8 thin /dev/mapper/tp 77""#)?;
    let line = watch.wait_for_line(|line| line.contains("dev_create"), Duration::from_secs(30))?;
    ensure!(line.contains(r"evil\\x1b[31m\\xff"), "{line}");
    let mut suture = Suture::start(&vm, &["--act"], &[])?;
    // The world is still read, the foreign device found, and told that something on the pool can not be looked into.
    let found = suture.expect("found", |report| report["finding"]["thin_id"] == 77)?;
    ensure!(
        found["finding"]["class"] == "foreign-thin" && found.to_string().contains(r"evil\\x1b[31m"),
        "{found}"
    );
    ensure!(!suture.told("trouble")?);
    suture.stop()
}

#[test]
fn an_oversized_message_is_shown_cut_and_counts_as_a_gap_only_if_it_took_effect() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let containerd = containerd(&vm)?;
    let mut watch = vm.spawn(["suture", "watch"], &[])?;
    watch.wait_for_line(|line| line.contains("watching"), Duration::from_secs(30))?;
    let mut suture = Suture::start(&vm, &["--act"], &[])?;
    // Refused by the pool: no such message.
    vm.sh("! dmsetup message tp 0 \"$(head -c 3000 /dev/zero | tr '\\0' x)\" 2>/dev/null")?;
    let line = watch.wait_for_line(|line| line.contains("xxxx"), Duration::from_secs(30))?;
    ensure!(line.contains("(cut)") && line.len() < 700, "{line}");
    // Taken by the pool: leading blanks push the id out of what is carried.
    vm.sh("dmsetup message tp 0 \"create_thin $(head -c 600 /dev/zero | tr '\\0' ' ') 9\"")?;
    let gap = suture.expect("gap_opened", |_| true)?;
    ensure!(gap["why"].to_string().contains("too long"), "{gap}");
    suture.expect("gap_closed", |_| true)?;
    ensure!(
        suture
            .reports()?
            .iter()
            .filter(|report| report["report"] == "gap_opened")
            .count()
            == 1
    );
    ensure!(containerd.thin_ids()? == [9]);
    containerd.prepare("goes on", None)?.ok()?;
    suture.stop()
}

/// A world with a broken pool database, which containerd does not hold.
fn with_database(vm: &Vm, spoil: &str, expected: &[&str]) -> Result<()> {
    let mut containerd = containerd(vm)?;
    containerd.prepare("one", None)?.ok()?;
    containerd.kill(Signal::KILL)?;
    vm.sh(&format!("cp {POOL_DB} /tmp/good.db; {spoil}"))?;
    let checksum = vm.sh(&format!("sha256sum {POOL_DB}"))?;
    let mut suture = Suture::start_blind(vm, &["--act", "--grace", "0"], &[])?;
    let trouble = suture.expect("trouble", |_| true)?;
    for text in expected {
        ensure!(what(&trouble).contains(text), "`{text}` is not in {trouble}");
    }
    std::thread::sleep(Duration::from_secs(8));
    ensure!(
        suture
            .reports()?
            .iter()
            .filter(|report| report["report"] == "trouble")
            .count()
            == 1,
        "told once, not each time"
    );
    ensure!(
        vm.sh(&format!("sha256sum {POOL_DB}"))? == checksum,
        "suture changed the database"
    );
    ensure!(
        !suture.told("found")? && !suture.told("remedy")?,
        "nothing is judged without the database"
    );
    // It is not stuck: a good database ends the trouble, and containerd starts on it.
    vm.sh(&format!("cp /tmp/good.db {POOL_DB}"))?;
    suture.expect("trouble_over", |_| true)?;
    containerd.start()?;
    containerd.prepare("two", None)?.ok()?;
    suture.stop()
}

/// The long lane: in every run the next one meets a broken database too, and `tests/readers` every way to break one.
#[test]
fn a_truncated_pool_database_is_said_so_and_nothing_is_judged() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    with_database(
        &boot(Kernel::V6_1)?,
        &format!("truncate -s 5000 {POOL_DB}"),
        &["pool database", "tp.db"],
    )
}

#[test]
fn a_garbage_pool_database_is_said_so_and_nothing_is_judged() -> Result<()> {
    with_database(
        &boot(Kernel::V6_1)?,
        &format!("dd if=/dev/urandom of={POOL_DB} bs=4k count=16 conv=notrunc 2>/dev/null"),
        &["pool database", "tp.db", "not a readable bbolt database"],
    )
}

#[test]
fn without_containerd_suture_says_so_and_waits_for_it() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    // Debian's configuration knows no such snapshotter.
    let output = vm.run(["suture", "run"])?;
    ensure!(
        output.status.code() == 1 && output.stderr.contains("names no pool"),
        "{output:?}"
    );
    // No containerd at all: not even its configuration.
    vm.sh("rm /etc/containerd/config.toml")?;
    let output = vm.run(["suture", "run"])?;
    ensure!(output.status.code() == 1, "{output:?}");
    ensure!(
        output.stderr.contains("/etc/containerd/config.toml")
            && output.stderr.contains("--containerd-config"),
        "{output:?}"
    );
    // Configured, not started yet.
    let mut containerd = Containerd::set_up(&vm, Options::default())?;
    let mut suture = Suture::start_blind(&vm, &["--act"], &[])?;
    let trouble = suture.expect("trouble", |_| true)?;
    ensure!(what(&trouble).contains("has not started here yet"), "{trouble}");
    containerd.start()?;
    suture.expect("observed", |report| {
        report["observation"]["kind"] == "containerd_up"
    })?;
    suture.expect("trouble_over", |_| true)?;
    suture.stop()
}

#[test]
fn a_collector_that_is_down_blocks_nothing_and_gets_the_story_when_it_is_back() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    // The guest's own loopback: nobody listens there.
    let traces = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let mut suture = Suture::start(&vm, &["--act", "--grace", "2"], &traces)?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect_remedy("done")?;
    let held = suture.expect_ever("traces_held_back", |_| true)?;
    ensure!(held["endpoint"] == "http://127.0.0.1:4317", "{held}");
    ensure!(history(&vm)?.len() == 1, "the ledger has it all the same");

    // The collector comes up: a relay from the guest's loopback to the host.
    let mut collector = Collector::start()?;
    let address = collector.endpoint().replace("http://", "");
    let (host, port) = address.split_once(':').unwrap_or_default();
    let _relay = vm.spawn(
        [
            "busybox", "nc", "-ll", "-p", "4317", "-e", "busybox", "nc", host, port,
        ],
        &[],
    )?;
    suture.expect("traces_delivered", |_| true)?;
    let names = ["containerd.snapshot.create", "suture.finding", "suture.remedy"];
    let spans = collector.spans(&names);
    for name in names {
        ensure!(
            spans.iter().any(|span| span.name == name),
            "{name} is missing: {spans:#?}"
        );
    }
    suture.stop()
}

#[test]
fn with_a_read_only_ledger_folder_suture_tells_and_does_not_act() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    vm.sh("mkdir -p /var/lib/suture; mount -t tmpfs -o ro none /var/lib/suture")?;
    let mut suture = Suture::start_blind(&vm, &["--act", "--grace", "2"], &[])?;
    let reports = suture.reports()?;
    let refused = reports
        .iter()
        .find(|report| report["report"] == "no_ledger")
        .map(ToString::to_string)
        .unwrap_or_default();
    ensure!(refused.contains("/var/lib/suture/ledger.db"), "{refused}");
    suture.expect("gap_closed", |_| true)?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    let decided = suture.expect("decided", |report| report["kind"] == "propose")?;
    ensure!(decided["text"].to_string().contains("no ledger"), "{decided}");
    std::thread::sleep(Duration::from_secs(8));
    ensure!(!suture.told("remedy")? && containerd.thin_ids()?.contains(&1));
    suture.stop()
}

#[test]
fn a_full_ledger_disk_stops_the_act_without_a_flood_and_space_lets_it_go_on() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    vm.sh("mkdir -p /var/lib/suture; mount -t tmpfs -o size=1m none /var/lib/suture")?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "4"], &[])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect("found", |report| report["finding"]["class"] == "leaked-thin")?;
    vm.sh("! dd if=/dev/zero of=/var/lib/suture/ballast bs=4k 2>/dev/null")?;

    // Either the ledger is known to be full, or the intent is what does not fit any more.
    let held = |report: &serde_json::Value| {
        let text = report["text"].to_string();
        report["kind"] == "held" && text.contains("takes no intent") && text.contains("full")
    };
    suture.expect_ever("decided", held)?;
    std::thread::sleep(Duration::from_secs(10));
    let reports = suture.reports()?;
    ensure!(
        reports.iter().filter(|report| held(report)).count() == 1,
        "told once in a while"
    );
    ensure!(reports.len() < 60, "{} reports are a flood", reports.len());
    ensure!(!suture.told("remedy")? && containerd.thin_ids()?.contains(&1));

    vm.sh("rm /var/lib/suture/ballast")?;
    suture.expect_remedy("done")?;
    ensure!(!containerd.thin_ids()?.contains(&1));
    suture.stop()
}

/// The file under a living containerd is moved away and a copy put in its place: containerd goes on writing the old one.
#[test]
fn a_database_that_containerd_does_not_write_any_more_is_not_believed() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    containerd.prepare("one", None)?.ok()?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "0"], &[])?;
    vm.sh(&format!(
        "mv {POOL_DB} /persist/away.db; cp /persist/away.db {POOL_DB}"
    ))?;
    let trouble = suture.expect_ever("trouble", |report| what(report).contains("does not hold"))?;
    ensure!(what(&trouble).contains(POOL_DB), "{trouble}");
    containerd.prepare("two", None)?.ok()?;
    std::thread::sleep(Duration::from_secs(12));
    ensure!(
        !suture.told("found")? && !suture.told("remedy")?,
        "{:?}",
        suture.reports()?
    );
    ensure!(vm.run(["suture", "status"])?.status.code() == 3);
    // A containerd that is started on it holds it again.
    containerd.restart()?;
    suture.expect_ever("trouble_over", |_| true)?;
    suture.stop()
}

/// A recording that is taken away is a recording that failed.
#[test]
fn a_recording_that_is_removed_ends_suture_record_with_an_error() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let _containerd = containerd(&vm)?;
    vm.sh("mkdir /run/rec")?;
    let mut record = vm.spawn(["suture", "record", "/run/rec/a.suture"], &[])?;
    record.wait_for_line(|line| line.contains("gap closed"), PATIENCE)?;
    let second = vm.run(["suture", "record", "/run/rec/a.suture"])?;
    ensure!(
        second.status.code() != 0 && second.stderr.contains("another suture records to"),
        "{second:?}"
    );
    vm.sh("rm -r /run/rec; dmsetup message tp 0 'create_thin 9'")?;
    let ended = record.wait(PATIENCE)?;
    ensure!(
        ended.status.code() != 0 && ended.stdout.contains("NO RECORDING any more"),
        "{ended:?}"
    );
    Ok(())
}
