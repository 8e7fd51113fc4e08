//! One finding in one round: every question in its order, and the first answer that settles it.

use std::time::Duration;

use super::{
    Engine, Facts, Offer, budget::NoRoom, kin::Footprint, leave, rules::Setting, state::Running,
    time::Elapsed,
};
use crate::{
    decide::Handling,
    model::{
        Act, Bytes, ContainerdState, Diagnosis, Mode, PlanId, RepairPlan, Survey, Timestamp, Verdict, When,
    },
};

/// The shortest time after which it is worth while to look again.
const A_MOMENT: Duration = Duration::from_secs(1);

/// A finding with its plan.
pub(super) struct Case<'a> {
    pub(super) diagnosis: &'a Diagnosis,
    /// What would be done: while containerd runs where that is possible, else while it is stopped.
    pub(super) plan: RepairPlan,
    /// Its name.
    pub(super) id: PlanId,
    /// What would be done while containerd is stopped.
    pub(super) offline: RepairPlan,
    /// Whether it can be done only then.
    pub(super) needs_stop: bool,
    pub(super) footprint: Footprint,
}

/// What one round goes by.
pub(super) struct Round<'a> {
    facts: &'a Facts<'a>,
    now: Elapsed,
    wall: Timestamp,
    /// What is being done or comes first, why nothing else is done to it, and whether containerd is stopped for it.
    claims: Vec<(Footprint, String, bool)>,
    quiet: Option<Timestamp>,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        facts: &'a Facts<'a>,
        now: Elapsed,
        wall: Timestamp,
        claims: Vec<(Footprint, String, bool)>,
    ) -> Self {
        Self {
            facts,
            now,
            wall,
            claims,
            quiet: None,
        }
    }

    fn wait(&self, left: Duration, why: impl Into<String>) -> Verdict {
        Verdict::Wait {
            until: self.wall.plus(left.max(A_MOMENT)),
            why: why.into(),
        }
    }

    fn claim(&mut self, case: &Case<'_>, why: String, stopped: bool) {
        self.claims.push((case.footprint.clone(), why, stopped));
    }

    /// Why something else comes first. What is done while containerd is stopped is done together.
    fn conflict(&self, case: &Case<'_>, stopped: bool) -> Option<&str> {
        let kin = self.claims.iter().find(|(footprint, _, for_stopped)| {
            footprint.is_kin_of(&case.footprint) && !(stopped && *for_stopped)
        });
        kin.map(|(_, why, _)| why.as_str())
    }
}

/// How a plan is carried out.
enum Path {
    /// While containerd runs.
    Online,
    /// With containerd stopped for it.
    Restart,
}

impl Engine {
    pub(super) fn judge(&mut self, case: &Case<'_>, round: &mut Round<'_>) -> Verdict {
        let finding = &case.diagnosis.finding.id;
        round.quiet = self.policy.quiet.until(round.wall, round.facts.local_offset);
        if self.was_seen_before(finding, round.facts.survey.begun, round.now, round.wall) {
            return round.wait(
                A_MOMENT,
                "it was healed a moment ago; the next look shows whether that helped",
            );
        }
        let remedy = &case.diagnosis.remedy;
        if remedy.when == When::Never || case.plan.acts.is_empty() {
            return Verdict::Observe {
                why: remedy.why.clone(),
            };
        }
        if let Some(why) = leave::to_containerd(case.diagnosis, &case.offline, round.facts.survey) {
            return Verdict::LeftToContainerd { why };
        }
        let setting = self.policy.setting(case.diagnosis, &case.plan);
        match setting.mode {
            Mode::Observe => {
                return Verdict::Observe { why: setting.why };
            }
            Mode::Plan => {
                self.offer_case(case, Some(setting.why.clone()));
                return Verdict::Propose {
                    plan: Box::new(case.plan.clone()),
                    id: case.id.clone(),
                    why: setting.why,
                };
            }
            Mode::Approve | Mode::Auto => {}
        }
        if self.state.running.contains_key(&case.id) {
            return round.wait(A_MOMENT, "it is being carried out");
        }
        if let Some(rejection) = self.state.people.rejection(&case.id, round.now) {
            let why = format!("{} rejected this plan: {}", rejection.who, rejection.why);
            self.offer_case(case, None);
            return Verdict::Observe { why };
        }
        if case.needs_stop {
            self.stopped(case, &setting, round)
        } else {
            self.online(case, setting, round)
        }
    }

