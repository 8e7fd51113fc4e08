//! Findings that stand open: since when, what was decided, what was told, what was tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Brain, Look, Output, Report};
use crate::{
    decide::{self, Policy},
    diagnose,
    model::{
        Decision, Finding, FindingClass, FindingId, GuardReading, Outcome, Plan, PoolView, Timestamp, World,
    },
};

/// After a remedy that changed nothing the finding is left alone for this long, and twice as long each further time.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// But never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// A storm of block errors, or of calls that fail, changes its numbers all the time: they are stored this often.
const EVIDENCE_PAUSE: Duration = Duration::from_secs(30);
/// Failed sectors that an earlier suture counted are not known any more; for so long after its last word the finding
/// stands all the same.
const REMEMBERED: Duration = Duration::from_hours(1);

/// A finding and its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The finding as it was last read.
    pub finding: Finding,
    /// When it was first read.
    pub first_seen: Timestamp,
    /// When it was last read.
    pub last_seen: Timestamp,
    /// When a read of the world did not have it any more.
    pub resolved: Option<Timestamp>,
    /// What was decided about it last, as people read it.
    pub decision: String,
}

/// A finding that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenFinding {
    standing: Standing,
    /// Not before this time is it acted on again: a refusal is not fought.
    not_before: Timestamp,
    /// How often in a row a remedy changed nothing.
    in_vain: u32,
    /// Why the policy holds its plan back, while it does.
    #[serde(default)]
    held: Option<String>,
    /// What was told of it last, not to tell it twice.
    told: Option<String>,
    /// When its evidence was stored last; nothing where only an earlier suture has found it.
    stored: Option<Timestamp>,
    /// Whether its evidence has changed since.
    #[serde(default)]
    unsaved: bool,
}

impl OpenFinding {
    /// One that an earlier suture knew, or that is new.
    pub(super) fn again(standing: Standing) -> Self {
        Self {
            standing,
            not_before: Timestamp::default(),
            in_vain: 0,
            held: None,
            told: None,
            stored: None,
            unsaved: false,
        }
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }
}

impl Brain {
    /// Findings of a world that was taken in already, and what is decided about each.
    pub fn judge(&mut self, world: &World, at: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        let current = diagnose::all(world, &self.correlator, at);
        // An earlier suture watched long enough to tell that nobody is at work on it; nobody took it up since.
        let told_before = |open: &OpenFinding| {
            open.stored.is_none() && diagnose::is_as_it_was(&open.standing.finding, world)
        };
        self.resolve_missing(&current, at, told_before, &mut outputs);
        self.note_all(current, at, &mut outputs);
        for index in 0..self.findings.len() {
            let Some(open) = self.findings.get(index) else {
                break;
            };
            let decision = self.decide(open, world, at);
            let act = self.rules.policy.act;
            if let Some(open) = self.findings.get_mut(index) {
                open.tell(&decision, act, at, &mut outputs);
            }
            match decision {
                Decision::Act(plan) => {
                    // One at a time: what was done changes what the others rest on.
                    outputs.push(Output::Act(Box::new(plan)));
                    break;
                }
                Decision::Wait { until, .. } => outputs.push(Output::Look(Look::By(until))),
                Decision::Propose(_) | Decision::Tell { .. } => {}
            }
        }
        outputs
    }

    /// Findings of what fails at this moment: they begin and end with a call, and do not wait for a read of the world.
    pub(super) fn judge_live(&mut self, at: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        let current = diagnose::live(&self.correlator, at);
        let not_looked_for = |open: &OpenFinding| !open.standing.finding.class.is_live();
        self.resolve_missing(&current, at, not_looked_for, &mut outputs);
        self.note_all(current, at, &mut outputs);
        self.tell_without_world(FindingClass::is_live, at, &mut outputs);
        outputs
    }

    /// Whether a call that failed or went well may change what [`Brain::judge_live`] finds.
    pub(super) fn has_failures(&self) -> bool {
        let open = || self.findings.iter().map(|open| open.standing.finding.class);
        !self.correlator.sagas().failures().is_empty() || open().any(FindingClass::is_live)
    }

