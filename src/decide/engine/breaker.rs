//! The circuit breaker: a kind of remedy that fails or does not help several times is given up until a person looks.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{policy::BreakerLimits, time::Elapsed};
use crate::model::{Timestamp, Treatment};

/// A breaker that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBreaker {
    /// Since when, by the wall clock: for people.
    pub at: Timestamp,
    /// What the last failure was.
    pub why: String,
    since: Elapsed,
}

/// One for each kind of remedy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breakers {
    failures: BTreeMap<Treatment, Vec<Elapsed>>,
    open: BTreeMap<Treatment, OpenBreaker>,
}

impl Breakers {
    /// Those that are open.
    #[must_use]
    pub fn open(&self) -> &BTreeMap<Treatment, OpenBreaker> {
        &self.open
    }

    /// Closes those whose time is over, and forgets failures that are too long ago.
    pub(super) fn pass(&mut self, limits: &BreakerLimits, now: Elapsed) {
        if let Some(lasting) = limits.closes_after {
            let failures = &mut self.failures;
            self.open.retain(|remedy, open| {
                let stays = now.since(open.since) < lasting;
                if !stays {
                    failures.remove(remedy);
                }
                stays
            });
        }
        self.failures.retain(|_, all| {
            all.retain(|at| now.since(*at) < limits.within);
            !all.is_empty()
        });
    }

    /// Takes in a remedy that failed or did not help.
    pub(super) fn failed(
        &mut self,
        remedy: Treatment,
        why: &str,
        limits: &BreakerLimits,
        now: Elapsed,
        wall: Timestamp,
    ) {
        let failures = self.failures.entry(remedy).or_default();
        failures.retain(|at| now.since(*at) < limits.within);
        failures.push(now);
        let count = u32::try_from(failures.len()).unwrap_or(u32::MAX);
        if count >= limits.failures {
            self.open.entry(remedy).or_insert_with(|| OpenBreaker {
                at: wall,
                why: why.to_owned(),
                since: now,
            });
        }
    }

    /// How many more may fail before it opens.
    pub(super) fn may_fail(&self, remedy: Treatment, limits: &BreakerLimits) -> usize {
        let failed = self.failures.get(&remedy).map_or(0, Vec::len);
        let limit = usize::try_from(limits.failures).unwrap_or(usize::MAX);
        limit.saturating_sub(failed)
    }

    /// Closes all of them; how many there were.
    pub(super) fn close(&mut self) -> usize {
        self.failures.clear();
        std::mem::take(&mut self.open).len()
    }

    /// Why a kind of remedy is given up, and for how long; nothing where it is not.
    pub(super) fn obstacle(
        &self,
        remedy: Treatment,
        limits: &BreakerLimits,
        now: Elapsed,
    ) -> Option<(String, Option<Duration>)> {
        let open = self.open.get(&remedy)?;
        let left = limits
            .closes_after
            .map(|lasting| now.left_of(lasting, open.since));
        let until = match left {
            None => "until `suture resume`",
            Some(_) => "for a while, or until `suture resume`",
        };
        let why = format!(
            "{} is given up {until}, because it failed or did not help too often; last: {}",
            remedy.name(),
            open.why
        );
        Some((why, left))
    }
}