    fn offer_case(&mut self, case: &Case<'_>, not_to_be_approved: Option<String>) {
        let offer = Offer {
            finding: case.diagnosis.finding.id.clone(),
            not_to_be_approved,
        };
        self.offers.insert(case.id.clone(), offer);
    }

    /// Offers a plan, and says whether nobody has to approve it any more.
    fn has_leave(&mut self, case: &Case<'_>, mode: Mode, why: &str) -> bool {
        let auto = mode == Mode::Auto;
        self.offer_case(case, auto.then(|| why.to_owned()));
        auto || self.state.people.approvals.contains_key(&case.id)
    }

    fn online(&mut self, case: &Case<'_>, setting: Setting, round: &mut Round<'_>) -> Verdict {
        if !self.has_leave(case, setting.mode, &setting.why) {
            return Verdict::AwaitApproval {
                plan: Box::new(case.plan.clone()),
                id: case.id.clone(),
                why: setting.why,
            };
        }
        let keeps = self.keeps_back(case, &setting, round, &Path::Online);
        keeps.unwrap_or_else(|| {
            self.begin(case, round, &Path::Online);
            Verdict::Act {
                plan: Box::new(case.plan.clone()),
                id: case.id.clone(),
            }
        })
    }

    /// What only can be done while containerd is stopped: at its next start, or with a restart for it.
    fn stopped(&mut self, case: &Case<'_>, setting: &Setting, round: &mut Round<'_>) -> Verdict {
        let running = matches!(round.facts.survey.containerd, ContainerdState::Running { .. });
        let bad_enough = case.diagnosis.severity <= self.policy.restart_for;
        let restart = self.policy.restart_and_repair;
        if !running || !bad_enough || restart < Mode::Approve {
            let leave = self.has_leave(case, setting.mode, &setting.why);
            if let Some(why) = self.stops_everything(round) {
                return Verdict::Blocked { why };
            }
            let by_itself = self.policy.repair.of(case.diagnosis.finding.class) == Handling::Auto;
            return offline(case, leave || by_itself);
        }
        let mode = setting.mode.min(restart);
        if !self.has_leave(case, mode, &setting.why) {
            return Verdict::RestartAndRepair {
                plan: Box::new(case.plan.clone()),
                id: case.id.clone(),
                approved: false,
            };
        }
        let keeps = self.keeps_back(case, setting, round, &Path::Restart);
        keeps.unwrap_or_else(|| {
            self.begin(case, round, &Path::Restart);
            Verdict::RestartAndRepair {
                plan: Box::new(case.plan.clone()),
                id: case.id.clone(),
                approved: true,
            }
        })
    }

    /// What keeps suture from doing anything at all.
    fn stops_everything(&self, round: &Round<'_>) -> Option<String> {
        let facts = round.facts;
        if let Some(why) = &facts.kill_switch {
            return Some(why.clone());
        }
        if let Some(pause) = &self.state.people.pause {
            let until = pause.until.map_or_else(
                || "until `suture resume`".to_owned(),
                |until| format!("until {until}"),
            );
            return Some(format!("{} paused suture {until}: {}", pause.who, pause.why));
        }
        if let Some(why) = &facts.no_ledger {
            return Some(format!(
                "the ledger takes no intent, and without one nothing is done: {why}"
            ));
        }
        let gap = facts.gap.as_ref();
        gap.map(|why| format!("{why}; nothing is done before everything was read anew"))
    }

    /// What keeps a plan from being carried out now that it may be; nothing where nothing does.
    fn keeps_back(
        &mut self,
        case: &Case<'_>,
        setting: &Setting,
        round: &mut Round<'_>,
        path: &Path,
    ) -> Option<Verdict> {
        if let Some(why) = self.stops_everything(round) {
            return Some(Verdict::Blocked { why });
        }
        let remedy = case.diagnosis.remedy.action;
        let breaker = self
            .state
            .breakers
            .obstacle(remedy, &self.policy.breaker, round.now);
        if let Some((why, _)) = breaker {
            return Some(Verdict::Blocked { why });
        }
        let restart = matches!(path, Path::Restart);
        if let Some(why) = round.conflict(case, restart) {
            return Some(round.wait(A_MOMENT, why));
        }
        let waits = self.waits(case, setting, round)?;
        // What comes before others of its family keeps its place while it waits.
        if matches!(waits, Verdict::Wait { .. }) {
            let why = format!("{} comes first", case.diagnosis.finding.id);
            round.claim(case, why, restart);
        }
        Some(waits)
    }