    /// Findings of what is left when the world could not be read. The others stand where they stood.
    pub(super) fn judge_pool(&mut self, view: &PoolView, at: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        let current = diagnose::of_pool(view, &self.correlator, at);
        let not_looked_for = |open: &OpenFinding| !diagnose::is_of_pool(open.standing.finding.class);
        self.resolve_missing(&current, at, not_looked_for, &mut outputs);
        self.note_all(current, at, &mut outputs);
        self.tell_without_world(diagnose::is_of_pool, at, &mut outputs);
        outputs
    }

    /// What is decided about findings of some classes that need no world.
    fn tell_without_world(
        &mut self,
        of: impl Fn(FindingClass) -> bool,
        at: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        let act = self.rules.policy.act;
        for open in &mut self.findings {
            if of(open.standing.finding.class) {
                let decision = decide::without_world(&open.standing.finding, &self.correlator);
                open.tell(&decision, act, at, outputs);
            }
        }
    }

    fn decide(&self, open: &OpenFinding, world: &World, at: Timestamp) -> Decision {
        // Without a ledger there is no durable intent, and without that no act.
        let policy = Policy {
            act: self.rules.policy.act && self.rules.ledger,
            ..self.rules.policy
        };
        let Standing {
            finding, first_seen, ..
        } = &open.standing;
        let decision = decide::decide(finding, *first_seen, world, &self.correlator, policy, at);
        match decision {
            Decision::Act(_) if at < open.not_before => Decision::Wait {
                until: open.not_before,
                why: match &open.held {
                    Some(why) => why.clone(),
                    None => "its last remedy was refused a moment ago".to_owned(),
                },
            },
            other => other,
        }
    }

    /// Findings that are not there any more, but for those that are kept.
    fn resolve_missing(
        &mut self,
        current: &[Finding],
        at: Timestamp,
        keeps: impl Fn(&OpenFinding) -> bool,
        outputs: &mut Vec<Output>,
    ) {
        let found: BTreeSet<&FindingId> = current.iter().map(|finding| &finding.id).collect();
        let stands = |open: &OpenFinding| {
            let Standing {
                finding, last_seen, ..
            } = &open.standing;
            let remembered = open.stored.is_none()
                && finding.class == FindingClass::BlockErrors
                && at.since(*last_seen) < REMEMBERED;
            remembered || keeps(open) || found.contains(&finding.id)
        };
        let (still, gone): (Vec<OpenFinding>, Vec<OpenFinding>) = self.findings.drain(..).partition(stands);
        self.findings = still;
        for OpenFinding { mut standing, .. } in gone {
            standing.resolved = Some(at);
            standing.last_seen = standing.last_seen.max(at);
            let finding = standing.finding.clone();
            outputs.push(Output::tell(at, Report::Resolved { finding }));
            outputs.push(Output::Standing(Box::new(standing)));
        }
    }

    fn note_all(&mut self, current: Vec<Finding>, at: Timestamp, outputs: &mut Vec<Output>) {
        let standing = self.findings.iter().enumerate();
        let places: BTreeMap<FindingId, usize> = standing
            .map(|(place, open)| (open.standing.finding.id.clone(), place))
            .collect();
        for finding in current {
            let place = places.get(&finding.id).copied();
            self.note(finding, place, at, outputs);
        }
    }

    /// A finding of this world: new, or one that stands at a place.
    fn note(&mut self, mut finding: Finding, place: Option<usize>, at: Timestamp, outputs: &mut Vec<Output>) {
        if let Some(open) = place.and_then(|place| self.findings.get_mut(place)) {
            open.standing.last_seen = at;
            finding.keep_from(&open.standing.finding);
            if open.standing.finding.says_the_same(&finding) && !open.unsaved {
                return;
            }
            let is_live = finding.class.is_live();
            let moves = is_live || finding.class == FindingClass::BlockErrors;
            if moves
                && open
                    .stored
                    .is_some_and(|stored| at.since(stored) < EVIDENCE_PAUSE)
            {
                // It may end any moment, and then has to say how often it was.
                if is_live {
                    open.standing.finding = finding;
                    open.unsaved = true;
                }
                return;
            }
            open.stored = Some(at);
            open.unsaved = false;
            open.standing.finding = finding;
            outputs.push(Output::Standing(Box::new(open.standing.clone())));
            return;
        }
        outputs.push(Output::Found {
            at,
            finding: Box::new(finding.clone()),
        });
        let standing = Standing {
            finding,
            first_seen: at,
            last_seen: at,
            resolved: None,
            decision: String::new(),
        };
        outputs.push(Output::Standing(Box::new(standing.clone())));
        self.findings.push(OpenFinding {
            stored: Some(at),
            ..OpenFinding::again(standing)
        });
    }

