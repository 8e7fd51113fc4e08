//! The scenario that this project began with: a containerd killed in the middle of creating a snapshot leaks a thin
//! device for ever, and suture, which saw it happen from inside the kernel, deletes exactly that device.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fake_opentelemetry_collector::ExportedSpan;

use crate::support::*;

fn leaked_device_is_healed(kernel: Kernel) -> Result<()> {
    // Arrange: two snapshots in use, one with contents; suture is up and may act.
    let vm = boot(kernel)?;
    let mut containerd = containerd(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    let mut collector = Collector::start()?;
    let endpoint = collector.endpoint();
    let traces = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let mut suture = Suture::start(&vm, &["--act"], &traces)?;
    containerd.prepare("beside", None)?.ok()?;
    ensure!(containerd.thin_ids()? == [1, 2]);

    // Break.
    break_and_restart(&mut containerd)?;
    let restarted = Instant::now();
    let attempts = prepare_with_retries(&containerd, "again")?;
    eprintln!("prepares succeed again, at try {attempts}");

    // Expect.
    // Until that next prepare the record is in containerd's way: a look in between finds that first.
    let found = suture.expect("found", |report| report["finding"]["class"] != "faulty-next")?;
    ensure!(found["finding"]["class"] == "leaked-thin", "{found}");
    ensure!(found["finding"]["thin_id"] == 3, "{found}");
    let remedy = suture.expect_remedy("done")?;
    let healed_after = restarted.elapsed();
    eprintln!(
        "healed {:.1} s after containerd's restart",
        healed_after.as_secs_f32()
    );
    ensure!(healed_after < Duration::from_mins(1));
    suture.expect("resolved", |report| report["finding"]["class"] == "leaked-thin")?;

    let ids = containerd.thin_ids()?;
    ensure!(
        !ids.contains(&3) && ids.starts_with(&[1, 2]) && ids.len() == 3,
        "{ids:?}"
    );
    ensure!(kept.is_whole(&vm)?, "the contents of another snapshot changed");
    for key in ["kept", "beside", "again"] {
        ensure!(
            containerd.ls()?.iter().any(|snapshot| snapshot.key == key),
            "{key} is gone"
        );
    }
    containerd.prepare("and on", None)?.ok()?;

    // Nothing else was found or done, and the ledger names operation, device, id and guards.
    let history = history(&vm)?;
    ensure!(history.len() == 1, "{history:?}");
    let text = history[0].to_string();
    let operation = found["finding"]["provenance"]["operation"]
        .as_str()
        .context("the finding names its operation")?;
    for named in [
        operation,
        "\"thin_id\":3",
        "delete",
        "not-open",
        "same-transaction",
        "\"outcome\":\"done\"",
    ] {
        ensure!(text.contains(named), "{named} is not in {text}");
    }
    ensure!(
        remedy["guards"]
            .as_array()
            .is_some_and(|guards| guards.len() == 9 && guards.iter().all(|guard| guard["holds"] == true))
    );
    let people = vm.run(["suture", "history"])?.ok()?.stdout;
    ensure!(
        people.contains("leaked-thin: thin device 3 of tp") && people.contains("done"),
        "{people}"
    );
    suture.stop()?;
    one_linked_trace(
        &collector.spans(&["containerd.snapshot.create", "suture.remedy"]),
        operation,
    )
}

fn one_linked_trace(spans: &[ExportedSpan], operation: &str) -> Result<()> {
    let named = |name: &str| {
        spans
            .iter()
            .find(|span| span.name == name)
            .with_context(|| format!("no span {name} in {spans:#?}"))
    };
    let root = named("containerd.snapshot.create")?;
    let has = |span: &ExportedSpan, text: &str| format!("{:?}", span.attributes).contains(text);
    let finding = spans
        .iter()
        .find(|span| span.name == "suture.finding" && has(span, "leaked-thin"))
        .with_context(|| format!("no such finding in {spans:#?}"))?;
    let remedy = named("suture.remedy")?;
    ensure!(
        spans.iter().all(|span| span.trace_id == root.trace_id),
        "more than one trace"
    );
    ensure!(root.parent_span_id.is_empty());
    ensure!(finding.parent_span_id == root.span_id && remedy.parent_span_id == finding.span_id);
    ensure!(
        remedy.links.iter().any(|link| link.span_id == root.span_id),
        "the remedy is linked to the operation"
    );
    ensure!(
        has(root, operation) && has(root, "tp-snap-3") && has(root, "Activating"),
        "{root:#?}"
    );
    ensure!(
        has(remedy, "delete thin device 3 from pool tp") && has(remedy, "done"),
        "{remedy:#?}"
    );
    ensure!(
        remedy
            .events
            .iter()
            .filter(|event| event.name == "suture.guard")
            .count()
            == 9,
        "{remedy:#?}"
    );
    let calls: Vec<_> = spans.iter().filter(|span| span.name == "dm.ioctl").collect();
    ensure!(calls.iter().all(|call| call.parent_span_id == root.span_id));
    for request in [
        "create_thin 3 on tp",
        "create device tp-snap-3",
        "load table of tp-snap-3",
        "resume tp-snap-3",
    ] {
        ensure!(
            calls.iter().any(|call| has(call, request)),
            "no call `{request}` in {calls:#?}"
        );
    }
    for step in [
        "suture.remedy.intent",
        "suture.remedy.act",
        "suture.remedy.outcome",
    ] {
        ensure!(named(step)?.parent_span_id == remedy.span_id);
    }
    Ok(())
}

#[test]
fn a_killed_containerd_leaks_a_device_and_suture_deletes_exactly_that_on_6_1() -> Result<()> {
    leaked_device_is_healed(Kernel::V6_1)
}

#[test]
fn a_killed_containerd_leaks_a_device_and_suture_deletes_exactly_that_on_6_12() -> Result<()> {
    leaked_device_is_healed(Kernel::V6_12)
}

#[test]
fn without_leave_to_act_nothing_changes_and_the_plan_is_printed() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--grace", "2"], &[])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    let before = containerd.thin_ids()?;

    let decided = suture.expect("decided", |report| report["kind"] == "propose")?;
    ensure!(
        decided["plan"]["action"] == "delete_thin" && decided["plan"]["thin_id"] == 1,
        "{decided}"
    );
    ensure!(
        decided["text"]
            .as_str()
            .is_some_and(|text| text.contains("--act")),
        "{decided}"
    );
    // Two more rounds, in which it would have acted.
    std::thread::sleep(Duration::from_secs(12));
    ensure!(!suture.told("remedy")?);
    ensure!(containerd.thin_ids()? == before && before.contains(&1));
    suture.stop()?;
    Ok(())
}
