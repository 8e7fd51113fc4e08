//! Findings that stand open: since when, what was decided, what was told.

use tokio::time::Instant;

use super::{Agent, AgentError, Report, now};
use crate::{
    decide::{self, Policy},
    diagnose,
    ledger::FindingRow,
    model::{Decision, Finding, Provenance, Timestamp, World},
};

/// A finding that stands.
#[derive(Debug, Clone)]
pub(super) struct OpenFinding {
    pub(super) row: FindingRow,
    /// Not before this time is it acted on again: a refusal is not fought.
    pub(super) not_before: Timestamp,
    /// How often in a row a remedy changed nothing.
    pub(super) in_vain: u32,
    /// What was told of it last, not to tell it twice.
    told: Option<String>,
}

impl OpenFinding {
    /// One that an earlier suture knew.
    pub(super) fn again(row: FindingRow) -> Self {
        Self {
            row,
            not_before: Timestamp::default(),
            in_vain: 0,
            told: None,
        }
    }
}

impl Agent {
    /// Findings of a world, and what is decided about each.
    pub(super) async fn judge(&mut self, world: &World) -> Result<(), AgentError> {
        let at = now();
        let current = diagnose::thin_findings(world, &self.correlator);
        self.resolve_missing(&current, at);
        for finding in current {
            self.note(finding, at);
        }
        let open: Vec<OpenFinding> = self.findings.clone();
        for one in open {
            let decision = self.decide(&one, world, at);
            self.tell_decision(&one, &decision);
            match decision {
                Decision::Act(plan) => {
                    // One at a time: what was done changes what the others rest on.
                    self.heal(&plan).await?;
                    self.look_soon();
                    break;
                }
                Decision::Wait { until, .. } => self.look_by(Instant::now() + until.since(at)),
                Decision::Propose(_) | Decision::Tell { .. } => {}
            }
        }
        Ok(())
    }

    fn decide(&self, open: &OpenFinding, world: &World, at: Timestamp) -> Decision {
        // Without a ledger there is no durable intent, and without that no act.
        let policy = Policy {
            act: self.options.policy.act && self.ledger.is_some(),
            ..self.options.policy
        };
        let decision = decide::decide(
            &open.row.finding,
            open.row.first_seen,
            world,
            &self.correlator,
            policy,
            at,
        );
        match decision {
            Decision::Act(_) if at < open.not_before => Decision::Wait {
                until: open.not_before,
                why: "its last remedy was refused a moment ago".to_owned(),
            },
            other => other,
        }
    }

    /// Findings that the world does not have any more.
    fn resolve_missing(&mut self, current: &[Finding], at: Timestamp) {
        let is_current = |open: &OpenFinding| current.iter().any(|finding| finding.id == open.row.finding.id);
        let (still, gone): (Vec<OpenFinding>, Vec<OpenFinding>) =
            self.findings.drain(..).partition(is_current);
        self.findings = still;
        for mut one in gone {
            one.row.resolved = Some(at);
            one.row.last_seen = one.row.last_seen.max(at);
            self.reporter.tell(&Report::Resolved {
                finding: one.row.finding.clone(),
            });
            self.store_finding(&one.row);
        }
    }

    /// A finding of this world: new, or one that stands.
    fn note(&mut self, finding: Finding, at: Timestamp) {
        if let Some(open) = self.finding(&finding.id) {
            open.row.last_seen = at;
            if open.row.finding.evidence == finding.evidence {
                return;
            }
            open.row.finding = finding;
            let row = open.row.clone();
            self.store_finding(&row);
            return;
        }
        let operation = match &finding.provenance {
            Provenance::SeenByProbe { operation } => self.traces.operations.get(operation).cloned(),
            Provenance::Unknown => None,
        };
        let traceparent = self.telemetry.finding(&finding, at, operation.as_deref());
        self.reporter.tell(&Report::Found {
            finding: finding.clone(),
            traceparent: traceparent.clone(),
        });
        let row = FindingRow {
            finding,
            first_seen: at,
            last_seen: at,
            resolved: None,
            decision: String::new(),
            traceparent: Some(traceparent),
        };
        self.store_finding(&row);
        self.findings.push(OpenFinding::again(row));
    }

    fn tell_decision(&mut self, open: &OpenFinding, decision: &Decision) {
        let (kind, text) = match decision {
            Decision::Act(plan) => ("act", format!("{}, if its guards hold", plan.action)),
            Decision::Propose(plan) if self.options.policy.act => (
                "propose",
                format!("would {}, but has no ledger to write the intent to", plan.action),
            ),
            Decision::Propose(plan) => (
                "propose",
                format!("would {}; start with --act to allow it", plan.action),
            ),
            Decision::Wait { why, .. } => ("wait", format!("waits: {why}")),
            Decision::Tell { why } => ("tell", format!("left to a person: {why}")),
        };
        let Some(known) = self.finding(&open.row.finding.id) else {
            return;
        };
        if known.told.as_ref() == Some(&text) {
            return;
        }
        known.told = Some(text.clone());
        known.row.decision.clone_from(&text);
        let row = known.row.clone();
        self.reporter.tell(&Report::Decided {
            finding: row.finding.clone(),
            kind,
            text,
            plan: decision.plan().cloned(),
        });
        self.store_finding(&row);
    }

    pub(super) fn store_finding(&mut self, row: &FindingRow) {
        match self.ledger.as_ref().map(|ledger| ledger.save_finding(row)) {
            Some(Ok(())) => self.pulse.ledger(None),
            Some(Err(error)) => self.ledger_failed(&error),
            None => {}
        }
    }
}
