//! What the engine is told beside the findings: the clocks, and what forbids to act.

use std::time::Duration;

use super::Agent;
use crate::{config, decide::engine::Facts, model::Survey};

/// What the engine is told beside the findings.
pub(super) struct FactsNow {
    monotonic: Duration,
    boot: String,
    local_offset: i32,
    kill_switch: Option<String>,
    gap: Option<String>,
    no_ledger: Option<String>,
}

impl FactsNow {
    /// Reads clocks and the kill switch, and what the agent knows.
    pub(super) fn read(agent: &Agent) -> Self {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(since.tv_nsec).unwrap_or_default();
        let known = agent.brain.correlator();
        let policy = agent.rounds.as_ref().map(|rounds| rounds.engine.policy());
        let switched_off = policy.and_then(|policy| config::kill_switch(&policy.kill_switch));
        let only_tells = (!agent.options.policy.act)
            .then(|| "suture was started without --act, so it only tells".to_owned());
        let blind = known.is_blind().then(|| {
            "without kernel probes nobody sees what else happens, so nothing is done by itself".to_owned()
        });
        let no_ledger = match &agent.ledger {
            None => Some("there is no ledger".to_owned()),
            Some(_) => agent.ledger_trouble.as_ref().map(|(_, what)| what.clone()),
        };
        Self {
            monotonic: Duration::new(seconds, nanoseconds),
            boot: procfs::sys::kernel::random::boot_id().unwrap_or_default(),
            local_offset: jiff::Zoned::now().offset().seconds(),
            kill_switch: switched_off.or(only_tells),
            gap: known.gap().map(|gap| gap.why.clone()).or(blind),
            no_ledger,
        }
    }

    /// With what the findings were found in.
    pub(super) fn of<'a>(&'a self, survey: &'a Survey) -> Facts<'a> {
        Facts {
            survey,
            monotonic: self.monotonic,
            boot: &self.boot,
            local_offset: self.local_offset,
            kill_switch: self.kill_switch.clone(),
            gap: self.gap.clone(),
            no_ledger: self.no_ledger.clone(),
        }
    }
}
