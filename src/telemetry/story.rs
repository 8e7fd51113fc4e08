//! The spans of one story: an operation with its kernel calls, the finding, the remedy with its guards. One trace; the
//! finding is a child of the operation, the remedy a child of the finding and linked to the operation.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Event, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{TARGET, Telemetry};
use crate::model::{
    Action, ConditionReading, Finding, GuardReading, Operation, OperationState, Outcome, Plan, Provenance,
    RepairOutcome, RepairPlan, Timestamp,
    operation::{Side, Step},
};

/// Where a span is, in the form of the W3C (`00-<trace>-<span>-01`): what the ledger keeps, so that a restarted suture
/// goes on in the same trace.
fn traceparent(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    )
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    context.is_valid().then_some(context)
}

fn under(parent: Option<&str>) -> Context {
    match parent.and_then(parse) {
        Some(context) => Context::new().with_remote_span_context(context),
        None => Context::new(),
    }
}

impl Telemetry {
    fn begin(
        &self,
        name: &'static str,
        at: Timestamp,
        attributes: Vec<KeyValue>,
        parent: &Context,
    ) -> opentelemetry_sdk::trace::Span {
        SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(SystemTime::from(at))
            .with_attributes(attributes)
            .start_with_context(&self.tracer, parent)
    }

    /// Tells of an abandoned operation; gives its `traceparent`.
    #[must_use]
    pub fn operation(&self, operation: &Operation) -> String {
        let mut span = self.begin(
            "containerd.snapshot.create",
            operation.began(),
            operation_attributes(operation),
            &Context::new(),
        );
        let here = span.span_context().clone();
        let inside = Context::new().with_remote_span_context(here.clone());
        for step in &operation.steps {
            self.step(step, &inside);
        }
        let end = match &operation.state {
            OperationState::Abandoned { at, .. } => {
                span.set_attribute(KeyValue::new("error.type", "abandoned"));
                span.set_status(Status::error(format!(
                    "{} was gone before it was finished",
                    operation.actor
                )));
                *at
            }
            _ => operation
                .steps
                .last()
                .map_or(operation.began(), |step| step.finished),
        };
        // A dmsetup that outlived its containerd may have called after it was gone.
        let last = operation.steps.last().map_or(end, |step| step.finished.max(end));
        span.end_with_timestamp(SystemTime::from(last));
        traceparent(&here)
    }

    fn step(&self, step: &Step, parent: &Context) {
        let (name, request) = match step.side {
            Side::Call => ("dm.ioctl", "dm.request"),
            Side::Kernel => ("dm.kernel", "dm.request"),
            Side::Database => ("containerd.record", "containerd.record.transition"),
        };
        let mut attributes = vec![
            KeyValue::new(request, step.request.clone()),
            KeyValue::new("process.pid", i64::from(step.process.pid)),
            KeyValue::new("process.executable.name", step.process.comm.to_string()),
        ];
        if let Some(error) = &step.error {
            attributes.push(KeyValue::new("error.type", error.clone()));
        }
        let mut span = self.begin(name, step.entered, attributes, parent);
        if let Some(error) = &step.error {
            span.set_status(Status::error(error.clone()));
        }
        span.end_with_timestamp(SystemTime::from(step.finished));
    }

    /// Tells of a finding, under the operation that it is about where that is known; gives its `traceparent`.
    pub fn finding(&self, finding: &Finding, at: Timestamp, operation: Option<&str>) -> String {
        let mut attributes = vec![
            KeyValue::new("suture.finding.id", finding.id.to_string()),
            KeyValue::new("suture.finding.class", finding.class.to_string()),
            KeyValue::new("dm.pool.name", finding.pool.to_string()),
            KeyValue::new("suture.finding.subject", finding.subject.to_string()),
        ];
        if let Some(id) = finding.subject.thin_id() {
            attributes.push(KeyValue::new("dm.thin.id", i64::from(id.0)));
        }
        if let Provenance::SeenByProbe { operation } = &finding.provenance {
            attributes.push(KeyValue::new("suture.operation.id", operation.to_string()));
        }
        let evidence = finding.sentences().map(|text| {
            Event::new(
                "suture.evidence",
                SystemTime::from(at),
                vec![KeyValue::new("suture.evidence.text", text)],
                0,
            )
        });
        let builder = SpanBuilder::from_name("suture.finding")
            .with_kind(SpanKind::Internal)
            .with_start_time(SystemTime::from(at))
            .with_attributes(attributes)
            .with_events(evidence.collect());
        let mut span = builder.start_with_context(&self.tracer, &under(operation));
        let here = span.span_context().clone();
        if let Some(operation) = operation.and_then(parse) {
            span.add_link(operation, vec![KeyValue::new("suture.link", "operation")]);
        }
        span.end_with_timestamp(SystemTime::from(at));
        traceparent(&here)
    }
}

