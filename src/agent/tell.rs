//! What follows from what the brain takes in: told, stored, traced.

use std::{collections::BTreeMap, io, time::Duration};

use tokio::time::Instant;

use super::{Agent, SETTLE, now};
use crate::{
    brain::{Input, Look, Output, Report, Standing},
    ledger::{FindingRow, LedgerError, OperationRow, Trouble},
    model::{Finding, FindingId, Operation, OperationId, Plan, Provenance, Timestamp},
    reporter::Reporter,
};

/// How often the ledger is told that suture is watching: a write to the disk each time.
const SAY_WATCHING: Duration = Duration::from_mins(1);

/// `traceparent`s of what was told already.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pub(super) operations: BTreeMap<OperationId, String>,
    pub(super) findings: BTreeMap<FindingId, String>,
}

/// Tells on standard output. A reader that went away does not stop the agent.
pub(super) fn tell(reporter: &mut Reporter<io::Stdout>, at: Timestamp, report: &Report) {
    let _ = reporter.tell(at, report);
}

impl Agent {
    /// Hands one thing to the brain, and does what follows.
    pub(super) fn take(&mut self, input: &Input) {
        self.record_input(input);
        let outputs = self.brain.take(input);
        self.follow(outputs);
    }

    /// Tells about this moment.
    pub(super) fn tell(&mut self, report: &Report) {
        tell(&mut self.reporter, now(), report);
    }

    /// Does what the brain says, but for carrying out the plan, which is given back.
    pub(super) fn follow(&mut self, outputs: Vec<Output>) -> Option<Plan> {
        let mut act = None;
        for output in outputs {
            match output {
                Output::Tell { at, report } => {
                    tell(&mut self.reporter, at, &report);
                    // What was kept back because something might have been missed.
                    if matches!(*report, Report::GapClosed { .. })
                        && let Some(rounds) = self.rounds.as_mut()
                    {
                        rounds.soon();
                    }
                }
                Output::Story(operation) => self.begin_story(&operation),
                Output::Keep(operation) => self.keep(*operation),
                Output::KeepLater(id) => {
                    self.unsaved.insert(id);
                }
                Output::Forget(id) => {
                    self.unsaved.remove(&id);
                    let forgotten = self.ledger.as_ref().map(|ledger| ledger.forget_operation(&id));
                    self.stored(forgotten);
                }
                // What a round found first is told already.
                Output::Found { finding, .. }
                    if self.rounds.iter().any(|rounds| rounds.open.has_told(&finding.id)) => {}
                Output::Found { at, finding } => self.found(at, *finding),
                Output::Standing(standing) => {
                    let gone = standing.resolved.is_some().then(|| standing.finding.id.clone());
                    self.store_finding(*standing);
                    if let (Some(id), Some(rounds)) = (gone, self.rounds.as_mut()) {
                        rounds.forget(&id);
                    }
                }
                Output::Remedied {
                    at,
                    plan,
                    guards,
                    outcome,
                } => {
                    let report = Report::Remedy {
                        traceparent: self.traces.findings.get(&plan.finding).cloned(),
                        plan: *plan,
                        guards,
                        outcome,
                    };
                    tell(&mut self.reporter, at, &report);
                }
                Output::Act(plan) => act = Some(*plan),
                // At once, also when suture should rest.
                Output::Look(Look::Now) => self.read_at = Instant::now(),
                Output::Look(Look::Soon) => self.look_by(Instant::now() + SETTLE),
                Output::Look(Look::By(at)) => self.look_by(Instant::now() + at.since(now())),
            }
        }
        act
    }

    fn begin_story(&mut self, operation: &Operation) {
        let traceparent = self.telemetry.operation(operation);
        self.traces.operations.insert(operation.id.clone(), traceparent);
    }

    fn keep(&mut self, operation: Operation) {
        self.unsaved.remove(&operation.id);
        let traceparent = self.traces.operations.get(&operation.id).cloned();
        let row = OperationRow {
            operation,
            traceparent,
        };
        let stored = self.ledger.as_ref().map(|ledger| ledger.save_operation(&row));
        self.stored(stored);
    }

