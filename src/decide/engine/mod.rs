//! The engine: which findings the running sidecar heals now, which later, and which not at all, by a policy. Pure.
//! One file for each thing that it asks; `judge` puts the questions in their order. What it must remember is `EngineState`.
//! Times that must last are measured by `time`, which no change of the wall clock can make shorter.

mod back_off;
mod breaker;
mod budget;
mod judge;
mod kin;
mod leave;
mod order;
mod outcomes;
mod pattern;
mod people;
mod policy;
mod quiet;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod time;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use back_off::BackOffs;
pub use breaker::{Breakers, OpenBreaker};
pub use budget::{Spending, Spent};
pub use pattern::Pattern;
pub use people::{Approval, Pause, People, Rejection};
pub use policy::{BackOff, BreakerLimits, HealingPolicy, Limits, PolicyParts, PolicyProblem};
pub use quiet::{Day, QuietHours, TimeOfDay, Window, Zone};
pub use rules::{ClassRule, LABELS, LabelRule, Rule};
pub use state::{EngineState, Running};
pub use time::Elapsed;

use judge::{Case, Round};
use kin::{Families, Footprint};

use super::{RepairPolicy, Selection, plan};
use crate::model::{
    Command, Diagnoses, Diagnosis, Effect, FindingId, PlanId, Refusal, RepairMode, Survey, Timestamp, Verdict,
};

/// What is known beside the findings, read by whoever asks.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// What the findings were found in.
    pub survey: &'a Survey,
    /// The kernel's monotonic clock; best the one that counts on while the machine sleeps (`CLOCK_BOOTTIME`).
    pub monotonic: Duration,
    /// Which life of the kernel it is of (`/proc/sys/kernel/random/boot_id`).
    pub boot: &'a str,
    /// What local time is ahead of UTC, in seconds.
    pub local_offset: i32,
    /// The kill switch, while it is there or can not be looked for: a plain sentence.
    pub kill_switch: Option<String>,
    /// Why something may have been missed since the last full look; nothing where nothing was.
    pub gap: Option<String>,
    /// Why the ledger takes no intents; nothing where it does.
    pub no_ledger: Option<String>,
}

/// How long a finding has stood as it does.
#[derive(Debug, Clone)]
struct Stand {
    plan: PlanId,
    since: Elapsed,
    /// How long it had stood by then, as somebody else saw it.
    before: Duration,
}

/// A plan that was shown, and whether a person may approve it.
#[derive(Debug, Clone)]
struct Offer {
    finding: FindingId,
    /// Why not; nothing where a person may.
    not_to_be_approved: Option<String>,
}

/// Decides, round by round, what is done about each finding.
#[derive(Debug, Clone)]
pub struct Engine {
    policy: HealingPolicy,
    state: EngineState,
    /// Since suture began to look: what it did not see, it does not count.
    stands: BTreeMap<FindingId, Stand>,
    offers: BTreeMap<PlanId, Offer>,
    /// Offers of findings that are decided about one by one ([`Engine::one`]).
    apart: BTreeMap<PlanId, Offer>,
    footprints: BTreeMap<PlanId, Footprint>,
    /// Plans that were being carried out when an earlier suture ended.
    cut_off: BTreeSet<PlanId>,
}

impl Engine {
    /// With a policy, and nothing to remember.
    #[must_use]
    pub fn new(policy: HealingPolicy) -> Self {
        Self {
            policy,
            state: EngineState::default(),
            stands: BTreeMap::new(),
            offers: BTreeMap::new(),
            apart: BTreeMap::new(),
            footprints: BTreeMap::new(),
            cut_off: BTreeSet::new(),
        }
    }

    /// Takes up what an earlier suture left. A plan that it was carrying out and whose outcome is not told
    /// ([`Engine::outcome`]) before the first round counts as one that failed.
    pub fn restore(&mut self, state: EngineState) {
        self.cut_off = state.running.keys().cloned().collect();
        self.state = state;
    }

    /// Goes back to what it was before a command that could not be stored.
    pub fn take_back(&mut self, before: EngineState) {
        self.state = before;
    }

    /// What must outlive suture.
    #[must_use]
    pub fn snapshot(&self) -> EngineState {
        self.state.clone()
    }

    /// The same without a copy.
    #[must_use]
    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &HealingPolicy {
        &self.policy
    }

    /// Decides by another policy from the next round on. What is remembered stays.
    pub fn set_policy(&mut self, policy: HealingPolicy) {
        self.policy = policy;
    }

    /// Decides about every finding, in the order in which they are to be done. Whatever is to be done is booked as begun: its
    /// outcome is told with [`Engine::outcome`], also where it was not begun after all.
    pub fn round(
        &mut self,
        diagnoses: &Diagnoses,
        facts: &Facts<'_>,
        now: Timestamp,
    ) -> Vec<(FindingId, Verdict)> {
        let elapsed = self.state.clock.advance(facts.boot, facts.monotonic);
        self.take_in(elapsed);
        self.pass(elapsed, now);

        let families = Families::new(facts.survey);
        let mut cases = cases(diagnoses, &families);
        cases.sort_by(|one, other| order::turn(&one.plan).cmp(&order::turn(&other.plan)));
        self.stand(&cases, elapsed);
        self.offers.clear();
        let mut round = Round::new(facts, elapsed, now, self.claims());
        cases
            .into_iter()
            .map(|case| {
                let finding = case.diagnosis.finding.id.clone();
                let verdict = self.judge(&case, &mut round);
                (finding, verdict)
            })
            .collect()
    }