/// A span that a remedy runs in: a child of the finding, linked to the operation. It is live (`tracing`), so that the
/// steps inside, each a span of its own in `remedy`, show where the time went.
pub fn remedy_span(plan: &Plan, finding: Option<&str>, operation: Option<&str>) -> tracing::Span {
    let span = tracing::info_span!(target: TARGET, "suture.remedy");
    // Fails only where no bridge is installed or the span is filtered out: then there is no trace to join.
    let _ = span.set_parent(under(finding));
    if let Some(operation) = operation.and_then(parse) {
        span.add_link_with_attributes(operation, vec![KeyValue::new("suture.link", "operation")]);
    }
    let Action::DeleteThin { pool, thin_id, .. } = &plan.action;
    span.set_attribute("suture.finding.id", plan.finding.to_string());
    span.set_attribute("suture.operation.id", plan.operation.to_string());
    span.set_attribute("suture.remedy.action", plan.action.to_string());
    span.set_attribute("dm.pool.name", pool.to_string());
    span.set_attribute("dm.thin.id", i64::from(thin_id.0));
    span
}

/// Tells on a remedy's span how each guard was found and what came of it.
pub fn conclude(span: &tracing::Span, guards: &[GuardReading], outcome: &Outcome) {
    for reading in guards {
        let attributes = vec![
            KeyValue::new("suture.guard.name", reading.guard.to_string()),
            KeyValue::new("suture.guard.holds", reading.holds),
            KeyValue::new("suture.guard.detail", reading.detail.clone()),
        ];
        span.add_event("suture.guard", attributes);
    }
    span.set_attribute("suture.remedy.outcome", outcome.to_string());
    match outcome {
        Outcome::Failed { why } => {
            span.set_attribute("error.type", "failed");
            span.set_status(Status::error(why.clone()));
        }
        Outcome::Refused { .. } => span.set_attribute("error.type", "refused"),
        _ => {}
    }
}

/// Tells of a repair that a worker made: a child of the finding, with each condition as it was read.
pub fn repair(
    plan: &RepairPlan,
    readings: &[ConditionReading],
    outcome: &RepairOutcome,
    finding: Option<&str>,
) {
    let span = tracing::info_span!(target: TARGET, "suture.remedy");
    // Fails only where no bridge is installed or the span is filtered out: then there is no trace to join.
    let _ = span.set_parent(under(finding));
    let acts: Vec<String> = plan.acts.iter().map(ToString::to_string).collect();
    span.set_attribute("suture.finding.id", plan.finding.to_string());
    span.set_attribute("suture.finding.class", plan.class.to_string());
    span.set_attribute("suture.remedy.action", acts.join("; "));
    for reading in readings {
        let attributes = vec![
            KeyValue::new("suture.guard.name", reading.condition.to_string()),
            KeyValue::new("suture.guard.holds", reading.holds),
            KeyValue::new("suture.guard.detail", reading.detail.clone()),
        ];
        span.add_event("suture.guard", attributes);
    }
    span.set_attribute("suture.remedy.outcome", outcome.to_string());
    match outcome {
        RepairOutcome::Failed { why } | RepairOutcome::Partly { why, .. } => {
            span.set_attribute("error.type", "failed");
            span.set_status(Status::error(why.clone()));
        }
        RepairOutcome::Refused { .. } => span.set_attribute("error.type", "refused"),
        _ => {}
    }
}

fn operation_attributes(operation: &Operation) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("suture.operation.id", operation.id.to_string()),
        KeyValue::new("dm.pool.name", operation.pool.to_string()),
        KeyValue::new("dm.thin.id", i64::from(operation.thin_id.0)),
        KeyValue::new("container.runtime.name", "containerd"),
        KeyValue::new("process.pid", i64::from(operation.actor.pid)),
    ];
    if let Some(origin) = operation.origin {
        attributes.push(KeyValue::new("dm.thin.origin.id", i64::from(origin.0)));
    }
    if let Some(name) = &operation.device_name {
        attributes.push(KeyValue::new("dm.device.name", name.clone()));
    }
    if let OperationState::Abandoned {
        record: Some(state), ..
    } = &operation.state
    {
        attributes.push(KeyValue::new("containerd.devmapper.state", state.to_string()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_survives_the_ledger() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(text).unwrap();
        assert_eq!(traceparent(&context), text);
        assert_eq!(crate::words::trace_id(text), "0af7651916cd43dd8448eb211c80319c");
        for broken in [
            "",
            "00-xyz-1-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert!(parse(broken).is_none(), "{broken}");
        }
    }
}
