//! Findings that stand open: since when, what was decided, what was told.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, AgentError, Report, now};
use crate::{
    decide::{self, Policy},
    diagnose,
    ledger::FindingRow,
    model::{Decision, Finding, FindingClass, PoolView, Provenance, Timestamp, World},
};

/// A storm of block errors changes its numbers all the time: they are stored this often.
const EVIDENCE_PAUSE: Duration = Duration::from_secs(30);
/// Failed sectors that an earlier suture counted are not known any more; for so long after its last word the finding
/// stands all the same.
const REMEMBERED: Duration = Duration::from_hours(1);

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
    /// When its evidence was stored last; nothing where only an earlier suture has found it.
    stored: Option<Timestamp>,
}

impl OpenFinding {
    /// One that an earlier suture knew.
    pub(super) fn again(row: FindingRow) -> Self {
        Self {
            row,
            not_before: Timestamp::default(),
            in_vain: 0,
            told: None,
            stored: None,
        }
    }
}

impl Agent {
    /// Findings of a world, and what is decided about each.
    pub(super) async fn judge(&mut self, world: &World) -> Result<(), AgentError> {
        let at = now();
        let current = diagnose::all(world, &self.correlator, at);
        self.resolve_missing(&current, at, |_| true);
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

    /// Findings of what is left when the world could not be read. The others stand where they stood.
    pub(super) fn judge_pool(&mut self, view: &PoolView) {
        let at = now();
        let current = diagnose::of_pool(view, &self.correlator, at);
        self.resolve_missing(&current, at, diagnose::is_of_pool);
        for finding in current {
            self.note(finding, at);
        }
        let open: Vec<OpenFinding> = self.findings.clone();
        for one in open
            .iter()
            .filter(|one| diagnose::is_of_pool(one.row.finding.class))
        {
            self.tell_decision(one, &decide::without_world(&one.row.finding));
        }
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

    /// Findings that are not there any more, of those classes that were looked for.
    fn resolve_missing(
        &mut self,
        current: &[Finding],
        at: Timestamp,
        looked_for: impl Fn(FindingClass) -> bool,
    ) {
        let stands = |open: &OpenFinding| {
            let remembered = open.stored.is_none()
                && open.row.finding.class == FindingClass::BlockErrors
                && at.since(open.row.last_seen) < REMEMBERED;
            remembered
                || !looked_for(open.row.finding.class)
                || current.iter().any(|finding| finding.id == open.row.finding.id)
        };
        let (still, gone): (Vec<OpenFinding>, Vec<OpenFinding>) = self.findings.drain(..).partition(stands);
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
            let moves = finding.class == FindingClass::BlockErrors;
            if moves
                && open
                    .stored
                    .is_some_and(|stored| at.since(stored) < EVIDENCE_PAUSE)
            {
                return;
            }
            open.stored = Some(at);
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
        self.findings.push(OpenFinding {
            stored: Some(at),
            ..OpenFinding::again(row)
        });
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