    fn waits(&self, case: &Case<'_>, setting: &Setting, round: &Round<'_>) -> Option<Verdict> {
        let finding = &case.diagnosis.finding.id;
        let stood = self.stands.get(finding).map_or(Duration::ZERO, |stand| {
            round.now.since(stand.since).saturating_add(stand.before)
        });
        let grace = setting.grace.saturating_sub(stood);
        if !grace.is_zero() {
            let why = format!("it must stand unchanged for {} s", setting.grace.as_secs_f32());
            return Some(round.wait(grace, why));
        }
        if let Some(left) = self
            .state
            .back_offs
            .left(finding, &self.policy.back_off, round.now)
        {
            let why = "its remedy did not do its work before, so it is left alone for a while";
            return Some(round.wait(left, why));
        }
        if let Some(until) = round.quiet {
            return Some(Verdict::Wait {
                until,
                why: "these are quiet hours".to_owned(),
            });
        }
        // What fails is noticed only afterwards.
        let remedy = case.diagnosis.remedy.action;
        let at_it = self
            .state
            .running
            .values()
            .filter(|one| one.remedy == remedy)
            .count();
        if at_it >= self.state.breakers.may_fail(remedy, &self.policy.breaker) {
            let why = "others of its kind are being carried out, and have to show first that they help";
            return Some(round.wait(A_MOMENT, why));
        }
        let Some(bytes) = frees(&case.plan, round.facts.survey) else {
            return Some(round.wait(A_MOMENT, "how much it frees could not be read"));
        };
        let pool = &case.diagnosis.finding.pool;
        match self.state.spending.room(&self.policy, round.now, pool, bytes) {
            Ok(()) => None,
            Err(NoRoom::Until(left, why)) => Some(round.wait(left, why)),
            Err(NoRoom::Never(why)) => Some(Verdict::Blocked { why }),
        }
    }

    /// Books a plan as begun.
    fn begin(&mut self, case: &Case<'_>, round: &mut Round<'_>, path: &Path) {
        let finding = &case.diagnosis.finding;
        let bytes = frees(&case.plan, round.facts.survey).unwrap_or_default();
        self.state.spending.book(round.now, &finding.pool, bytes);
        let running = Running {
            finding: finding.id.clone(),
            remedy: case.diagnosis.remedy.action,
            at: round.wall,
            // A restart disturbs the node whether it helps or not: for another one somebody has to be asked again.
            used_up: match path {
                Path::Restart => self.state.people.approvals.remove(&case.id),
                Path::Online => None,
            },
        };
        self.state.running.insert(case.id.clone(), running);
        self.footprints.insert(case.id.clone(), case.footprint.clone());
        let why = format!("{} is being carried out", case.id);
        round.claim(case, why, matches!(path, Path::Restart));
    }
}

fn offline(case: &Case<'_>, arm: bool) -> Verdict {
    let outlook = if arm {
        "the repair before containerd's next start does it"
    } else {
        "it needs a person's approval, and then the repair before containerd's next start does it"
    };
    Verdict::Offline {
        plan: Box::new(case.plan.clone()),
        id: case.id.clone(),
        why: format!("it can be done only while containerd is stopped; {outlook}"),
        arm,
    }
}

/// At most so much is given back by a plan: what its thin devices share with others counts too. Nothing where it can not be told.
fn frees(plan: &RepairPlan, survey: &Survey) -> Option<Bytes> {
    let mut sum = 0_u64;
    for act in &plan.acts {
        let Act::DeleteThin { thin_id } = act else {
            continue;
        };
        let block = survey.usage?.block_size;
        let details = survey.thin.as_ref()?.get(thin_id)?;
        sum = sum.saturating_add(details.mapped_blocks.saturating_mul(block.0));
    }
    Some(Bytes(sum))
}