    /// Decides about one finding that somebody else watches, and carries out: it has stood for so long. Whatever is to be done
    /// is booked as in a round.
    pub fn one(
        &mut self,
        diagnosis: &Diagnosis,
        stood: Duration,
        facts: &Facts<'_>,
        now: Timestamp,
    ) -> Verdict {
        let elapsed = self.state.clock.advance(facts.boot, facts.monotonic);
        self.take_in(elapsed);
        self.pass(elapsed, now);
        let families = Families::new(facts.survey);
        let alone = Diagnoses {
            found: vec![diagnosis.clone()],
            ..Diagnoses::default()
        };
        let Some(case) = cases(&alone, &families).pop() else {
            return Verdict::Observe {
                why: "nothing is known to be done about it".to_owned(),
            };
        };
        let finding = diagnosis.finding.id.clone();
        let stand = Stand {
            plan: case.id.clone(),
            since: elapsed,
            before: stood,
        };
        self.stands.insert(finding.clone(), stand);
        // A round forgets what it did not offer; this is no part of one.
        self.apart.retain(|_, offer| offer.finding != finding);
        std::mem::swap(&mut self.offers, &mut self.apart);
        let mut round = Round::new(facts, elapsed, now, self.claims());
        let verdict = self.judge(&case, &mut round);
        std::mem::swap(&mut self.offers, &mut self.apart);
        verdict
    }

    /// Forgets what was offered apart from rounds about findings that are gone.
    pub fn forget_apart(&mut self, is_there: impl Fn(&FindingId) -> bool) {
        self.apart.retain(|_, offer| is_there(&offer.finding));
    }

    /// Takes in what a person says. What came of it is to be stored before the person is told.
    pub fn command(&mut self, command: Command, now: Timestamp) -> Result<Effect, Refusal> {
        let elapsed = self.state.clock.reading();
        match command {
            Command::Approve { id, who } => {
                let offer = self.offer(&id)?;
                if let Some(why) = offer.not_to_be_approved {
                    return Err(Refusal::NotToBeApproved { id, why });
                }
                let finding = offer.finding;
                self.state.people.approve(&id, &finding, who, elapsed, now)?;
                Ok(Effect::Approved { id, finding })
            }
            Command::Reject { id, who, why } => {
                let finding = self.offer(&id)?.finding;
                let said = (who, why);
                self.state.people.reject(&id, &finding, said, elapsed, now)?;
                Ok(Effect::Rejected { id, finding })
            }
            Command::Pause { who, why, until } => {
                if let Some(until) = until.filter(|until| *until <= now) {
                    return Err(Refusal::Over { until });
                }
                self.state.people.pause = Some(Pause::new(who, why, until, now, elapsed));
                Ok(Effect::Paused { until })
            }
            Command::Resume { who: _ } => Ok(Effect::Resumed {
                was_paused: self.state.people.pause.take().is_some(),
                breakers: self.state.breakers.close(),
            }),
        }
    }

    fn offer(&self, id: &PlanId) -> Result<Offer, Refusal> {
        if self.state.running.contains_key(id) {
            return Err(Refusal::BeingCarriedOut { id: id.clone() });
        }
        let offer = self.offers.get(id).or_else(|| self.apart.get(id)).cloned();
        offer.ok_or_else(|| Refusal::NoSuchPlan { id: id.clone() })
    }

    /// How long each finding has stood as it does: with another plan it is another one.
    fn stand(&mut self, cases: &[Case<'_>], now: Elapsed) {
        let mut stands = BTreeMap::new();
        for case in cases {
            let finding = &case.diagnosis.finding.id;
            let known = self.stands.get(finding).filter(|stand| stand.plan == case.id);
            let stand = known.cloned().unwrap_or_else(|| Stand {
                plan: case.id.clone(),
                since: now,
                before: Duration::ZERO,
            });
            stands.insert(finding.clone(), stand);
        }
        self.stands = stands;
    }

    /// What is being carried out, by what it touches.
    fn claims(&mut self) -> Vec<(Footprint, String, bool)> {
        let running = &self.state.running;
        self.footprints.retain(|id, _| running.contains_key(id));
        let claims = self.footprints.iter();
        claims
            .map(|(id, footprint)| (footprint.clone(), format!("{id} is being carried out"), false))
            .collect()
    }
}

/// Every finding with its plan: what may be done while containerd runs, or else what needs it stopped.
fn cases<'a>(diagnoses: &'a Diagnoses, families: &Families<'_>) -> Vec<Case<'a>> {
    // The engine's own policy decides later; this one only lets every plan be made.
    let everything = RepairPolicy::everything();
    let by_finding = |mode| {
        let plans = plan(diagnoses, &Selection::all(mode, everything.clone()));
        let named = plans.into_iter().map(|plan| (plan.finding.clone(), plan));
        named.collect::<BTreeMap<_, _>>()
    };
    let mut online = by_finding(RepairMode::Online);
    let mut offline = by_finding(RepairMode::Offline);
    let findings = diagnoses.found.iter();
    findings
        .filter_map(|diagnosis| {
            let id = &diagnosis.finding.id;
            let now = online.remove(id)?;
            let stopped = offline.remove(id)?;
            let needs_stop = now.acts.is_empty();
            let plan = if needs_stop { stopped.clone() } else { now };
            Some(Case {
                diagnosis,
                id: PlanId::of(&plan),
                footprint: families.footprint(&plan),
                plan,
                offline: stopped,
                needs_stop,
            })
        })
        .collect()
}
