//! Back-off: a finding whose remedy did not do its work is left alone for a while, longer each time.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{policy::BackOff, time::Elapsed};
use crate::model::FindingId;

/// How often a finding's remedy did not do its work, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Tries {
    count: u32,
    last: Elapsed,
}

/// Findings that are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackOffs(BTreeMap<FindingId, Tries>);

impl BackOffs {
    /// Forgets what is long over. It outlasts the wait itself, so that a finding that comes and goes is not begun with anew.
    pub(super) fn forget(&mut self, limits: &BackOff, now: Elapsed) {
        let kept = limits.longest.saturating_mul(2);
        self.0.retain(|_, tries| now.since(tries.last) < kept);
    }

    /// Takes in a remedy that did not do its work.
    pub(super) fn tried(&mut self, finding: &FindingId, now: Elapsed) {
        let tries = self
            .0
            .entry(finding.clone())
            .or_insert(Tries { count: 0, last: now });
        tries.count = tries.count.saturating_add(1);
        tries.last = now;
    }

    /// Takes in one that did.
    pub(super) fn done(&mut self, finding: &FindingId) {
        self.0.remove(finding);
    }

    /// How much longer it is left alone; nothing where it is not.
    pub(super) fn left(&self, finding: &FindingId, limits: &BackOff, now: Elapsed) -> Option<Duration> {
        let tries = self.0.get(finding)?;
        let doubled = 2_u32.saturating_pow(tries.count.saturating_sub(1));
        let wait = limits.first.saturating_mul(doubled).min(limits.longest);
        let left = now.left_of(wait, tries.last);
        (!left.is_zero()).then_some(left)
    }
}