    pub(super) fn remedied(
        &mut self,
        at: Timestamp,
        plan: &Plan,
        guards: &[GuardReading],
        outcome: &Outcome,
    ) -> Vec<Output> {
        if outcome.changed_nothing() {
            self.leave_alone(&plan.finding, at);
        }
        vec![Output::Remedied {
            at,
            plan: Box::new(plan.clone()),
            guards: guards.to_vec(),
            outcome: outcome.clone(),
        }]
    }

    pub(super) fn not_done(&mut self, at: Timestamp, plan: &Plan, why: &str) -> Vec<Output> {
        self.leave_alone(&plan.finding, at);
        let (plan, why) = (plan.clone(), why.to_owned());
        vec![Output::tell(at, Report::NotDone { plan, why })]
    }

    /// A plan that the policy holds back is asked about again then, and not before.
    pub(super) fn held(&mut self, at: Timestamp, plan: &Plan, until: Timestamp, why: &str) -> Vec<Output> {
        let mut outputs = Vec::new();
        if let Some(open) = self.finding(&plan.finding) {
            open.not_before = until;
            open.held = Some(why.to_owned());
            open.say("held", why.to_owned(), Some(plan.clone()), at, &mut outputs);
        }
        outputs.push(Output::Look(Look::By(until)));
        outputs
    }

    /// What the policy held back is asked about again at once. What was refused waits as long as before.
    pub(super) fn reconsider(&mut self, at: Timestamp) -> Vec<Output> {
        for open in self.findings.iter_mut().filter(|open| open.held.is_some()) {
            open.not_before = at;
            open.held = None;
        }
        vec![Output::Look(Look::Soon)]
    }

    /// What was tried in vain is not tried again for a while, and for longer each time.
    fn leave_alone(&mut self, finding: &FindingId, at: Timestamp) {
        let Some(open) = self.finding(finding) else { return };
        let doubled = AFTER_REFUSAL.saturating_mul(2_u32.saturating_pow(open.in_vain));
        open.in_vain = open.in_vain.saturating_add(1);
        open.not_before = at.plus(doubled.min(LONGEST_PAUSE));
    }

    fn finding(&mut self, id: &FindingId) -> Option<&mut OpenFinding> {
        self.findings
            .iter_mut()
            .find(|open| open.standing.finding.id == *id)
    }
}

impl OpenFinding {
    /// Tells what was decided, unless that was told already. `act` says whether acting is allowed at all.
    fn tell(&mut self, decision: &Decision, act: bool, at: Timestamp, outputs: &mut Vec<Output>) {
        let (kind, text) = match decision {
            // The policy held it back before: what it says now comes next.
            Decision::Act(_) if self.held.is_some() => return,
            Decision::Act(plan) => ("act", format!("{}, if its guards hold", plan.action)),
            Decision::Propose(plan) if act => (
                "propose",
                format!("would {}, but has no ledger to write the intent to", plan.action),
            ),
            Decision::Propose(plan) => (
                "propose",
                format!("would {}; start with --act to allow it", plan.action),
            ),
            Decision::Wait { .. } if self.held.is_some() && at < self.not_before => return,
            Decision::Wait { why, .. } => ("wait", format!("waits: {why}")),
            Decision::Tell { why } => ("tell", format!("left to a person: {why}")),
        };
        self.say(kind, text, decision.plan().cloned(), at, outputs);
    }

    fn say(
        &mut self,
        kind: &'static str,
        text: String,
        plan: Option<Plan>,
        at: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        if self.told.as_ref() == Some(&text) {
            return;
        }
        self.told = Some(text.clone());
        self.standing.decision.clone_from(&text);
        outputs.push(Output::tell(
            at,
            Report::Decided {
                finding: self.standing.finding.clone(),
                kind,
                text,
                plan,
            },
        ));
        outputs.push(Output::Standing(Box::new(self.standing.clone())));
    }
}