    pub(super) fn stored(&mut self, result: Option<Result<(), LedgerError>>) {
        match result {
            Some(Err(error)) => self.ledger_failed(&error),
            Some(Ok(())) => {
                self.ledger_trouble = None;
                self.pulse.ledger(None);
            }
            None => {}
        }
    }

    pub(super) fn found(&mut self, at: Timestamp, finding: Finding) {
        let operation = match &finding.provenance {
            Provenance::SeenByProbe { operation } => {
                self.traces.operations.get(operation).map(String::as_str)
            }
            Provenance::ToldByRecord { .. } | Provenance::Unknown => None,
        };
        let traceparent = self.telemetry.finding(&finding, at, operation);
        self.traces
            .findings
            .insert(finding.id.clone(), traceparent.clone());
        let report = Report::Found {
            finding,
            traceparent: Some(traceparent),
        };
        tell(&mut self.reporter, at, &report);
    }

    /// Stores a finding, with what the rounds decided about it, where they did.
    pub(super) fn store_finding(&mut self, mut standing: Standing) {
        let id = standing.finding.id.clone();
        let is_over = standing.resolved.is_some();
        if let Some(rounds) = self.rounds.as_mut() {
            if let Some(decision) = rounds.open.decision(&id) {
                decision.clone_into(&mut standing.decision);
            }
            if is_over {
                rounds.seen.remove(&id);
            } else {
                rounds.seen.entry(id.clone()).or_insert_with(Instant::now);
            }
        }
        let row = FindingRow {
            traceparent: self.traces.findings.get(&id).cloned(),
            standing,
        };
        match self.ledger.as_ref().map(|ledger| ledger.save_finding(&row)) {
            Some(Ok(())) => self.pulse.ledger(None),
            Some(Err(error)) => self.ledger_failed(&error),
            None => {}
        }
        if is_over {
            self.traces.findings.remove(&id);
        }
    }

    /// Calls are stored with the next read of the world: an fsync for each would slow down whoever shares the disk.
    pub(super) fn save_steps(&mut self) {
        let known = &self.brain;
        self.traces
            .operations
            .retain(|id, _| known.operation(id).is_some());
        let Some(ledger) = self.ledger.as_mut() else {
            return;
        };
        let operations = std::mem::take(&mut self.unsaved).into_iter().filter_map(|id| {
            let traceparent = self.traces.operations.get(&id).cloned();
            Some(OperationRow {
                operation: self.brain.operation(&id)?.clone(),
                traceparent,
            })
        });
        let operations: Vec<OperationRow> = operations.collect();
        match ledger.save_operations(&operations) {
            Ok(()) if !operations.is_empty() => self.pulse.ledger(None),
            Ok(()) => {}
            Err(error) => self.ledger_failed(&error),
        }
    }

    /// Says in the ledger that suture is watching, so that a later one knows since when nobody was; from time to time,
    /// or now.
    pub(super) fn say_watching(&mut self, even_so: bool) {
        let due = self
            .said_watching
            .is_none_or(|said| said.elapsed() >= SAY_WATCHING);
        let Some(ledger) = self.ledger.as_ref().filter(|_| due || even_so) else {
            return;
        };
        let said = ledger.is_watching(now());
        self.said_watching = Some(Instant::now());
        self.stored(Some(said));
    }

    /// Told once, until it is another trouble: a full disk fails every write, each in words of its own.
    pub(super) fn ledger_failed(&mut self, error: &LedgerError) {
        let what = format!("the ledger: {}", crate::words::explain(error));
        self.pulse.ledger(Some(what.clone()));
        let trouble = error.trouble();
        let told = self.ledger_trouble.as_ref();
        if told.is_none_or(|(known, said)| *known != trouble || (trouble == Trouble::Other && *said != what))
        {
            self.tell(&Report::Trouble { what: what.clone() });
        }
        self.ledger_trouble = Some((trouble, what));
    }

    pub(super) fn tell_delivery(&mut self) {
        let Some(status) = self.telemetry.delivery_status() else {
            return;
        };
        let failing = status.error.is_some();
        if failing != self.undelivered {
            self.undelivered = failing;
            self.tell(&match status.error {
                Some(error) => Report::TracesHeldBack {
                    endpoint: status.endpoint,
                    why: error,
                },
                None => Report::TracesDelivered {
                    endpoint: status.endpoint,
                },
            });
        }
    }
}
